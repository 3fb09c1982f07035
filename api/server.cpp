#include "api/server.h"

#include <openssl/sha.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>

#include "api/routes.h"
#include "core/identity.h"

namespace hobbes {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr int thread_count = 24;  // event streams hold one each (event_stream_limit), the rest serve requests
constexpr std::size_t waiting_limit = 256;
constexpr milliseconds request_deadline(10'000);  // for all of a request to arrive, however slowly it is sent
constexpr milliseconds write_deadline(5'000);

// Bytes of one Unix connection, buffered, with deadlines that a trickling client cannot stretch.
class UnixStream final : public httplib::Stream {
 public:
  explicit UnixStream(int fd) : fd_(fd) { begin_request(); }
  void begin_request() {
    deadline_ = Clock::now() + request_deadline;
    header_.clear();
    bodiless_ = false;
  }
  [[nodiscard]] bool is_readable() const override { return bodiless_ || !buffer_.empty() || wait(POLLIN, deadline_); }
  [[nodiscard]] bool is_writable() const override { return wait(POLLOUT, Clock::now() + write_deadline); }
  ssize_t read(char* to, std::size_t size) override {
    if (bodiless_) return 0;
    if (buffer_.empty()) {
      char chunk[16384];
      ssize_t n = is_readable() ? ::recv(fd_, chunk, sizeof chunk, 0) : -1;
      if (n <= 0) return n;
      buffer_.assign(chunk, static_cast<std::size_t>(n));
    }
    std::size_t n = std::min(size, buffer_.size());
    if (!header_ended()) n = std::min<std::size_t>(n, 1);  // httplib reads headers by the byte anyway
    std::copy_n(buffer_.begin(), n, to);
    if (!header_ended()) note_header(buffer_[0]);
    buffer_.erase(0, n);
    return static_cast<ssize_t>(n);
  }
  ssize_t write(const char* from, std::size_t size) override {
    auto until = Clock::now() + write_deadline;
    for (std::size_t done = 0; done < size;) {
      if (!wait(POLLOUT, until)) return -1;
      ssize_t n = ::send(fd_, from + done, size - done, MSG_NOSIGNAL | MSG_DONTWAIT);
      if (n < 0 && errno != EAGAIN && errno != EINTR) return -1;
      if (n <= 0) continue;
      done += static_cast<std::size_t>(n);
      until = Clock::now() + write_deadline;
    }
    return static_cast<ssize_t>(size);
  }
  void get_remote_ip_and_port(std::string& ip, int& port) const override {
    ip = "unix";
    port = 0;
  }
  void get_local_ip_and_port(std::string& ip, int& port) const override { get_remote_ip_and_port(ip, port); }
  [[nodiscard]] socket_t socket() const override { return fd_; }
  [[nodiscard]] bool has_unread_body() const { return header_.find("\r\ntransfer-encoding:") != std::string::npos; }

 private:
  [[nodiscard]] bool header_ended() const { return header_.size() >= 4 && header_.compare(header_.size() - 4, 4, "\r\n\r\n") == 0; }
  // RFC 9112, 6.3: without a length or a transfer coding a request has no body; httplib would wait for the connection's end.
  void note_header(char c) {
    header_ += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    if (header_ended())
      bodiless_ = header_.find("\r\ncontent-length:") == std::string::npos && header_.find("\r\ntransfer-encoding:") == std::string::npos;
  }
  [[nodiscard]] bool wait(short event, Clock::time_point until) const {
    auto left = std::chrono::duration_cast<milliseconds>(until - Clock::now()).count();
    pollfd one{fd_, event, 0};
    return left > 0 && ::poll(&one, 1, static_cast<int>(left)) > 0 && (one.revents & (event | POLLHUP)) != 0;
  }
  int fd_;
  Clock::time_point deadline_;
  std::string buffer_, header_;
  bool bodiless_ = false;
};

thread_local Peer current_peer;

// httplib's protocol code behind our own acceptor: it has none for Unix sockets.
class UnixServer final : public httplib::Server {
 public:
  Result<void> begin(Fd listening) {
    listening_ = std::move(listening);
    svr_sock_ = listening_.get();  // httplib takes its absence for "shutting down"
    stop_.reset(::eventfd(0, EFD_CLOEXEC));
    if (!stop_) return os_error("start the REST server", errno);
    add_routes(*this, [](const httplib::Request&) -> Result<Peer> { return current_peer; });
    acceptor_ = std::thread([this] { accept_all(); });
    for (int i = 0; i < thread_count; ++i) workers_.emplace_back([this] { work(); });
    return {};
  }

  void end() {
    if (!acceptor_.joinable()) return;
    std::uint64_t one = 1;
    (void)!::write(stop_.get(), &one, sizeof one);
    svr_sock_ = INVALID_SOCKET;
    {
      std::lock_guard guard(lock_);
      stopping_ = true;
      waiting_.clear();
      for (int fd : serving_) ::shutdown(fd, SHUT_RDWR);
    }
    changed_.notify_all();
    acceptor_.join();
    for (std::thread& worker : workers_) worker.join();
  }

 private:
  void accept_all() {
    for (;;) {
      pollfd watched[2] = {{listening_.get(), POLLIN, 0}, {stop_.get(), POLLIN, 0}};
      ::poll(watched, 2, -1);
      if (watched[1].revents != 0) return;
      Fd fd(::accept4(listening_.get(), nullptr, nullptr, SOCK_CLOEXEC));
      if (!fd) continue;
      std::lock_guard guard(lock_);
      if (waiting_.size() >= waiting_limit) continue;  // closed: the client tries again
      waiting_.push_back(std::move(fd));
      changed_.notify_one();
    }
  }

  void work() {
    for (;;) {
      Fd fd;
      {
        std::unique_lock guard(lock_);
        changed_.wait(guard, [&] { return stopping_ || !waiting_.empty(); });
        if (stopping_) return;
        fd = std::move(waiting_.front());
        waiting_.pop_front();
        serving_.push_back(fd.get());
      }
      serve(fd.get());
      std::lock_guard guard(lock_);
      std::erase(serving_, fd.get());
    }
  }

  void serve(int fd) {
    ucred credentials{};
    socklen_t size = sizeof credentials;
    if (::getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &credentials, &size) != 0) return;
    current_peer = {credentials.pid, credentials.uid, credentials.gid};
    UnixStream stream(fd);
    for (int served = 0; served < 100; ++served) {
      stream.begin_request();
      bool closed = false;
      // Whatever body a refused request still has would be taken for the next request.
      if (!process_request(stream, served == 99, closed, nullptr) || closed || stream.has_unread_body()) return;
    }
  }

  Fd listening_, stop_;
  std::thread acceptor_;
  std::vector<std::thread> workers_;
  std::mutex lock_;
  std::condition_variable changed_;
  std::deque<Fd> waiting_;
  std::vector<int> serving_;
  bool stopping_ = false;
};

std::string sha256_hex(const std::string& text) {
  unsigned char digest[SHA256_DIGEST_LENGTH];
  ::SHA256(reinterpret_cast<const unsigned char*>(text.data()), text.size(), digest);
  std::string out;
  for (unsigned char byte : digest) out += hex(byte, 2);
  return out;
}

// The user of "Authorization: Bearer TOKEN". Only digests are stored, and a digest is looked up, so timing tells nothing of a token.
Identify by_token(std::map<std::string, uid_t> tokens) {
  return [tokens = std::move(tokens)](const httplib::Request& request) -> Result<Peer> {
    std::string header = request.get_header_value("Authorization");
    Error refusal{Code::denied, "authenticate", "no known bearer token was sent",
                  "send Authorization: Bearer TOKEN; the administrator lists its SHA-256 under \"tokens\" in /etc/hobbes/hobbesd.json"};
    if (header.rfind("Bearer ", 0) != 0) return refusal;
    auto at = tokens.find(sha256_hex(header.substr(7)));
    if (at == tokens.end()) return refusal;
    return Peer{::getpid(), at->second, at->second};
  };
}

class Api final : public ApiServer {
 public:
  Result<void> begin(Fd listening, const ApiOptions& options) {
    HOBBES_CHECK(unix_.begin(std::move(listening)));
    if (options.tcp_address.empty()) return {};
    std::string attempt = "serve REST at " + options.tcp_address;
    if (options.certificate.empty() || options.key.empty() || options.tokens.empty())
      return Error{Code::invalid, attempt, "TCP needs TLS and tokens",
                   "give --tls-certificate, --tls-key and \"tokens\" in the configuration"};
    std::size_t colon = options.tcp_address.rfind(':');
    if (colon == std::string::npos) return Error{Code::invalid, attempt, "it is not HOST:PORT", ""};
    tls_ = std::make_unique<httplib::SSLServer>(options.certificate.c_str(), options.key.c_str());
    if (!tls_->is_valid())
      return Error{Code::invalid, attempt, "the certificate or key cannot be used", "give PEM files that belong together"};
    tls_->new_task_queue = [] { return new httplib::ThreadPool(8); };
    tls_->set_read_timeout(5);
    tls_->set_write_timeout(5);
    add_routes(*tls_, by_token(options.tokens));
    std::string host = options.tcp_address.substr(0, colon);
    if (!tls_->bind_to_port(host.c_str(), std::atoi(options.tcp_address.c_str() + colon + 1)))
      return os_error(attempt, errno != 0 ? errno : EADDRINUSE);
    tls_thread_ = std::thread([this] { tls_->listen_after_bind(); });
    return {};
  }
  ~Api() override { stop_all(); }
  void stop() override { stop_all(); }

 private:
  void stop_all() {
    unix_.end();
    if (tls_) tls_->stop();
    if (tls_thread_.joinable()) tls_thread_.join();
  }
  UnixServer unix_;
  std::unique_ptr<httplib::SSLServer> tls_;
  std::thread tls_thread_;
};

}  // namespace

Result<std::unique_ptr<ApiServer>> ApiServer::start(Fd listening, const ApiOptions& options) {
  auto api = std::make_unique<Api>();
  HOBBES_CHECK(api->begin(std::move(listening), options));
  return std::unique_ptr<ApiServer>(std::move(api));
}

}  // namespace hobbes
