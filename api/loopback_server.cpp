#include "api/loopback_server.h"

#include <httplib.h>
#include <openssl/crypto.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <mutex>
#include <thread>

#include "api/page.h"
#include "api/routes.h"
#include "api/tcp_server.h"
#include "core/identity.h"
#include "core/json.h"
#include "core/number.h"

namespace hobbes {
namespace {

Result<std::string> random_word() {
  std::array<unsigned char, 24> bytes{};
  if (::getrandom(bytes.data(), bytes.size(), 0) != static_cast<ssize_t>(bytes.size()))
    return os_error("make a token", errno);
  std::string out;
  for (unsigned char byte : bytes) out += hex(byte, 2);
  return out;
}

bool same(const std::string& a, const std::string& b) {
  return a.size() == b.size() && CRYPTO_memcmp(a.data(), b.data(), a.size()) == 0;
}

// HOST or HOST:PORT. A forwarded port may have another number on the other machine.
bool names_loopback(const std::string& host) {
  for (const char* name : {"127.0.0.1", "localhost", "[::1]"}) {
    const std::string wanted = name;
    if (host == wanted) return true;
    if (host.rfind(wanted + ":", 0) == 0 &&
        whole_number(host.substr(wanted.size() + 1), 65535).has_value())
      return true;
  }
  return false;
}

// A page of another origin may send requests; browsers say that it does (W3C Fetch Metadata, and
// RFC 6454 for those that are older).
bool from_the_page(const httplib::Request& request) {
  if (request.has_header("Sec-Fetch-Site")) {
    const std::string site = request.get_header_value("Sec-Fetch-Site");
    if (site != "same-origin" && site != "none") return false;
  }
  return !request.has_header("Origin") ||
         request.get_header_value("Origin") == "http://" + request.get_header_value("Host");
}

class Loopback final : public LoopbackServer {
 public:
  Result<void> begin(std::uint16_t port, const Dispatch& dispatch) {
    const std::string attempt = "serve the page at 127.0.0.1:" + std::to_string(port);
    HOBBES_TRY(token, random_word());
    HOBBES_TRY(session, random_word());
    token_ = std::move(token);
    session_ = std::move(session);
    server_.new_task_queue = [] { return new httplib::ThreadPool(24); };
    // What one request leaves unread is never taken for the next.
    server_.set_keep_alive_max_count(1);
    server_.set_read_timeout(5);
    server_.set_write_timeout(5);
    // Without SO_REUSEPORT, by which a second server would share the port.
    server_.set_socket_options([](socket_t socket) {
      const int yes = 1;
      (void)::setsockopt(socket, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    });
    add_page(server_);
    server_.Post("/session", [this](const httplib::Request& request, httplib::Response& response) {
      open_session(request, response);
    });
    add_routes(
        server_, [this](const httplib::Request& request) { return identify(request); }, dispatch);
    errno = 0;
    const int bound = port == 0 ? server_.bind_to_any_port("127.0.0.1")
                      : server_.bind_to_port("127.0.0.1", port) ? port
                                                                : -1;
    if (bound <= 0 && errno == EACCES)
      return Error{Code::denied, attempt, "the port needs privilege", "choose one above 1023"};
    if (bound <= 0)
      return Error{Code::exists, attempt, "the port cannot be taken",
                   "choose another one, or let it be chosen"};
    server_.raise_backlog();
    port_ = static_cast<std::uint16_t>(bound);
    thread_ = std::thread([this] { server_.listen_after_bind(); });
    // stop() has no effect before the thread has begun.
    for (int i = 0; i < 10000 && !server_.is_running(); ++i)
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    return {};
  }
  ~Loopback() override {
    server_.stop();
    if (thread_.joinable()) thread_.join();
  }
  [[nodiscard]] std::uint16_t port() const override { return port_; }
  [[nodiscard]] std::string url() const override {
    return "http://127.0.0.1:" + std::to_string(port_) + "/#token=" + token_;
  }

 private:
  // {"token": T} is exchanged for {"session": S}, once.
  void open_session(const httplib::Request& request, httplib::Response& response) {
    const auto body = parse_json(request.body, "the request's body");
    const std::string given = body && body->is_object() ? text_at(*body, "token") : "";
    std::lock_guard guard(lock_);
    const bool good = names_loopback(request.get_header_value("Host")) && from_the_page(request) &&
                      !token_used_ && same(given, token_);
    token_used_ = token_used_ || good;
    response.status = good ? 200 : 403;
    response.set_content(
        to_text(good ? Json{{"session", session_}}
                     : Json{{"type", problem_type("denied")},
                            {"title", "the address admits one browser, once"},
                            {"status", 403},
                            {"detail",
                             "this address was used before, or is not complete; run "
                             "`hobbes dashboard` again for a new one"},
                            {"code", "denied"}}),
        good ? "application/json" : "application/problem+json");
  }

  [[nodiscard]] Result<Peer> identify(const httplib::Request& request) const {
    const bool good = names_loopback(request.get_header_value("Host")) && from_the_page(request) &&
                      same(request.get_header_value("Authorization"), "Bearer " + session_);
    if (!good)
      return Error{Code::denied, "authenticate", "the request does not come from the page",
                   "open the address that `hobbes dashboard` has printed, or run it again"};
    Peer self;
    self.uid = ::geteuid();
    self.gid = ::getegid();
    self.pid = ::getpid();
    return self;
  }

  TcpServer<httplib::Server> server_;
  std::uint16_t port_ = 0;
  std::string token_, session_;
  std::mutex lock_;
  bool token_used_ = false;
  std::thread thread_;
};

}  // namespace

Result<std::unique_ptr<LoopbackServer>> LoopbackServer::start(std::uint16_t port,
                                                              Dispatch dispatch) {
  auto server = std::make_unique<Loopback>();
  HOBBES_CHECK(server->begin(port, dispatch));
  return std::unique_ptr<LoopbackServer>(std::move(server));
}

}  // namespace hobbes
