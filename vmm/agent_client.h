// The monitor's side of the guest's agent: reaches it, has it begin the bundle's program, and knows
// by its answers that the guest lives. Formats: abi/agent.h.
#pragma once
#include <atomic>
#include <functional>
#include <future>
#include <optional>
#include <thread>

#include "core/event_fd.h"
#include "core/event_loop.h"
#include "core/fd.h"
#include "core/json.h"
#include "core/result.h"
#include "enclave/drivers/palacios/plan.h"
#include "vmm/frames.h"

namespace hobbes::vmm {

/// What a guest's agent makes happen. Called on the loop's thread.
class AgentEvents {
 public:
  virtual ~AgentEvents() = default;
  virtual void agent_answered() = 0;
  /// It has answered a ping: the guest lives.
  virtual void agent_beat() = 0;
  /// The bundle's program runs, or there is none and others may come.
  virtual void program_began() = 0;
  /// `wait_status` is that of wait(2).
  virtual void program_ended(int wait_status) = 0;
  /// It hung up although its guest may live.
  virtual void agent_gone() = 0;
  /// The guest cannot be what its bundle asks for; ends the process.
  [[noreturn]] virtual void cannot_start(const Error& error) = 0;
};

/// On the loop's thread; the streams of the bundle's program are relayed by a thread of its own.
class AgentClient {
 public:
  /// `connect` opens a stream to the agent's port; an error means that it does not listen yet.
  AgentClient(EventLoop& loop, const VmPlan& plan, std::function<Result<Fd>()> connect,
              AgentEvents& events)
      : loop_(loop), plan_(plan), connect_(std::move(connect)), events_(events) {}
  AgentClient(const AgentClient&) = delete;
  AgentClient& operator=(const AgentClient&) = delete;

  /// Makes the relay's thread, while threads may still be made. Before anything else, once.
  Result<void> begin();
  /// Reaches for the agent until it has answered, then asks for a sign of life unless one is due.
  void tick(bool paused);
  [[nodiscard]] bool answered() const { return answered_; }
  /// While it is not, signal() and resize() do nothing.
  [[nodiscard]] bool connected() const { return agent_.has_value(); }
  /// To the program, which has begun.
  void signal(int number) const;
  void resize() const;
  void tell_mirror(std::uint64_t address, std::uint64_t size) const;

 private:
  void reach();
  void receive();
  void begin_program();
  void receive_program();

  EventLoop& loop_;
  const VmPlan& plan_;
  std::function<Result<Fd>()> connect_;
  AgentEvents& events_;
  bool answered_ = false, asked_ = false;
  std::optional<FrameStream> agent_, program_;
  EventFd program_ended_;
  std::promise<Fd> to_relay_;
  std::thread relay_;
  std::atomic<int> program_status_{-1};
};

}  // namespace hobbes::vmm
