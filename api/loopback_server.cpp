#include "api/loopback_server.h"

#include <httplib.h>
#include <openssl/crypto.h>
#include <sys/random.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <mutex>
#include <string_view>
#include <thread>

#include "api/page.h"
#include "api/routes.h"
#include "api/tcp_server.h"
#include "core/identity.h"
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

// The value of a cookie (RFC 6265, section 4.2); "" when there is none.
std::string cookie_of(const httplib::Request& request, const std::string& name) {
  std::string header = request.get_header_value("Cookie");
  for (std::size_t begin = 0; begin < header.size();) {
    std::size_t end = std::min(header.find(';', begin), header.size());
    std::string_view pair = std::string_view(header).substr(begin, end - begin);
    while (!pair.empty() && pair.front() == ' ') pair.remove_prefix(1);
    if (pair.substr(0, name.size() + 1) == name + "=")
      return std::string(pair.substr(name.size() + 1));
    begin = end + 1;
  }
  return "";
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
    // Before the routes: what is asked for under a foreign name is not even a page.
    add_page(server_, [this](const httplib::Request& request, httplib::Response& response) {
      return enter(request, response);
    });
    add_routes(
        server_, [this](const httplib::Request& request) { return identify(request); }, dispatch);
    const int bound = port == 0 ? server_.bind_to_any_port("127.0.0.1")
                      : server_.bind_to_port("127.0.0.1", port) ? port
                                                                : -1;
    if (bound <= 0)
      return Error{Code::exists, attempt, "the port cannot be taken",
                   "choose another one, or let it be chosen"};
    server_.raise_backlog();
    port_ = static_cast<std::uint16_t>(bound);
    thread_ = std::thread([this] { server_.listen_after_bind(); });
    // stop() has no effect before the thread has begun.
    for (int i = 0; i < 1000 && !server_.is_running(); ++i)
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    return {};
  }
  ~Loopback() override {
    server_.stop();
    if (thread_.joinable()) thread_.join();
  }
  [[nodiscard]] std::uint16_t port() const override { return port_; }
  [[nodiscard]] std::string url() const override {
    return "http://127.0.0.1:" + std::to_string(port_) + "/?token=" + token_;
  }

 private:
  // Cookies are one jar for all ports of a host.
  [[nodiscard]] std::string cookie_name() const { return "hobbes-" + std::to_string(port_); }

  [[nodiscard]] bool admitted(const httplib::Request& request) const {
    return names_loopback(request.get_header_value("Host")) && from_the_page(request) &&
           same(cookie_of(request, cookie_name()), session_);
  }

  // `/?token=T` exchanges the token for the cookie; `/` of anybody else is refused in plain words.
  bool enter(const httplib::Request& request, httplib::Response& response) {
    const std::string given = request.get_param_value("token");
    if (given.empty() && same(cookie_of(request, cookie_name()), session_)) return false;
    {
      std::lock_guard guard(lock_);
      if (!given.empty() && !token_used_ && names_loopback(request.get_header_value("Host")) &&
          same(given, token_)) {
        token_used_ = true;
        response.set_header("Set-Cookie",
                            cookie_name() + "=" + session_ + "; Path=/; HttpOnly; SameSite=Strict");
        response.status = 303;
        response.set_header("Location", "/");
        return true;
      }
    }
    response.status = 403;
    response.set_content(
        "This address was used before, or is not complete. It admits one browser, once.\n"
        "Run `hobbes dashboard` again for a new one.\n",
        "text/plain; charset=utf-8");
    return true;
  }

  [[nodiscard]] Result<Peer> identify(const httplib::Request& request) const {
    if (!admitted(request))
      return Error{Code::denied, "authenticate", "the request does not come from the page",
                   "open the address that `hobbes dashboard` has printed"};
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
