// What entry.S leaves on the stack when a core enters the kernel.
#pragma once
#include <cstdint>

namespace kitten {

struct TrapFrame {
  std::uint64_t rax, rbx, rcx, rdx, rsi, rdi, rbp, r8, r9, r10, r11, r12, r13, r14, r15;
  std::uint64_t vector, error;
  std::uint64_t rip, cs, rflags, rsp, ss;

  [[nodiscard]] bool from_program() const { return (cs & 3U) != 0; }
};
static_assert(sizeof(TrapFrame) == 22 * 8);

/// `vector` of a system call; the others are the processor's.
constexpr std::uint64_t vector_system_call = 0x101;

}  // namespace kitten
