// Looking at a running process's stack from outside.
#pragma once
#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/result.h"

namespace hobbes {

struct StackFrame {
  std::uint64_t address = 0;
  std::string symbol;  ///< empty when unknown
};

struct Stack {
  pid_t thread = 0;
  std::uint64_t stack_pointer_hint = 0;  ///< differs between two calls of one function
  std::vector<StackFrame> frames;        ///< innermost first
};

/// Stops every thread of a process for the moment it takes to walk its stack (ptrace), then lets it
/// go on. Errors: Code::denied without the right to trace it, Code::not_found.
Result<std::vector<Stack>> stacks_of(pid_t pid);

/// The MPI function that the process's first thread is in, such as "MPI_Recv". Nothing when it is
/// in none, or cannot be looked at.
std::optional<std::string> outermost_mpi_call(pid_t pid);

}  // namespace hobbes
