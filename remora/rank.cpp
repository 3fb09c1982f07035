#include "remora/rank.h"

#include <unistd.h>

#include "abi/nis.h"

namespace hobbes {

std::string Rank::name() const { return app_name + ":" + std::to_string(app_rank); }

std::string Rank::full_name() const {
  return "rank " + std::to_string(app_rank) + " of app \"" + app_name + "\" in enclave \"" +
         enclave_name + "\" (pid " + std::to_string(pid) + ")";
}

std::vector<Rank> ranks_of(const Composition& composition,
                           const std::vector<Stage::Place>& places) {
  std::vector<Rank> out;
  for (std::size_t a = 0; a < composition.apps.size(); ++a) {
    const CompositionApp& app = composition.apps[a];
    const Stage::Place& place = places[app.enclave];
    for (unsigned i = 0; i < app.ranks; ++i) {
      Rank rank;
      rank.app = a;
      rank.enclave = app.enclave;
      rank.app_rank = i;
      rank.global = app.first_rank + i;
      rank.app_name = app.name;
      rank.enclave_name = composition.enclaves[app.enclave].name;
      rank.mpi = app.mpi;
      rank.external = !place.needed;
      rank.in_guest = place.record.kind == Kind::palacios;
      rank.stack_is_seen = rank.external || place.record.kind == Kind::linux_;
      out.push_back(std::move(rank));
    }
  }
  return out;
}

unsigned published_phase(Rank::Phase phase) {
  using Phase = Rank::Phase;
  switch (phase) {
    case Phase::planned:
      return HOBBES_PHASE_PLANNED;
    case Phase::started:
      return HOBBES_PHASE_STARTED;
    case Phase::connected:
    case Phase::in_init:
    case Phase::running:
    case Phase::in_finalize:
      return HOBBES_PHASE_CONNECTED;
    case Phase::finalized:
      return HOBBES_PHASE_FINALIZED;
    case Phase::ended:
      return HOBBES_PHASE_ENDED;
  }
  return HOBBES_PHASE_PLANNED;
}

CpuSet binding_of(const Rank& rank, const std::vector<Rank>& all, const Composition& composition,
                  const std::vector<Stage::Place>& places) {
  const CompositionApp& app = composition.apps[rank.app];
  std::vector<unsigned> cpus = places[app.enclave].cpus.members();
  if (cpus.empty()) return {};
  unsigned index = 0, sharers = 0;
  for (const Rank& other : all) {
    if (other.enclave != rank.enclave || !(composition.apps[other.app].cores == app.cores))
      continue;
    if (other.global < rank.global) ++index;
    ++sharers;
  }
  if (!app.cores.empty()) {
    std::vector<unsigned> chosen;
    for (unsigned core : app.cores.members())
      if (core < cpus.size()) chosen.push_back(cpus[core]);
    if (!chosen.empty()) cpus = chosen;
  }
  CpuSet mine;
  const std::size_t share = cpus.size() / sharers;
  if (share == 0) mine.add(cpus[index % cpus.size()]);
  for (std::size_t i = 0; i < share; ++i) mine.add(cpus[index * share + i]);
  return mine;
}

Crowd crowd_of(std::size_t enclave, const Composition& composition,
               const std::vector<Stage::Place>& places) {
  Crowd out;
  const CpuSet& cpus = places[enclave].cpus;
  out.cpus =
      cpus.empty() ? static_cast<std::size_t>(::sysconf(_SC_NPROCESSORS_ONLN)) : cpus.count();
  for (const CompositionApp& app : composition.apps)
    if (app.enclave == enclave) out.ranks += app.ranks;
  return out;
}

}  // namespace hobbes
