#include "shell/dashboard.h"

#include <signal.h>

#include <iostream>
#include <string>

#include "api/loopback_server.h"
#include "core/json.h"
#include "core/standard_streams.h"
#include "ipc/client.h"

namespace hobbes {
namespace {

// A connection for each request: what the API asks for is not undone when it closes, and hobbesd
// may have been restarted since the last one.
Result<Message> ask(Json request) {
  HOBBES_TRY(client, Client::connect(false));
  const std::string op = text_at(request, "op");
  return client.call(op, std::move(request));
}

// SIGINT and SIGTERM wait here, in the server's threads as well.
class BlockedSignals {
 public:
  BlockedSignals() {
    sigemptyset(&ends_);
    sigaddset(&ends_, SIGINT);
    sigaddset(&ends_, SIGTERM);
    ::pthread_sigmask(SIG_BLOCK, &ends_, &before_);
  }
  ~BlockedSignals() { restore(); }
  BlockedSignals(const BlockedSignals&) = delete;
  BlockedSignals& operator=(const BlockedSignals&) = delete;
  void wait() const {
    int received = 0;
    ::sigwait(&ends_, &received);
  }
  /// The next one has its usual effect: a client that holds the server up can be left behind.
  void restore() const { ::pthread_sigmask(SIG_SETMASK, &before_, nullptr); }

 private:
  sigset_t ends_{}, before_{};
};

}  // namespace

Result<void> serve_dashboard(std::uint16_t port, bool json) {
  HOBBES_TRY(first, Client::connect());  // which starts hobbesd where the caller may
  (void)first;
  const BlockedSignals signals;
  HOBBES_TRY(server, LoopbackServer::start(
                         port, [](const Peer&, Json request) { return ask(std::move(request)); }));
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
  signals.wait();
  signals.restore();
  return {};
}

}  // namespace hobbes
