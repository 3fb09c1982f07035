// Files of an enclave in the view of its programs, for people and programs outside of it, with the
// caller's own rights.
#pragma once
#include <cstdint>
#include <functional>
#include <string>

#include "core/fd.h"
#include "core/result.h"
#include "enclave/record.h"

namespace hobbes {

/// Where a file is: in the root file system of an enclave, or of the node.
struct Place {
  Fd root;           ///< O_PATH of a root directory; nothing below it leads out of it
  std::string path;  ///< from there
};

/// "ENCLAVE:PATH", or "PATH" on the node. Errors: Code::not_found; Code::busy, the enclave does not
/// run; Code::unsupported, it has no files of its own, or the path is a mount of a virtual machine;
/// Code::denied.
Result<Place> place_named(const std::string& state_root, const std::string& text);

struct Copied {
  std::uint64_t files = 0, bytes = 0;
};

/// Opens a regular file for reading, whatever links lead to it in its root. Errors:
/// Code::not_found, Code::denied, Code::unsupported for what is no regular file.
Result<Fd> open_file(const Place& place);

/// Copies a file, a link or a folder with all that is in it, as cp(1) does: into `to` when that is
/// a folder, else under that name. Links are copied, not followed; modes and times of files are
/// kept; what is there is overwritten. `progress` is called after every part. Errors:
/// Code::unsupported for a device, a pipe or a socket; what was copied before stays.
Result<Copied> copy_tree(const Place& from, const Place& to,
                         const std::function<void(const Copied&)>& progress);

}  // namespace hobbes
