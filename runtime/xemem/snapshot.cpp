#include "xemem/snapshot.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <optional>
#include <thread>
#include <vector>

#include "abi/nis.h"
#include "abi/snapshot.h"
#include "core/paths.h"
#include "ipc/command_queue.h"
#include "nis/reader.h"
#include "xemem/snapshot_source.h"

namespace hobbes {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr std::uint64_t stride = 1 << 20;  // copied between two looks at what the maker sends

// What the maker has sent: parts of the memory as they were at the instant.
class Taking {
 public:
  Taking(CommandClient client, char* to, std::uint64_t size, Clock::time_point until)
      : client_(std::move(client)), to_(to), size_(size), until_(until) {}

  // Code::busy: another one is being taken.
  Result<void> begin() {
    begun_ = false;
    answer_.reset();
    HOBBES_TRY(id, client_.issue(HOBBES_SNAPSHOT_BEGIN, {}, left(),
                                 [this](Result<Bytes> part, bool last) { take(part, last); }));
    (void)id;
    while (!begun_ && !answer_) HOBBES_CHECK(poll(left()));
    return answer_ ? *answer_ : Result<void>();
  }

  // Takes what has come, without waiting.
  Result<void> look() { return poll(milliseconds(0)); }

  Result<void> end() {
    std::optional<Result<void>> ended;
    HOBBES_TRY(id, client_.issue(HOBBES_SNAPSHOT_END, {}, left(), [&](Result<Bytes> part, bool) {
      ended = part ? Result<void>() : std::move(part).error();
    }));
    (void)id;
    while (!ended) HOBBES_CHECK(poll(left()));
    if (!answer_) return std::move(*ended);
    HOBBES_CHECK(*answer_);
    for (const Part& part : parts_) std::memcpy(to_ + part.offset, part.bytes(), part.size());
    return {};
  }

 private:
  struct Part {
    std::uint64_t offset = 0;
    Bytes whole;
    [[nodiscard]] const std::uint8_t* bytes() const {
      return whole.data() + sizeof(hobbes_snapshot_part);
    }
    [[nodiscard]] std::size_t size() const { return whole.size() - sizeof(hobbes_snapshot_part); }
  };

  [[nodiscard]] milliseconds left() const {
    return std::max(std::chrono::duration_cast<milliseconds>(until_ - Clock::now()),
                    milliseconds(1));
  }

  Result<void> poll(milliseconds patience) {
    HOBBES_TRY(under_way, client_.poll(patience));
    (void)under_way;
    return {};
  }

  void take(Result<Bytes>& part, bool last) {
    if (!part) {
      answer_ = std::move(part).error();
    } else if (last) {
      answer_ = Result<void>();
    } else if (part->empty()) {
      begun_ = true;
    } else if (part->size() > sizeof(hobbes_snapshot_part)) {
      hobbes_snapshot_part head{};
      std::memcpy(&head, part->data(), sizeof head);
      Part one{head.offset, std::move(*part)};
      if (one.offset <= size_ && one.size() <= size_ - one.offset)
        parts_.push_back(std::move(one));
      else
        answer_ = Error{Code::corrupt, "take a snapshot", "its maker sends what is not in it", ""};
    }
  }

  CommandClient client_;
  char* to_;
  std::uint64_t size_;
  Clock::time_point until_;
  bool begun_ = false;
  std::optional<Result<void>> answer_;  // to BEGIN
  std::vector<Part> parts_;
};

// Only its maker's own thread knows of writes; nobody else may make some.
Result<void> check_writers(NisReader& nis, const hobbes_record& segment,
                           const std::string& attempt) {
  for (const hobbes_record& attachment : nis.all(HOBBES_ATTACHMENT)) {
    const hobbes_attachment& body = attachment.body.attachment;
    if (body.segment != segment.id || body.writable == 0) continue;
    return Error{
        Code::busy, attempt,
        "process " + std::to_string(body.pid) + " has attached it for writing, beside its maker",
        "let it be attached read-only, or copy it when nobody writes"};
  }
  return {};
}

// By whom the maker's names are kept: its user, but user 0 of an enclave has names of its own
// (docs/FABRIC.md).
Result<CommandClient> connect_to_maker(const hobbes_record& segment, const std::string& attempt) {
  const std::string service = snapshot_service(segment.id);
  std::vector<std::int64_t> owners = {segment.uid};
  if (segment.uid == 0 && segment.enclave != 0)
    owners.push_back(static_cast<std::int64_t>(0x8000'0000U | segment.enclave));
  for (std::int64_t owner : owners) {
    auto client = CommandClient::connect(service, {"node", owner}, milliseconds(0));
    if (client && client->channel().peer().pid == segment.body.segment.owner_pid)
      return std::move(*client);
    if (!client && client.error().code != Code::not_found) return std::move(client).error();
  }
  return Error{Code::unsupported, attempt, "its maker does not allow snapshots",
               "make it with HOBBES_SNAPSHOTS, or copy it when nobody writes"};
}

std::string name_for(const std::string& segment) {
  static std::atomic<unsigned> count{0};
  const std::string end = ".snapshot-" + std::to_string(::getpid()) + "-" + std::to_string(++count);
  return segment.substr(0, 127 - end.size()) + end;
}

struct Mapping {
  void* base;
  std::size_t size;
  ~Mapping() { ::munmap(base, size); }
};

// Copies the memory of one instant, with the help of the segment's maker.
Result<void> copy_instant(NisReader& nis, const hobbes_record& segment, const char* from, char* to,
                          const SnapshotOptions& options, const std::string& attempt) {
  const auto until = Clock::now() + options.timeout;
  const std::uint64_t size = segment.body.segment.size;
  HOBBES_CHECK(check_writers(nis, segment, attempt));
  HOBBES_TRY(client, connect_to_maker(segment, attempt));
  client.set_waiting(Waiting::spin_then_sleep);
  Taking taking(std::move(client), to, size, until);
  for (;;) {
    auto begun = taking.begin();
    if (begun) break;
    if (begun.error().code != Code::busy || Clock::now() >= until)
      return std::move(begun.error()).within(attempt);
    std::this_thread::sleep_for(milliseconds(1));
  }
  for (std::uint64_t done = 0; done < size; done += stride) {
    std::memcpy(to + done, from + done, std::min(stride, size - done));
    auto looked = taking.look();
    if (!looked) return std::move(looked.error()).within(attempt);
  }
  auto ended = taking.end();
  if (!ended) return std::move(ended.error()).within(attempt);
  return check_writers(nis, segment, attempt);
}

}  // namespace

Result<Segment> take_snapshot(std::uint64_t handle, const SnapshotOptions& options) {
  std::string attempt = "take a snapshot of segment " + std::to_string(handle);
  HOBBES_TRY(nis, NisReader::open(mirror_path()));
  hobbes_record segment{};
  if (nis->by_id(handle, &segment) != NisReader::Status::good || segment.type != HOBBES_SEGMENT)
    return Error{Code::not_found, attempt, "there is no such segment", "see `hobbes segments`"};
  attempt = "take a snapshot of segment '" + std::string(segment.name) + "'";
  HOBBES_TRY(access, SegmentAccess::get(handle, false, options.timeout));
  HOBBES_TRY(from, access.map(0, access.size()));
  const Mapping mapping{from, access.size()};
  segment.body.segment.size = access.size();

  SegmentOptions made;
  made.mode = options.mode & 0444U;
  made.page_size = segment.body.segment.page_size > 4096 ? segment.body.segment.page_size : 0;
  made.snapshot_of = handle;
  HOBBES_TRY(out, Segment::reserve(options.name.empty() ? name_for(segment.name) : options.name,
                                   access.size(), made));
  auto* to = static_cast<char*>(out.data());
  if (options.copy)
    std::memcpy(to, from, access.size());
  else
    HOBBES_CHECK(copy_instant(*nis, segment, static_cast<const char*>(from), to, options, attempt));
  HOBBES_TRY(client, Client::connect(false));
  HOBBES_CHECK(out.publish(client, options.timeout));
  if (::mprotect(out.data(), out.size(), PROT_READ) != 0) return os_error(attempt, errno);
  return std::move(out);
}

}  // namespace hobbes
