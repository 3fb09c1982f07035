#include "enclave/hooks.h"

#include "core/process.h"

namespace hobbes {

namespace {

Result<void> run_hook(const oci::Hook& hook, const std::string& stage, const Json& state) {
  std::string attempt = "run " + stage + " hook " + hook.path;
  Command command;
  command.argv = hook.args;
  if (command.argv.empty()) command.argv = {hook.path};
  command.argv[0] = hook.path;
  if (!hook.env.empty()) command.environment = hook.env;
  command.input = to_text(state);
  command.deadline = std::chrono::seconds(hook.timeout_seconds.value_or(60));
  auto outcome = run(command);
  if (!outcome) return std::move(outcome.error()).within("run the " + stage + " hooks");
  if (outcome->timed_out)
    return Error{Code::timeout, attempt,
                 "it ran longer than " + std::to_string(command.deadline.count() / 1000) + " s",
                 "raise its timeout"};
  if (outcome->wait_status == 0) return {};
  std::string words =
      outcome->err.substr(outcome->err.size() > 500 ? outcome->err.size() - 500 : 0);
  while (!words.empty() && words.back() == '\n') words.pop_back();
  return Error{Code::os, attempt,
               describe_wait_status(outcome->wait_status) + (words.empty() ? "" : ": " + words),
               ""};
}

}  // namespace

Result<void> run_hooks(const std::vector<oci::Hook>& hooks, const std::string& stage,
                       const Json& state) {
  for (const oci::Hook& hook : hooks) HOBBES_CHECK(run_hook(hook, stage, state));
  return {};
}

std::vector<Error> run_every_hook(const std::vector<oci::Hook>& hooks, const std::string& stage,
                                  const Json& state) {
  std::vector<Error> failures;
  for (const oci::Hook& hook : hooks)
    if (auto ran = run_hook(hook, stage, state); !ran) failures.push_back(std::move(ran).error());
  return failures;
}

}  // namespace hobbes
