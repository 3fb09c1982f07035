#include "ipc/command_queue.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <deque>
#include <set>

namespace hobbes {
namespace {

using std::chrono::milliseconds;
using std::chrono::nanoseconds;
using Clock = std::chrono::steady_clock;

constexpr std::size_t head_size = sizeof(hobbes_command);
constexpr std::size_t usual_message = 16 << 10;
constexpr unsigned answers_most = 64;   // taken before deadlines are looked at again
constexpr unsigned turn = 16;           // commands of one client before it is another one's turn
constexpr std::size_t recent_most = 4;  // clients that are looked at without a system call
constexpr std::chrono::microseconds spin_before_sleep{10}, look_around{50};

thread_local Deadline serving_until;

class ServingUntil {
 public:
  explicit ServingUntil(const Deadline& deadline) : before_(serving_until) {
    serving_until = deadline;
  }
  ~ServingUntil() { serving_until = before_; }
  ServingUntil(const ServingUntil&) = delete;
  ServingUntil& operator=(const ServingUntil&) = delete;

 private:
  Deadline before_;
};

// A message's head, if it is one.
std::optional<hobbes_command> head_of(const std::uint8_t* message, std::size_t size) {
  hobbes_command head;
  if (size < head_size) return std::nullopt;
  std::memcpy(&head, message, head_size);
  if (head.version != HOBBES_COMMAND_VERSION || head.name_size > HOBBES_COMMAND_NAME_MOST ||
      head.name_size > size - head_size)
    return std::nullopt;
  return head;
}

Channel::Status send_command(Channel& channel, const hobbes_command& head, const std::string& name,
                             const Bytes& payload) {
  std::uint8_t first[head_size + HOBBES_COMMAND_NAME_MOST];
  std::memcpy(first, &head, head_size);
  std::memcpy(first + head_size, name.data(), name.size());
  return channel.send(first, head_size + name.size(), milliseconds(0), payload.data(),
                      payload.size());
}

Bytes bytes_of(const Error& error) {
  const std::string text = to_text(to_json(error));
  return {text.begin(), text.end()};
}

}  // namespace

Deadline current_deadline() { return serving_until; }

// ---- serving ----

struct CommandConnection {
  std::uint64_t key = 0;
  std::optional<Channel> channel;  // none: over
  ChannelPeer peer;
  struct Parked {
    hobbes_command head{};
    Bytes rest;
  };
  std::deque<Parked> parked;                            // calls beyond those that may be under way
  std::map<std::uint32_t, bool> under_way;              // call -> whether it is cancelled
  std::deque<std::pair<hobbes_command, Bytes>> outbox;  // what the client has no room for yet
  std::function<void(CommandConnection&)> look_again;   // null: nobody serves it any more

  // In order, behind what waits already.
  void push(const hobbes_command& head, Bytes payload) {
    outbox.emplace_back(head, std::move(payload));
    flush();
  }
  void flush() {
    while (channel && !outbox.empty()) {
      auto& [head, payload] = outbox.front();
      Channel::Status status = send_command(*channel, head, "", payload);
      if (status == Channel::Status::again) return;
      if (status == Channel::Status::too_large) {  // this one fits into the smallest ring
        head.kind = HOBBES_COMMAND_FAIL;
        payload = bytes_of({Code::invalid, "answer a command",
                            "the answer is larger than the channel's ring",
                            "answer in parts, or refer to a segment"});
        continue;
      }
      if (status != Channel::Status::good) {
        channel.reset();
        return;
      }
      outbox.pop_front();
    }
  }
};

ServerCall::ServerCall(std::shared_ptr<CommandConnection> connection, std::uint32_t id,
                       std::string name, Bytes payload, Deadline deadline)
    : connection_(std::move(connection)),
      id_(id),
      name_(std::move(name)),
      payload_(std::move(payload)),
      deadline_(deadline) {}
ServerCall::ServerCall(ServerCall&&) noexcept = default;
ServerCall::~ServerCall() {
  if (connection_ != nullptr)
    fail({Code::unavailable, "serve '" + name_ + "'", "its server gave no answer",
          "see the server's log"});
}

const ChannelPeer& ServerCall::peer() const {
  static const ChannelPeer nobody;
  return connection_ != nullptr ? connection_->peer : nobody;
}

bool ServerCall::cancelled() const {
  if (connection_ == nullptr || !connection_->channel) return true;
  auto at = connection_->under_way.find(id_);
  return at == connection_->under_way.end() || at->second;
}

Result<void> ServerCall::part(const Bytes& payload) {
  const std::string attempt = "answer '" + name_ + "' in part";
  if (cancelled())
    return Error{Code::unavailable, attempt, "nobody waits for the answer any more", ""};
  if (connection_->outbox.empty()) {
    hobbes_command head{HOBBES_COMMAND_VERSION, HOBBES_COMMAND_PART, id_, 0, 0, 0};
    switch (send_command(*connection_->channel, head, "", payload)) {
      case Channel::Status::good:
        return {};
      case Channel::Status::again:
        break;
      case Channel::Status::too_large:
        return Channel::error_of(Channel::Status::too_large, attempt);
      default:
        connection_->channel.reset();
        if (connection_->look_again) connection_->look_again(*connection_);
        return Error{Code::unavailable, attempt, "its client has gone", ""};
    }
  }
  return Error{Code::busy, attempt, "its client does not read", "try again later"};
}

void ServerCall::answer(std::uint16_t kind, const Bytes& payload) {
  auto connection = std::move(connection_);
  connection_ = nullptr;
  if (connection == nullptr || !connection->channel) return;
  auto at = connection->under_way.find(id_);
  if (at == connection->under_way.end()) return;
  const bool wanted = !at->second;
  connection->under_way.erase(at);
  if (wanted) {
    const hobbes_command head{HOBBES_COMMAND_VERSION, kind, id_, 0, 0, 0};
    Channel::Status status = connection->outbox.empty()
                                 ? send_command(*connection->channel, head, "", payload)
                                 : Channel::Status::again;
    if (status != Channel::Status::good) connection->push(head, payload);
  }
  if (connection->look_again) connection->look_again(*connection);
}

void ServerCall::reply(const Bytes& payload) { answer(HOBBES_COMMAND_REPLY, payload); }
void ServerCall::fail(const Error& error) { answer(HOBBES_COMMAND_FAIL, bytes_of(error)); }

struct CommandServer::State {
  explicit State(Listener given) : listener(std::move(given)) {}
  ~State() {
    for (auto& [key, connection] : connections) {
      connection->look_again = nullptr;
      connection->channel.reset();
    }
  }

  Listener listener;
  Fd epoll, wake;
  std::map<std::uint64_t, std::shared_ptr<CommandConnection>> connections;
  std::vector<std::shared_ptr<CommandConnection>> recent;  // the client of the last command first
  std::map<std::string, Handler> handlers;
  Waiting waiting = Waiting::spin_then_sleep;
  std::atomic<bool> stopping{false};
  std::uint64_t next_key = 2;
  bool serving = false;
  Bytes buffer;

  static constexpr std::uint64_t key_of_inbox = 0, key_of_wake = 1;

  void wake_up() const {
    const std::uint64_t one = 1;
    (void)!::write(wake.get(), &one, sizeof one);
  }

  Result<void> watch(int fd, std::uint64_t key) {
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.u64 = key;
    if (::epoll_ctl(epoll.get(), EPOLL_CTL_ADD, fd, &event) != 0)
      return os_error("serve commands", errno);
    return {};
  }

  void drop(const std::shared_ptr<CommandConnection>& connection) {
    if (connection->channel)
      (void)::epoll_ctl(epoll.get(), EPOLL_CTL_DEL, connection->channel->descriptor(), nullptr);
    connection->channel.reset();
    connection->outbox.clear();
    recent.erase(std::remove(recent.begin(), recent.end(), connection), recent.end());
    connections.erase(connection->key);
  }

  void accept_some() {
    for (unsigned i = 0; i < turn; ++i) {
      auto channel = listener.accept(milliseconds(0));
      if (!channel) {
        // Nobody will ever connect: who waits in epoll must not be woken by it without end.
        if (channel.error().code == Code::unavailable)
          (void)::epoll_ctl(epoll.get(), EPOLL_CTL_DEL, listener.descriptor(), nullptr);
        return;
      }
      auto connection = std::make_shared<CommandConnection>();
      connection->key = next_key++;
      if (buffer.size() < channel->largest()) buffer.resize(channel->largest());
      if (!watch(channel->descriptor(), connection->key)) return;  // its client is told: closed
      connection->peer = channel->peer();
      connection->channel = std::move(*channel);
      connection->look_again = [this](CommandConnection& one) {
        auto at = connections.find(one.key);
        if (at == connections.end()) return;
        note(at->second);
        if (!serving) wake_up();  // the program waits by the descriptor
      };
      connections[connection->key] = connection;
      note(connection);
    }
  }

  // It is looked at before the next sleep.
  void note(const std::shared_ptr<CommandConnection>& connection) {
    if (!recent.empty() && recent.front() == connection) return;
    auto at = std::find(recent.begin(), recent.end(), connection);
    if (at == recent.end()) {
      recent.insert(recent.begin(), connection);
    } else {
      std::rotate(recent.begin(), at, at + 1);
    }
  }

  void dispatch(const std::shared_ptr<CommandConnection>& connection, const hobbes_command& head,
                const std::uint8_t* rest, std::size_t size) {
    if (head.kind == HOBBES_COMMAND_CANCEL) {
      if (auto at = connection->under_way.find(head.id); at != connection->under_way.end())
        at->second = true;
      std::erase_if(connection->parked, [&](const auto& call) { return call.head.id == head.id; });
      return;
    }
    std::string name(reinterpret_cast<const char*>(rest), head.name_size);
    Deadline deadline;
    if (head.timeout_ns != 0)
      deadline = Clock::now() + nanoseconds(static_cast<std::int64_t>(
                                    std::min<std::uint64_t>(head.timeout_ns, INT64_MAX / 4)));
    connection->under_way.emplace(head.id, false);
    auto handler = handlers.find(name);
    if (handler == handlers.end()) handler = handlers.find("");
    ServerCall call(connection, head.id, name, Bytes(rest + head.name_size, rest + size), deadline);
    if (handler == handlers.end()) {
      call.fail({Code::not_found, "serve '" + name + "'", "there is no such procedure",
                 "see `hobbes services`"});
      return;
    }
    ServingUntil until(deadline);
    handler->second(std::move(call));
  }

  static bool is_full(const CommandConnection& connection) {
    return connection.under_way.size() >= HOBBES_COMMAND_DEPTH;
  }
  // A client that keeps to its depth has no more.
  static bool has_parked_most(const CommandConnection& connection) {
    return connection.parked.size() >= HOBBES_COMMAND_DEPTH;
  }

  // True: it did something. Begins no more calls than may be under way; what cancels them is read.
  bool handle(const std::shared_ptr<CommandConnection>& connection) {
    bool worked = false;
    for (unsigned i = 0; i < turn; ++i) {
      if (!connection->outbox.empty()) connection->flush();
      if (!connection->channel) break;
      if (!connection->outbox.empty()) return worked;
      if (!connection->parked.empty() && !is_full(*connection)) {
        const CommandConnection::Parked call = std::move(connection->parked.front());
        connection->parked.pop_front();
        dispatch(connection, call.head, call.rest.data(), call.rest.size());
        worked = true;
        continue;
      }
      if (has_parked_most(*connection) || !connection->channel->ready()) return worked;
      std::size_t size = 0;
      Channel::Status status =
          connection->channel->receive(buffer.data(), buffer.size(), &size, milliseconds(0));
      if (status == Channel::Status::again) return worked;
      worked = true;
      auto head = status == Channel::Status::good ? head_of(buffer.data(), size) : std::nullopt;
      if (!head || (head->kind != HOBBES_COMMAND_CALL && head->kind != HOBBES_COMMAND_CANCEL) ||
          (head->kind == HOBBES_COMMAND_CALL && connection->under_way.count(head->id) != 0)) {
        drop(connection);  // it has ended, or does not speak as a client does
        return true;
      }
      const std::uint8_t* rest = buffer.data() + head_size;
      if (head->kind == HOBBES_COMMAND_CALL && is_full(*connection))
        connection->parked.push_back({*head, Bytes(rest, rest + (size - head_size))});
      else
        dispatch(connection, *head, rest, size - head_size);
    }
    if (!connection->channel) drop(connection);
    return worked;
  }

  // Has it ring when there is something. True: there is already.
  bool arm(const std::shared_ptr<CommandConnection>& connection) {
    if (!connection->channel) {
      drop(connection);
      return true;
    }
    const bool ready = connection->channel->arm();
    // A send that finds no room has it ring, too. It comes last: arming takes the rings that have
    // come so far, and one for room may be among them.
    connection->flush();
    if (!connection->channel) return true;
    if (!connection->outbox.empty()) return false;
    if (!connection->parked.empty() && !is_full(*connection)) return true;
    return ready && !has_parked_most(*connection);
  }

  bool handle_recent() {
    bool worked = false;
    const auto all = recent;
    for (const auto& connection : all) worked |= handle(connection);
    return worked;
  }

  // Those that are not looked at again and again must ring. True: all that are to sleep may.
  bool arm_all(std::size_t from) {
    const auto all = recent;
    for (std::size_t i = from; i < all.size(); ++i) {
      if (arm(all[i])) {
        (void)handle(all[i]);
        return false;
      }
      recent.erase(std::remove(recent.begin(), recent.end(), all[i]), recent.end());
    }
    return true;
  }

  // True: something came.
  Result<bool> look(int timeout_ms) {
    epoll_event events[32];
    int count = ::epoll_wait(epoll.get(), events, 32, timeout_ms);
    if (count < 0 && errno == EINTR) return false;
    if (count < 0) return os_error("serve commands", errno);
    for (int i = 0; i < count; ++i) {
      const std::uint64_t key = events[i].data.u64;
      if (key == key_of_inbox) {
        accept_some();
      } else if (key == key_of_wake) {
        std::uint64_t value = 0;
        (void)!::read(wake.get(), &value, sizeof value);
      } else if (auto at = connections.find(key); at != connections.end()) {
        auto connection = at->second;
        note(connection);
        (void)handle(connection);
        // Nobody is left who would read an answer.
        if ((events[i].events & (EPOLLHUP | EPOLLRDHUP)) != 0 && connection->channel &&
            (!connection->outbox.empty() || has_parked_most(*connection)))
          drop(connection);
      }
    }
    return count > 0;
  }
};

CommandServer::CommandServer(std::unique_ptr<State> state) : state_(std::move(state)) {}
CommandServer::~CommandServer() = default;
CommandServer::CommandServer(CommandServer&&) noexcept = default;

Result<CommandServer> CommandServer::open(const std::string& name,
                                          const Listener::Options& options) {
  HOBBES_TRY(listener, Listener::open(name, options));
  auto state = std::make_unique<State>(std::move(listener));
  state->epoll = Fd(::epoll_create1(EPOLL_CLOEXEC));
  state->wake = Fd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!state->epoll || !state->wake) return os_error("serve commands as '" + name + "'", errno);
  HOBBES_CHECK(state->watch(state->listener.descriptor(), State::key_of_inbox));
  HOBBES_CHECK(state->watch(state->wake.get(), State::key_of_wake));
  return CommandServer(std::move(state));
}

void CommandServer::add(const std::string& name, Handler handler) {
  state_->handlers[name] = std::move(handler);
}
void CommandServer::stop() {
  state_->stopping.store(true);
  state_->wake_up();
}
int CommandServer::descriptor() const { return state_->epoll.get(); }
void CommandServer::set_waiting(Waiting waiting) { state_->waiting = waiting; }

Result<void> CommandServer::serve(milliseconds patience) {
  State& state = *state_;
  const auto begin = Clock::now();
  const auto limit = std::min<milliseconds>(patience, std::chrono::hours(24 * 365));
  auto idle_since = begin, looked = begin;
  state.serving = true;
  auto done = [&]() -> Result<void> {
    state.serving = false;
    // A program that waits by the descriptor comes back for what is still there.
    if (!state.arm_all(0)) state.wake_up();
    return {};
  };
  for (unsigned round = 1;; ++round) {
    if (state.stopping.exchange(false)) return done();
    const bool worked = state.handle_recent();
    if (worked && round % 16 != 0) continue;
    // Those that speak all the time keep nobody else from being heard, and no end from coming.
    const auto now = Clock::now();
    const bool over = limit.count() >= 0 && now - begin >= limit;
    if (worked) idle_since = now;
    const bool spins =
        state.waiting == Waiting::spin ||
        (state.waiting == Waiting::spin_then_sleep && now - idle_since < spin_before_sleep);
    if (!worked && !over && spins && now - looked < look_around) continue;
    looked = now;
    const bool may_sleep = !worked && !over && !spins;
    const bool quiet = state.arm_all(may_sleep ? 0 : recent_most);
    const auto left = std::chrono::ceil<milliseconds>(begin + limit - now).count();
    const int timeout = !may_sleep || !quiet ? 0
                        : limit.count() < 0
                            ? -1
                            : static_cast<int>(std::clamp<std::int64_t>(left, 0, 60'000));
    auto came = state.look(timeout);
    if (!came) {
      state.serving = false;
      return std::move(came).error();
    }
    if (over) return done();
    if (*came || timeout != 0) idle_since = Clock::now();
  }
}

// ---- calling ----

CommandClient::CommandClient(Channel channel) : channel_(std::move(channel)) {
  buffer_.resize(std::min<std::size_t>(channel_.largest(), usual_message));
}

Result<CommandClient> CommandClient::connect(const std::string& name, const ConnectOptions& options,
                                             milliseconds patience) {
  HOBBES_TRY(channel, Channel::connect(name, options, patience));
  return CommandClient(std::move(channel));
}

Result<void> CommandClient::send(std::uint16_t kind, Id id, std::uint64_t timeout_ns,
                                 const std::string& name, const Bytes& payload) {
  const hobbes_command head{
      HOBBES_COMMAND_VERSION, kind, id, timeout_ns, static_cast<std::uint32_t>(name.size()), 0};
  Channel::Status status = send_command(channel_, head, name, payload);
  if (status == Channel::Status::good) return {};
  if (status == Channel::Status::again)
    return Error{Code::busy, "call '" + name + "'", "the server has not read what was sent before",
                 "take answers with poll, then try again"};
  return Channel::error_of(status, "call '" + name + "'");
}

Result<CommandClient::Id> CommandClient::issue(const std::string& name, const Bytes& payload,
                                               milliseconds timeout, Callback callback) {
  const std::string attempt = "call '" + name + "'";
  if (name.size() > HOBBES_COMMAND_NAME_MOST)
    return Error{Code::invalid, attempt, "the name is too long", "128 bytes are the most"};
  if (calls_.size() >= HOBBES_COMMAND_DEPTH)
    return Error{Code::busy, attempt,
                 std::to_string(calls_.size()) + " calls are under way already",
                 "take answers with poll, then try again"};
  Deadline deadline = current_deadline();
  std::uint64_t timeout_ns = 0;
  if (timeout.count() >= 0 || deadline) {
    const auto now = Clock::now();
    timeout = std::min<milliseconds>(timeout, std::chrono::hours(24 * 365));
    if (timeout.count() >= 0 && (!deadline || now + timeout < *deadline)) deadline = now + timeout;
    timeout_ns = static_cast<std::uint64_t>(std::max<std::int64_t>(
        std::chrono::duration_cast<nanoseconds>(*deadline - now).count(), 1));
  }
  while (calls_.count(next_) != 0) ++next_;
  HOBBES_CHECK(send(HOBBES_COMMAND_CALL, next_, timeout_ns, name, payload));
  calls_.emplace(next_, Call{deadline, std::move(callback), std::nullopt});
  return next_++;
}

void CommandClient::finish(std::map<Id, Call>::iterator call, Result<Bytes> answer) {
  if (!call->second.callback) {
    call->second.answer = std::move(answer);
    return;
  }
  Callback callback = std::move(call->second.callback);
  calls_.erase(call);
  callback(std::move(answer), true);
}

void CommandClient::fail_all(const Error& error) {
  std::vector<Id> all;
  for (const auto& [id, call] : calls_)
    if (!call.answer) all.push_back(id);
  for (Id id : all)
    if (auto at = calls_.find(id); at != calls_.end()) finish(at, error);
}

void CommandClient::expire() {
  bool limited = false;
  for (const auto& [id, call] : calls_) limited |= call.deadline.has_value() && !call.answer;
  if (!limited) return;
  const auto now = Clock::now();
  std::vector<Id> over;
  for (const auto& [id, call] : calls_)
    if (!call.answer && call.deadline && *call.deadline <= now) over.push_back(id);
  for (Id id : over) {
    (void)send(HOBBES_COMMAND_CANCEL, id, 0, "", {});
    if (auto at = calls_.find(id); at != calls_.end())
      finish(at, Error{Code::timeout, "wait for an answer", "none came in time",
                       "the server may be slow, stopped or busy with others"});
  }
}

// One message.
Result<void> CommandClient::take(milliseconds patience) {
  std::size_t size = 0;
  Channel::Status status = channel_.receive(buffer_.data(), buffer_.size(), &size, patience);
  if (status == Channel::Status::too_large && size <= channel_.largest()) {
    buffer_.resize(size);
    status = channel_.receive(buffer_.data(), buffer_.size(), &size, milliseconds(0));
  }
  if (status == Channel::Status::again) return {};
  auto head = status == Channel::Status::good ? head_of(buffer_.data(), size) : std::nullopt;
  if (!head) {
    if (status == Channel::Status::good) status = Channel::Status::corrupt;
    Error error = Channel::error_of(status, "take an answer");
    fail_all(error);
    return error;
  }
  auto at = calls_.find(head->id);
  if (at == calls_.end() || at->second.answer) return {};  // given up meanwhile
  const std::uint8_t* payload = buffer_.data() + head_size + head->name_size;
  Bytes bytes(payload, static_cast<const std::uint8_t*>(buffer_.data()) + size);
  switch (head->kind) {
    case HOBBES_COMMAND_PART:
      if (Callback callback = at->second.callback) callback(std::move(bytes), false);
      return {};
    case HOBBES_COMMAND_REPLY:
      finish(at, std::move(bytes));
      return {};
    case HOBBES_COMMAND_FAIL: {
      auto json = parse_json({reinterpret_cast<const char*>(bytes.data()), bytes.size()},
                             "a server's error");
      finish(at, json && json->is_object()
                     ? error_from(*json)
                     : Error{Code::corrupt, "take an answer", "the error is not one", ""});
      return {};
    }
    default: {
      Error error = Channel::error_of(Channel::Status::corrupt, "take an answer");
      fail_all(error);
      return error;
    }
  }
}

Result<std::size_t> CommandClient::poll(milliseconds patience) {
  auto limit = patience;
  if (patience.count() != 0) {
    Deadline nearest;
    for (const auto& [id, call] : calls_)
      if (!call.answer && call.deadline && (!nearest || *call.deadline < *nearest))
        nearest = call.deadline;
    if (nearest) {
      auto left =
          std::max(std::chrono::ceil<milliseconds>(*nearest - Clock::now()), milliseconds(0));
      limit = patience.count() < 0 ? left : std::min(patience, left);
    }
  }
  HOBBES_CHECK(take(limit));
  for (unsigned i = 0; i < answers_most && channel_.ready() && !calls_.empty(); ++i)
    HOBBES_CHECK(take(milliseconds(0)));
  expire();
  return static_cast<std::size_t>(std::count_if(
      calls_.begin(), calls_.end(), [](const auto& one) { return !one.second.answer; }));
}

Result<Bytes> CommandClient::wait(Id id) {
  for (;;) {
    auto at = calls_.find(id);
    if (at == calls_.end())
      return Error{Code::invalid, "wait for an answer", "no such call is under way",
                   "wait for each call once; one with a callback is told there"};
    if (at->second.answer) {
      Result<Bytes> answer = std::move(*at->second.answer);
      calls_.erase(at);
      return answer;
    }
    (void)poll(Channel::forever);  // every call has its answer or error then
  }
}

void CommandClient::cancel(Id id) {
  auto at = calls_.find(id);
  if (at == calls_.end()) return;
  if (!at->second.answer) (void)send(HOBBES_COMMAND_CANCEL, id, 0, "", {});
  calls_.erase(at);
}

Result<Bytes> CommandClient::call(const std::string& name, const Bytes& payload,
                                  milliseconds timeout) {
  const auto begin = Clock::now();
  for (;;) {
    auto id = issue(name, payload, timeout);
    if (id) return wait(*id);
    if (id.error().code != Code::busy) return std::move(id).error();
    if (timeout.count() >= 0 && Clock::now() - begin > timeout)
      return Error{Code::timeout, "call '" + name + "'", "the server does not read", ""};
    HOBBES_CHECK(poll(milliseconds(1)));
  }
}

}  // namespace hobbes
