#include "api/server.h"

#include <grp.h>
#include <openssl/sha.h>
#include <pwd.h>
#include <unistd.h>

#include <cerrno>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "api/page.h"
#include "api/routes.h"
#include "api/tcp_server.h"
#include "api/unix_server.h"
#include "core/identity.h"
#include "core/number.h"

namespace hobbes {
namespace {

std::string sha256_hex(const std::string& text) {
  unsigned char digest[SHA256_DIGEST_LENGTH];
  ::SHA256(reinterpret_cast<const unsigned char*>(text.data()), text.size(), digest);
  std::string out;
  for (unsigned char byte : digest) out += hex(byte, 2);
  return out;
}

// The user a token stands for, with the groups that the user database gives him.
Result<Peer> peer_named(uid_t uid) {
  passwd entry{};
  passwd* found = nullptr;
  std::vector<char> space(16384);
  if (::getpwuid_r(uid, &entry, space.data(), space.size(), &found) != 0 || found == nullptr)
    return Error{Code::denied, "authenticate",
                 "the token's user " + std::to_string(uid) + " is not in the user database",
                 "add that user, or name another one under \"tokens\" in /etc/hobbes/hobbesd.json"};
  Peer out;
  out.uid = uid;
  out.gid = found->pw_gid;
  int count = 1024;
  out.groups.resize(static_cast<std::size_t>(count));
  if (::getgrouplist(found->pw_name, out.gid, out.groups.data(), &count) < 0) count = 0;
  out.groups.resize(static_cast<std::size_t>(count));
  return out;
}

// SHA-256 of tokens, which a site may exchange while requests are served.
class Tokens {
 public:
  explicit Tokens(std::map<std::string, uid_t> users) : users_(std::move(users)) {}
  void set(std::map<std::string, uid_t> users) {
    std::lock_guard guard(lock_);
    users_ = std::move(users);
  }
  [[nodiscard]] std::optional<uid_t> user_of(const std::string& digest) const {
    std::lock_guard guard(lock_);
    auto at = users_.find(digest);
    return at != users_.end() ? std::optional(at->second) : std::nullopt;
  }

 private:
  mutable std::mutex lock_;
  std::map<std::string, uid_t> users_;
};

// The user of "Authorization: Bearer TOKEN". Only digests are stored, and a digest is looked up, so
// timing tells nothing of a token.
Identify by_token(std::shared_ptr<const Tokens> tokens) {
  return [tokens = std::move(tokens)](const httplib::Request& request) -> Result<Peer> {
    std::string header = request.get_header_value("Authorization");
    Error refusal{Code::denied, "authenticate", "no known bearer token was sent",
                  "send Authorization: Bearer TOKEN; the administrator lists its SHA-256 under "
                  "\"tokens\" in /etc/hobbes/hobbesd.json"};
    if (header.rfind("Bearer ", 0) != 0) return refusal;
    auto user = tokens->user_of(sha256_hex(header.substr(7)));
    if (!user) return refusal;
    return peer_named(*user);
  };
}

class Api final : public ApiServer {
 public:
  Result<void> begin(Fd listening, const ApiOptions& options) {
    HOBBES_TRY(
        server, UnixServer::start(std::move(listening), [&](httplib::Server& routes) {
          add_routes(
              routes,
              [](const httplib::Request&) -> Result<Peer> { return UnixServer::current_peer(); },
              options.dispatch);
          add_page(routes);
        }));
    unix_ = std::move(server);
    tokens_->set(options.tokens);
    if (options.tcp_address.empty()) return {};
    std::string attempt = "serve REST at " + options.tcp_address;
    if (options.certificate.empty() || options.key.empty() || options.tokens.empty())
      return Error{Code::invalid, attempt, "TCP needs TLS and tokens",
                   "give --tls-certificate, --tls-key and \"tokens\" in the configuration"};
    std::size_t colon = options.tcp_address.rfind(':');
    auto port = colon == std::string::npos
                    ? std::nullopt
                    : whole_number(options.tcp_address.substr(colon + 1), 65535);
    if (!port)
      return Error{Code::invalid, attempt, "it is not HOST:PORT", "give a port from 0 to 65535"};
    tls_ = std::make_unique<TcpServer<httplib::SSLServer>>(options.certificate.c_str(),
                                                           options.key.c_str());
    if (!tls_->is_valid())
      return Error{Code::invalid, attempt, "the certificate or key cannot be used",
                   "give PEM files that belong together"};
    tls_->new_task_queue = [] { return new httplib::ThreadPool(32); };
    tls_->set_keep_alive_max_count(
        1);  // what one request leaves unread is never taken for the next
    tls_->set_read_timeout(5);
    tls_->set_write_timeout(5);
    add_routes(*tls_, by_token(tokens_), options.dispatch);
    add_page(*tls_);
    std::string host = options.tcp_address.substr(0, colon);
    if (!tls_->bind_to_port(host.c_str(), static_cast<int>(*port)))
      return os_error(attempt, errno != 0 ? errno : EADDRINUSE);
    tls_->raise_backlog();
    tls_thread_ = std::thread([this] { tls_->listen_after_bind(); });
    return {};
  }
  ~Api() override { stop_all(); }
  void stop() override { stop_all(); }
  void set_tokens(std::map<std::string, uid_t> tokens) override { tokens_->set(std::move(tokens)); }

 private:
  void stop_all() {
    if (unix_) unix_->stop();
    if (tls_) tls_->stop();
    if (tls_thread_.joinable()) tls_thread_.join();
  }
  std::unique_ptr<UnixServer> unix_;
  std::shared_ptr<Tokens> tokens_ = std::make_shared<Tokens>(std::map<std::string, uid_t>());
  std::unique_ptr<TcpServer<httplib::SSLServer>> tls_;
  std::thread tls_thread_;
};

}  // namespace

Result<std::unique_ptr<ApiServer>> ApiServer::start(Fd listening, const ApiOptions& options) {
  auto api = std::make_unique<Api>();
  HOBBES_CHECK(api->begin(std::move(listening), options));
  return std::unique_ptr<ApiServer>(std::move(api));
}

}  // namespace hobbes
