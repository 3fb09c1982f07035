// The keeper: a small process that holds the memory of segments without a living owner, so that it
// survives hobbesd.
#pragma once
#include "core/fd.h"
#include "core/process.h"
#include "core/result.h"

namespace hobbes {

/// Where a held descriptor can be found again: in the keeper, through /proc.
struct Held {
  ProcessId keeper;
  int number = -1;
};

/// Hands a descriptor to the keeper, starting it when there is none. Errors: Code::unavailable.
Result<Held> keep(const Fd& memory);
/// Lets a held descriptor go. A keeper that is gone holds nothing.
void let_go(int number);
/// The keeper's main: serves until it holds nothing. Never returns an error worth more than an exit
/// status.
int run_keeper();

}  // namespace hobbes
