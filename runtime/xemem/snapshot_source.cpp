#include "xemem/snapshot_source.h"

#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <deque>
#include <optional>
#include <thread>

#include "abi/snapshot.h"
#include "core/fd.h"
#include "core/identity.h"
#include "ipc/command_queue.h"
#include "xemem/write_protection.h"

namespace hobbes {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr milliseconds longest(10000);  // a snapshot under way
constexpr milliseconds spinning(2);     // for the copy that a writer waits for

}  // namespace

std::string snapshot_service(std::uint64_t handle) { return HOBBES_SNAPSHOT_SERVICE + hex(handle); }

struct SnapshotSource::State {
  // One that is being taken.
  struct Taking {
    enum class Block : std::uint8_t { untouched, wanted, copied };
    ServerCall call;
    std::unique_ptr<WriteProtection> protection;
    Clock::time_point deadline;
    std::vector<Block> blocks;
    // Blocks that writers wait for, in the order in which they were asked for, and since when.
    std::deque<std::pair<std::uint64_t, Clock::time_point>> wanted;
  };

  State(Memory of, CommandServer serving) : memory(std::move(of)), server(std::move(serving)) {
    server.add(HOBBES_SNAPSHOT_BEGIN, [this](ServerCall call) { begin(std::move(call)); });
    server.add(HOBBES_SNAPSHOT_COPIED,
               [this](ServerCall call) { release_copied(std::move(call)); });
    server.add(HOBBES_SNAPSHOT_END, [this](ServerCall call) { end(std::move(call)); });
  }

  void begin(ServerCall call) {
    const std::string attempt = "take a snapshot";
    const auto& listed = memory.enclaves;
    if (!listed.empty() &&
        std::find(listed.begin(), listed.end(), call.peer().enclave) == listed.end())
      return call.fail({Code::denied, attempt, "the segment is for named enclaves only", ""});
    if (taking)
      return call.fail(
          {Code::busy, attempt, "another one of the segment is being taken", "try again"});
    auto protection = WriteProtection::begin(memory.base, memory.size);
    if (!protection) return call.fail(protection.error());
    if (!call.part({})) return;  // its taker has gone, or does not read
    const auto most = Clock::now() + longest;
    const auto deadline = std::min(call.deadline().value_or(most), most);
    taking.emplace(Taking{std::move(call),
                          std::move(*protection),
                          deadline,
                          std::vector((memory.size + unit - 1) / unit, Taking::Block::untouched),
                          {}});
  }

  [[nodiscard]] bool is_taken_by(const ServerCall& call) const {
    return taking && call.is_of_client_of(taking->call);
  }

  void release_copied(ServerCall call) {
    hobbes_snapshot_range range{};
    if (!is_taken_by(call))
      return call.fail({Code::not_found, "go on", "no snapshot of yours is being taken", ""});
    if (call.payload().size() == sizeof range)
      std::memcpy(&range, call.payload().data(), sizeof range);
    const std::uint64_t end = range.offset + range.size;
    if (range.size == 0 || range.offset >= memory.size || range.size > memory.size - range.offset ||
        range.offset % unit != 0 || (end % unit != 0 && end != memory.size))
      return call.fail({Code::invalid, "go on", "it is no range of the segment's blocks", ""});
    for (std::uint64_t at = range.offset; at < end; at += unit) {
      Taking::Block& one = taking->blocks[at / unit];
      one = Taking::Block::copied;
    }
    auto& wanted = taking->wanted;
    while (!wanted.empty() && taking->blocks[wanted.front().first] == Taking::Block::copied)
      wanted.pop_front();
    taking->protection->release(base() + range.offset, range.size);
    call.reply({});
  }

  void end(ServerCall call) {
    if (!is_taken_by(call))
      return call.fail({Code::not_found, "end a snapshot", "none of yours is being taken", ""});
    taking->protection.reset();  // its taker has copied all
    taking->call.reply({});
    taking.reset();
    call.reply({});
  }

  void cut(const std::string& why) {
    taking->protection.reset();
    taking->call.fail({Code::timeout, "take a snapshot", why, "try again"});
    taking.reset();
  }

  // Asks for what writers wait for.
  void ask_for_written() {
    while (taking) {
      auto address = taking->protection->next_write();
      if (!address) return;
      const std::uint64_t number = (*address - base()) / unit;
      if (number >= taking->blocks.size()) continue;
      const hobbes_snapshot_range range{number * unit, std::min(unit, memory.size - number * unit)};
      Taking::Block& one = taking->blocks[number];
      if (one == Taking::Block::copied)
        taking->protection->release(base() + range.offset, range.size);
      if (one != Taking::Block::untouched) continue;
      Bytes part(sizeof range);
      std::memcpy(part.data(), &range, sizeof range);
      if (!taking->call.part(part)) return cut("its taker does not read");
      one = Taking::Block::wanted;
      taking->wanted.emplace_back(number, Clock::now());
    }
  }

  [[nodiscard]] std::uintptr_t base() const {
    return reinterpret_cast<std::uintptr_t>(memory.base);
  }

  void run() {
    while (!stopping.load()) {
      pollfd watched[3] = {{server.descriptor(), POLLIN, 0},
                           {wake.get(), POLLIN, 0},
                           {taking ? taking->protection->descriptor() : -1, POLLIN, 0}};
      // A writer that waits leaves its processor to this thread.
      const bool spin = taking && !taking->wanted.empty() &&
                        Clock::now() - taking->wanted.front().second < spinning;
      (void)::poll(watched, 3, spin ? 0 : taking ? 20 : -1);
      ask_for_written();
      if (spin || watched[0].revents != 0) (void)server.serve(milliseconds(0));
      if (taking && taking->call.cancelled()) taking.reset();
      if (taking && !taking->wanted.empty() &&
          Clock::now() - taking->wanted.front().second > patience)
        cut("its taker does not copy what a writer waits for");
      if (taking && Clock::now() > taking->deadline) cut("it took longer than it may");
    }
    taking.reset();
  }

  const Memory memory;
  // A block of 1 GiB takes longer to copy than one of 64 KiB.
  const milliseconds patience{HOBBES_SNAPSHOT_PATIENCE_MS + (memory.page_size >> 20U)};
  const std::uint64_t unit = std::max<std::uint64_t>(memory.page_size, HOBBES_SNAPSHOT_BLOCK);
  CommandServer server;
  std::optional<Taking> taking;
  Fd wake{::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
  std::atomic<bool> stopping{false};
  std::thread thread;
};

SnapshotSource::SnapshotSource(std::unique_ptr<State> state) : state_(std::move(state)) {}

Result<void> SnapshotSource::check(void* base, std::uint64_t size) {
  auto tried = WriteProtection::begin(base, size);
  return tried ? Result<void>() : std::move(tried).error();
}

Result<std::unique_ptr<SnapshotSource>> SnapshotSource::start(const Memory& memory) {
  Listener::Options options;
  options.mode = (memory.mode & 0444U) >> 1U;
  HOBBES_TRY(server, CommandServer::open(snapshot_service(memory.handle), options));
  auto state = std::make_unique<State>(memory, std::move(server));
  if (!state->wake) return os_error("serve snapshots", errno);
  // The program's signals are its own threads'.
  sigset_t all, before;
  sigfillset(&all);
  ::pthread_sigmask(SIG_SETMASK, &all, &before);
  State* running = state.get();
  try {
    state->thread = std::thread([running] { running->run(); });
  } catch (const std::exception& e) {
    ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
    return Error{Code::exhausted, "serve snapshots", e.what(), ""};
  }
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  return std::unique_ptr<SnapshotSource>(new SnapshotSource(std::move(state)));
}

SnapshotSource::~SnapshotSource() {
  state_->stopping.store(true);
  const std::uint64_t one = 1;
  (void)!::write(state_->wake.get(), &one, sizeof one);
  state_->thread.join();
}

}  // namespace hobbes
