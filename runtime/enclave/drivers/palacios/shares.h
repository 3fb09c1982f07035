// What of the node's files a virtual machine sees: each a mount of our own that nobody else finds,
// with the bundle's say on writing.
#pragma once
#include <string>
#include <vector>

#include "bundle/bundle.h"
#include "core/fd.h"
#include "core/result.h"

namespace hobbes {

struct SharedFile {
  std::string path;
  bool read_only = false;
};

/// A folder, open for paths. Errors: Code::invalid for what is none.
Result<Fd> open_folder(const std::string& path, bool with_mounts_below, bool read_only);
/// The node's root, read-only, with what is mounted below it, but with nothing of /proc, /sys,
/// /dev, /run and /tmp.
Result<Fd> open_host_root();
/// Single files, as a folder in which they are called "0", "1", ... and which cannot be changed
/// itself. `scratch`: an existing folder; nothing is left in it. Errors: Code::invalid for what is
/// neither folder nor regular file.
Result<Fd> open_files(const std::vector<SharedFile>& files, const std::string& scratch);

/// Places that the agent makes before anything else runs; hiding them would hide what it and the
/// guest's programs stand on.
bool is_the_guests(const std::string& destination);
Result<bool> is_folder(const std::string& source);
/// In the root folder itself, as for containers: it may be read-only once it is the guest's.
Result<void> make_mount_points(const Bundle& bundle);

}  // namespace hobbes
