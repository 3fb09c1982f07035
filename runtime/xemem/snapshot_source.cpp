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

constexpr milliseconds longest(10000);      // a snapshot under way
constexpr milliseconds reading_limit(200);  // a taker that takes no part of it meanwhile
constexpr unsigned looks_more = 400;        // for the next write, before the thread sleeps

}  // namespace

std::string snapshot_service(std::uint64_t handle) { return HOBBES_SNAPSHOT_SERVICE + hex(handle); }

struct SnapshotSource::State {
  // One that is being taken.
  struct Taking {
    ServerCall call;
    std::unique_ptr<WriteProtection> protection;
    Clock::time_point deadline;
    std::vector<bool> released;  // by page: sent already
  };

  State(Memory of, CommandServer serving) : memory(std::move(of)), server(std::move(serving)) {
    server.add(HOBBES_SNAPSHOT_BEGIN, [this](ServerCall call) { begin(std::move(call)); });
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
    taking.emplace(Taking{std::move(call), std::move(*protection), deadline,
                          std::vector<bool>(memory.size / memory.page_size)});
  }

  void end(ServerCall call) {
    if (!taking || taking->call.peer().pid != call.peer().pid)
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

  // True: it had something to do.
  bool send_written() {
    bool worked = false;
    while (taking) {
      auto address = taking->protection->next_write();
      if (!address) break;
      worked = true;
      const std::uint64_t page =
          (*address - reinterpret_cast<std::uintptr_t>(memory.base)) / memory.page_size;
      if (page >= taking->released.size()) continue;
      if (!taking->released[page] && !send(page)) return cut("its taker does not read"), true;
      taking->released[page] = true;
      taking->protection->release(
          reinterpret_cast<std::uintptr_t>(memory.base) + page * memory.page_size,
          memory.page_size);
    }
    return worked;
  }

  bool send(std::uint64_t page) {
    const auto limit = Clock::now() + reading_limit;
    for (std::uint64_t done = 0; done < memory.page_size;) {
      const std::uint64_t size =
          std::min<std::uint64_t>(memory.page_size - done, HOBBES_SNAPSHOT_PART_MOST);
      const hobbes_snapshot_part head{page * memory.page_size + done};
      Bytes part(sizeof head + size);
      std::memcpy(part.data(), &head, sizeof head);
      std::memcpy(part.data() + sizeof head, static_cast<const char*>(memory.base) + head.offset,
                  size);
      auto sent = taking->call.part(part);
      if (sent) {
        done += size;
        continue;
      }
      if (sent.error().code != Code::busy || Clock::now() > limit) return false;
      std::this_thread::sleep_for(std::chrono::microseconds(20));
    }
    return true;
  }

  void run() {
    unsigned idle = 0;
    while (!stopping.load()) {
      pollfd watched[3] = {{server.descriptor(), POLLIN, 0},
                           {wake.get(), POLLIN, 0},
                           {taking ? taking->protection->descriptor() : -1, POLLIN, 0}};
      // A write is often followed by others: to sleep between them would cost more than the copy.
      const bool look = taking && idle < looks_more;
      (void)::poll(watched, 3, look ? 0 : taking ? 50 : -1);
      idle = send_written() ? 0 : idle + 1;
      if (watched[0].revents != 0) (void)server.serve(milliseconds(0));
      if (!taking) idle = 0;
      if (taking && taking->call.cancelled()) taking.reset();
      if (taking && Clock::now() > taking->deadline) cut("it took longer than it may");
    }
    taking.reset();
  }

  const Memory memory;
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
