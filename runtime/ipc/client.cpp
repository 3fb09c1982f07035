#include "ipc/client.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>

#include "core/file.h"
#include "core/paths.h"
#include "core/process.h"

namespace hobbes {
namespace {

// A hobbesd that was killed seems to listen until the last of its threads is gone: nobody answers
// there any more, and nobody else can begin before. A zombie is one whose first thread has gone
// already.
Result<MessageSocket> reach() {
  for (int tenth = 0;; ++tenth) {
    auto channel = MessageSocket::connect(control_socket_path());
    if (!channel || tenth == 50) return channel;
    auto owner = Peer::pid_of(channel->fd());  // confined programs may not ask for more
    if (!owner || *owner <= 0 || process_state(*owner) != 'Z') return channel;
    ::usleep(100'000);
  }
}

// Starts hobbesd beside this program and returns when it listens. A lock makes racing starters one.
Result<void> start_hobbesd() {
  HOBBES_CHECK(make_directories(run_directory()));
  std::string lock_path = run_directory() + "/start.lock";
  Fd lock(::open(lock_path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  if (!lock || ::flock(lock.get(), LOCK_EX) != 0) return os_error("start hobbesd", errno);
  if (reach()) return {};
  int ready[2];
  if (::pipe2(ready, O_CLOEXEC) != 0) return os_error("start hobbesd", errno);
  Fd ready_read(ready[0]), ready_write(ready[1]);
  std::string program = sibling_program("hobbesd");
  pid_t child = ::fork();
  if (child < 0) return os_error("start hobbesd", errno);
  if (child == 0) {
    // A grandchild of its own session: it belongs to nobody's terminal, job or process group.
    (void)::setsid();
    if (::fork() != 0) ::_exit(0);
    int null = ::open("/dev/null", O_RDWR);
    for (int stream = 0; stream < 3; ++stream) ::dup2(null, stream);
    if (::dup2(ready_write.get(), 3) == 3) {
      ::fcntl(3, F_SETFD, 0);
      ::syscall(436 /* close_range */, 4, ~0U, 0);
      ::execl(program.c_str(), program.c_str(), "--ready-fd", "3", nullptr);
    }
    ::_exit(127);
  }
  ready_write.reset();
  ::waitpid(child, nullptr, 0);
  pollfd waiting{ready_read.get(), POLLIN, 0};
  char word = 0;
  if (::poll(&waiting, 1, 20000) <= 0 || ::read(ready_read.get(), &word, 1) != 1)
    return Error{Code::unavailable, "start hobbesd", "it ended before it listened",
                 "see " + run_directory() + "/hobbesd.log, or run `" + program + "` by hand"};
  return {};
}

}  // namespace

Result<Client> Client::connect(bool start_on_demand) {
  auto channel = reach();
  if (channel) return Client(std::move(*channel));
  bool absent =
      channel.error().code == Code::not_found || channel.error().code == Code::unavailable;
  // From inside an enclave the node is not ours to start anything on.
  bool inside = std::getenv("HOBBES_ENCLAVE") != nullptr;
  if (!absent || !start_on_demand || inside) return std::move(channel).error();
  if (::geteuid() != 0)
    return Error{Code::unavailable, "reach hobbesd at " + control_socket_path(),
                 "it does not run, and only root can start it",
                 "ask the administrator to run `systemctl enable --now hobbesd.socket`"};
  HOBBES_CHECK(start_hobbesd());
  HOBBES_TRY(started, reach());
  return Client(std::move(started));
}

Result<Message> Client::call(const std::string& op, Json request, const std::vector<int>& fds,
                             std::chrono::milliseconds deadline) {
  request["op"] = op;
  HOBBES_CHECK(channel_.send(request, fds));
  HOBBES_TRY(answer, channel_.receive(deadline));
  if (!answer.body.value("ok", false))
    return error_from(answer.body.value("error", Json::object()));
  return std::move(answer);
}

void tell_manager(std::uint64_t handle, Json event) {
  auto client = Client::connect(false);
  if (!client || handle == 0) return;
  event["handle"] = handle;
  (void)client->call("enclave.event", std::move(event), {}, std::chrono::milliseconds(2000));
}

}  // namespace hobbes
