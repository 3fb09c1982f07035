#include "enclave/drivers/palacios/plan.h"

#include <signal.h>

namespace hobbes {

bool ends_processes(int signal) {
  switch (signal) {
    case SIGSTOP:
    case SIGTSTP:
    case SIGTTIN:
    case SIGTTOU:
    case SIGCONT:
    case SIGCHLD:
    case SIGURG:
    case SIGWINCH:
      return false;
    default:
      return signal > 0 && signal < NSIG;
  }
}

Json VmPlan::json() const {
  Json shared = Json::array();
  for (const Folder& folder : folders)
    shared.push_back({{"descriptor", folder.descriptor},
                      {"tag", folder.tag},
                      {"readOnly", folder.read_only},
                      {"window", folder.window}});
  Json granted = Json::array();
  for (const SegmentGrant& grant : segments)
    granted.push_back({{"pattern", grant.pattern},
                       {"composition", grant.composition},
                       {"writable", grant.writable}});
  return {{"name", name},
          {"handle", handle},
          {"cpus", cpus},
          {"memory", memory},
          {"pageSize", page_size},
          {"spare", spare},
          {"cmdline", command_line},
          {"initrd", initrd},
          {"disk", disk},
          {"diskReadOnly", disk_read_only},
          {"bootSeconds", boot_seconds},
          {"segments", granted},
          {"segmentRoom", segment_room},
          {"folders", shared},
          {"mounts", mounts},
          {"agent", agent},
          {"terminal", terminal},
          {"process", process}};
}

Result<VmPlan> VmPlan::parse(const std::string& text) {
  HOBBES_TRY(json, parse_json(text, "the plan"));
  try {
    VmPlan out;
    out.name = json.at("name").get<std::string>();
    out.handle = json.at("handle").get<std::uint64_t>();
    out.cpus = json.at("cpus").get<std::vector<unsigned>>();
    out.memory = json.at("memory").get<std::uint64_t>();
    out.page_size = json.at("pageSize").get<std::uint64_t>();
    out.spare = json.at("spare").get<std::uint64_t>();
    out.command_line = json.at("cmdline").get<std::string>();
    out.initrd = json.at("initrd").get<int>();
    out.disk = json.at("disk").get<int>();
    out.disk_read_only = json.at("diskReadOnly").get<bool>();
    out.boot_seconds = json.at("bootSeconds").get<unsigned>();
    for (const Json& grant : json.at("segments"))
      out.segments.push_back({grant.at("pattern").get<std::string>(),
                              grant.at("composition").get<bool>(),
                              grant.at("writable").get<bool>()});
    out.segment_room = json.at("segmentRoom").get<std::uint64_t>();
    for (const Json& folder : json.at("folders"))
      out.folders.push_back({folder.at("descriptor").get<int>(),
                             folder.at("tag").get<std::string>(), folder.at("readOnly").get<bool>(),
                             folder.at("window").get<std::uint64_t>()});
    out.mounts = json.at("mounts");
    out.agent = json.at("agent").get<bool>();
    out.terminal = json.at("terminal").get<bool>();
    out.process = json.at("process");
    if (!out.cpus.empty() && out.cpus.size() <= 255) return out;
  } catch (const std::exception&) {
  }
  return Error{Code::invalid, "read the plan", "it is not one",
               "this program is started by hobbes-run"};
}

}  // namespace hobbes
