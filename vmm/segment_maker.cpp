#include "vmm/segment_maker.h"

#include <sys/epoll.h>
#include <sys/mman.h>

#include <algorithm>

#include "core/size.h"
#include "ipc/client.h"
#include "vmm/relay.h"

namespace hobbes::vmm {
namespace {

constexpr std::size_t segments_most = 8;  // places of the window are left for others

}  // namespace

SegmentMaker::~SegmentMaker() {
  for (Made& made : segments_) {
    if (!made.ended) loop_.unwatch(made.stream.fd());
    (void)made.segment.remove(manager_limit);
    WindowPlaces::unmap(made.place);
  }
}

bool SegmentMaker::has_made(std::uint64_t handle) const {
  return std::any_of(segments_.begin(), segments_.end(), [&](const Made& made) {
    return !made.name.empty() && made.segment.handle() == handle;
  });
}

void SegmentMaker::serve(const Json& request, Fd stream) {
  FrameStream asker(std::move(stream));
  auto made = reserve(request, asker);
  if (!made) {
    (void)asker.send({{"error", to_json(made.error())}});
    return;
  }
  const WindowPlaces::Place& place = (*made)->place;
  if (!(*made)->stream.send({{"address", place.address()}, {"size", place.size}})) end(*made);
}

// `stream` stays the caller's when this fails.
Result<SegmentMaker::Segments::iterator> SegmentMaker::reserve(const Json& request,
                                                               FrameStream& stream) {
  const std::string attempt = "make a segment from inside a virtual machine";
  if (segments_.size() >= segments_most)
    return Error{Code::exhausted, attempt,
                 "the guest's programs have made " + std::to_string(segments_most),
                 "let one of them end"};
  if (number_at(request, "pageSize") != 0)
    return Error{Code::unsupported, attempt, "it can have normal pages only",
                 "make it without huge pages"};
  const auto size = static_cast<std::uint64_t>(number_at(request, "size"));
  if (size == 0) return Error{Code::invalid, attempt, "it has no size", ""};
  if (size > room_ - used_)
    return Error{Code::exhausted, attempt,
                 "of " + format_size(room_) + " for segments of this guest's programs " +
                     format_size(room_ - used_) + " are left",
                 "give the bundle more in hobbes.memory.segments"};
  HOBBES_TRY(segment, Segment::reserve("of-a-guest", size));
  if (segment.size() > room_ - used_)
    return Error{Code::exhausted, attempt, "rounded up to its pages it is larger than what is left",
                 "give the bundle more in hobbes.memory.segments"};
  HOBBES_TRY(place, places_.show(segment.data(), segment.size(), false, attempt));
  segment.release_mapping();
  used_ += place.size;
  segments_.push_back({std::move(stream), std::move(segment), place, "", false});
  auto made = std::prev(segments_.end());
  auto watched = loop_.watch(made->stream.fd(), EPOLLIN | EPOLLRDHUP,
                             [this, made](auto) { heard_from_guest(made); });
  if (watched) return made;
  stream = std::move(made->stream);
  if (places_.hide(made->place)) {
    used_ -= made->place.size;
    segments_.erase(made);
  }
  return std::move(watched).error();
}

Result<Json> SegmentMaker::publish(Made& made, const Json& request) {
  const std::string name = text_at(request, "name"), attempt = "make segment '" + name + "'";
  if (text_at(request, "op") != "segment.publish" || made.segment.handle() != 0)
    return Error{Code::invalid, attempt, "this stream has one segment, which is published once",
                 ""};
  auto asked = [&](const char* field) {
    return request.contains(field) && request[field] != false;
  };
  if (asked("persistent") || asked("enclaves"))
    return Error{Code::unsupported, attempt,
                 "a segment of a virtual machine's program ends with it and is for everybody",
                 "make it outside of the machine"};
  if (asked("snapshots"))
    return Error{
        Code::unsupported, attempt,
        "writes of a virtual machine's programs are not watched, so there are no snapshots",
        "make it without HOBBES_SNAPSHOTS"};
  HOBBES_TRY(client, Client::connect(false));
  made.segment.describe(name, static_cast<mode_t>(number_at(request, "mode", 0600)),
                        static_cast<std::uint64_t>(number_at(request, "snapshotOf")));
  HOBBES_CHECK(made.segment.publish(client, manager_limit));
  made.name = name;
  return Json{{"handle", made.segment.handle()}};
}

void SegmentMaker::heard_from_guest(Segments::iterator made) {
  auto requests = made->stream.receive();
  if (!requests) return end(made);
  for (const Json& request : *requests) {
    auto done = publish(*made, request);
    if (!made->stream.send(done ? *done : Json{{"error", to_json(done.error())}})) return end(made);
  }
}

Result<void> SegmentMaker::remove(std::uint64_t handle) {
  auto made = std::find_if(segments_.begin(), segments_.end(), [&](const Made& one) {
    return !one.name.empty() && one.segment.handle() == handle;
  });
  if (made == segments_.end())
    return Error{Code::not_found, "remove a segment", "no program of this guest has made it",
                 "remove it where it was made"};
  HOBBES_CHECK(made->segment.remove(manager_limit));
  made->name.clear();
  return {};
}

// A place that the guest would not give up stays, with what it counts for.
void SegmentMaker::end(Segments::iterator made) {
  if (!made->ended) loop_.unwatch(made->stream.fd());
  made->ended = true;
  (void)made->segment.remove(manager_limit);
  made->name.clear();
  if (!places_.hide(made->place)) return;
  used_ -= made->place.size;
  segments_.erase(made);
}

}  // namespace hobbes::vmm
