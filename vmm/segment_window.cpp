#include "vmm/segment_window.h"

#include <fcntl.h>
#include <fnmatch.h>
#include <sys/epoll.h>
#include <sys/mman.h>

#include <algorithm>

#include "vmm/relay.h"

namespace hobbes::vmm {

namespace {

std::uint64_t whole_pages(std::uint64_t size) { return (size + 4095) & ~4095ULL; }

}  // namespace

SegmentWindow::~SegmentWindow() {
  for (const FrameStream& guest : guests_) loop_.unwatch(guest.fd());
  for (const auto& [key, shown] : shown_) WindowPlaces::unmap(shown.place);
  if (mirror_ != nullptr) ::munmap(mirror_, mirror_size_);
}

Result<void> SegmentWindow::replace_mirror(void* mapped, std::uint64_t size) {
  if (size > window_stride)
    return Error{Code::exhausted, "show the mirror to the guest", "it is larger than 4 GiB", ""};
  if (mirror_ != nullptr) {
    HOBBES_CHECK(places_.memory().hide(GuestMemoryMap::first_free_slot));
    ::munmap(mirror_, mirror_size_);
    mirror_ = nullptr;
  }
  HOBBES_CHECK(
      places_.memory().show(GuestMemoryMap::first_free_slot, window_at, size, mapped, true));
  mirror_ = mapped;
  mirror_size_ = size;
  return {};
}

// The mirror is slot 0 of the window.
Result<std::optional<SegmentWindow::Place>> SegmentWindow::show_mirror(const std::string& path) {
  const std::optional<Place> unchanged;
  Fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  struct stat info {};
  if (!fd || ::fstat(fd.get(), &info) != 0 || info.st_size == 0) return unchanged;
  const std::uint64_t size = whole_pages(static_cast<std::uint64_t>(info.st_size));
  if (mirror_ != nullptr && info.st_ino == mirror_inode_ && size == mirror_size_) return unchanged;
  void* mapped = ::mmap(nullptr, size, PROT_READ, MAP_SHARED, fd.get(), 0);
  if (mapped == MAP_FAILED) return unchanged;
  // Memory that the guest still sees must stay mapped.
  if (auto replaced = replace_mirror(mapped, size); !replaced) {
    ::munmap(mapped, size);
    return std::move(replaced).error();
  }
  mirror_inode_ = info.st_ino;
  return std::optional(Place{window_at, size});
}

Result<bool> SegmentWindow::check_listed(const std::string& name, bool writable,
                                         const std::string& attempt) const {
  bool listed = false, of_composition = false;
  for (const VmPlan::SegmentGrant& grant : listed_) {
    if (::fnmatch(grant.pattern.c_str(), name.c_str(), FNM_NOESCAPE) != 0) continue;
    listed = true;
    if (writable && !grant.writable) continue;
    if (!grant.composition) return false;
    of_composition = true;
  }
  if (of_composition) return true;
  if (!listed)
    return Error{Code::denied, attempt, "the enclave's bundle does not list it",
                 "add it to hobbes.segments"};
  return Error{Code::denied, attempt, "the bundle lists it as \"ro\"", "list it as \"rw\""};
}

// The name that is checked is the one that hobbesd knows; the guest's is what it looks for.
Result<SegmentAccess> SegmentWindow::get(const Json& request, const std::string& attempt) const {
  const auto handle = static_cast<std::uint64_t>(number_at(request, "handle"));
  const std::string name = text_at(request, "name");
  const bool writable = text_at(request, "access") == "rw";
  bool of_composition = false;
  if (!maker_.has_made(handle)) {
    HOBBES_TRY(only, check_listed(name, writable, attempt));
    of_composition = only;
  }
  HOBBES_TRY(access, SegmentAccess::get(handle, writable, manager_limit, of_composition));
  if (access.name() != name)
    return Error{Code::denied, attempt, "that name is another segment's", "look for it again"};
  return std::move(access);
}

// Segments that the bundle lists, asked for by programs inside: the memory of each is a slot of
// its own.
Result<Json> SegmentWindow::attach(const Json& request) {
  const std::string attempt = "attach segment '" + text_at(request, "name") + "'";
  const bool writable = text_at(request, "access") == "rw";
  HOBBES_TRY(access, get(request, attempt));
  const std::pair key{access.handle(), writable};
  auto at = shown_.find(key);
  if (at == shown_.end()) {
    HOBBES_TRY(fresh, show_segment(std::move(access), attempt));
    at = shown_.emplace(key, std::move(fresh)).first;
  }
  ++at->second.uses;
  return Json{{"address", at->second.place.address()}, {"size", at->second.access.size()}};
}

Result<SegmentWindow::Shown> SegmentWindow::show_segment(SegmentAccess access,
                                                         const std::string& attempt) {
  const std::uint64_t size = whole_pages(access.size());
  HOBBES_TRY(host, access.map(0, size));
  auto place = places_.show(host, size, !access.writable(), attempt);
  if (!place) {
    ::munmap(host, size);
    return std::move(place).error();
  }
  return Shown{std::move(access), *place};
}

Json SegmentWindow::place_of(const ShownSegments::value_type& one) {
  const auto& [key, shown] = one;
  return {{"handle", key.first},
          {"writable", key.second},
          {"address", shown.place.address()},
          {"size", shown.place.size},
          {"uses", shown.uses}};
}

// Asked for by the guest's agent, which looks who uses what; a guest that lies takes memory from
// itself.
Result<Json> SegmentWindow::hide(const Json& request) {
  auto at = std::find_if(shown_.begin(), shown_.end(), [&](const auto& one) {
    return place_of(one) == request.value("place", Json());
  });
  if (at == shown_.end())
    return Error{Code::busy, "hide a segment", "it is not shown, or was attached again", ""};
  HOBBES_CHECK(places_.hide(at->second.place));
  shown_.erase(at);
  return Json::object();
}

Result<Json> SegmentWindow::answer(const Json& request) {
  std::string op = text_at(request, "op");
  if (op == "attach") return attach(request);
  if (op == "hide") return hide(request);
  if (op == "segment.remove") {
    HOBBES_CHECK(maker_.remove(static_cast<std::uint64_t>(number_at(request, "handle"))));
    return Json::object();
  }
  if (op != "shown") return Error{Code::invalid, "answer a guest", "the operation is unknown", ""};
  Json places = Json::array();
  for (const auto& one : shown_) places.push_back(place_of(one));
  return Json{{"places", places}};
}

// The stream the request came by becomes the doorbell's.
void SegmentWindow::connect_bell(const Json& request, Fd stream) {
  FrameStream asker(Fd(::fcntl(stream.get(), F_DUPFD_CLOEXEC, 0)));
  auto done = [&]() -> Result<void> {
    HOBBES_TRY(access,
               get(request, "use the doorbell of segment '" + text_at(request, "name") + "'"));
    return doorbells_.connect(std::move(access), std::move(stream), number_at(request, "pid"),
                              request.contains("listens") && request["listens"] == true);
  }();
  (void)asker.send(done ? Json::object() : Json{{"error", to_json(done.error())}});
}

void SegmentWindow::serve(Fd stream) {
  guests_.emplace_back(std::move(stream));
  auto guest = std::prev(guests_.end());
  auto forget = [this, guest] {
    loop_.unwatch(guest->fd());
    guests_.erase(guest);
  };
  auto hear = [this, guest, forget](std::uint32_t) {
    auto requests = guest->receive();
    if (!requests) return forget();
    for (const Json& request : *requests) {
      if (text_at(request, "op") == "bell") {
        loop_.unwatch(guest->fd());
        Fd bell = std::move(*guest).release();
        guests_.erase(guest);
        return connect_bell(request, std::move(bell));
      }
      if (ChannelRelay::answers(text_at(request, "op"))) {
        loop_.unwatch(guest->fd());
        Fd channel = std::move(*guest).release();
        guests_.erase(guest);
        return channels_.serve(request, std::move(channel));
      }
      if (SegmentMaker::answers(text_at(request, "op"))) {
        loop_.unwatch(guest->fd());
        Fd maker = std::move(*guest).release();
        guests_.erase(guest);
        return maker_.serve(request, std::move(maker));
      }
      auto done = answer(request);
      if (!guest->send(done ? *done : Json{{"error", to_json(done.error())}})) return forget();
    }
  };
  if (guests_.size() > 64 || !loop_.watch(guest->fd(), EPOLLIN | EPOLLRDHUP, hear))
    guests_.erase(guest);
}

}  // namespace hobbes::vmm
