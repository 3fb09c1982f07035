#include "remora/stacks.h"

#include <cxxabi.h>
#include <elfutils/libdwfl.h>

#include <cerrno>
#include <cstdlib>
#include <memory>

namespace hobbes {
namespace {

std::string readable(const char* symbol) {
  if (symbol == nullptr) return {};
  int status = 0;
  std::unique_ptr<char, decltype(&std::free)> plain(
      abi::__cxa_demangle(symbol, nullptr, nullptr, &status), &std::free);
  return status == 0 && plain ? plain.get() : symbol;
}

int on_frame(Dwfl_Frame* state, void* into) {
  auto* stack = static_cast<Stack*>(into);
  Dwarf_Addr pc = 0;
  bool activation = false;
  if (!dwfl_frame_pc(state, &pc, &activation)) return DWARF_CB_ABORT;
  Dwfl* dwfl = dwfl_thread_dwfl(dwfl_frame_thread(state));
  Dwarf_Addr inside = pc - (activation ? 0 : 1);
  Dwfl_Module* module = dwfl_addrmodule(dwfl, inside);
  stack->frames.push_back(
      {pc, readable(module != nullptr ? dwfl_module_addrname(module, inside) : nullptr)});
  return stack->frames.size() < 64 ? DWARF_CB_OK : DWARF_CB_ABORT;
}

int on_thread(Dwfl_Thread* thread, void* into) {
  auto* all = static_cast<std::vector<Stack>*>(into);
  Stack stack;
  stack.thread = dwfl_thread_tid(thread);
  (void)dwfl_thread_getframes(thread, on_frame, &stack);
  all->push_back(std::move(stack));
  return DWARF_CB_OK;
}

}  // namespace

Result<std::vector<Stack>> stacks_of(pid_t pid) {
  std::string attempt = "look at the stack of process " + std::to_string(pid);
  static char* no_debug_path = nullptr;
  static const Dwfl_Callbacks callbacks = {dwfl_linux_proc_find_elf, dwfl_standard_find_debuginfo,
                                           nullptr, &no_debug_path};
  std::unique_ptr<Dwfl, decltype(&dwfl_end)> dwfl(dwfl_begin(&callbacks), &dwfl_end);
  if (!dwfl || dwfl_linux_proc_report(dwfl.get(), pid) != 0 ||
      dwfl_report_end(dwfl.get(), nullptr, nullptr) != 0)
    return os_error(attempt, ESRCH);
  if (int error = dwfl_linux_proc_attach(dwfl.get(), pid, false); error != 0)
    return os_error(attempt, error > 0 ? error : EPERM, "run as the same user or root");
  std::vector<Stack> out;
  if (dwfl_getthreads(dwfl.get(), on_thread, &out) != 0 && out.empty())
    return os_error(attempt, EPERM, "run as the same user or root");
  return out;
}

std::optional<std::string> outermost_mpi_call(pid_t pid) {
  auto stacks = stacks_of(pid);
  if (!stacks) return std::nullopt;
  for (const Stack& stack : *stacks) {
    if (stack.thread != pid) continue;
    for (auto frame = stack.frames.rbegin(); frame != stack.frames.rend(); ++frame) {
      std::string symbol = frame->symbol;
      if (symbol.rfind("PMPI_", 0) == 0) symbol.erase(0, 1);
      if (symbol.rfind("MPI_", 0) == 0) return symbol;
    }
  }
  return std::nullopt;
}

}  // namespace hobbes
