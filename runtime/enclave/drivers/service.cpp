#include "enclave/drivers/service.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <climits>

#include "core/file.h"
#include "core/paths.h"
#include "core/process.h"
#include "ipc/message_socket.h"

namespace hobbes {

Result<Fd> open_service_program(const std::string& name) {
  for (const std::string& folder :
       {program_directory() + "/../libexec/hobbes/", std::string("/usr/libexec/hobbes/")})
    if (Fd out(::open((folder + name).c_str(), O_RDONLY | O_CLOEXEC)); out) return out;
  return Error{Code::unavailable, "find the program of the enclave process",
               name + " is not in ../libexec/hobbes", "install Hobbes completely"};
}

Result<Bundle> service_bundle(const Bundle& bundle, const ServiceProgram& program) {
  Json args = {"/proc/self/fd/" + std::to_string(program.descriptor)};
  for (const std::string& argument : program.arguments) args.push_back(argument);
  Json capabilities = program.capabilities;
  Json config = {
      {"ociVersion", "1.3.0"},
      {"process",
       {{"args", args},
        {"cwd", "/"},
        {"env", {"PATH=/usr/bin:/bin", "HOBBES_RUN_DIR=" + run_directory()}},
        {"terminal", program.terminal},
        {"noNewPrivileges", true},
        {"capabilities",
         {{"bounding", capabilities}, {"effective", capabilities}, {"permitted", capabilities}}}}},
      {"hobbes", {{"kind", "linux"}, {"root", "host"}}}};
  for (const char* key : {"hooks", "annotations"})
    if (bundle.config.contains(key)) config[key] = bundle.config[key];
  if (config.contains("annotations"))
    for (auto at = config["annotations"].begin(); at != config["annotations"].end();)
      at = at.key().rfind("org.hobbes.", 0) == 0 ? config["annotations"].erase(at) : std::next(at);
  if (program.open_files != 0)
    config["process"]["rlimits"] = {
        {{"type", "RLIMIT_NOFILE"}, {"soft", program.open_files}, {"hard", program.open_files}}};
  for (const std::string& type : program.namespaces)
    config["linux"]["namespaces"].push_back({{"type", type}});
  if (!bundle.oci.linux_.cgroups_path.empty())
    config["linux"]["cgroupsPath"] = bundle.oci.linux_.cgroups_path;
  Validation validation = validate_config(bundle.path, config);
  if (!validation.bundle)
    return Error{Code::corrupt, "describe the enclave process's own enclave",
                 report(validation.problems), ""};
  return std::move(*validation.bundle);
}

Result<Json> ask_service(const std::string& socket, const std::string& attempt, const Json& request,
                         std::chrono::milliseconds deadline, const std::vector<int>& fds,
                         std::vector<Fd>* out) {
  auto channel = MessageSocket::connect(socket);
  if (!channel) return std::move(channel.error()).within(attempt);
  HOBBES_CHECK(channel->send(request, fds));
  auto reply = channel->receive(deadline);
  if (!reply) return std::move(reply.error()).within(attempt);
  if (!reply->body.value("ok", false))
    return error_from(reply->body.value("error", Json::object()));
  if (out != nullptr) *out = std::move(reply->fds);
  return std::move(reply->body);
}

void append_to_console(int log, std::string_view text) {
  constexpr off_t limit = 16 << 20;
  struct stat now {};
  if (::fstat(log, &now) == 0 && now.st_size > limit) (void)!::ftruncate(log, 0);
  (void)write_all(log, text, "the console log");
}

bool show_creator(std::string_view text, std::chrono::milliseconds patience) {
  pollfd out{STDOUT_FILENO, POLLOUT, 0};
  if (::poll(&out, 1, static_cast<int>(patience.count())) != 1 || (out.revents & POLLOUT) == 0)
    return false;
  return ::write(STDOUT_FILENO, text.data(), std::min<std::size_t>(text.size(), PIPE_BUF)) > 0;
}

}  // namespace hobbes
