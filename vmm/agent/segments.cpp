#include "vmm/agent/segments.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <string>

#include "core/paths.h"
#include "core/window.h"
#include "nis/reader.h"
#include "vmm/agent/monitor.h"

namespace hobbes::agent {
namespace {

// By its number or its name.
Result<hobbes_record> segment_of(const Json& request) {
  HOBBES_TRY(mirror, NisReader::open(mirror_path()));
  hobbes_record record{};
  auto found =
      request.contains("handle")
          ? mirror->by_id(static_cast<std::uint64_t>(number_at(request, "handle")), &record)
          : mirror->segment_named(text_at(request, "name"), 0, &record);
  if (found != NisReader::Status::good || record.type != HOBBES_SEGMENT)
    return Error{Code::not_found, "find a segment", "there is no such segment",
                 "see `hobbes segments`"};
  return record;
}

// The parts of a file that are written; the rest of the new memory is zero already.
Result<void> copy_written(const Fd& from, void* to, std::uint64_t size) {
  off_t at = 0;
  const auto end = static_cast<off_t>(size);
  for (;;) {
    at = ::lseek(from.get(), at, SEEK_DATA);
    if (at < 0 || at >= end) return {};
    const off_t hole = std::min(::lseek(from.get(), at, SEEK_HOLE), end);
    while (at < hole) {
      ssize_t n =
          ::pread(from.get(), static_cast<char*>(to) + at, static_cast<std::size_t>(hole - at), at);
      if (n <= 0) return os_error("read what the program has written", errno);
      at += n;
    }
  }
}

}  // namespace

Result<Message> attach_segment(const Json& request, int attached) {
  HOBBES_TRY(segment, segment_of(request));
  const std::string access = text_at(request, "access");
  // Open before it is asked for: a program that has this open may be about to map what is shown
  // (places.h).
  HOBBES_TRY(memory, open_physical_memory(access == "rw"));
  HOBBES_TRY(
      shown,
      ask_monitor(
          {{"op", "attach"}, {"name", segment.name}, {"handle", segment.id}, {"access", access}}));
  std::uint64_t one = 1;
  (void)!::write(attached, &one, sizeof one);
  Message out{{{"handle", segment.id},
               {"size", number_at(shown, "size")},
               {"offset", number_at(shown, "address")},
               {"attachment", 1}},
              {}};
  out.fds.push_back(std::move(memory));
  return out;
}

// Both are one stream; the monitor knows who listens on the node.
Result<Message> connect_doorbell(const Json& request, pid_t program) {
  HOBBES_TRY(segment, segment_of(request));
  HOBBES_TRY(bell, connect_bell({{"name", segment.name},
                                 {"handle", segment.id},
                                 {"access", text_at(request, "access")},
                                 {"pid", program},
                                 {"listens", text_at(request, "op") == "segment.listen"}}));
  Message out{{{"version", segment.body.segment.listeners_version}}, {}};
  out.fds.push_back(std::move(bell));
  return out;
}

Result<Message> make_segment(const Json& request, pid_t program) {
  const std::string attempt = "make segment '" + text_at(request, "name") + "'";
  Fd written(::open(
      ("/proc/" + std::to_string(program) + "/fd/" + std::to_string(number_at(request, "fd", -1)))
          .c_str(),
      O_RDONLY | O_CLOEXEC));
  struct stat info {};
  if (!written || ::fstat(written.get(), &info) != 0) return os_error(attempt, errno);
  HOBBES_TRY(memory, open_physical_memory(true));
  HOBBES_TRY(opened, open_stream({{"op", "segment.make"},
                                  {"size", info.st_size},
                                  {"pageSize", number_at(request, "pageSize")}}));
  const auto address = static_cast<std::uint64_t>(number_at(opened.answer, "address")),
             size = static_cast<std::uint64_t>(number_at(opened.answer, "size"));
  void* place = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, memory.get(),
                       static_cast<off_t>(address));
  if (place == MAP_FAILED) return os_error(attempt, errno);
  auto copied = copy_written(written, place, size);
  ::munmap(place, size);
  HOBBES_CHECK(copied);
  Json publication = {{"op", "segment.publish"}};
  for (const char* field : {"name", "mode", "persistent", "enclaves", "snapshots", "snapshotOf"})
    if (request.contains(field)) publication[field] = request[field];
  HOBBES_TRY(made, ask_again(opened, publication));
  Message out{{{"handle", number_at(made, "handle")}, {"offset", address}}, {}};
  out.fds.push_back(std::move(memory));
  out.fds.push_back(std::move(opened.stream));
  return out;
}

}  // namespace hobbes::agent
