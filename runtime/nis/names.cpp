#include "nis/names.h"

#include <algorithm>
#include <array>
#include <climits>
#include <optional>

#include "core/identity.h"
#include "core/paths.h"

namespace hobbes {
namespace {

constexpr std::array<const char*, 4> scopes = {"", "node", "composition", "enclave"};
constexpr std::array<const char*, 4> kinds = {"", "service", "value", "segment"};

template <std::size_t size>
std::uint32_t index_of(const std::array<const char*, size>& words, const std::string& word) {
  auto at = std::find(words.begin() + 1, words.end(), word);
  return at == words.end() ? 0 : static_cast<std::uint32_t>(at - words.begin());
}

}  // namespace

std::uint64_t name_scope(std::uint32_t scope, std::uint64_t id, uid_t owner) {
  std::uint64_t hash = 14695981039346656037ULL;  // 64-bit FNV-1a
  for (std::uint64_t word : {std::uint64_t{scope}, id, std::uint64_t{owner}})
    for (unsigned byte = 0; byte < 8; ++byte)
      hash = (hash ^ (word >> (byte * 8) & 0xff)) * 1099511628211ULL;
  return hash;
}

std::uint32_t scope_named(const std::string& word) { return index_of(scopes, word); }
std::uint32_t name_kind_of(const std::string& word) { return index_of(kinds, word); }
const char* name_of_scope(std::uint32_t scope) {
  return scope < scopes.size() ? scopes[scope] : "?";
}
const char* name_of_name_kind(std::uint32_t kind) {
  return kind < kinds.size() ? kinds[kind] : "?";
}

std::vector<NamePlace> places_of(const NameQuery& query, const Standing& standing) {
  std::vector<uid_t> owners;
  for (uid_t uid :
       {standing.uid, standing.enclave != 0 ? standing.enclave_uid : standing.uid, uid_t{0}})
    if (std::find(owners.begin(), owners.end(), uid) == owners.end()) owners.push_back(uid);
  const bool anybody = query.owner < 0;
  if (!anybody) owners = {static_cast<uid_t>(query.owner)};
  std::vector<NamePlace> out;
  const auto add = [&](std::uint32_t scope, std::uint64_t id) {
    if (query.scope == 0 || query.scope == scope) out.push_back({scope, id, owners, anybody});
  };
  if (standing.enclave != 0) add(HOBBES_SCOPE_ENCLAVE, standing.enclave);
  if (standing.composition != 0) add(HOBBES_SCOPE_COMPOSITION, standing.composition);
  add(HOBBES_SCOPE_NODE, 0);
  return out;
}

Result<hobbes_record> find_name(NisReader& nis, const NameQuery& query, const Standing& standing) {
  auto found = first_name(
      query, standing,
      [&](std::uint64_t scope) -> std::optional<hobbes_record> {
        hobbes_record record;
        if (nis.by_name(HOBBES_NAME, scope, query.name.c_str(), &record) != NisReader::Status::good)
          return std::nullopt;
        return record;
      },
      [&](auto is_there) -> std::optional<hobbes_record> {
        for (const hobbes_record& record : nis.all(HOBBES_NAME))
          if (is_there(record)) return record;
        return std::nullopt;
      });
  if (found) return *found;
  return Error{Code::not_found, "find the name '" + query.name + "'", "there is no such name",
               "see `hobbes names`"};
}

Result<hobbes_record> wait_for_name(const NameQuery& query, const Standing& standing,
                                    std::chrono::milliseconds patience) {
  using Clock = std::chrono::steady_clock;
  const auto end =
      Clock::now() + std::min<std::chrono::milliseconds>(patience, std::chrono::hours(24 * 365));
  for (;;) {
    HOBBES_TRY(nis, NisReader::open(mirror_path()));
    std::uint64_t sequence = nis->sequence();
    for (;;) {
      auto found = find_name(*nis, query, standing);
      if (found || found.error().code != Code::not_found) return found;
      const auto left = std::chrono::ceil<std::chrono::milliseconds>(end - Clock::now()).count();
      if (patience.count() >= 0 && left <= 0)
        return Error{Code::timeout, "wait for the name '" + query.name + "'",
                     "nobody has published it within " + std::to_string(patience.count()) + " ms",
                     "see `hobbes names`"};
      hobbes_change change;
      const int wait =
          patience.count() < 0 ? -1 : static_cast<int>(std::min<std::int64_t>(left, INT_MAX));
      if (nis->wait(&sequence, &change, wait) == NisReader::Status::stale) {
        if (nis->replaced()) break;
        sequence = nis->sequence();
      }
    }
  }
}

}  // namespace hobbes
