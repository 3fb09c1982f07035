#include "nis/notifier.h"

#include <fnmatch.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <deque>
#include <mutex>
#include <system_error>
#include <thread>

#include "core/paths.h"
#include "nis/reader.h"

namespace hobbes {
namespace {

constexpr std::size_t kept_most = 4096;
constexpr int look_at_stop_ms = 1000;

bool passes(const ChangeFilter& filter, const hobbes_change& change) {
  return (filter.type == HOBBES_FREE || change.type == filter.type) &&
         (filter.enclave == 0 || change.enclave == filter.enclave || change.id == filter.enclave) &&
         (filter.name.empty() || ::fnmatch(filter.name.c_str(), change.name, 0) == 0);
}

}  // namespace

struct Notifier::State {
  ChangeFilter filter;
  std::unique_ptr<NisReader> nis;
  Fd ready;  // an eventfd
  std::atomic<bool> stopped{false};
  std::mutex lock;
  std::deque<hobbes_change> changes;
  bool lost = false;

  void tell(const hobbes_change* change) {
    std::lock_guard guard(lock);
    if (change == nullptr || changes.size() >= kept_most) {
      changes.clear();
      lost = true;
    } else if (!lost) {
      changes.push_back(*change);
    }
    const std::uint64_t one = 1;
    (void)!::write(ready.get(), &one, sizeof one);
  }

  void collect(std::uint64_t sequence) {
    while (!stopped.load()) {
      hobbes_change change;
      switch (nis->wait(&sequence, &change, look_at_stop_ms)) {
        case NisReader::Status::good:
          if (passes(filter, change)) tell(&change);
          break;
        case NisReader::Status::absent:
          break;
        default:
          if (nis->replaced()) {
            auto again = NisReader::open(mirror_path());
            if (!again) {
              ::usleep(look_at_stop_ms * 100);
              continue;
            }
            nis = std::move(*again);
          }
          sequence = nis->sequence();
          tell(nullptr);
      }
    }
  }
};

Notifier::Notifier(std::shared_ptr<State> state) : state_(std::move(state)) {}
Notifier::Notifier(Notifier&&) noexcept = default;

Result<Notifier> Notifier::open(const ChangeFilter& filter) {
  auto state = std::make_shared<State>();
  state->filter = filter;
  HOBBES_TRY(nis, NisReader::open(mirror_path()));
  state->nis = std::move(nis);
  state->ready = Fd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!state->ready) return os_error("watch the mirror", errno);
  const std::uint64_t sequence = state->nis->sequence();
  // It ends by itself soon after the notifier: nobody waits for it.
  sigset_t all, before;
  sigfillset(&all);
  ::pthread_sigmask(SIG_SETMASK, &all, &before);  // the program's signals are its own threads'
  bool begun = true;
  try {
    std::thread([state, sequence] { state->collect(sequence); }).detach();
  } catch (const std::system_error&) {
    begun = false;
  }
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  if (!begun)
    return Error{Code::exhausted, "watch the mirror", "no further thread can be made",
                 "let some end, or raise the limit of processes"};
  return Notifier(std::move(state));
}

Notifier::~Notifier() {
  if (state_ != nullptr) state_->stopped.store(true);
}

int Notifier::descriptor() const { return state_->ready.get(); }

Notifier::Status Notifier::next(hobbes_change* out) {
  State& state = *state_;
  std::lock_guard guard(state.lock);
  if (state.lost) {
    state.lost = false;
    return Status::lost;
  }
  if (state.changes.empty()) {
    std::uint64_t count = 0;
    (void)!::read(state.ready.get(), &count, sizeof count);
    return Status::none;
  }
  *out = state.changes.front();
  state.changes.pop_front();
  return Status::change;
}

}  // namespace hobbes
