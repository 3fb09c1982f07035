#include "hobbesd/policy.h"

#include "bundle/inspect.h"
#include "core/file.h"
#include "core/number.h"

namespace hobbes {
namespace {

Quota read_quota(const Inspect& at) {
  Quota out;
  if (!at.object()) return out;
  at.only({"cores", "memory", "enclaves", "segments", "attachments", "names", "compositions",
           "operations", "devices"});
  if (auto n = at.at("cores").integer(0, INT64_MAX)) out.cores = static_cast<std::uint64_t>(*n);
  if (auto n = at.at("memory").size()) out.memory = *n;
  if (auto n = at.at("enclaves").integer(0, INT64_MAX))
    out.enclaves = static_cast<std::uint64_t>(*n);
  if (auto n = at.at("segments").integer(0, INT64_MAX))
    out.segments = static_cast<std::uint64_t>(*n);
  if (auto n = at.at("attachments").integer(0, INT64_MAX))
    out.attachments = static_cast<std::uint64_t>(*n);
  if (auto n = at.at("names").integer(0, INT64_MAX)) out.names = static_cast<std::uint64_t>(*n);
  if (auto n = at.at("compositions").integer(0, INT64_MAX))
    out.compositions = static_cast<std::uint64_t>(*n);
  if (auto n = at.at("operations").integer(0, INT64_MAX))
    out.operations = static_cast<std::uint64_t>(*n);
  if (auto n = at.at("devices").integer(0, INT64_MAX)) out.devices = static_cast<std::uint64_t>(*n);
  return out;
}

std::optional<uid_t> uid_named(const std::string& text) {
  auto uid = whole_number(text, 0xfffffffe);
  return uid ? std::optional(static_cast<uid_t>(*uid)) : std::nullopt;
}

}  // namespace

Quota Policies::of(uid_t uid) const {
  if (uid == 0) {
    Quota out{UINT64_MAX, UINT64_MAX, UINT64_MAX, UINT64_MAX, UINT64_MAX, UINT64_MAX, UINT64_MAX};
    out.devices = UINT64_MAX;
    return out;
  }
  auto at = users.find(uid);
  return at != users.end() ? at->second : standard;
}

Result<void> Policies::check(const CpuSet& all) const {
  CpuSet missing = reserved - all;
  if (missing.empty()) return {};
  return Error{Code::invalid, "reserve cores " + reserved.text(),
               "this node has no CPU " + missing.text(),
               "name CPUs of " + all.text() + " in --reserve-cores or \"reservedCores\""};
}

Result<Policies> Policies::load(const std::string& path, bool must_exist) {
  Policies out;
  auto text = Files::system().read(path);
  if (!text) {
    if (text.error().code == Code::not_found && !must_exist) return out;
    return std::move(text).error();
  }
  HOBBES_TRY(json, parse_json(*text, path, Comments::ignored));
  std::vector<Problem> problems;
  Inspect at(&json, "", &problems);
  at.only({"reservedCores", "interrupts", "quotas", "tokens"});
  out.reserved = at.at("reservedCores").list().value_or(CpuSet());
  if (Inspect interrupts = at.at("interrupts"); interrupts.present()) {
    const auto choice = interrupts.text();
    out.steer_interrupts = choice == "steer";
    if (choice && choice != "steer" && choice != "leave")
      interrupts.wrong("\"steer\" or \"leave\"");
  }
  Inspect quotas = at.at("quotas");
  if (quotas.object()) {
    quotas.only({"default", "users"});
    if (quotas.at("default").present()) out.standard = read_quota(quotas.at("default"));
    quotas.at("users").members([&](const std::string& name, const Inspect& quota) {
      if (auto uid = uid_named(name))
        out.users[*uid] = read_quota(quota);
      else
        quota.wrong("numeric user ids as keys");
    });
  }
  for (const auto& [digest, user] : at.at("tokens").text_map()) {
    auto uid = uid_named(user);
    if (digest.size() != 64 || !uid)
      at.at("tokens").at(digest).wrong(
          "the SHA-256 of a token in hex, with a numeric user id as value");
    else
      out.tokens[digest] = *uid;
  }
  if (!problems.empty())
    return Error{Code::invalid, "read " + path,
                 "it has " + std::to_string(problems.size()) + " problem(s)\n" + report(problems),
                 "mend them and restart hobbesd"};
  return out;
}

}  // namespace hobbes
