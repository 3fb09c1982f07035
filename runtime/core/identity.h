// Who an enclave is: OCI callers identify one by (state root, id); everything inside Hobbes by one
// 64-bit handle.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>

#include "core/result.h"

namespace hobbes {

/// The longest id, bounded by a name in the mirror (abi/nis.h).
inline constexpr std::size_t id_limit = 127;

/// Accepts letters, digits and "_+-." up to id_limit, not starting with "." or "-". Errors:
/// Code::invalid with the reason.
Result<void> check_id(std::string_view id);

/// FNV-1a, 64 bit, of a text (Fowler, Noll, Vo; draft-eastlake-fnv): stable across builds, so it
/// may be stored.
constexpr std::uint64_t hash_of(std::string_view text) {
  std::uint64_t hash = 0xcbf29ce484222325U;
  for (char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3U;
  return hash;
}

/// The scope of an enclave's name: ids are unique per state root and user, so that nobody can take
/// another user's.
inline std::uint64_t enclave_scope(std::uint32_t uid, const std::string& root) {
  return hash_of(uid == 0 ? root : root + '\n' + std::to_string(uid));
}

/// Fixed-width lower-case hexadecimal.
std::string hex(std::uint64_t number, unsigned digits = 16);
/// Bytes as two digits each, and back; "" for what is not that.
std::string to_hex(std::string_view bytes);
std::string from_hex(std::string_view digits);

/// The control group, below that of an enclave which is only used by it, of a composition's
/// processes.
inline std::string composition_group(std::uint64_t composition) {
  return "composition-" + hex(composition);
}

/// The kernel's id of this boot, the tag of everything that a reboot ends.
Result<std::string> boot_id();

}  // namespace hobbes
