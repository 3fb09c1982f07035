#include "shell/dashboard.h"

#include <signal.h>

#include <iostream>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "api/loopback_server.h"
#include "core/json.h"
#include "core/standard_streams.h"
#include "ipc/client.h"

namespace hobbes {
namespace {

// Connections to hobbesd, one for each request that is being answered. They are kept: closing one
// undoes what was begun over it.
class Connections {
 public:
  Result<Message> ask(Json request) {
    HOBBES_TRY(client, take());
    const std::string op = text_at(request, "op");
    auto answer = client.call(op, std::move(request));
    // hobbesd answers a refusal; a connection that fails is of no more use.
    if (answer || answer.error().code != Code::unavailable) give_back(std::move(client));
    return answer;
  }

 private:
  Result<Client> take() {
    {
      std::lock_guard guard(lock_);
      if (!free_.empty()) {
        Client out = std::move(free_.back());
        free_.pop_back();
        return out;
      }
    }
    return Client::connect();
  }
  void give_back(Client client) {
    std::lock_guard guard(lock_);
    free_.push_back(std::move(client));
  }
  std::mutex lock_;
  std::vector<Client> free_;
};

}  // namespace

Result<void> serve_dashboard(std::uint16_t port, bool json) {
  sigset_t ends;
  sigemptyset(&ends);
  sigaddset(&ends, SIGINT);
  sigaddset(&ends, SIGTERM);
  ::pthread_sigmask(SIG_BLOCK, &ends, nullptr);  // in the server's threads, too

  auto connections = std::make_shared<Connections>();
  HOBBES_TRY(there, connections->ask({{"op", "ping"}}));
  (void)there;
  HOBBES_TRY(server, LoopbackServer::start(port, [connections](const Peer&, Json request) {
               return connections->ask(std::move(request));
             }));
  if (json) {
    std::cout << to_text({{"url", server->url()}, {"port", server->port()}}) << "\n";
  } else {
    const std::string number = std::to_string(server->port());
    std::cout << "The page is at " << server->url()
              << "\nIt admits one browser, and ends with Ctrl-C. From another machine, forward the "
                 "port first:\n  ssh -L "
              << number << ":127.0.0.1:" << number << " THIS-NODE\n";
  }
  HOBBES_CHECK(flush_standard_output());
  int received = 0;
  ::sigwait(&ends, &received);
  return {};
}

}  // namespace hobbes
