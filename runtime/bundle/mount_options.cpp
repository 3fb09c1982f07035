#include "bundle/mount_options.h"

#include <linux/mount.h>
#include <sys/mount.h>

#include <map>

namespace hobbes {
namespace {

constexpr std::uint64_t no_symlinks = 0x200000;  // MOUNT_ATTR_NOSYMFOLLOW, Linux 5.14

struct Attribute {
  std::uint64_t set, clear;
};

// Names and what they do to the mount; each also with "r" before it: to everything below.
const std::map<std::string, Attribute>& attributes() {
  static const std::map<std::string, Attribute> table = {
      {"ro", {MOUNT_ATTR_RDONLY, 0}},
      {"rw", {0, MOUNT_ATTR_RDONLY}},
      {"nosuid", {MOUNT_ATTR_NOSUID, 0}},
      {"suid", {0, MOUNT_ATTR_NOSUID}},
      {"nodev", {MOUNT_ATTR_NODEV, 0}},
      {"dev", {0, MOUNT_ATTR_NODEV}},
      {"noexec", {MOUNT_ATTR_NOEXEC, 0}},
      {"exec", {0, MOUNT_ATTR_NOEXEC}},
      {"nodiratime", {MOUNT_ATTR_NODIRATIME, 0}},
      {"diratime", {0, MOUNT_ATTR_NODIRATIME}},
      {"noatime", {MOUNT_ATTR_NOATIME, MOUNT_ATTR__ATIME}},
      {"atime", {MOUNT_ATTR_RELATIME, MOUNT_ATTR__ATIME}},
      {"relatime", {MOUNT_ATTR_RELATIME, MOUNT_ATTR__ATIME}},
      {"norelatime", {MOUNT_ATTR_STRICTATIME, MOUNT_ATTR__ATIME}},
      {"strictatime", {MOUNT_ATTR_STRICTATIME, MOUNT_ATTR__ATIME}},
      {"nostrictatime", {MOUNT_ATTR_RELATIME, MOUNT_ATTR__ATIME}},
      {"nosymfollow", {no_symlinks, 0}},
      {"symfollow", {0, no_symlinks}},
  };
  return table;
}

const std::map<std::string, std::uint64_t>& propagations() {
  static const std::map<std::string, std::uint64_t> table = {{"private", MS_PRIVATE},
                                                             {"shared", MS_SHARED},
                                                             {"slave", MS_SLAVE},
                                                             {"unbindable", MS_UNBINDABLE}};
  return table;
}

// Said by others and without effect here: the standard, or of the superblock's locking that Linux
// no longer has.
bool is_without_effect(const std::string& option) {
  for (const char* known : {"defaults", "remount", "silent", "loud", "mand", "nomand", "async"})
    if (option == known) return true;
  return false;
}

void add(MountOptions& out, const Attribute& attribute, bool recursive) {
  (recursive ? out.recursive_set : out.set) =
      ((recursive ? out.recursive_set : out.set) & ~attribute.clear) | attribute.set;
  (recursive ? out.recursive_clear : out.clear) =
      ((recursive ? out.recursive_clear : out.clear) & ~attribute.set) | attribute.clear;
}

}  // namespace

bool MountOptions::read_only() const { return ((set | recursive_set) & MOUNT_ATTR_RDONLY) != 0; }

MountOptions parse_mount_options(const std::vector<std::string>& options) {
  MountOptions out;
  for (const std::string& option : options) {
    bool recursive = option.size() > 1 && option.front() == 'r';
    const std::string rest = recursive ? option.substr(1) : "";
    if (auto plain = attributes().find(option); plain != attributes().end()) {
      add(out, plain->second, false);
    } else if (auto below = attributes().find(rest); recursive && below != attributes().end()) {
      add(out, below->second, true);
    } else if (auto own = propagations().find(option); own != propagations().end()) {
      out.propagation = own->second;
      out.recursive_propagation = false;
    } else if (auto all = propagations().find(rest); recursive && all != propagations().end()) {
      out.propagation = all->second;
      out.recursive_propagation = true;
    } else if (option == "bind" || option == "rbind") {
      out.bind = true;
      out.recursive = out.recursive || option == "rbind";
    } else if (option == "idmap" || option == "ridmap") {
      out.id_mapped = true;
      out.recursive_id_map = option == "ridmap";
    } else if (option == "tmpcopyup") {
      out.copy_up = true;
    } else if (!is_without_effect(option) && !option.empty()) {
      out.data.push_back(option);
    }
  }
  return out;
}

bool is_bind(const oci::Mount& mount) {
  return mount.type == "bind" || mount.type == "none" || parse_mount_options(mount.options).bind;
}

bool is_id_mapped(const oci::Mount& mount) {
  return !mount.uid_mappings.empty() || !mount.gid_mappings.empty() ||
         parse_mount_options(mount.options).id_mapped;
}

std::vector<std::string> known_mount_options() {
  std::map<std::string, bool> names = {
      {"bind", true}, {"rbind", true}, {"tmpcopyup", true}, {"idmap", true}, {"ridmap", true}};
  for (const auto& [name, unused] : attributes()) names[name] = names["r" + name] = true;
  for (const auto& [name, unused] : propagations()) names[name] = names["r" + name] = true;
  for (const char* name :
       {"defaults", "remount", "silent", "loud", "mand", "nomand", "async", "sync", "dirsync"})
    names[name] = true;
  std::vector<std::string> out;
  for (const auto& [name, unused] : names) out.push_back(name);
  return out;
}

}  // namespace hobbes
