#include "remora/rank_environment.h"

#include <unistd.h>

#include <algorithm>

#include "core/paths.h"
#include "remora/open_mpi.h"

namespace hobbes {
namespace {

// "name=1;other=0": every space in one order on all ranks, with this one's membership.
std::string spaces_of(const CompositionApp& app, const Composition& composition) {
  std::string out;
  for (const std::string& space : composition.spaces) {
    bool member = std::find(app.spaces.begin(), app.spaces.end(), space) != app.spaces.end();
    out += (out.empty() ? "" : ";") + space + (member ? "=1" : "=0");
  }
  return out;
}

// "name:first:ranks;...".
std::string apps_of(const Composition& composition) {
  std::string out;
  for (const CompositionApp& app : composition.apps)
    if (app.mpi)
      out += (out.empty() ? "" : ";") + app.name + ":" + std::to_string(app.first_rank) + ":" +
             std::to_string(app.ranks);
  return out;
}

// A rank that cannot see a peer's memory by its pid must not try; that of other kernels is seen by
// nobody.
bool some_memory_is_hidden(const std::vector<Stage::Place>& places, const LaunchOptions& options) {
  return options.host || std::any_of(places.begin(), places.end(), [](const Stage::Place& place) {
           return place.needed && (place.own_pid_namespace || place.own_user_namespace ||
                                   place.record.kind != Kind::linux_);
         });
}

}  // namespace

std::vector<std::string> inherited_environment(bool host_root) {
  // Settings of numerical libraries and the language everywhere, paths and the batch job's words
  // where the root file system is the same.
  static const std::vector<std::string> everywhere = {"OMP_*",      "GOMP_*", "KMP_*", "MKL_*",
                                                      "OPENBLAS_*", "BLIS_*", "LC_*",  "LANG",
                                                      "LANGUAGE",   "TZ"};
  static const std::vector<std::string> same_files = {
      "PATH",    "LD_LIBRARY_PATH", "PYTHONPATH", "HOME",      "USER",
      "LOGNAME", "SLURM_*",         "UCX_*",      "OMPI_MCA_*"};
  auto listed = [](const std::string& name, const std::vector<std::string>& patterns) {
    return std::any_of(patterns.begin(), patterns.end(), [&](const std::string& pattern) {
      return pattern.back() == '*' ? name.rfind(pattern.substr(0, pattern.size() - 1), 0) == 0
                                   : name == pattern;
    });
  };
  std::vector<std::string> out;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    std::string text = *entry, name = text.substr(0, text.find('='));
    if (listed(name, everywhere) || (host_root && listed(name, same_files))) out.push_back(text);
  }
  return out;
}

std::vector<std::string> environment_of(const Rank& rank, const Composition& composition,
                                        const std::vector<Stage::Place>& places,
                                        const SessionFolder& session,
                                        const LaunchOptions& options) {
  const CompositionApp& app = composition.apps[rank.app];
  const Stage::Place& place = places[rank.enclave];
  const std::string number = std::to_string(rank.app_rank), size = std::to_string(app.ranks);
  std::vector<std::string> out = {"REMORA_COMPOSITION=" + composition.name,
                                  "REMORA_APP=" + app.name,
                                  "REMORA_APP_NUMBER=" + std::to_string(rank.app),
                                  "REMORA_APP_RANK=" + number, "REMORA_APP_SIZE=" + size};
  // A guest has a run directory of its own.
  if (!rank.in_guest) out.push_back("HOBBES_RUN_DIR=" + run_directory());
  if (!options.share.empty()) out.push_back("REMORA_SHARE=" + options.share);
  if (!rank.external) out.push_back("HOBBES_ENCLAVE=" + place.record.id);
  if (!rank.mpi) return out;
  const std::string universe = std::to_string(composition.ranks());
  for (const std::string& entry :
       {"OMPI_COMM_WORLD_RANK=" + number, "OMPI_COMM_WORLD_SIZE=" + size,
        "OMPI_COMM_WORLD_LOCAL_RANK=" + number, "OMPI_COMM_WORLD_LOCAL_SIZE=" + size,
        "OMPI_COMM_WORLD_NODE_RANK=" + number, "OMPI_UNIVERSE_SIZE=" + universe,
        "REMORA_RANK=" + std::to_string(rank.global), "REMORA_SIZE=" + universe,
        "REMORA_SPACES=" + spaces_of(app, composition), "REMORA_APPS=" + apps_of(composition),
        "REMORA_PROGRESS=" + session.progress()})
    out.push_back(entry);
  if (!rank.external) out.push_back("REMORA_PHASE=" + session.phases(rank.global));
  OpenMpiRank settings{session};
  settings.takes_turns = crowd_of(rank.enclave, composition, places).takes_turns();
  settings.hides_memory = some_memory_is_hidden(places, options);
  for (std::string& setting : open_mpi_settings(settings)) out.push_back(std::move(setting));
  return out;
}

}  // namespace hobbes
