// Palacios: the monitor of one virtual machine, and the enclave process of kind `palacios`.
// hobbes-run has opened what it needs and has written the plan.
#include <signal.h>

#include <cstdio>

#include "core/file.h"
#include "vmm/monitor.h"

namespace hobbes::vmm {
namespace {

int run(int argc) {
  ::signal(SIGPIPE, SIG_IGN);
  auto words = argc == 1 ? Files::system().read("/proc/self/fd/" + std::to_string(vm_plan), 4 << 20)
                         : Result<std::string>(std::string());
  auto plan = VmPlan::parse(words ? *words : "");
  if (!plan) {
    std::fprintf(stderr, "palacios: %s\n", plan.error().text().c_str());
    return 2;
  }
  auto loop = EventLoop::make();
  if (!loop) crash(*plan, loop.error().text());
  run_monitor(std::move(*plan), std::move(*loop));
}

}  // namespace
}  // namespace hobbes::vmm

int main(int argc, char**) { return hobbes::vmm::run(argc); }
