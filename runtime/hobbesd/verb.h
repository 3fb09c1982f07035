// What a requester asks hobbes-run to do: checked fields in, a command line out.
#pragma once
#include <string>
#include <vector>

#include "core/json.h"
#include "core/result.h"

namespace hobbes {

/// One call of hobbes-run. Its words are made here and nowhere else, so that no requester can add
/// an option of his own.
struct Verb {
  std::string name;  ///< as requested: plan, create, run, start, kill, pause, resume, update,
                     ///< delete or exec
  std::string root, id;
  std::vector<std::string> words;  ///< after the program's name and the options of hobbesd's own

  [[nodiscard]] bool makes_an_enclave() const {
    return name == "create" || name == "run" || name == "plan";
  }
  /// Whether its standard output is the answer, as JSON.
  bool has_result = false;
};

/// Reads {"verb", "root", "id", "key", ...}; docs/CONTROL.md lists the fields of each verb. Errors:
/// Code::invalid for an unknown verb, a field that the verb does not have, and a value that is not
/// what the field needs.
Result<Verb> read_verb(const Json& request, const std::string& default_root);

}  // namespace hobbes
