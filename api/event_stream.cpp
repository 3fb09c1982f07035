#include "api/event_stream.h"

#include <map>
#include <memory>
#include <mutex>

#include "api/routes.h"
#include "core/json.h"
#include "core/number.h"
#include "core/paths.h"
#include "enclave/describe.h"
#include "nis/reader.h"

namespace hobbes {
namespace {

std::mutex lock;
std::map<uid_t, int> streams_of;  // users who have some

// Users share what root does not keep for itself, and none has more than its part.
bool may_stream(uid_t uid) {
  std::lock_guard guard(lock);
  int all = 0, of_users = 0;
  for (const auto& [user, count] : streams_of) (user == 0 ? all : of_users) += count;
  all += of_users;
  auto own = streams_of.find(uid);
  if (all >= event_stream_limit) return false;
  if (uid != 0 && (of_users >= event_stream_limit - streams_for_root ||
                   (own != streams_of.end() && own->second >= streams_per_user)))
    return false;
  ++streams_of[uid];
  return true;
}

struct Stream {
  explicit Stream(uid_t user) : uid(user) {}
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;
  ~Stream() {
    std::lock_guard guard(lock);
    if (--streams_of[uid] == 0) streams_of.erase(uid);
  }
  uid_t uid;
  std::unique_ptr<NisReader> nis;
  std::uint64_t sequence = 0;
};

// One step: a change, or a comment that finds out whether the client is still there.
bool step(Stream& stream, httplib::DataSink& sink) {
  hobbes_change change;
  auto status = stream.nis->wait(&stream.sequence, &change, 1000);
  if (status == NisReader::Status::good) {
    Json json = describe(change);
    std::string text = "id: " + std::to_string(change.sequence) +
                       "\nevent: " + text_at(json, "type") + "\ndata: " + to_text(json) + "\n\n";
    return sink.write(text.data(), text.size());
  }
  if (status ==
      NisReader::Status::stale) {  // overrun or replaced: the client reconnects and is told 410
    sink.done();
    return false;
  }
  static const std::string comment = ": still here\n\n";
  return sink.write(comment.data(), comment.size());
}

}  // namespace

Result<void> stream_events(const httplib::Request& request, httplib::Response& response,
                           uid_t uid) {
  if (!may_stream(uid))
    return Error{Code::exhausted, "stream events",
                 "user " + std::to_string(uid) + " has " + std::to_string(streams_per_user) +
                     " streams, or the node " + std::to_string(event_stream_limit),
                 "close one, or poll"};
  auto stream = std::make_shared<Stream>(uid);
  HOBBES_TRY(nis, NisReader::open(mirror_path()));
  stream->nis = std::move(nis);
  stream->sequence = stream->nis->sequence();
  if (request.has_header("Last-Event-ID")) {
    auto given = whole_number(request.get_header_value("Last-Event-ID"));
    if (!given)
      return Error{Code::invalid, "stream events", "Last-Event-ID is no number",
                   "send the id of the last event"};
    std::uint64_t last = *given;
    hobbes_change next;
    bool lost = last > stream->sequence || (last < stream->sequence && [&] {
                  std::uint64_t probe = last;
                  return stream->nis->wait(&probe, &next, 0) != NisReader::Status::good;
                }());
    if (lost) {
      response.status = 410;
      response.set_content(
          to_text(Json{{"type", problem_type("overrun")},
                       {"code", "overrun"},
                       {"detail", "the events after " + std::to_string(last) + " are gone"},
                       {"title", "the events after " + std::to_string(last) + " are gone"},
                       {"status", 410},
                       {"remedy", "read the state anew and stream from now on"}}),
          "application/problem+json");
      return {};
    }
    stream->sequence = last;
  }
  response.set_header("Cache-Control", "no-store");
  response.set_chunked_content_provider(
      "text/event-stream",
      [stream](std::size_t, httplib::DataSink& sink) { return step(*stream, sink); });
  return {};
}

}  // namespace hobbes
