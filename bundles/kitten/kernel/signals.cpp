#include "signals.h"

#include <asm/unistd.h>

#include <cerrno>

#include "cpu.h"
#include "forward.h"
#include "futex.h"
#include "schedule.h"

namespace kitten {
namespace {

constexpr std::uint64_t flag_restorer = 0x04000000, flag_on_stack = 0x08000000,
                        flag_restart = 0x10000000, flag_no_defer = 0x40000000,
                        flag_reset = 0x80000000;
constexpr unsigned signal_kill = 9, signal_stop = 19;
constexpr std::uint64_t red_zone = 128, minimal_stack = 2048;
constexpr std::uint64_t program_flags = 0x40dd5, always_flags = 0x202;  // those sigreturn may set

// arch/x86/include/uapi/asm/sigcontext.h, ucontext.h, kernel side of a signal frame.
struct Context {
  std::uint64_t r8, r9, r10, r11, r12, r13, r14, r15, rdi, rsi, rbp, rbx, rdx, rax, rcx, rsp, rip,
      rflags;
  std::uint16_t cs, gs, fs, ss;
  std::uint64_t error, vector, old_mask, cr2, extended, reserved[8];
};
static_assert(sizeof(Context) == 256);
struct UserContext {
  std::uint64_t flags, link;
  SignalStack stack;
  Context context;
  std::uint64_t mask;
};
struct SignalFrame {
  std::uint64_t restorer;
  UserContext user;
  std::uint8_t info[128];
};
static_assert(sizeof(SignalFrame) == 8 + 304 + 128);

// In the legacy area's bytes for software (struct _fpx_sw_bytes).
struct ExtendedNote {
  std::uint32_t magic, extended_size;
  std::uint64_t states;
  std::uint32_t state_size, padding[7];
};
constexpr std::size_t note_offset = 464, header_offset = 512, mask_offset = 28;
constexpr std::uint32_t first_magic = 0x46505853, second_magic = 0x46505845;

std::uint64_t bit_of(unsigned number) { return 1ULL << (number - 1); }
std::uint64_t unblockable() { return bit_of(signal_kill) | bit_of(signal_stop); }

std::size_t extended_bytes() { return cpu::identify(0xd).b; }

SignalStack stack_now(const Thread& thread, std::uint64_t pointer) {
  SignalStack out = thread.stack;
  bool on = out.size != 0 && pointer > out.address && pointer - out.address <= out.size;
  out.flags = out.size == 0 ? signal_stack_disabled : on ? 1U : 0U;
  return out;
}

// The program's stack gets the frame, and its handler runs. False: there is no room on the stack.
bool enter_handler(Thread& thread, TrapFrame& frame, unsigned number, const void* info,
                   std::uint64_t cr2) {
  Process& process = *thread.process;
  SignalAction& action = process.actions[number];
  AddressSpace& space = *process.space;
  if (action.handler >= HOBBES_PROGRAM_HIGH) return false;
  SignalStack now = stack_now(thread, frame.rsp);
  std::uint64_t top = frame.rsp - red_zone;
  if ((action.flags & flag_on_stack) != 0 && now.flags == 0) top = now.address + now.size;

  const std::size_t bytes = extended_bytes();
  const std::uint64_t extended = (top - bytes - sizeof second_magic) & ~63ULL;
  const std::uint64_t at = ((extended - sizeof(SignalFrame)) & ~15ULL) - 8;
  save_context(thread);
  auto* image = static_cast<std::uint8_t*>(thread.extended());
  ExtendedNote note{first_magic,
                    static_cast<std::uint32_t>(bytes + sizeof second_magic),
                    cpu::read_xcr0(),
                    static_cast<std::uint32_t>(bytes),
                    {}};
  __builtin_memcpy(image + note_offset, &note, sizeof note);

  SignalFrame out{};
  out.restorer = (action.flags & flag_restorer) != 0 ? action.restorer : 0;
  out.user.flags = 7;  // extended state, strict stack segment
  out.user.stack = now;
  out.user.mask = thread.mask;
  Context& c = out.user.context;
  c = {frame.r8,    frame.r9,     frame.r10,    frame.r11,
       frame.r12,   frame.r13,    frame.r14,    frame.r15,
       frame.rdi,   frame.rsi,    frame.rbp,    frame.rbx,
       frame.rdx,   frame.rax,    frame.rcx,    frame.rsp,
       frame.rip,   frame.rflags, program_code, 0,
       0,           program_data, frame.error,  frame.vector < 32 ? frame.vector : 0,
       thread.mask, cr2,          extended,     {}};
  __builtin_memcpy(out.info, info, sizeof out.info);
  if (!space.write(extended, image, bytes) ||
      !space.write(extended + bytes, &second_magic, sizeof second_magic) ||
      !space.write(at, &out, sizeof out))
    return false;

  thread.mask |= action.mask;
  if ((action.flags & flag_no_defer) == 0) thread.mask |= bit_of(number);
  thread.mask &= ~unblockable();
  frame.rdi = number;
  frame.rsi = at + __builtin_offsetof(SignalFrame, info);
  frame.rdx = at + __builtin_offsetof(SignalFrame, user);
  frame.rax = 0;
  frame.rsp = at;
  frame.rip = action.handler;
  frame.rflags = (frame.rflags & ~0x500ULL) | always_flags;  // no direction, no single step
  if ((action.flags & flag_reset) != 0) action.handler = signal_default;
  return true;
}

// Calls that a handler always interrupts (signal(7)).
bool never_restarts(std::int64_t number) {
  static constexpr std::int64_t numbers[] = {
      __NR_poll,          __NR_select,       __NR_pause,
      __NR_nanosleep,     __NR_semop,        __NR_semtimedop,
      __NR_msgsnd,        __NR_msgrcv,       __NR_rt_sigtimedwait,
      __NR_rt_sigsuspend, __NR_io_getevents, __NR_clock_nanosleep,
      __NR_epoll_wait,    __NR_epoll_pwait,  __NR_epoll_pwait2,
      __NR_pselect6,      __NR_ppoll};
  for (std::int64_t one : numbers)
    if (one == number) return true;
  return false;
}

std::int64_t after_return(Thread& thread, TrapFrame&, std::int64_t) {
  return static_cast<std::int64_t>(thread.saved[0]);
}

}  // namespace

void kill_process(Thread& thread, TrapFrame& frame, unsigned number) {
  report_time(*thread.process);
  (void)begin_stop(*thread.process, thread);
  (void)ask(thread, HOBBES_FORWARD_DIE, {number}, as_answered);
  leave_thread(frame);
}

bool signals_wait(const Thread& thread) {
  return __atomic_load_n(&thread.call->caught, __ATOMIC_ACQUIRE) != thread.call->delivered;
}

void deliver_signals(Thread& thread, TrapFrame& frame) {
  hobbes_call& call = *thread.call;
  auto call_again = [&] {
    frame.rax = static_cast<std::uint64_t>(thread.call_number);
    frame.rip -= 2;  // the system call's instruction
  };
  if (thread.call_number >= 0 && frame.rax == static_cast<std::uint64_t>(HOBBES_CALL_NOT_BEGUN))
    call_again();
  while (signals_wait(thread)) {
    hobbes_call_signal signal = call.signal[call.delivered % HOBBES_CALL_SIGNALS];
    __atomic_store_n(&call.delivered, call.delivered + 1, __ATOMIC_RELEASE);
    unsigned number = signal.number;
    if (number == 0 || number > signal_count) continue;
    const SignalAction& action = thread.process->actions[number];
    if (action.handler <= signal_ignored) continue;  // meanwhile it is not caught any more
    if (thread.call_number >= 0 && frame.rax == static_cast<std::uint64_t>(-EINTR) &&
        (action.flags & flag_restart) != 0 && !never_restarts(thread.call_number))
      call_again();
    thread.call_number = -1;
    if (!enter_handler(thread, frame, number, signal.info, 0)) kill_process(thread, frame, 11);
  }
}

void raise_fault(Thread& thread, TrapFrame& frame, int number, int code, std::uint64_t address) {
  const auto signal = static_cast<unsigned>(number);
  const SignalAction& action = thread.process->actions[signal];
  thread.call_number = -1;
  if (action.handler <= signal_ignored || (thread.mask & bit_of(signal)) != 0)
    return kill_process(thread, frame, signal);
  struct {
    std::int32_t number, error, code, pad;
    std::uint64_t address;
    std::uint8_t rest[104];
  } info{number, 0, code, 0, address, {}};
  static_assert(sizeof info == 128);
  if (!enter_handler(thread, frame, signal, &info, address)) kill_process(thread, frame, signal);
}

std::int64_t signal_action(Thread& thread, TrapFrame& frame) {
  Process& process = *thread.process;
  const std::uint64_t number = frame.rdi;
  if (frame.r10 != 8 || number == 0 || number > signal_count) return -EINVAL;
  SignalAction& action = process.actions[number];
  SignalAction wanted{}, old = action;
  if (frame.rsi != 0) {
    if (number == signal_kill || number == signal_stop) return -EINVAL;
    if (!process.space->read(&wanted, frame.rsi, sizeof wanted)) return -EFAULT;
    wanted.mask &= ~unblockable();
  }
  if (frame.rdx != 0 && !process.space->write(frame.rdx, &old, sizeof old)) return -EFAULT;
  if (frame.rsi == 0) return 0;
  action = wanted;
  std::uint64_t kind = wanted.handler <= signal_ignored ? wanted.handler : 2;
  std::uint64_t kind_before = old.handler <= signal_ignored ? old.handler : 2;
  if (kind == kind_before && (kind != 2 || (wanted.flags == old.flags && wanted.mask == old.mask)))
    return 0;
  return ask(thread, HOBBES_FORWARD_SIGNAL_ACTION, {number, kind, wanted.flags, wanted.mask},
             as_answered);
}

std::int64_t signal_mask(Thread& thread, TrapFrame& frame) {
  AddressSpace& space = *thread.process->space;
  if (frame.r10 != 8) return -EINVAL;
  std::uint64_t old = thread.mask, set = 0;
  if (frame.rsi != 0 && !space.read(&set, frame.rsi, sizeof set)) return -EFAULT;
  if (frame.rdx != 0 && !space.write(frame.rdx, &old, sizeof old)) return -EFAULT;
  if (frame.rsi == 0) return 0;
  std::uint64_t mask;
  switch (static_cast<std::uint32_t>(frame.rdi)) {
    case 0:
      mask = old | set;
      break;
    case 1:
      mask = old & ~set;
      break;
    case 2:
      mask = set;
      break;
    default:
      return -EINVAL;
  }
  mask &= ~unblockable();
  if (mask == old) return 0;
  thread.mask = mask;
  // Linux holds back what is blocked, so it must know.
  return ask(thread, __NR_rt_sigprocmask | HOBBES_FORWARD_ALWAYS, {frame.rdi, frame.rsi, 0, 8},
             as_answered);
}

std::int64_t signal_stack(Thread& thread, TrapFrame& frame) {
  AddressSpace& space = *thread.process->space;
  SignalStack old = stack_now(thread, frame.rsp), wanted{};
  if (frame.rdi != 0) {
    if (!space.read(&wanted, frame.rdi, sizeof wanted)) return -EFAULT;
    if (old.flags == 1) return -EPERM;
    if ((wanted.flags & ~(signal_stack_disabled | 1U)) != 0) return -EINVAL;
    if ((wanted.flags & signal_stack_disabled) != 0)
      wanted = {0, signal_stack_disabled, 0, 0};
    else if (wanted.size < minimal_stack)
      return -ENOMEM;
    thread.stack = wanted;
  }
  if (frame.rsi != 0 && !space.write(frame.rsi, &old, sizeof old)) return -EFAULT;
  return 0;
}

std::int64_t signal_return(Thread& thread, TrapFrame& frame) {
  AddressSpace& space = *thread.process->space;
  const std::uint64_t at = frame.rsp - 8;
  SignalFrame in;
  if (!space.read(&in, at, sizeof in)) {
    raise_fault(thread, frame, 11, 1, at);
    return static_cast<std::int64_t>(frame.rax);
  }
  const Context& c = in.user.context;
  if (c.extended != 0) {
    const std::size_t bytes = extended_bytes();
    auto* image = static_cast<std::uint8_t*>(thread.extended());
    if (!space.read(image, c.extended, bytes)) {
      raise_fault(thread, frame, 11, 1, c.extended);
      return static_cast<std::int64_t>(frame.rax);
    }
    // What the processor would refuse is cut off: the program may have written anything there.
    std::uint64_t states;
    __builtin_memcpy(&states, image + header_offset, sizeof states);
    ExtendedNote note;
    __builtin_memcpy(&note, image + note_offset, sizeof note);
    states = note.magic == first_magic ? states & cpu::read_xcr0() : 3;
    __builtin_memset(image + header_offset, 0, 64);
    __builtin_memcpy(image + header_offset, &states, sizeof states);
    std::uint32_t control, mask = 0xffff;
    __builtin_memcpy(&control, image + 24, sizeof control);
    control &= mask;
    __builtin_memcpy(image + 24, &control, sizeof control);
    __builtin_memset(image + mask_offset, 0, 4);
    cpu::restore_extended(image, cpu::read_xcr0());
  }
  auto usable = [](std::uint64_t address) { return address < HOBBES_PROGRAM_HIGH; };
  frame.r8 = c.r8;
  frame.r9 = c.r9;
  frame.r10 = c.r10;
  frame.r11 = c.r11;
  frame.r12 = c.r12;
  frame.r13 = c.r13;
  frame.r14 = c.r14;
  frame.r15 = c.r15;
  frame.rdi = c.rdi;
  frame.rsi = c.rsi;
  frame.rbp = c.rbp;
  frame.rbx = c.rbx;
  frame.rdx = c.rdx;
  frame.rcx = c.rcx;
  frame.rsp = c.rsp;
  frame.rip = usable(c.rip) ? c.rip : 0;
  frame.rflags = (c.rflags & program_flags) | always_flags;
  thread.call_number = -1;
  if ((in.user.stack.flags & signal_stack_disabled) == 0) thread.stack = in.user.stack;
  std::uint64_t mask = in.user.mask & ~unblockable();
  if (mask == thread.mask) return static_cast<std::int64_t>(c.rax);
  thread.mask = mask;
  thread.saved[0] = c.rax;
  return ask(thread, __NR_rt_sigprocmask | HOBBES_FORWARD_ALWAYS,
             {2, at + __builtin_offsetof(SignalFrame, user.mask), 0, 8}, after_return);
}

}  // namespace kitten
