#include "enclave/drivers/linux/seccomp_agent.h"

#include "ipc/descriptor.h"

namespace hobbes {

Result<Fd> connect_seccomp_agent(const std::string& path) {
  return connect_receiver(path, "the seccomp agent",
                          "start the agent, or name its socket in linux.seccomp.listenerPath");
}

Result<void> give_seccomp_listener(const Fd& agent, const Fd& listener, const Json& state,
                                   const std::string& metadata) {
  Json process = {{"ociVersion", state["ociVersion"]},
                  {"fds", {"seccompFd"}},
                  {"pid", state["pid"]},
                  {"state", state}};
  if (!metadata.empty()) process["metadata"] = metadata;
  return send_descriptor(agent, to_text(process), listener, "system calls to the seccomp agent");
}

}  // namespace hobbes
