#include "remora/open_mpi.h"

#include "bundle/bundle.h"
#include "core/file.h"
#include "core/paths.h"
#include "core/process.h"
#include "remora/mpi_library.h"

namespace hobbes {

std::vector<std::string> open_mpi_settings(const OpenMpiRank& rank) {
  std::vector<std::string> out = {
      "OMPI_MCA_mca_base_component_path=" + component_directory() + ":" HOBBES_OPENMPI_COMPONENTS,
      "OMPI_MCA_btl_tcp_if_include=lo",
      "OMPI_MCA_pml=ob1",
      "PMIX_MCA_gds=hash",
  };
  if constexpr (HOBBES_OPENMPI_MAJOR < 5) {
    for (const char* setting : {"ess=pmi", "schizo=^orte", "orte_externally_bound=1",
                                "hwloc_base_binding_policy=none", "btl=self,vader,tcp"})
      out.push_back(std::string("OMPI_MCA_") + setting);
    out.push_back("OMPI_MCA_btl_vader_backing_directory=" + rank.session.shared_memory());
    out.push_back("OMPI_MCA_orte_tmpdir_base=" + rank.session.path());
    if (rank.hides_memory) out.emplace_back("OMPI_MCA_btl_vader_single_copy_mechanism=none");
  } else {
    out.emplace_back("OMPI_MCA_btl=self,sm,tcp");
    out.push_back("OMPI_MCA_btl_sm_backing_directory=" + rank.session.shared_memory());
    if (rank.hides_memory) out.emplace_back("OMPI_MCA_smsc=^cma,knem,xpmem");
    // Open MPI hands its own path on to PMIx, which complains of components that are none of its. A
    // folder that has none ends that.
    out.push_back("PMIX_MCA_mca_base_component_path=" + rank.session.pmix());
  }
  if (rank.takes_turns) out.emplace_back("OMPI_MCA_mpi_yield_when_idle=1");
  return out;
}

std::string component_directory() {
  std::string beside = absolute(program_directory() + "/../lib/remora");  // a build tree
  return Files::system().exists(beside) ? beside : HOBBES_COMPONENT_DIR;
}

Result<void> check_programs(const Composition& composition) {
  const std::string own = HOBBES_OPENMPI_RELEASE;
  for (const CompositionApp& app : composition.apps) {
    if (!app.mpi) continue;
    if (!Files::system().exists(component_directory() + "/mca_hook_remora.so"))
      return Error{Code::unsupported, "run composition '" + composition.name + "'",
                   "this Hobbes was built with Open MPI " + own +
                       ", whose programs it cannot join into one universe",
                   "install a Hobbes that was built with Open MPI 4.1 or 5.0, or give mpi=\"no\""};
    const std::string& folder = composition.enclaves[app.enclave].bundle;
    if (folder.empty() || app.path.front() != '/') continue;
    auto bundle = load_bundle(folder);
    if (!bundle || bundle->hobbes.kind == Kind::palacios) continue;
    auto library = mpi_library_of(bundle->hobbes.host_root ? "/" : bundle->rootfs(), app.path);
    if (!library || library->open_mpi_release() == own ||
        (library->name == "libmpi.so.40" && library->open_mpi_release().empty()))
      continue;
    return Error{Code::unsupported,
                 "run app \"" + app.name + "\" (line " + std::to_string(app.line) + ")",
                 app.path + " is linked with " + library->text() +
                     ", and ranks must all be of Open MPI " + own,
                 "link it with Open MPI " + own + ", or say mpi=\"no\" if it is no rank"};
  }
  return {};
}

}  // namespace hobbes
