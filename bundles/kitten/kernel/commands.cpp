#include "commands.h"

#include <cerrno>

#include "abi/nis.h"
#include "apic.h"
#include "clock.h"
#include "console.h"
#include "cores.h"
#include "cpu.h"
#include "forward.h"
#include "kernel.h"
#include "memory.h"
#include "nis/view.h"
#include "process.h"
#include "shared.h"
#include "views.h"

extern "C" const kitten::Command commands_start[], commands_end[];

namespace kitten {
namespace {

using hobbes::Ring;

// Linux's frames, by window; of one that is shown in parts, what has come so far.
struct Window {
  std::uint64_t size;  // mapped bytes
  std::uint32_t slot;
} windows[HOBBES_WINDOWS];

void release_slot(std::uint32_t slot) {
  if (slot < HOBBES_KITTEN_SLOTS)
    __atomic_or_fetch(&status().released[slot / 64], 1ULL << (slot % 64), __ATOMIC_ACQ_REL);
}
void occupy_slot(std::uint32_t slot) {
  if (slot < HOBBES_KITTEN_SLOTS)
    __atomic_and_fetch(&status().released[slot / 64], ~(1ULL << (slot % 64)), __ATOMIC_ACQ_REL);
}

int ping(Exchange& exchange) {
  return exchange.put(exchange.payload(), exchange.size()) ? 0 : EMSGSIZE;
}
KITTEN_COMMAND(HOBBES_KITTEN_PING, ping);

int query(Exchange& exchange) {
  hobbes_kitten_facts facts{};
  facts.cores = cores_up();
  facts.extents = frames().extents();
  facts.memory = frames().total();
  facts.memory_free = frames().free();
  facts.uptime_ns = uptime_ns();
  facts.wall_ns = wall_ns();
  for (unsigned i = 0; i + 1 < sizeof facts.name && identity().name[i] != '\0'; ++i)
    facts.name[i] = identity().name[i];
  return exchange.put(&facts, sizeof facts) ? 0 : EMSGSIZE;
}
KITTEN_COMMAND(HOBBES_KITTEN_QUERY, query);

int add_core(Exchange& exchange) {
  hobbes_boot_core wanted;
  if (!exchange.get(&wanted)) return EINVAL;
  int number = expect_core(wanted.apic_id, wanted.cpu);
  if (number < 0) return -number;
  return exchange.put(&number, sizeof number) ? 0 : EMSGSIZE;
}
KITTEN_COMMAND(HOBBES_KITTEN_ADD_CORE, add_core);

int remove_core(Exchange& exchange) {
  std::uint32_t apic_id;
  if (!exchange.get(&apic_id)) return EINVAL;
  return dismiss_core(apic_id);
}
KITTEN_COMMAND(HOBBES_KITTEN_REMOVE_CORE, remove_core);

void tell_memory() {
  status().memory = frames().total();
  status().memory_free = frames().free();
}

int add_extent(Exchange& exchange) {
  hobbes_boot_extent extent;
  if (!exchange.get(&extent) || extent.slot >= HOBBES_KITTEN_SLOTS) return EINVAL;
  if (frames().in_use(extent.slot) != nullptr) return EEXIST;
  occupy_slot(extent.slot);
  int error = add_memory(extent.address, extent.size, extent.slot);
  share_kernel_half();
  if (error != 0) release_slot(extent.slot);
  tell_memory();
  return error;
}
KITTEN_COMMAND(HOBBES_KITTEN_ADD_MEMORY, add_extent);

int remove_extent(Exchange& exchange) {
  std::uint32_t slot;
  if (!exchange.get(&slot)) return EINVAL;
  int error = remove_memory(slot);
  if (error == 0) {
    release_slot(slot);
    tell_memory();
  } else if (const std::uint32_t* used = frames().in_use(slot)) {
    Line line;
    line << "extent " << slot << " stays:";
    for (std::uint8_t use = 1; use < static_cast<std::uint8_t>(Use::kinds); ++use)
      if (used[use] != 0)
        line << " " << used[use] << " frames hold " << name_of(static_cast<Use>(use));
    print(line);
    (void)exchange.put(line.text(), line.size());
  }
  return error;
}
KITTEN_COMMAND(HOBBES_KITTEN_REMOVE_MEMORY, remove_extent);

int map_frames(Exchange& exchange) {
  struct Run {
    std::uint64_t address, size;
  } run;
  hobbes_kitten_map map;
  if (!exchange.get(&map) || map.window < HOBBES_WINDOW_NIS || map.window >= HOBBES_WINDOWS ||
      map.slot >= HOBBES_KITTEN_SLOTS)
    return EINVAL;
  Window& window = windows[map.window];
  if (map.offset != window.size || (window.size != 0 && window.slot != map.slot))
    return ESTALE;  // parts come in order
  window.slot = map.slot;
  occupy_slot(map.slot);
  for (std::size_t at = sizeof map; exchange.get(&run, at); at += sizeof run) {
    if (run.size > map.total || window.size > map.total - run.size) return EINVAL;
    int error = map_window(map.window, window.size, run.address, run.size);
    if (error != 0) return error;
    window.size += run.size;
  }
  share_kernel_half();
  return 0;
}
KITTEN_COMMAND(HOBBES_KITTEN_MAP, map_frames);

int unmap_frames(Exchange& exchange) {
  std::uint32_t slot;
  if (!exchange.get(&slot)) return EINVAL;
  for (unsigned window = 0; window < HOBBES_WINDOWS; ++window) {
    if (windows[window].size == 0 || windows[window].slot != slot) continue;
    int error = unmap_window(window, windows[window].size);
    if (error != 0) return error;
    windows[window].size = 0;
  }
  release_slot(slot);
  return 0;
}
KITTEN_COMMAND(HOBBES_KITTEN_UNMAP, unmap_frames);

int find_self(Exchange& exchange) {
  std::uint64_t size = windows[HOBBES_WINDOW_NIS].size;
  hobbes::NisView view(window_at(HOBBES_WINDOW_NIS), size);
  if (size == 0) return ENOENT;
  if (view.check() != hobbes::NisView::Status::good) return EBADMSG;
  hobbes_record record{};
  switch (view.by_id(identity().enclave, &record)) {
    case hobbes::NisView::Status::good:
      return exchange.put(&record, sizeof record) ? 0 : EMSGSIZE;
    case hobbes::NisView::Status::absent:
      return ENOENT;
    case hobbes::NisView::Status::stale:
      return ESTALE;
    case hobbes::NisView::Status::corrupt:
      break;
  }
  return EBADMSG;
}
KITTEN_COMMAND(HOBBES_KITTEN_FIND, find_self);

int forwarded_calls(Exchange& exchange) {
  for (unsigned number = 0; number < counted_numbers; ++number) {
    const hobbes_kitten_calls one{number, forwarded_by_number()[number]};
    if (one.count != 0 && !exchange.put(&one, sizeof one)) return EMSGSIZE;
  }
  return 0;
}
KITTEN_COMMAND(HOBBES_KITTEN_CALLS, forwarded_calls);

bool ending = false;
Ring requests, replies;

int shut_down(Exchange&) {
  print(Line() << "shutting down");
  ending = true;
  return 0;
}
KITTEN_COMMAND(HOBBES_KITTEN_SHUT_DOWN, shut_down);

int dispatch(std::uint16_t operation, Exchange& exchange) {
  for (const Command* command = commands_start; command != commands_end; ++command)
    if (command->operation == operation) return command->run(exchange);
  return ENOSYS;
}

// One request, if there is one. False: none.
bool serve() {
  static std::uint8_t in[HOBBES_RING_BYTES / 2], out[HOBBES_RING_BYTES / 2];
  std::size_t size = 0;
  Ring::Status got = requests.take(in, sizeof in, &size);
  if (got == Ring::Status::empty) return false;
  hobbes_kitten_message message{};
  if (got != Ring::Status::good || size < sizeof message) {
    print(Line() << "the request ring holds garbage; it is emptied");
    requests.reset();
    return true;
  }
  __builtin_memcpy(&message, in, sizeof message);
  Exchange exchange(in + sizeof message, size - sizeof message, out + sizeof message,
                    replies.largest() - sizeof message);
  message.error = static_cast<std::uint16_t>(dispatch(message.operation, exchange));
  __builtin_memcpy(out, &message, sizeof message);
  if (replies.put(out, sizeof message + exchange.replied()) != Ring::Status::good)
    print(Line() << "a reply found no room and is lost");
  ring_linux();
  return true;
}

}  // namespace

void ring_for_views() {
  std::uint64_t command = __atomic_load_n(&status().doorbell, __ATOMIC_ACQUIRE);
  // The page is shared, so this may be anything: nothing but an ordinary interrupt, to one
  // destination, leaves this kernel.
  constexpr std::uint64_t mode_and_shorthand = 0xc0700, vector = 0xff;
  if (alone != 0 || (command & mode_and_shorthand) != 0 || (command & vector) < 0x20) return;
  apic::send_raw(command);
}

void ring_linux() {
  __atomic_store_n(&view_table().to_control, 1U, __ATOMIC_RELEASE);
  ring_for_views();
}

void begin_commands() {
  requests = Ring(shared_at(HOBBES_REQUEST_OFFSET), HOBBES_RING_BYTES);
  replies = Ring(shared_at(HOBBES_REPLY_OFFSET), HOBBES_RING_BYTES);
  view_table().core = core(0).apic_id;
}

void beat() {
  const ForwardCounts counts = forward_counts();
  status().processes = process_count();
  status().forwarded = counts.calls;
  status().proxies_woken = counts.rings;
  status().page_faults = page_faults();
  status().memory_free = free_memory();
  show_life();
}

void show_life() {
  if (this_core().number != 0) return;
  __atomic_store_n(&status().heartbeat, status().heartbeat + 1, __ATOMIC_RELAXED);
}

bool serve_request_of_linux() {
  if (serve()) return true;
  if (!ending) return false;
  halt_others();
  __atomic_store_n(&status().state, static_cast<std::uint32_t>(HOBBES_KITTEN_HALTED),
                   __ATOMIC_RELEASE);
  ring_linux();
  cpu::stop();
}

}  // namespace kitten
