#include "ipc/membership.h"

#include <unistd.h>

#include <thread>

#include "core/identity.h"
#include "core/paths.h"
#include "ipc/message_socket.h"

namespace hobbes {
namespace {

using std::chrono::milliseconds;

Result<Json> ask(const std::string& composition, const Json& request) {
  HOBBES_TRY(channel, MessageSocket::connect(hosting_socket_path(::geteuid(), composition)));
  HOBBES_CHECK(channel.send(request));
  HOBBES_TRY(answer, channel.receive(milliseconds(10'000)));
  if (answer.body.contains("error")) return error_from(answer.body["error"]);
  return std::move(answer.body);
}

}  // namespace

std::string hosting_socket_path(uid_t uid, const std::string& composition) {
  return run_directory() + "/remora-" + std::to_string(uid) + "-" + hex(hash_of(composition), 8) +
         ".sock";
}

Result<Membership> join_composition(const std::string& composition, const std::string& app,
                                    std::chrono::seconds limit) {
  auto end = std::chrono::steady_clock::now() + limit;
  for (;;) {
    auto answer = ask(composition, {{"op", "join"}, {"app", app}});
    if (answer) {
      Membership out;
      out.composition = composition;
      out.rank = static_cast<unsigned>(number_at(*answer, "rank"));
      for (const Json& entry : answer->at("environment"))
        out.environment.push_back(entry.get<std::string>());
      for (const Json& mount : answer->at("mounts"))
        out.mounts.emplace_back(text_at(mount, "source"), text_at(mount, "destination"));
      return out;
    }
    bool absent = answer.error().attempt.rfind("reach ", 0) == 0;
    if (!absent) return std::move(answer).error();
    if (std::chrono::steady_clock::now() > end)
      return Error{Code::timeout, "join composition '" + composition + "' as app '" + app + "'",
                   "nobody hosted it within " + std::to_string(limit.count()) + " s",
                   "run `remora host` on its document first"};
    std::this_thread::sleep_for(milliseconds(20));
  }
}

Result<void> arrive(const std::string& composition, const std::string& app, int rank, pid_t pid) {
  HOBBES_TRY(answer,
             ask(composition, {{"op", "arrive"}, {"app", app}, {"rank", rank}, {"pid", pid}}));
  (void)answer;
  return {};
}

Result<void> leave(const std::string& composition, unsigned rank) {
  HOBBES_TRY(answer, ask(composition, {{"op", "leave"}, {"rank", rank}}));
  (void)answer;
  return {};
}

}  // namespace hobbes
