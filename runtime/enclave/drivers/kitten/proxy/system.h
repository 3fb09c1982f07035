// Linux's system calls without a library: the proxy shares its process with a program whose memory,
// threads and signals a library would stumble over.
#pragma once
#include <cstddef>
#include <cstdint>

namespace proxy {

inline long call(long number, long a = 0, long b = 0, long c = 0, long d = 0, long e = 0,
                 long f = 0) {
  long out;
  register long r10 asm("r10") = d;
  register long r8 asm("r8") = e;
  register long r9 asm("r9") = f;
  asm volatile("syscall"
               : "=a"(out)
               : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
               : "rcx", "r11", "memory");
  return out;
}

inline long as_long(const void* pointer) { return reinterpret_cast<long>(pointer); }

/// Ends the process with a sentence on its standard error.
[[noreturn]] void fail(const char* what, long error, int status);

}  // namespace proxy
