#include "hobbesd/keeper.h"

#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <map>
#include <thread>

#include "core/paths.h"
#include "ipc/message_socket.h"

namespace hobbes {
namespace {

using std::chrono::milliseconds;

std::string socket_path() { return run_directory() + "/keeper.sock"; }

Result<MessageSocket> reach_keeper() {
  auto channel = MessageSocket::connect(socket_path());
  if (channel) return channel;
  std::string program = sibling_program("hobbesd");
  pid_t child = ::fork();
  if (child < 0) return os_error("start the segment keeper", errno);
  if (child == 0) {  // of a session of its own, and not hobbesd's child: it outlives hobbesd
    (void)::setsid();
    if (::fork() != 0) ::_exit(0);
    sigset_t none;
    sigemptyset(&none);
    ::sigprocmask(SIG_SETMASK, &none, nullptr);
    ::syscall(SYS_close_range, 3, ~0U, 0);
    ::execl(program.c_str(), program.c_str(), "--keep-segments", nullptr);
    ::_exit(127);
  }
  ::waitpid(child, nullptr, 0);
  for (int i = 0; i < 200; ++i) {
    channel = MessageSocket::connect(socket_path());
    if (channel) return channel;
    std::this_thread::sleep_for(milliseconds(5));
  }
  return std::move(channel.error()).within("start the segment keeper");
}

}  // namespace

Result<Held> keep(const Fd& memory) {
  HOBBES_TRY(channel, reach_keeper());
  HOBBES_CHECK(channel.send({{"op", "keep"}}, {memory.get()}));
  HOBBES_TRY(answer, channel.receive(milliseconds(2000)));
  HOBBES_TRY(keeper, ProcessId::of(static_cast<pid_t>(number_at(answer.body, "pid"))));
  return Held{keeper, static_cast<int>(number_at(answer.body, "number", -1))};
}

void let_go(int number) {
  auto channel = MessageSocket::connect(socket_path());
  if (channel) (void)channel->send({{"op", "release"}, {"number", number}});
}

int run_keeper() {
  ::signal(SIGPIPE, SIG_IGN);
  auto listening = listen_at(socket_path(), 0600, SOCK_SEQPACKET);
  if (!listening) return 1;
  std::map<int, Fd> held;
  for (bool asked = false; !asked || !held.empty();) {
    pollfd one{listening->get(), POLLIN, 0};
    if (::poll(&one, 1, 10'000) <= 0) {
      asked = true;  // nobody came: with nothing held there is nothing to do, nor when the run
                     // directory is gone
      if (::access(socket_path().c_str(), F_OK) != 0) break;
      continue;
    }
    Fd fd(::accept4(listening->get(), nullptr, nullptr, SOCK_CLOEXEC));
    if (!fd) continue;
    MessageSocket caller(std::move(fd));
    auto peer = caller.peer();
    auto request = caller.receive(milliseconds(1000));
    // User 0 of an enclave is not hobbesd: every enclave has a mount namespace of its own.
    if (!peer || peer->uid != ::geteuid() || !request || !peer->shares_mount_namespace()) continue;
    asked = true;
    if (text_at(request->body, "op") == "keep" && request->fds.size() == 1) {
      int number = request->fds[0].get();
      held[number] = std::move(request->fds[0]);
      (void)caller.send({{"number", number}, {"pid", ::getpid()}});
    } else {
      held.erase(static_cast<int>(number_at(request->body, "number", -1)));
    }
  }
  ::unlink(socket_path().c_str());
  return 0;
}

}  // namespace hobbes
