#include "hobbesd/authorization.h"

#include <set>
#include <sstream>

#include "core/file.h"
#include "partition/batch_step.h"

namespace hobbes {
namespace {

CpuSet allowed_cpus(pid_t pid) {
  auto status = Files::system().read("/proc/" + std::to_string(pid) + "/status");
  std::size_t at = status ? status->find("Cpus_allowed_list:") : std::string::npos;
  if (at == std::string::npos) return {};
  std::size_t begin = status->find_first_not_of(" \t", at + 18);
  return CpuSet::parse(status->substr(begin, status->find('\n', begin) - begin)).value_or(CpuSet());
}

}  // namespace

// Who asks: the pid is looked up first, and was the peer's if the peer is alive afterwards.
Result<void> Authorization::identify(Session& session, const std::string& op) const {
  session.inside = 0;
  session.allowed = CpuSet();
  session.step.clear();
  session.privileged = session.peer.uid == 0;
  if (session.peer.pid == 0) return {};
  session.inside = enclave_containing(session.peer.pid);
  // The dearest question, which is none of those who only talk.
  static const std::set<std::string> talking = {"channel", "name", "process", "segment", "self"};
  if (talking.count(op.substr(0, op.find('.'))) == 0) {
    session.allowed = allowed_cpus(session.peer.pid);
    if (auto groups = Files::system().read("/proc/" + std::to_string(session.peer.pid) + "/cgroup"))
      session.step = batch_step_of(*groups);
  }
  if (!session.peer.alive())
    return Error{Code::denied, "answer a request", "the process that connected has ended",
                 "connect from the process that asks"};
  if (session.inside != 0 && grant_of(session.inside) != Grant::node) session.privileged = false;
  return {};
}

std::uint64_t Authorization::enclave_containing(pid_t pid) const {
  auto text = Files::system().read("/proc/" + std::to_string(pid) + "/cgroup");
  if (!text) return 0;
  std::istringstream lines(*text);
  for (std::string line; std::getline(lines, line);) {
    std::size_t second = line.find(':', line.find(':') + 1);
    if (second == std::string::npos) continue;
    std::string path = line.substr(second + 1);
    for (const auto& [id, cgroup] : groups_)
      if (!cgroup.empty() && (path == cgroup || path.rfind(cgroup + "/", 0) == 0)) return id;
  }
  return 0;
}

Grant Authorization::grant_of(std::uint64_t enclave) const {
  const hobbes_record* record = nis_.by_id(enclave);
  return record != nullptr ? static_cast<Grant>(record->body.enclave.flags >> 8U & 3U)
                           : Grant::none;
}

Result<void> Authorization::check_grant(const Session& session, std::uint64_t target) const {
  if (session.inside == 0) return {};
  const hobbes_record* record = nis_.by_id(session.inside);
  Grant grant = grant_of(session.inside);
  if (grant == Grant::node || (grant == Grant::self && target == session.inside)) return {};
  return Error{
      Code::denied,
      "manage the node from inside enclave '" +
          std::string(record != nullptr ? record->name : "?") + "'",
      grant == Grant::self ? "its grant covers only itself" : "its bundle grants no management",
      "set \"manage\": \"node\" in the hobbes object of its config.json"};
}

std::string Authorization::group_of(std::uint64_t enclave) const {
  auto at = groups_.find(enclave);
  return at != groups_.end() ? at->second : "";
}

}  // namespace hobbes
