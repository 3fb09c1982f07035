#include "enclave/drivers/kitten/cokernel.h"

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstdio>

#include "abi/nis.h"
#include "core/size.h"

namespace hobbes {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr milliseconds boot_limit(20'000), core_limit(5'000);
constexpr int nmi_after_seconds = kitten_deadline_seconds / 2;

void* at(const Mapping& memory, std::uint64_t offset) {
  return static_cast<char*>(memory.base()) + offset;
}

// A fixed field that the kernel should have terminated.
template <std::size_t n>
std::string text_of(const char (&field)[n]) {
  std::string out(field, ::strnlen(field, n));
  for (char& c : out)
    if (static_cast<unsigned char>(c) < 0x20 || static_cast<unsigned char>(c) > 0x7e) c = '?';
  return out;
}

}  // namespace

Result<Cokernel> Cokernel::attach(ModuleEnclave module, KittenPlan plan,
                                  std::function<void(const std::string&)> print) {
  Cokernel out(std::move(module), std::move(plan), std::move(print));
  HOBBES_TRY(shared, out.module_.map(out.plan_.extents.front().address,
                                     HOBBES_REPLY_OFFSET + HOBBES_RING_BYTES));
  out.shared_ = std::move(shared);
  out.console_ = Ring(at(out.shared_, HOBBES_CONSOLE_OFFSET), HOBBES_RING_BYTES);
  out.requests_ = Ring(at(out.shared_, HOBBES_REQUEST_OFFSET), HOBBES_RING_BYTES);
  out.replies_ = Ring(at(out.shared_, HOBBES_REPLY_OFFSET), HOBBES_RING_BYTES);
  HOBBES_TRY(doorbell, EventFd::make("make a doorbell"));
  out.doorbell_ = std::move(doorbell);
  int here = ::sched_getcpu();
  HOBBES_CHECK(
      out.module_.attach_doorbell(out.doorbell_.get(), here < 0 ? 0 : static_cast<unsigned>(here)));
  return out;
}

std::uint32_t Cokernel::state() const { return __atomic_load_n(&status().state, __ATOMIC_ACQUIRE); }
bool Cokernel::shut_down() const { return state() == HOBBES_KITTEN_HALTED; }

// A lost ring must not matter, so nobody waits for one longer than this.
void Cokernel::wait(milliseconds limit) {
  pollfd rung{doorbell_.get(), POLLIN, 0};
  (void)::poll(&rung, 1, static_cast<int>(std::min(limit, milliseconds(20)).count()));
  drain();
}

void Cokernel::drain() {
  doorbell_.drain();
  std::string text(4096, '\0');
  for (int i = 0; i < 32;
       ++i) {  // as much as one ring holds; a kernel that writes for ever does not keep us here
    std::uint64_t lost = 0;
    std::size_t size = console_.read(text.data(), text.size(), &lost);
    if (lost > 0) print_("[" + std::to_string(lost) + " bytes of console output lost]\n");
    if (size == 0) break;
    print_(text.substr(0, size));
  }
}

void Cokernel::ring() { (void)module_.signal(plan_.cores.front().cpu, HOBBES_KITTEN_DOORBELL); }

std::string Cokernel::death() const {
  if (auto found = module_.state(); found && found->reason == HOBBES_KMOD_STORM)
    return "Linux stopped it: it rang the doorbell in a storm (" + std::to_string(found->rings) +
           " rings)";
  switch (state()) {
    case HOBBES_KITTEN_HALTED:
      return "it has shut down";
    case HOBBES_KITTEN_FAULTED: {
      std::string why = text_of(status().fault.text);
      if (!why.empty()) return why;
      // Before its own tables it cannot write text.
      char early[120];
      std::snprintf(early, sizeof early,
                    "exception %u early in its boot, at 0x%llx, error 0x%llx, address 0x%llx",
                    status().fault.vector, static_cast<unsigned long long>(status().fault.rip),
                    static_cast<unsigned long long>(status().fault.error),
                    static_cast<unsigned long long>(status().fault.cr2));
      return early;
    }
    default:
      return {};
  }
}

Result<void> Cokernel::await(const std::function<bool()>& condition, milliseconds deadline,
                             const std::string& attempt) {
  auto limit = Clock::now() + deadline;
  while (!condition()) {
    wait(milliseconds(20));
    if (std::string why = death(); !why.empty())
      return Error{Code::os, attempt, why, "see its console"};
    if (Clock::now() > limit)
      return Error{Code::timeout, attempt,
                   "no answer within 20 s; it got to state " + std::to_string(state()),
                   "see its console"};
  }
  return {};
}

Result<void> Cokernel::start_core(const TakenCore& core, unsigned number) {
  std::uint32_t before = __atomic_load_n(&status().cores_up, __ATOMIC_ACQUIRE);
  const Extent& base = plan_.extents.front();
  HOBBES_CHECK(
      module_.boot(core.cpu, base, plan_.entry, base.address + HOBBES_BOOT_OFFSET, number));
  return await([&] { return __atomic_load_n(&status().cores_up, __ATOMIC_ACQUIRE) > before; },
               number == 0 ? boot_limit : core_limit,
               "start core " + std::to_string(number) + " of the co-kernel on CPU " +
                   std::to_string(core.cpu));
}

Result<void> Cokernel::boot() {
  HOBBES_CHECK(start_core(plan_.cores.front(), 0));
  HOBBES_CHECK(
      await([&] { return state() == HOBBES_KITTEN_RUNNING; }, boot_limit, "boot the co-kernel"));
  std::vector<TakenCore> others(plan_.cores.begin() + 1, plan_.cores.end());
  plan_.cores.resize(1);
  for (const TakenCore& core : others) HOBBES_CHECK(add_core(core));
  return {};
}

Result<std::string> Cokernel::call(unsigned operation, const std::string& payload,
                                   milliseconds deadline) {
  std::string attempt = "ask the co-kernel (operation " + std::to_string(operation) + ")";
  if (std::string why = death(); !why.empty())
    return Error{Code::busy, attempt, why, "see its console"};
  hobbes_kitten_message message{next_number_++, static_cast<std::uint16_t>(operation), 0};
  std::string request = bytes_of(message) + payload;
  auto limit = Clock::now() + deadline;
  for (;;) {
    Ring::Status put = requests_.put(request.data(), request.size());
    if (put == Ring::Status::good) break;
    if (put == Ring::Status::corrupt)
      return Error{Code::corrupt, attempt, "the request ring holds garbage", "delete the enclave"};
    if (request.size() > requests_.largest())
      return Error{Code::invalid, attempt, "the request is too long", ""};
    if (Clock::now() > limit)
      return Error{Code::timeout, attempt, "its request ring is full", "see its console"};
    wait(milliseconds(5));
  }
  ring();
  std::string reply(replies_.largest(), '\0');
  for (;;) {
    if (Clock::now() > limit)
      return Error{Code::timeout, attempt, "no answer in time", "see its console"};
    std::size_t size = 0;
    Ring::Status got = replies_.take(reply.data(), reply.size(), &size);
    if (got == Ring::Status::corrupt) {
      replies_.reset();
      return Error{Code::corrupt, attempt, "the reply ring held garbage and was emptied",
                   "see its console"};
    }
    if (got == Ring::Status::good) {
      hobbes_kitten_message answer{};
      if (size < sizeof answer) continue;
      std::memcpy(&answer, reply.data(), sizeof answer);
      if (answer.number != message.number) continue;  // to a question nobody waits for any more
      std::string rest = reply.substr(sizeof answer, size - sizeof answer);
      if (answer.error == 0) return rest;
      Error error = os_error(attempt, answer.error, "see its console");
      if (operation == HOBBES_KITTEN_REMOVE_MEMORY && !rest.empty()) error.cause = rest;
      return error;
    }
    if (std::string why = death(); !why.empty())
      return Error{Code::busy, attempt, why, "see its console"};
    wait(milliseconds(20));
  }
}

std::optional<std::string> Cokernel::check_heartbeat() {
  std::uint64_t beat = __atomic_load_n(&status().heartbeat, __ATOMIC_RELAXED);
  if (beat != last_beat_) {
    last_beat_ = beat;
    silent_seconds_ = 0;
    ring();  // an idle kernel beats when it is asked
    return std::nullopt;
  }
  ++silent_seconds_;
  if (silent_seconds_ < nmi_after_seconds) {
    ring();
  } else if (silent_seconds_ == nmi_after_seconds) {
    probes_before_ = __atomic_load_n(&status().probes, __ATOMIC_ACQUIRE);
    (void)module_.signal(plan_.cores.front().cpu, 0);
  }
  if (silent_seconds_ < kitten_deadline_seconds) return std::nullopt;
  std::string out = "no heartbeat for " + std::to_string(silent_seconds_) + " s";
  if (__atomic_load_n(&status().probes, __ATOMIC_ACQUIRE) != probes_before_)
    out += "; " + text_of(status().nmi.text);
  else
    out += ", and no answer to an NMI";
  return out;
}

Result<hobbes_kitten_facts> Cokernel::query() {
  HOBBES_TRY(reply, call(HOBBES_KITTEN_QUERY, {}));
  hobbes_kitten_facts facts{};
  if (reply.size() != sizeof facts)
    return Error{Code::corrupt, "ask the co-kernel about itself", "its answer has a wrong size",
                 ""};
  std::memcpy(&facts, reply.data(), sizeof facts);
  return facts;
}

Result<void> Cokernel::add_core(const TakenCore& core) {
  hobbes_boot_core wanted{core.apic_id, core.cpu};
  HOBBES_TRY(reply, call(HOBBES_KITTEN_ADD_CORE, bytes_of(wanted)));
  std::uint32_t number = 0;
  if (reply.size() != sizeof number)
    return Error{Code::corrupt, "add a core to the co-kernel", "its answer has a wrong size", ""};
  std::memcpy(&number, reply.data(), sizeof number);
  if (number == 0 || number >= HOBBES_KITTEN_CORES)
    return Error{Code::corrupt, "add a core to the co-kernel", "its answer makes no sense", ""};
  HOBBES_CHECK(start_core(core, number));
  plan_.cores.push_back(core);
  return {};
}

Result<void> Cokernel::remove_core(unsigned cpu) {
  for (std::size_t i = 0; i < plan_.cores.size(); ++i) {
    if (plan_.cores[i].cpu != cpu) continue;
    if (i == 0)
      return Error{Code::busy, "remove CPU " + std::to_string(cpu),
                   "it is the co-kernel's first core, which serves commands", "keep it"};
    auto left = call(HOBBES_KITTEN_REMOVE_CORE, bytes_of(plan_.cores[i].apic_id));
    if (!left && left.error().code == Code::busy)
      left.error().cause = "CPU " + std::to_string(cpu) + " is at work";
    if (!left) return std::move(left).error();
    plan_.cores.erase(plan_.cores.begin() + static_cast<std::ptrdiff_t>(i));
    return module_.return_core(cpu);
  }
  return Error{Code::not_found, "remove CPU " + std::to_string(cpu),
               "the co-kernel does not have it", "see `hobbes topology`"};
}

Result<void> Cokernel::add_memory(const Extent& extent) {
  hobbes_boot_extent wanted{extent.address, extent.size, extent.slot, extent.node};
  HOBBES_TRY(reply, call(HOBBES_KITTEN_ADD_MEMORY, bytes_of(wanted)));
  (void)reply;
  plan_.extents.push_back(extent);
  return {};
}

Result<void> Cokernel::remove_memory(unsigned slot) {
  for (std::size_t i = 1; i < plan_.extents.size(); ++i) {
    if (plan_.extents[i].slot != slot) continue;
    HOBBES_TRY(reply,
               call(HOBBES_KITTEN_REMOVE_MEMORY, bytes_of(static_cast<std::uint32_t>(slot))));
    (void)reply;
    plan_.extents.erase(plan_.extents.begin() + static_cast<std::ptrdiff_t>(i));
    return module_.return_extent(slot);
  }
  return Error{Code::not_found, "remove extent " + std::to_string(slot),
               "the co-kernel does not have it, or lives in it", ""};
}

Result<void> Cokernel::show_mirror(const std::string& path) {
  Fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  struct stat info {};
  if (!fd || ::fstat(fd.get(), &info) != 0)
    return os_error("open the mirror " + path, errno, "is hobbesd running?");
  auto size = static_cast<std::size_t>(info.st_size) & ~static_cast<std::size_t>(4095);
  // The same file and size, and all of it shown: nothing to do. A replaced one is another inode.
  if (size == 0 || (mirror_slot_ && size == mirror_.size() && info.st_ino == mirror_inode_))
    return {};
  void* base = ::mmap(nullptr, size, PROT_READ, MAP_SHARED, fd.get(), 0);
  if (base == MAP_FAILED) return os_error("map the mirror " + path, errno);
  Mapping fresh(base, size);
  if (mirror_slot_) {
    HOBBES_CHECK(hide(*mirror_slot_));
    mirror_slot_.reset();
  }
  HOBBES_TRY(slot, show(HOBBES_WINDOW_NIS, fresh));
  mirror_ = std::move(fresh);
  mirror_slot_ = slot;
  mirror_inode_ = info.st_ino;
  return {};
}

Result<unsigned> Cokernel::show(unsigned window, const Mapping& memory) {
  unsigned slot = 0;
  HOBBES_TRY(runs, module_.pin(memory.base(), memory.size(), false, &slot));
  std::uint64_t offset = 0;
  constexpr std::size_t runs_at_once = 1024;
  for (std::size_t i = 0; i < runs.size(); i += runs_at_once) {
    hobbes_kitten_map map{slot, static_cast<std::uint16_t>(window), 0, offset, memory.size()};
    std::string payload = bytes_of(map);
    for (std::size_t j = i; j < std::min(runs.size(), i + runs_at_once); ++j) {
      payload += bytes_of(runs[j]);
      offset += runs[j].size;
    }
    if (auto mapped = call(HOBBES_KITTEN_MAP, payload); !mapped) {
      (void)hide(slot);
      return std::move(mapped).error();
    }
  }
  return slot;
}

Result<void> Cokernel::hide(unsigned slot) {
  HOBBES_CHECK(call(HOBBES_KITTEN_UNMAP, bytes_of(static_cast<std::uint32_t>(slot))));
  return module_.unpin(slot);
}

Json Cokernel::statistics() const {
  const hobbes_status& page = status();
  Json out = {{"state", state()},
              {"heartbeat", page.heartbeat},
              {"cores", page.cores_up},
              {"rings", page.rings},
              {"unknownInterrupts", page.unknown},
              {"probes", page.probes},
              {"memory", page.memory},
              {"memoryFree", page.memory_free},
              {"interrupts", Json::array()},
              {"processes", page.processes},
              {"forwardedCalls", page.forwarded},
              {"proxiesWoken", page.proxies_woken},
              {"pageFaults", page.page_faults}};
  for (std::size_t i = 0; i < plan_.cores.size(); ++i)
    out["interrupts"].push_back(page.interrupts[i]);
  if (auto found = module_.state()) out["ringsToLinux"] = found->rings;
  return out;
}

Result<std::map<unsigned, std::uint64_t>> Cokernel::forwarded_calls() {
  HOBBES_TRY(reply, call(HOBBES_KITTEN_CALLS, {}));
  std::map<unsigned, std::uint64_t> out;
  hobbes_kitten_calls one{};
  for (std::size_t at = 0; at + sizeof one <= reply.size(); at += sizeof one) {
    std::memcpy(&one, reply.data() + at, sizeof one);
    out[static_cast<unsigned>(one.number)] = one.count;
  }
  return out;
}

}  // namespace hobbes
