#include "api/event_stream.h"

#include <atomic>
#include <memory>

#include "core/json.h"
#include "core/paths.h"
#include "enclave/describe.h"
#include "nis/reader.h"

namespace hobbes {
namespace {

std::atomic<int> open_streams{0};

struct Stream {
  Stream() { ++open_streams; }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;
  ~Stream() { --open_streams; }
  std::unique_ptr<NisReader> nis;
  std::uint64_t sequence = 0;
};

// One step: a change, or a comment that finds out whether the client is still there.
bool step(Stream& stream, httplib::DataSink& sink) {
  hobbes_change change;
  auto status = stream.nis->wait(&stream.sequence, &change, 1000);
  if (status == NisReader::Status::good) {
    Json json = describe(change);
    hobbes_record record;
    if (stream.nis->by_id(change.id, &record) == NisReader::Status::good) json["name"] = record.name;
    std::string text = "id: " + std::to_string(change.sequence) + "\nevent: " + text_at(json, "type") + "\ndata: " + to_text(json) + "\n\n";
    return sink.write(text.data(), text.size());
  }
  if (status == NisReader::Status::stale) {  // overrun or replaced: the client reconnects and is told 410
    sink.done();
    return false;
  }
  static const std::string comment = ": still here\n\n";
  return sink.write(comment.data(), comment.size());
}

}  // namespace

Result<void> stream_events(const httplib::Request& request, httplib::Response& response) {
  if (open_streams.load() >= event_stream_limit)
    return Error{Code::exhausted, "stream events", std::to_string(event_stream_limit) + " clients already do", "close one, or poll"};
  auto stream = std::make_shared<Stream>();
  HOBBES_TRY(nis, NisReader::open(mirror_path()));
  stream->nis = std::move(nis);
  stream->sequence = stream->nis->sequence();
  if (request.has_header("Last-Event-ID")) {
    std::uint64_t last = std::strtoull(request.get_header_value("Last-Event-ID").c_str(), nullptr, 10);
    hobbes_change next;
    bool lost = last > stream->sequence || (last < stream->sequence && [&] {
                  std::uint64_t probe = last;
                  return stream->nis->wait(&probe, &next, 0) != NisReader::Status::good;
                }());
    if (lost) {
      response.status = 410;
      response.set_content(to_text(Json{{"type", "https://hobbes.invalid/problems/overrun"},
                                        {"title", "the events after " + std::to_string(last) + " are gone"},
                                        {"status", 410},
                                        {"remedy", "read the state anew and stream from now on"}}),
                           "application/problem+json");
      return {};
    }
    stream->sequence = last;
  }
  response.set_header("Cache-Control", "no-store");
  response.set_chunked_content_provider("text/event-stream",
                                        [stream](std::size_t, httplib::DataSink& sink) { return step(*stream, sink); });
  return {};
}

}  // namespace hobbes
