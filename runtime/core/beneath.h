// Opening paths below a folder whose links may be hostile, without ever leaving it (openat2(2)).
#pragma once
#include <cstdint>
#include <string>

#include "core/fd.h"
#include "core/result.h"

namespace hobbes {

/// An O_PATH descriptor of a folder that others are opened below.
Result<Fd> open_root(const std::string& root);

/// Opens a path with `root` as its root directory (RESOLVE_IN_ROOT). Links lead to places below it,
/// and the kernel's own links (/proc/PID/fd) are not followed. `flags` are those of open(2), `more`
/// further RESOLVE_* bits. Errors: Code::not_found, Code::denied, Code::os.
Result<Fd> open_beneath(int root, const std::string& path, std::uint64_t flags,
                        std::uint64_t more = 0);

/// Opens the same way with O_PATH, creating what is missing: a folder, or a file when `file`. A
/// link to something missing is followed below the root, too. Errors: Code::os with ELOOP after 40
/// links.
Result<Fd> open_or_make(const Fd& root, const std::string& path, bool file);

/// open_or_make() below the folder `root`.
Result<Fd> open_target(const std::string& root, const std::string& path, bool file);

}  // namespace hobbes
