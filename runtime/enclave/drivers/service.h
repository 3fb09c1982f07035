// Kinds whose enclave process is a program of ours, confined in a small enclave of kind `linux`:
// what their drivers and those programs have in common.
#pragma once
#include <chrono>
#include <string>
#include <string_view>
#include <vector>

#include "bundle/bundle.h"
#include "core/fd.h"

namespace hobbes {

/// A program of libexec/hobbes: beside the running one in a build tree, or where it is installed.
/// Errors: Code::unavailable.
Result<Fd> open_service_program(const std::string& name);

struct ServiceProgram {
  int descriptor = 0;  ///< where it finds itself
  std::vector<std::string> arguments, capabilities, namespaces;
  bool terminal = false;
  std::uint64_t open_files = 0;  ///< its limit; 0: the caller's
};
/// The bundle it runs from: the host's root, read-only, and nothing of its own but the descriptors
/// it is given. Hooks, annotations and the control group's path are those of the enclave's bundle.
Result<Bundle> service_bundle(const Bundle& bundle, const ServiceProgram& program);

/// One request to its socket, and the answer. `fds`: handed over. `out`: what it hands back.
/// Errors: what it answered; Code::unavailable.
Result<Json> ask_service(const std::string& socket, const std::string& attempt, const Json& request,
                         std::chrono::milliseconds deadline, const std::vector<int>& fds = {},
                         std::vector<Fd>* out = nullptr);

/// Appends to the console log, which starts anew when it is full: a kernel that prints for ever
/// must not fill the file system.
void append_to_console(int log, std::string_view text);
/// The same text for the maker of the enclave, as far as there is room within `patience`: nobody
/// waits longer for its reader. True when there was.
bool show_creator(std::string_view text, std::chrono::milliseconds patience = {});

}  // namespace hobbes
