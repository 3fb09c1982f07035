#include "enclave/drivers/linux/group.h"

#include <unistd.h>

#include "ipc/client.h"

namespace hobbes {

Result<EnclaveGroup> EnclaveGroup::of(const EnclaveRecord& record) {
  HOBBES_TRY(layout, CgroupLayout::detect());
  return EnclaveGroup(Cgroup(std::move(layout), record.cgroup), record.handle,
                      record.cgroup_delegated);
}

Result<void> EnclaveGroup::create(const oci::Resources& resources) const {
  if (delegated_) return {};
  HOBBES_CHECK(cgroup_.create());
  return cgroup_.apply(resources);
}

Result<void> EnclaveGroup::apply(const oci::Resources& resources) const {
  if (!delegated_) return cgroup_.apply(resources);
  return Error{Code::unsupported, "change the limits of control group " + cgroup_.path(),
               "it is delegated by hobbesd and limited by its lease",
               "use `hobbes-run update --cores` or `--memory-size`"};
}

Result<void> EnclaveGroup::enter(pid_t pid) const {
  if (!delegated_) return cgroup_.enter(pid);
  HOBBES_TRY(process, ProcessId::of(pid));
  HOBBES_TRY(client, Client::connect(false));
  HOBBES_TRY(entered, client.call("enclave.enter", {{"handle", handle_},
                                                    {"pid", process.pid},
                                                    {"startTicks", process.start_ticks}}));
  (void)entered;
  return {};
}

Result<void> EnclaveGroup::freeze(bool frozen) const {
  if (!delegated_) return cgroup_.freeze(frozen);
  HOBBES_TRY(client, Client::connect(false));
  for (int tries = 0; tries < 200; ++tries) {
    HOBBES_TRY(done, client.call("enclave.freeze", {{"handle", handle_}, {"frozen", frozen}}));
    (void)done;
    if (cgroup_.frozen() == frozen) return {};
    ::usleep(10'000);
  }
  return Error{Code::timeout,
               (frozen ? "freeze control group " : "thaw control group ") + cgroup_.path(),
               "the kernel did not finish within 2 s", "try again"};
}

Result<void> EnclaveGroup::destroy(std::chrono::milliseconds deadline) const {
  if (!cgroup_.exists()) return {};
  if (delegated_ && frozen()) (void)freeze(false);
  HOBBES_CHECK(cgroup_.kill_all(deadline));
  return delegated_ ? Result<void>() : cgroup_.remove(deadline);
}

}  // namespace hobbes
