// Mappings of user and group ids: of a new process's user namespace, and of mounts.
#pragma once
#include <sys/types.h>

#include <cstdint>
#include <vector>

#include "bundle/oci.h"
#include "core/fd.h"
#include "core/result.h"

namespace hobbes {

using IdMaps = std::vector<oci::IdMapping>;

/// Writes the maps of a process in a new user namespace (user_namespaces(7)). A user without
/// privilege maps himself; more ids need newuidmap(1) and newgidmap(1). Errors: Code::denied,
/// Code::os.
Result<void> write_id_maps(pid_t process, const IdMaps& uids, const IdMaps& gids);

/// Root, if it is mapped or nothing is yet, else the first id that is.
std::uint32_t first_id(const IdMaps& maps);

/// A user namespace with these maps and nobody in it, as the descriptor mount_setattr(2) takes it.
/// For root only; the calling process has no other threads. Errors: Code::denied, Code::os.
Result<Fd> make_user_namespace(const IdMaps& uids, const IdMaps& gids);

}  // namespace hobbes
