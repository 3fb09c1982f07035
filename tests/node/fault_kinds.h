// What the test image of Kitten can be asked to do wrong; the payload of its first own command.
#pragma once
#include <cstdint>

namespace hobbes::test {

enum Fault : std::uint32_t {
  explicit_panic,
  wild_jump,
  null_read,
  stack_overflow,
  spin_without_interrupts,
  write_page_table,
  write_interrupt_table,
  write_fault_stack,
  write_own_code,
  execute_data,
  doorbell_storm,
  garbage_in_rings,
  garbage_in_status,
  invalid_instruction,
  divide_by_zero,
  machine_stop,
};

}  // namespace hobbes::test
