// The instructions that have no C++.
#pragma once
#include <cstdint>

namespace kitten::cpu {

constexpr std::uint32_t msr_apic_base = 0x1b, msr_efer = 0xc0000080, msr_gs_base = 0xc0000101,
                        msr_x2apic = 0x800, msr_fs_base = 0xc0000100,
                        msr_kernel_gs_base = 0xc0000102, msr_star = 0xc0000081,
                        msr_lstar = 0xc0000082, msr_sfmask = 0xc0000084;
constexpr std::uint64_t cr0_write_protect = 1ULL << 16U;
constexpr std::uint64_t cr0_monitor = 2, cr0_emulate = 4, cr0_task_switched = 8,
                        cr0_numeric_error = 0x20;
constexpr std::uint64_t cr4_fxsr = 1ULL << 9U, cr4_simd = 1ULL << 10U, cr4_fsgsbase = 1ULL << 16U,
                        cr4_xsave = 1ULL << 18U;

inline std::uint64_t read_msr(std::uint32_t number) {
  std::uint32_t low, high;
  asm volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(number));
  return static_cast<std::uint64_t>(high) << 32U | low;
}
inline void write_msr(std::uint32_t number, std::uint64_t value) {
  asm volatile("wrmsr"
               :
               : "c"(number), "a"(static_cast<std::uint32_t>(value)),
                 "d"(static_cast<std::uint32_t>(value >> 32U))
               : "memory");
}
inline std::uint64_t time_stamp() {
  std::uint32_t low, high;
  asm volatile("rdtsc" : "=a"(low), "=d"(high));
  return static_cast<std::uint64_t>(high) << 32U | low;
}
inline std::uint64_t read_cr0() {
  std::uint64_t value;
  asm volatile("mov %%cr0, %0" : "=r"(value));
  return value;
}
inline void write_cr0(std::uint64_t value) {
  asm volatile("mov %0, %%cr0" : : "r"(value) : "memory");
}
inline std::uint64_t read_cr4() {
  std::uint64_t value;
  asm volatile("mov %%cr4, %0" : "=r"(value));
  return value;
}
inline void write_cr4(std::uint64_t value) {
  asm volatile("mov %0, %%cr4" : : "r"(value) : "memory");
}
inline std::uint64_t read_xcr0() {
  std::uint32_t low, high;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return static_cast<std::uint64_t>(high) << 32U | low;
}
inline void write_xcr0(std::uint64_t value) {
  asm volatile("xsetbv"
               :
               : "c"(0), "a"(static_cast<std::uint32_t>(value)),
                 "d"(static_cast<std::uint32_t>(value >> 32U)));
}
/// The extended state of the program, to and from an area aligned to 64 bytes.
inline void save_extended(void* area, std::uint64_t states) {
  asm volatile("xsave64 (%0)"
               :
               : "r"(area), "a"(static_cast<std::uint32_t>(states)),
                 "d"(static_cast<std::uint32_t>(states >> 32U))
               : "memory");
}
inline void restore_extended(const void* area, std::uint64_t states) {
  asm volatile("xrstor64 (%0)"
               :
               : "r"(area), "a"(static_cast<std::uint32_t>(states)),
                 "d"(static_cast<std::uint32_t>(states >> 32U))
               : "memory");
}
inline std::uint64_t read_cr2() {
  std::uint64_t value;
  asm volatile("mov %%cr2, %0" : "=r"(value));
  return value;
}
inline std::uint64_t read_cr3() {
  std::uint64_t value;
  asm volatile("mov %%cr3, %0" : "=r"(value) : : "memory");
  return value;
}
inline void write_cr3(std::uint64_t value) {
  asm volatile("mov %0, %%cr3" : : "r"(value) : "memory");
}
inline std::uint64_t read_flags() {
  std::uint64_t value;
  asm volatile("pushfq; pop %0" : "=r"(value));
  return value;
}
inline void invalidate_page(std::uint64_t address) {
  asm volatile("invlpg (%0)" : : "r"(address) : "memory");
}
inline void interrupts_off() { asm volatile("cli" : : : "memory"); }
inline void interrupts_on() { asm volatile("sti" : : : "memory"); }
/// Sleeps until an interrupt; none is lost between the decision to sleep and the sleep. Interrupts
/// are off before and after.
inline void sleep() { asm volatile("sti; hlt; cli" : : : "memory"); }
inline void relax() { asm volatile("pause"); }
inline void out8(std::uint16_t port, std::uint8_t value) {
  asm volatile("outb %0, %1" : : "a"(value), "Nd"(port));
}
inline std::uint8_t in8(std::uint16_t port) {
  std::uint8_t value;
  asm volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
  return value;
}
[[noreturn]] inline void stop() {
  for (;;) asm volatile("cli; hlt" : : : "memory");
}
struct Leaf {
  std::uint32_t a, b, c, d;
};
inline Leaf identify(std::uint32_t leaf, std::uint32_t sub = 0) {
  Leaf out{};
  asm volatile("cpuid" : "=a"(out.a), "=b"(out.b), "=c"(out.c), "=d"(out.d) : "a"(leaf), "c"(sub));
  return out;
}

/// Interrupts are off while it lives.
class Quiet {
 public:
  Quiet() : were_on_((read_flags() & 0x200U) != 0) { interrupts_off(); }
  ~Quiet() {
    if (were_on_) interrupts_on();
  }
  Quiet(const Quiet&) = delete;
  Quiet& operator=(const Quiet&) = delete;

 private:
  bool were_on_;
};

}  // namespace kitten::cpu
