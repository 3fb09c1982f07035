// The verbs of hobbes-run. Each returns the program's exit status or an error.
#pragma once
#include <chrono>

#include "core/result.h"
#include "hobbes-run/options.h"

namespace hobbes {

Result<int> create(const Globals& globals, const CreateOptions& options);
Result<int> run_enclave(const Globals& globals, const CreateOptions& options);
Result<int> start(const Globals& globals, const std::string& id);
Result<int> exec(const Globals& globals, const ExecOptions& options);
Result<int> state(const Globals& globals, const std::string& id);
Result<int> list(const Globals& globals, const std::string& format, bool quiet);
Result<int> ps(const Globals& globals, const std::string& id, const std::string& format,
               const std::vector<std::string>& options);
Result<int> kill(const Globals& globals, const std::string& id, const std::string& signal,
                 bool all);
Result<int> remove(const Globals& globals, const std::string& id, bool force);
/// Every enclave whose id an extended regular expression matches. Errors: the first that stays,
/// after all were tried.
Result<int> remove_matching(const Globals& globals, const std::string& pattern, bool force);
Result<int> pause(const Globals& globals, const std::string& id);
Result<int> resume(const Globals& globals, const std::string& id);
Result<int> update(const Globals& globals, const UpdateOptions& options);
Result<int> events(const Globals& globals, const std::string& id, bool stats,
                   std::chrono::milliseconds interval);
Result<int> features();
Result<int> spec(const std::string& kind, bool host_root, bool terminal, const std::string& bundle,
                 bool print);
Result<int> validate(const Globals& globals, const std::string& bundle);

}  // namespace hobbes
