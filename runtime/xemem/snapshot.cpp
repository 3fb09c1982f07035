#include "xemem/snapshot.h"

#include <sys/mman.h>
#include <sys/random.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <deque>
#include <optional>
#include <thread>
#include <vector>

#include "abi/nis.h"
#include "abi/snapshot.h"
#include "core/identity.h"
#include "core/paths.h"
#include "ipc/command_queue.h"
#include "nis/reader.h"
#include "xemem/snapshot_source.h"

namespace hobbes {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

// Copied between two looks at what writers wait for, which is a multiple of it.
constexpr std::uint64_t stride = HOBBES_SNAPSHOT_BLOCK;
constexpr std::uint64_t told_parts = 8;  // of the memory: the maker is told that each is copied

// Copies memory whose maker says which parts of it writers wait for.
class Taking {
 public:
  Taking(CommandClient client, const char* from, char* to, const hobbes_segment& segment,
         Clock::time_point until)
      : client_(std::move(client)),
        from_(from),
        to_(to),
        size_(segment.size),
        told_unit_(std::max<std::uint64_t>(segment.page_size, 2 << 20)),
        until_(until),
        copied_((segment.size + stride - 1) / stride) {}

  // The instant. Code::busy: another one is being taken.
  Result<void> begin() {
    begun_ = false;
    answer_.reset();
    HOBBES_TRY(id, client_.issue(HOBBES_SNAPSHOT_BEGIN, {}, left(),
                                 [this](Result<Bytes> part, bool last) { take(part, last); }));
    (void)id;
    while (!begun_ && !answer_) HOBBES_CHECK(poll(left()));
    return answer_ ? *answer_ : Result<void>();
  }

  Result<void> copy() {
    for (std::uint64_t done = 0, told = 0; done < size_; done += stride) {
      if (done % told_unit_ == 0 && done >= told + size_ / told_parts) {
        HOBBES_CHECK(tell({told, done - told}));
        told = done;
      }
      copy({done, std::min(stride, size_ - done)});
      HOBBES_CHECK(copy_wanted());
    }
    return {};
  }

  Result<void> end() {
    std::optional<Result<void>> ended;
    ending_ = true;
    HOBBES_TRY(id, client_.issue(HOBBES_SNAPSHOT_END, {}, left(), [&](Result<Bytes> part, bool) {
      ended = part ? Result<void>() : std::move(part).error();
    }));
    (void)id;
    while (!ended) HOBBES_CHECK(poll(left()));
    HOBBES_CHECK(*ended);
    if (!answer_) return not_an_instant();
    return std::move(*answer_);
  }

 private:
  [[nodiscard]] milliseconds left() const {
    return std::max(std::chrono::duration_cast<milliseconds>(until_ - Clock::now()),
                    milliseconds(1));
  }

  Result<void> poll(milliseconds patience) {
    HOBBES_TRY(under_way, client_.poll(patience));
    (void)under_way;
    return {};
  }

  // What was copied before may have changed since.
  void copy(const hobbes_snapshot_range& range) {
    for (std::uint64_t at = range.offset; at < range.offset + range.size; at += stride) {
      if (copied_[at / stride]) continue;
      std::memcpy(to_ + at, from_ + at, std::min(stride, size_ - at));
      copied_[at / stride] = true;
    }
  }

  // Those that have come, without waiting for more.
  Result<void> copy_wanted() {
    HOBBES_CHECK(poll(milliseconds(0)));
    while (!wanted_.empty() && !answer_) {
      const hobbes_snapshot_range range = wanted_.front();
      wanted_.pop_front();
      copy(range);
      HOBBES_CHECK(tell(range));
      HOBBES_CHECK(poll(milliseconds(0)));
    }
    return answer_ ? *answer_ : Result<void>();
  }

  Result<void> tell(const hobbes_snapshot_range& range) {
    Bytes payload(sizeof range);
    std::memcpy(payload.data(), &range, sizeof range);
    for (;;) {
      auto told =
          client_.issue(HOBBES_SNAPSHOT_COPIED, payload, left(), [](const Result<Bytes>&, bool) {});
      if (told) return {};
      if (told.error().code != Code::busy || Clock::now() >= until_) return std::move(told).error();
      HOBBES_CHECK(poll(milliseconds(1)));
    }
  }

  void take(Result<Bytes>& part, bool last) {
    hobbes_snapshot_range range{};
    if (!part) {
      answer_ = std::move(part).error();
    } else if (last) {
      answer_ = ending_ ? Result<void>() : not_an_instant();
    } else if (part->empty()) {
      begun_ = true;
    } else if (part->size() == sizeof range) {
      std::memcpy(&range, part->data(), sizeof range);
      if (range.offset % stride == 0 && range.offset <= size_ && range.size <= size_ - range.offset)
        wanted_.push_back(range);
      else
        answer_ =
            Error{Code::corrupt, "take a snapshot", "its maker asks for what is not in it", ""};
    }
  }

  static Result<void> not_an_instant() {
    return Error{Code::corrupt, "take a snapshot", "its maker has ended it before it was copied",
                 "try again"};
  }

  CommandClient client_;
  const char* from_;
  char* to_;
  std::uint64_t size_, told_unit_;
  Clock::time_point until_;
  std::vector<bool> copied_;  // by stride
  bool begun_ = false, ending_ = false;
  std::optional<Result<void>> answer_;  // to BEGIN
  std::deque<hobbes_snapshot_range> wanted_;
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

// Numbers of processes are of their namespace only.
std::string name_for(const std::string& segment) {
  std::uint64_t number = 0;
  if (::getrandom(&number, sizeof number, 0) != sizeof number)
    number = static_cast<std::uint64_t>(Clock::now().time_since_epoch().count());
  const std::string end = ".snapshot-" + hex(number);
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
  HOBBES_CHECK(check_writers(nis, segment, attempt));
  HOBBES_TRY(client, connect_to_maker(segment, attempt));
  client.set_waiting(Waiting::spin_then_sleep);
  Taking taking(std::move(client), from, to, segment.body.segment, until);
  for (;;) {
    auto begun = taking.begin();
    if (begun) break;
    if (begun.error().code != Code::busy || Clock::now() >= until)
      return std::move(begun.error()).within(attempt);
    std::this_thread::sleep_for(milliseconds(1));
  }
  auto copied = taking.copy();
  if (!copied) return std::move(copied.error()).within(attempt);
  auto ended = taking.end();
  if (!ended) return std::move(ended.error()).within(attempt);
  return check_writers(nis, segment, attempt);
}

// In huge pages if the segment has some and there are enough; its content is the same in others.
Result<Segment> reserve_like(const hobbes_record& segment, const std::string& name,
                             std::uint64_t size, SegmentOptions options) {
  if (segment.body.segment.page_size > 4096) {
    options.page_size = segment.body.segment.page_size;
    if (auto huge = Segment::reserve(name, size, options)) return huge;
    options.page_size = 0;
  }
  return Segment::reserve(name, size, options);
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
  made.snapshot_of = handle;
  const std::string name = options.name.empty() ? name_for(segment.name) : options.name;
  HOBBES_TRY(out, reserve_like(segment, name, access.size(), made));
  auto* to = static_cast<char*>(out.data());
  // Before the maker is held up: to get memory takes longer than to copy it.
  if (::madvise(to, out.size(), MADV_POPULATE_WRITE) != 0 && errno != EINVAL)
    return os_error(attempt, errno, "there may be too little memory");
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
