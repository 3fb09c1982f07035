#include "api/unix_server.h"

#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <deque>
#include <map>
#include <mutex>
#include <thread>
#include <vector>

#include "api/request_framing.h"
#include "api/routes.h"
#include "core/event_fd.h"
#include "core/event_loop.h"
#include "core/json.h"

namespace hobbes {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr std::size_t connection_limit = 1024, connections_per_user = 64;
constexpr std::size_t thread_limit = 32, threads_per_user = 8,
                      threads_for_root = 4;        // event streams hold one each
constexpr std::size_t buffer_per_user = 16 << 20;  // of requests that are still arriving
constexpr seconds request_limit(10);  // for all of a request to arrive, however slowly it is sent
constexpr seconds idle_limit(60);     // between requests
constexpr seconds write_limit(5);     // until a client that does not read is given up

// One request's bytes in, the answer's out.
class RequestStream final : public httplib::Stream {
 public:
  RequestStream(int fd, std::string_view request) : fd_(fd), request_(request) {}
  [[nodiscard]] bool is_readable() const override { return true; }
  [[nodiscard]] bool is_writable() const override { return wait(Clock::now() + write_limit); }
  ssize_t read(char* to, std::size_t size) override {
    std::size_t n = std::min(size, request_.size());
    std::copy_n(request_.begin(), n, to);
    request_.remove_prefix(n);
    return static_cast<ssize_t>(n);
  }
  ssize_t write(const char* from, std::size_t size) override {
    auto until = Clock::now() + write_limit;
    for (std::size_t done = 0; done < size;) {
      if (!wait(until)) return -1;
      ssize_t n = ::send(fd_, from + done, size - done, MSG_NOSIGNAL | MSG_DONTWAIT);
      if (n < 0 && errno != EAGAIN && errno != EINTR) return -1;
      if (n > 0) done += static_cast<std::size_t>(n);
    }
    return static_cast<ssize_t>(size);
  }
  void get_remote_ip_and_port(std::string& ip, int& port) const override {
    ip = "unix";
    port = 0;
  }
  void get_local_ip_and_port(std::string& ip, int& port) const override {
    get_remote_ip_and_port(ip, port);
  }
  [[nodiscard]] socket_t socket() const override { return fd_; }

 private:
  [[nodiscard]] bool wait(Clock::time_point until) const {
    auto left = std::chrono::duration_cast<milliseconds>(until - Clock::now()).count();
    pollfd one{fd_, POLLOUT, 0};
    return left > 0 && ::poll(&one, 1, static_cast<int>(left)) > 0 && (one.revents & POLLOUT) != 0;
  }
  int fd_;
  std::string_view request_;
};

// httplib's protocol code without its acceptor.
class Protocol final : public httplib::Server {
 public:
  explicit Protocol(int listening) {
    svr_sock_ = listening;
  }  // httplib takes its absence for "shutting down"
  // True when the connection may be used further.
  bool serve(int fd, std::string_view request) {
    RequestStream stream(fd, request);
    bool closed = false;
    return process(*this, stream, closed) && !closed;
  }

 private:
  // The parameters differ by httplib's version: from 0.16 on both ends are among them.
  template <class Self>
  static bool process(Self& self, RequestStream& stream, bool& closed) {
    if constexpr (requires { self.process_request(stream, false, closed, nullptr); })
      return self.process_request(stream, false, closed, nullptr);
    else
      return self.process_request(stream, "unix", 0, "unix", 0, false, closed, nullptr);
  }
};

struct Connection {
  Fd fd;
  Peer peer;
  std::string received;
  Clock::time_point due;  ///< the end of its patience
  bool served = false;    ///< a thread has it
};

thread_local const Peer* current = nullptr;

class Server final : public UnixServer {
 public:
  Server(Fd listening, EventLoop loop)
      : listening_(std::move(listening)), loop_(std::move(loop)), protocol_(listening_.get()) {}
  ~Server() override { stop(); }

  Result<void> begin(const std::function<void(httplib::Server&)>& add_routes) {
    add_routes(protocol_);
    HOBBES_TRY(wake, EventFd::make("start the REST server"));
    wake_ = std::move(wake);
    HOBBES_CHECK(loop_.watch(wake_.get(), EPOLLIN, [this](std::uint32_t) { take_back(); }));
    HOBBES_CHECK(loop_.watch(listening_.get(), EPOLLIN, [this](std::uint32_t) { accept_all(); }));
    thread_ = std::thread([this] { run(); });
    return {};
  }

  void stop() override {
    if (!thread_.joinable()) return;
    {
      std::lock_guard guard(lock_);
      stopping_ = true;
    }
    wake();
    thread_.join();
  }

 private:
  struct Job {
    std::shared_ptr<Connection> connection;
    std::string request;
  };
  struct Done {
    std::thread::id thread;
    std::shared_ptr<Connection> connection;
    bool usable;
  };

  void run() {
    bool stopping = false;
    while (!stopping) {
      loop_.run_once(connections_.empty() ? -1 : 1000);
      expire();
      std::lock_guard guard(lock_);
      stopping = stopping_;
    }
    for (auto& [fd, connection] : connections_) (void)::shutdown(fd, SHUT_RDWR);
    for (auto& [id, thread] : threads_) thread.join();
  }

  void accept_all() {
    for (;;) {
      Fd fd(::accept4(listening_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
      if (!fd) return;
      auto peer = Peer::of(fd.get());
      if (!peer) continue;
      std::size_t own = count([&](const Connection& other) { return other.peer.uid == peer->uid; });
      if (connections_.size() >= connection_limit ||
          (peer->uid != 0 && own >= connections_per_user)) {
        refuse(fd.get(), 503, "too many connections are open; close some");
        continue;
      }
      int number = fd.get();
      auto connection = std::make_shared<Connection>(
          Connection{std::move(fd), std::move(*peer), {}, Clock::now() + request_limit});
      if (!loop_.watch(number, EPOLLIN, [this, number](std::uint32_t) { read(number); })) continue;
      connections_[number] = std::move(connection);
    }
  }

  void read(int fd) {
    auto connection = connections_.at(fd);
    char chunk[16384];
    ssize_t n = ::recv(fd, chunk, sizeof chunk, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (n <= 0) return close(fd);
    if (connection->received.empty()) connection->due = Clock::now() + request_limit;
    connection->received.append(chunk, static_cast<std::size_t>(n));
    std::size_t held = 0;
    for (const auto& [number, other] : connections_)
      held += other->peer.uid == connection->peer.uid ? other->received.size() : 0;
    if (held > buffer_per_user) {
      refuse(fd, 503, "too much of your requests is still arriving");
      return close(fd);
    }
    look(connection);
  }

  // Hands a whole request on; the connection is not read meanwhile, so the next one waits in its
  // socket.
  void look(const std::shared_ptr<Connection>& connection) {
    int fd = connection->fd.get();
    RequestFrame frame = frame_request(connection->received, json_size_limit);
    if (frame.state == RequestFrame::State::incomplete) return;
    if (frame.state == RequestFrame::State::refused) {
      refuse(fd, frame.status, frame.reason);
      return close(fd);
    }
    connection->served = true;
    loop_.unwatch(fd);
    waiting_.push_back({connection, connection->received.substr(0, frame.size)});
    connection->received.erase(0, frame.size);
    start_waiting();
  }

  // The first whose user may have one more thread; others go on waiting, in order.
  void start_waiting() {
    for (auto job = waiting_.begin(); job != waiting_.end() && threads_.size() < thread_limit;) {
      uid_t uid = job->connection->peer.uid;
      std::size_t own = served_[uid];
      bool may =
          uid == 0 || (own < threads_per_user && threads_.size() < thread_limit - threads_for_root);
      if (!may) {
        ++job;
        continue;
      }
      ++served_[uid];
      std::thread thread([this, one = std::move(*job)] { serve(one); });
      std::thread::id id = thread.get_id();
      threads_.emplace(id, std::move(thread));
      job = waiting_.erase(job);
    }
  }

  void serve(const Job& job) {
    current = &job.connection->peer;
    bool usable = protocol_.serve(job.connection->fd.get(), job.request);
    std::lock_guard guard(lock_);
    done_.push_back({std::this_thread::get_id(), job.connection, usable});
    wake();
  }

  void take_back() {
    wake_.drain();
    std::vector<Done> done;
    {
      std::lock_guard guard(lock_);
      done.swap(done_);
    }
    for (Done& one : done) {
      auto thread = threads_.find(one.thread);
      thread->second.join();
      threads_.erase(thread);
      const std::shared_ptr<Connection>& connection = one.connection;
      if (--served_[connection->peer.uid] == 0) served_.erase(connection->peer.uid);
      int fd = connection->fd.get();
      connection->served = false;
      connection->due = Clock::now() + (connection->received.empty() ? idle_limit : request_limit);
      if (!one.usable || !loop_.watch(fd, EPOLLIN, [this, fd](std::uint32_t) { read(fd); })) {
        connections_.erase(fd);
        continue;
      }
      look(connection);
    }
    start_waiting();
  }

  void expire() {
    std::vector<int> late;
    for (const auto& [fd, connection] : connections_)
      if (!connection->served && connection->due < Clock::now()) late.push_back(fd);
    for (int fd : late) {
      if (!connections_.at(fd)->received.empty())
        refuse(fd, 408, "the request did not arrive in time");
      close(fd);
    }
  }

  void close(int fd) {
    loop_.unwatch(fd);
    connections_.erase(fd);
  }

  // A client that is told to go is not waited for.
  static void refuse(int fd, int status, const char* reason) {
    std::string body = to_text(Json{{"type", problem_type(status == 503 ? "exhausted" : "invalid")},
                                    {"title", reason},
                                    {"status", status},
                                    {"detail", reason},
                                    {"code", status == 503 ? "exhausted" : "invalid"}});
    std::string text =
        "HTTP/1.1 " +
        std::to_string(status) +  // the reason phrase may be empty (RFC 9112, section 4)
        " \r\nContent-Type: application/problem+json\r\nConnection: close\r\nContent-Length: " +
        std::to_string(body.size()) + "\r\n\r\n" + body;
    (void)!::send(fd, text.data(), text.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
  }

  template <class Test>
  std::size_t count(Test test) const {
    return static_cast<std::size_t>(
        std::count_if(connections_.begin(), connections_.end(),
                      [&](const auto& one) { return test(*one.second); }));
  }

  void wake() { wake_.signal(); }

  Fd listening_;
  EventFd wake_;
  EventLoop loop_;
  Protocol protocol_;
  std::thread thread_;
  // Of the loop's thread:
  std::map<int, std::shared_ptr<Connection>> connections_;
  std::deque<Job> waiting_;
  std::map<std::thread::id, std::thread> threads_;
  std::map<uid_t, std::size_t> served_;  // user -> threads
  // Of all:
  std::mutex lock_;
  std::vector<Done> done_;
  bool stopping_ = false;
};

}  // namespace

const Peer& UnixServer::current_peer() { return *current; }

Result<std::unique_ptr<UnixServer>> UnixServer::start(
    Fd listening, const std::function<void(httplib::Server&)>& add_routes) {
  HOBBES_TRY(loop, EventLoop::make());
  auto server = std::make_unique<Server>(std::move(listening), std::move(loop));
  HOBBES_CHECK(server->begin(add_routes));
  return std::unique_ptr<UnixServer>(std::move(server));
}

}  // namespace hobbes
