// What the tests of attacks share: bundles changed in place, folders that somebody swaps meanwhile,
// and questions about who could write what.
#pragma once
#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/fs.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <functional>
#include <string>
#include <thread>

#include "core/file.h"
#include "core/json.h"
#include "node_harness.h"

namespace hobbes::test {

inline bool holds(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

/// Changes a bundle's configuration where a merge patch is too weak (arrays).
inline void edit(const std::string& bundle, const std::function<void(Json&)>& change) {
  auto text = Files::system().read(bundle + "/config.json");
  ASSERT_TRUE(text);
  auto config = parse_json(*text, "config.json");
  ASSERT_TRUE(config);
  change(*config);
  ASSERT_TRUE(replace_file(bundle + "/config.json", to_text(*config, 2)));
}

inline Json volume_at(const std::string& source, const std::string& destination,
                      const char* access) {
  return {{"destination", destination},
          {"type", "bind"},
          {"source", source},
          {"options", {"bind", access}}};
}

inline void keep_mounts(Json& config, const std::function<bool(const std::string&)>& wanted) {
  Json kept = Json::array();
  for (const Json& mount : config["mounts"])
    if (wanted(text_at(mount, "destination"))) kept.push_back(mount);
  config["mounts"] = kept;
}

/// Takes a namespace out of a bundle, or has it joined.
inline void set_namespace(Json& config, const std::string& type, const std::string& path) {
  Json kept = Json::array();
  for (const Json& space : config["linux"]["namespaces"])
    if (text_at(space, "type") != type) kept.push_back(space);
  if (!path.empty()) kept.push_back({{"type", type}, {"path", path}});
  config["linux"]["namespaces"] = kept;
}

/// A bundle that leases nothing, so that many can live at once.
inline Json no_lease() { return {{"hobbes", nullptr}}; }
inline Json no_lease_writable() {
  return {{"hobbes", nullptr}, {"root", {{"path", "rootfs"}, {"readonly", false}}}};
}

/// Prints "writable NAME" for each regular file that can be opened for writing.
/// Nothing is written: what is opened may be the kernel's own.
inline std::string tell_writable(const std::string& names) {
  return "for f in " + names +
         "; do [ -f $f ] && (: >> $f) 2>/dev/null && echo writable $f; done; true";
}

/// Somebody who shares a volume with an enclave that is being made, and does `what` all the time.
class Racer {
 public:
  explicit Racer(std::function<void()> what)
      : thread_([this, act = std::move(what)] {
          while (!ended_.load(std::memory_order_relaxed)) act();
        }) {}
  ~Racer() {
    ended_ = true;
    thread_.join();
  }
  Racer(const Racer&) = delete;
  Racer& operator=(const Racer&) = delete;

 private:
  std::atomic<bool> ended_ = false;
  std::thread thread_;
};

/// Exchanges two names at once.
inline void swap_names(const std::string& one, const std::string& other) {
  (void)::syscall(SYS_renameat2, AT_FDCWD, one.c_str(), AT_FDCWD, other.c_str(), RENAME_EXCHANGE);
}

}  // namespace hobbes::test
