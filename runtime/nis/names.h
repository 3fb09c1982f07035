// Names: how programs of one node find services, values and segments. hobbesd keeps them in the
// NIS; looking one up reads the mirror and asks nobody. docs/FABRIC.md.
#pragma once
#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

#include "abi/nis.h"
#include "core/json.h"
#include "core/result.h"
#include "nis/reader.h"

namespace hobbes {

/// Where a caller stands: scopes are looked through from the innermost one outwards.
struct Standing {
  uid_t uid = 0;                  ///< whose names are the caller's own
  std::uint64_t enclave = 0;      ///< handle, 0: outside of any
  uid_t enclave_uid = 0;          ///< the user of that enclave
  std::uint64_t composition = 0;  ///< handle, 0: none
};

/// The scope of a name's record (abi/nis.h): each user has names of his own in each scope.
std::uint64_t name_scope(std::uint32_t scope, std::uint64_t id, uid_t owner);
/// "node", "composition", "enclave"; 0 for another word.
std::uint32_t scope_named(const std::string& word);
const char* name_of_scope(std::uint32_t scope);
const char* name_of_name_kind(std::uint32_t kind);
std::uint32_t name_kind_of(const std::string& word);

struct NameQuery {
  std::string name;
  std::uint32_t scope =
      0;  ///< enum hobbes_name_scope; 0: enclave, composition, node, in that order
  std::int64_t owner = -1;  ///< a user; -1: the caller's own, his enclave's, root's, else anybody's
};

/// The places where a query's name can be, best first; `anybody` names are looked for behind them.
struct NamePlace {
  std::uint32_t scope;
  std::uint64_t id;
  std::vector<uid_t> owners;
  bool anybody;
};
std::vector<NamePlace> places_of(const NameQuery& query, const Standing& standing);

/// The first name of a query in whatever keeps the records. `by_scope(scope)` looks for the name in
/// a record's scope, `of_anybody(is_there)` for any record that `is_there` accepts; both return
/// something that is false when there is none.
template <class ByScope, class OfAnybody>
auto first_name(const NameQuery& query, const Standing& standing, ByScope by_scope,
                OfAnybody of_anybody) -> decltype(by_scope(std::uint64_t{})) {
  for (const NamePlace& place : places_of(query, standing)) {
    for (uid_t owner : place.owners)
      if (auto found = by_scope(name_scope(place.scope, place.id, owner))) return found;
    if (!place.anybody) continue;
    if (auto found = of_anybody([&](const hobbes_record& record) {
          return query.name == record.name && record.body.name.scope == place.scope &&
                 record.body.name.scope_id == place.id;
        }))
      return found;
  }
  return {};
}

/// Errors: Code::not_found.
Result<hobbes_record> find_name(NisReader& nis, const NameQuery& query, const Standing& standing);
/// Waits until there is such a name. Errors: Code::timeout.
Result<hobbes_record> wait_for_name(const NameQuery& query, const Standing& standing,
                                    std::chrono::milliseconds patience);

}  // namespace hobbes
