// Where Hobbes keeps things. One place, so that a test or a site moves all of it with two
// variables.
#pragma once
#include <unistd.h>

#include <cstdlib>
#include <string>

#include "core/identity.h"
#include "core/sealed_program.h"

namespace hobbes {

/// Run-time files, gone with a reboot: $HOBBES_RUN_DIR, or /run/hobbes.
inline std::string run_directory() {
  const char* set = std::getenv("HOBBES_RUN_DIR");
  return set != nullptr && *set == '/' ? set : "/run/hobbes";
}
/// What outlives a reboot: $HOBBES_STATE_DIR, or /var/lib/hobbes.
inline std::string state_directory() {
  const char* set = std::getenv("HOBBES_STATE_DIR");
  return set != nullptr && *set == '/' ? set : "/var/lib/hobbes";
}
inline std::string control_socket_path() { return run_directory() + "/control.sock"; }
inline std::string api_socket_path() { return run_directory() + "/api.sock"; }
inline std::string mirror_path() { return run_directory() + "/nis"; }
/// The default `--root` of a user: one folder per enclave made by people and by the REST API. Users
/// other than root have one each, which hobbesd makes for them.
inline std::string default_root(uid_t uid = ::geteuid()) {
  return run_directory() + (uid == 0 ? std::string("/enclaves") : "/users/" + std::to_string(uid));
}

/// What an enclave that hobbesd had made has printed.
inline std::string enclave_log(uid_t uid, const std::string& root, const std::string& id) {
  return run_directory() + "/logs/" + hex(enclave_scope(uid, root)) + "-" + id + ".log";
}

/// Another of our programs: beside the running one, as in a build tree, or in the bin or sbin
/// folder next to it, as installed.
inline std::string sibling_program(const std::string& name) {
  std::string folder = program_file();
  if (folder.empty()) folder = "/usr/bin/hobbes";
  folder.resize(folder.rfind('/'));
  for (const char* place : {"/", "/../bin/", "/../sbin/"})
    if (std::string path = folder + place + name; ::access(path.c_str(), X_OK) == 0) return path;
  return "/usr/bin/" + name;
}

}  // namespace hobbes
