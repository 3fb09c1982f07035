#include "vmm/agent_client.h"

#include <sys/epoll.h>

#include "enclave/drivers/palacios/agent_connection.h"
#include "vmm/seccomp_filter.h"
#include "vmm/terminal.h"

namespace hobbes::vmm {

// This is the first version of the agent that can mount what a bundle lists.
constexpr std::int64_t mounting_version = 4;

Result<void> AgentClient::begin() {
  HOBBES_TRY(ended, EventFd::make("watch the guest's program"));
  program_ended_ = std::move(ended);
  HOBBES_CHECK(loop_.watch(program_ended_.get(), EPOLLIN, [this](auto) {
    loop_.unwatch(program_ended_.get());
    int status = program_status_;
    if (status < 0)
      events_.agent_gone();
    else
      events_.program_ended(status);
  }));
  relay_ = std::thread([this, program = to_relay_.get_future()]() mutable {
    if (auto confined = install_seccomp_filter(ThreadKind::serve); !confined)
      return program_ended_.signal();  // as if the agent had gone
    AgentConnection connection(program.get());
    auto status = relay_stdio(connection, {});
    program_status_ = status ? *status : -1;
    program_ended_.signal();
  });
  relay_.detach();
  return {};
}

void AgentClient::tick(bool paused) {
  if (!answered_) return reach();
  if (!paused && !asked_) asked_ = static_cast<bool>(agent_->send({{"op", "ping"}}));
}

void AgentClient::reach() {
  if (agent_) return;
  auto stream = connect_();
  if (!stream) return;  // its driver is not there yet
  agent_.emplace(std::move(*stream));
  if (!agent_->send({{"op", "hello"}, {"mounts", plan_.mounts}}) ||
      !loop_.watch(agent_->fd(), EPOLLIN | EPOLLRDHUP, [this](auto) { receive(); }))
    agent_.reset();
}

void AgentClient::receive() {
  auto words = agent_->receive();
  if (!words) {
    loop_.unwatch(agent_->fd());
    agent_.reset();
    // Before its first answer nobody listened; the next tick tries again.
    if (answered_) events_.agent_gone();
    return;
  }
  for (const Json& word : *words) {
    if (!answered_) {
      if (word.contains("error")) events_.cannot_start(error_from(word["error"]));
      if (!plan_.mounts.empty() && number_at(word, "version") < mounting_version)
        events_.cannot_start({Code::unsupported, "start the guest",
                              "its agent is too old to mount anything",
                              "make its initial RAM disk anew, with this Hobbes' agent"});
      answered_ = true;
      events_.agent_answered();
      begin_program();
    } else if (asked_ && text_at(word, "op") == "ping") {
      asked_ = false;
      events_.agent_beat();
    }
  }
}

void AgentClient::begin_program() {
  if (plan_.process.is_null()) return events_.program_began();  // programs come by exec
  Json process = plan_.process;
  if (process.value("terminal", false)) {
    process["consoleSize"] = window_size_json();
    make_terminal_raw();
  }
  auto stream = connect_();
  if (!stream) events_.cannot_start(stream.error());
  program_.emplace(std::move(*stream));
  if (!program_->send({{"op", "run"}, {"main", true}, {"process", process}}))
    events_.cannot_start({Code::invalid, "start the guest",
                          "its program's arguments and environment are too long",
                          "make them shorter"});
  auto watched =
      loop_.watch(program_->fd(), EPOLLIN | EPOLLRDHUP, [this](auto) { receive_program(); });
  if (!watched) events_.cannot_start(watched.error());
}

void AgentClient::receive_program() {
  auto words = program_->receive_one();
  if (!words)
    events_.cannot_start(
        {Code::unavailable, "start the guest", "its agent has gone", "see its console"});
  if (words->empty()) return;
  const Json& word = words->front();
  if (word.contains("error")) events_.cannot_start(error_from(word["error"]));
  loop_.unwatch(program_->fd());
  events_.program_began();
  to_relay_.set_value(std::move(*program_).release());
}

void AgentClient::signal(int number) const {
  if (agent_) (void)agent_->send({{"op", "signal"}, {"number", number}});
}

void AgentClient::resize() const {
  Json request = window_size_json();
  request["op"] = "resize";
  if (agent_) (void)agent_->send(request);
}

void AgentClient::tell_mirror(std::uint64_t address, std::uint64_t size) const {
  if (agent_) (void)agent_->send({{"op", "mirror"}, {"address", address}, {"size", size}});
}

}  // namespace hobbes::vmm
