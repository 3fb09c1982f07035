// A composition: which programs run in which enclaves, and which ranks may talk in which
// communicator. Format document: docs/COMPOSITION.md (version 1).
#pragma once
#include <map>
#include <string>
#include <vector>

#include "core/cpu_set.h"
#include "core/result.h"

namespace hobbes {

struct CompositionEnclave {
  std::string name;      ///< of this instance: "sim", or "sim.0", "sim.1" when num > 1
  std::string bundle;    ///< absolute folder; empty when `existing`
  std::string existing;  ///< id of an enclave to use instead of making one
  std::string space;     ///< rank space of everything beneath; may be empty
  int parent = -1;       ///< index, -1: the composition itself
  unsigned line = 0;
};

struct CompositionApp {
  std::string name;  ///< unique in the composition
  std::string path;
  std::vector<std::string> args;
  std::vector<std::string> env;  ///< "K=V"
  std::string directory;  ///< empty: the folder that the composition is run from, where the enclave
                          ///< sees it, else /
  bool mpi = true;     ///< false: its processes are no ranks, take part in no space, and come after
                       ///< all ranks in the order of numbers
  unsigned ranks = 1;  ///< processes
  CpuSet cores;        ///< of its enclave, counted from 0; empty: all
  std::size_t enclave = 0;
  std::vector<std::string> spaces;  ///< every named space it is a member of, outermost first
  unsigned first_rank = 0;  ///< in the universe; of one without MPI, a number that no rank has
  unsigned line = 0;
};

struct Composition {
  std::string name;
  std::string universe;  ///< the outermost space's name
  std::string file;
  std::vector<CompositionEnclave> enclaves;
  std::vector<CompositionApp> apps;  ///< in document order, those without MPI last
  std::vector<std::string> spaces;   ///< every named space in document order, the universe first

  [[nodiscard]] unsigned ranks() const;  ///< without processes that are none
  /// Global ranks of a space, in order; empty for an unknown name.
  [[nodiscard]] std::vector<unsigned> members(const std::string& space) const;
};

struct CompositionProblem {
  unsigned line = 0;
  std::string found, allowed, remedy;
};

/// A parsed document with everything that is wrong with it. `needs`: what `run` would still want
/// although the document is valid.
struct CompositionCheck {
  Composition composition;
  std::vector<CompositionProblem> problems;
  std::vector<std::string> needs;
};

inline constexpr std::size_t composition_size_limit = 1 << 20;  ///< bytes
inline constexpr unsigned composition_depth_limit = 64;
inline constexpr unsigned composition_rank_limit = 4096;

/// Reads a document. `folder` is what relative bundles are relative to. Never fails: trouble is in
/// `problems`.
CompositionCheck check_composition(const std::string& text, const std::string& name,
                                   const std::string& folder);
/// check_composition of a file; files that cannot be read are an Error.
Result<CompositionCheck> check_composition_file(const std::string& path);
/// A composition that is valid and complete. Errors list every problem with its line.
/// `open`: enclaves without a bundle are for others to join, and their apps need no path.
Result<Composition> load_composition(const std::string& path, bool open = false);

std::string report(const std::string& file, const std::vector<CompositionProblem>& problems);

}  // namespace hobbes
