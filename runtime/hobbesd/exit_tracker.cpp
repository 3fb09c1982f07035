#include "hobbesd/exit_tracker.h"

#include <spdlog/spdlog.h>
#include <sys/ioctl.h>
#include <sys/wait.h>

#include <vector>

namespace hobbes {
namespace {

constexpr int tries_most = 100;

// linux/pidfd.h of Linux 6.15 and newer; older headers lack it and older kernels answer ENOTTY.
struct PidfdInfo {
  std::uint64_t mask, cgroup_id;
  std::uint32_t pid, tgid, ppid, ruid, rgid, euid, egid, suid, sgid, fsuid, fsgid;
  std::int32_t exit_code;
};
static_assert(sizeof(PidfdInfo) == 64);
constexpr unsigned long pidfd_get_info = _IOWR(0xff, 11, PidfdInfo);
constexpr std::uint64_t pidfd_info_exit = 1U << 3U;

// As wait(2) encodes it, when the kernel tells us.
std::optional<int> status_of(int pidfd) {
  siginfo_t info{};
  if (::waitid(P_PIDFD, static_cast<id_t>(pidfd), &info, WEXITED | WNOHANG) == 0 &&
      info.si_pid != 0)
    return info.si_code == CLD_EXITED ? info.si_status << 8 : info.si_status;
  PidfdInfo ask{};
  ask.mask = pidfd_info_exit;
  if (::ioctl(pidfd, pidfd_get_info, &ask) == 0 && (ask.mask & pidfd_info_exit) != 0)
    return ask.exit_code;
  return std::nullopt;
}

}  // namespace

void ExitTracker::watch(std::uint64_t enclave, const std::string& name, const ProcessId& process) {
  listen();
  auto pidfd = process.open();
  if (!pidfd) {
    loop_.post([this, enclave] { ended_(enclave); });
    return;
  }
  if (loop_.watch(pidfd->get(), [this, enclave] { ended_(enclave); }))
    watches_[enclave] = {name, process.pid, std::move(*pidfd), 0};
}

void ExitTracker::find_status(std::uint64_t enclave) {
  auto at = watches_.find(enclave);
  if (at == watches_.end()) return;
  loop_.unwatch(at->second.pidfd.get());
  endings_[enclave] = std::move(at->second);
  watches_.erase(at);
  learn(enclave);
}

void ExitTracker::forget(std::uint64_t enclave) {
  if (auto at = watches_.find(enclave); at != watches_.end()) {
    loop_.unwatch(at->second.pidfd.get());
    watches_.erase(at);
  }
  endings_.erase(enclave);
  announced_.erase(enclave);
}

void ExitTracker::listen() {
  if (events_ || no_events_) return;
  auto opened = ExitEvents::open();
  if (!opened) {
    no_events_ = opened.error().code == Code::denied || opened.error().code == Code::unsupported;
    spdlog::info("{}: exit statuses of enclaves that others wait for are learned from those",
                 opened.error().text());
    return;
  }
  events_.emplace(std::move(*opened));
  if (!loop_.watch(events_->fd(), [this] { take_announcements(); })) events_.reset();
}

void ExitTracker::take_announcements() {
  for (const auto& [pid, status] : events_->take()) {
    for (const auto& [enclave, watch] : watches_)
      if (watch.pid == pid) announced_[enclave] = status;
    std::vector<std::uint64_t> ending;
    for (const auto& [enclave, one] : endings_)
      if (one.pid == pid) ending.push_back(enclave);
    for (std::uint64_t enclave : ending) {
      announced_[enclave] = status;
      learn(enclave);
    }
  }
}

void ExitTracker::learn(std::uint64_t enclave) {
  auto ending = endings_.find(enclave);
  if (ending == endings_.end()) return;
  std::optional<int> status = status_of(ending->second.pidfd.get());
  if (auto told = announced_.find(enclave); !status && told != announced_.end())
    status = told->second;
  if (!status) {
    // Known only once its parent has reaped it; the tick asks again for a while.
    if (++ending->second.tries <= tries_most) return;
    spdlog::warn("enclave '{}': its exit status is known only to the process that waited for it",
                 ending->second.name);
    endings_.erase(ending);
    return;
  }
  endings_.erase(ending);
  announced_.erase(enclave);
  status_known_(enclave, *status);
}

void ExitTracker::tick() {
  std::vector<std::uint64_t> unknown;
  for (const auto& [enclave, ending] : endings_) unknown.push_back(enclave);
  for (std::uint64_t enclave : unknown) learn(enclave);
  // Without enclaves the ends of the node's processes are nobody's concern, and should not wake us.
  if (!events_ || !watches_.empty() || !endings_.empty()) return;
  loop_.unwatch(events_->fd());
  events_.reset();
}

bool ExitTracker::is_of(pid_t pid) const {
  for (const auto& [enclave, watch] : watches_)
    if (watch.pid == pid) return true;
  for (const auto& [enclave, ending] : endings_)
    if (ending.pid == pid) return true;
  return false;
}

}  // namespace hobbes
