// The MPI library that a program is linked with, as far as its file tells.
#pragma once
#include <optional>
#include <string>

namespace hobbes {

struct MpiLibrary {
  std::string name;  ///< what the program asks for: "libmpi.so.40"
  std::string file;  ///< what that is in its root: "libmpi.so.40.30.4"; empty: not found
  /// Of Open MPI ("4.1", "5.0"), by the file's name; empty: unknown, or another MPI.
  [[nodiscard]] std::string open_mpi_release() const;
  /// For messages: "Open MPI 5.0 (libmpi.so.40.40.7)", "MPICH or a relative of it (libmpi.so.12)".
  [[nodiscard]] std::string text() const;
};

/// `program` is a path below `root`, which is "/" for the node's own files. Nothing: it is no ELF
/// file of this machine, cannot be read, or asks for no MPI library itself (a script, or a program
/// that loads its MPI later).
std::optional<MpiLibrary> mpi_library_of(const std::string& root, const std::string& program);

}  // namespace hobbes
