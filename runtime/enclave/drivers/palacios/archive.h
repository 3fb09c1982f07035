// A directory tree as a cpio archive that Linux unpacks while it boots (Documentation/driver-api/early-userspace/buffer-format.rst,
// "newc").
#pragma once
#include <cstdint>
#include <string>

#include "core/fd.h"
#include "core/result.h"

namespace hobbes {

/// Packs `folder` below the name `prefix` into memory: files, folders and links, with owners and modes; devices, sockets and what is on
/// other file systems are left out. Errors: Code::exhausted beyond `limit` bytes; what cannot be read.
Result<Fd> pack_tree(const std::string& folder, const std::string& prefix, std::uint64_t limit);

}  // namespace hobbes
