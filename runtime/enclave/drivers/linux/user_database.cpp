#include "enclave/drivers/linux/user_database.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <charconv>
#include <functional>
#include <sstream>
#include <vector>

namespace hobbes {
namespace {

constexpr std::size_t file_limit = 1 << 20;

std::string read_below(const Fd& root, const char* path) {
  open_how how{};
  how.flags = O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY;
  how.resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS;
  Fd fd(static_cast<int>(::syscall(SYS_openat2, root.get(), path, &how, sizeof how)));
  struct stat info {};
  if (!fd || ::fstat(fd.get(), &info) != 0 || !S_ISREG(info.st_mode)) return {};
  std::string out(file_limit, '\0');
  ssize_t n = ::pread(fd.get(), out.data(), out.size(), 0);
  out.resize(n > 0 ? static_cast<std::size_t>(n) : 0);
  return out;
}

using Fields = std::vector<std::string>;

// The first line that `wanted` says yes to, as its fields.
std::optional<Fields> find(const std::string& text, std::size_t fields,
                           const std::function<bool(const Fields&)>& wanted) {
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    Fields parts;
    std::istringstream words(line);
    for (std::string part; std::getline(words, part, ':');) parts.push_back(part);
    parts.resize(std::max(parts.size(), fields));
    if (!line.empty() && line.front() != '#' && wanted(parts)) return parts;
  }
  return std::nullopt;
}

std::optional<std::uint32_t> number(const std::string& text) {
  std::uint32_t out = 0;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
  if (text.empty() || error != std::errc() || end != text.data() + text.size() || out == 0xffffffff)
    return std::nullopt;
  return out;
}

Error unknown(const std::string& kind, const std::string& word) {
  return {Code::invalid, "find " + kind + " '" + word + "'",
          "it is neither a number nor a name in the enclave's /etc/" +
              std::string(kind == "user" ? "passwd" : "group"),
          "give a number, or a name that the image knows"};
}

}  // namespace

UserDatabase::UserDatabase(const Fd& root)
    : passwd_(read_below(root, "etc/passwd")), group_(read_below(root, "etc/group")) {}

Result<oci::User> UserDatabase::resolve(const std::string& words, const oci::User& before) const {
  std::size_t colon = words.find(':');
  std::string user = words.substr(0, colon),
              group = colon == std::string::npos ? "" : words.substr(colon + 1);
  oci::User out = before;
  if (auto uid = number(user)) {
    out.uid = *uid;
  } else {
    auto entry = find(passwd_, 7, [&](const Fields& f) { return !user.empty() && f[0] == user; });
    auto id = entry ? number((*entry)[2]) : std::nullopt;
    auto gid = entry ? number((*entry)[3]) : std::nullopt;
    if (!id || !gid) return unknown("user", user);
    out.uid = *id;
    out.gid = *gid;
    out.additional_gids.clear();
    (void)find(group_, 4, [&](const Fields& f) {
      std::istringstream members(f[3]);
      for (std::string member; std::getline(members, member, ',');)
        if (auto one = number(f[2]); member == user && one && *one != out.gid)
          out.additional_gids.push_back(*one);
      return false;
    });
  }
  if (colon == std::string::npos) return out;
  if (auto gid = number(group)) {
    out.gid = *gid;
    return out;
  }
  auto entry = find(group_, 4, [&](const Fields& f) { return !group.empty() && f[0] == group; });
  auto gid = entry ? number((*entry)[2]) : std::nullopt;
  if (!gid) return unknown("group", group);
  out.gid = *gid;
  return out;
}

std::optional<std::string> UserDatabase::home_of(uid_t uid) const {
  auto entry = find(passwd_, 7, [&](const Fields& f) { return number(f[2]) == uid; });
  if (!entry || (*entry)[5].empty() || (*entry)[5].front() != '/') return std::nullopt;
  return (*entry)[5];
}

std::optional<std::string> UserDatabase::name_of(uid_t uid) const {
  auto entry = find(passwd_, 7, [&](const Fields& f) { return number(f[2]) == uid; });
  if (!entry || (*entry)[0].empty()) return std::nullopt;
  return (*entry)[0];
}

}  // namespace hobbes
