// The C API of names, channels and services: no logic of its own.
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <memory>
#include <mutex>
#include <string>

#include "core/identity.h"
#include "core/paths.h"
#include "hobbes.h"
#include "ipc/client.h"
#include "ipc/service.h"
#include "library_error.h"
#include "nis/names.h"
#include "nis/notifier.h"

struct hobbes_listener {
  hobbes::Listener listener;
};
struct hobbes_channel {
  hobbes::Channel channel;
};
struct hobbes_service {
  hobbes::Service service;
};
struct hobbes_call {
  hobbes::ServerCall command;
};
struct hobbes_client {
  hobbes::CommandClient client;
};
struct hobbes_notifier {
  hobbes::Notifier notifier;
};

namespace {

using hobbes::failed;
using std::chrono::milliseconds;

hobbes::NameQuery query_of(const char* name, const hobbes_where* where) {
  return {name, where != nullptr ? where->scope : 0, where != nullptr ? where->owner : -1};
}

hobbes::ConnectOptions options_of(const hobbes_where* where) {
  if (where == nullptr) return {};
  return {where->scope == 0 ? "" : hobbes::name_of_scope(where->scope), where->owner};
}

hobbes::Listener::Options options_of(const hobbes_listen_options* options) {
  hobbes::Listener::Options out;
  if (options == nullptr) return out;
  if (options->scope != 0) out.scope = hobbes::name_of_scope(options->scope);
  if (options->mode != 0) out.mode = options->mode;
  if (options->ring != 0) out.size = options->ring;
  return out;
}

// Where this process stands does not change; it is asked once.
hobbes::Standing standing() {
  static std::mutex lock;
  static std::unique_ptr<hobbes::Standing> known;
  std::lock_guard guard(lock);
  if (known != nullptr) return *known;
  hobbes::Standing out{::geteuid(), 0, ::geteuid(), 0};
  auto client = hobbes::Client::connect(false);
  if (!client) return out;
  auto self = client->call("self", hobbes::Json::object());
  if (!self) return out;
  out.uid = static_cast<uid_t>(hobbes::number_at(self->body, "names", out.uid));
  out.enclave = static_cast<std::uint64_t>(hobbes::number_at(self->body, "enclave"));
  out.enclave_uid = static_cast<uid_t>(hobbes::number_at(self->body, "enclaveUser"));
  out.composition = static_cast<std::uint64_t>(hobbes::number_at(self->body, "composition"));
  known = std::make_unique<hobbes::Standing>(out);
  return out;
}

int publish(const char* name, std::uint32_t scope, unsigned mode, unsigned flags,
            hobbes::Json request) {
  auto client = hobbes::Client::connect();
  if (!client) return failed(client.error());
  request["name"] = name;
  request["scope"] = hobbes::name_of_scope(scope == 0 ? std::uint32_t{HOBBES_SCOPE_NODE} : scope);
  request["mode"] = mode;
  request["persistent"] = (flags & HOBBES_PERSISTENT) != 0;
  request["replace"] = true;
  auto published = client->call("name.publish", request);
  return published ? 0 : failed(published.error());
}

int failed(hobbes::Channel::Status status, const char* attempt) {
  using Status = hobbes::Channel::Status;
  const int number = errno;
  (void)failed(hobbes::Channel::error_of(status, attempt));
  errno = status == Status::again       ? EAGAIN
          : status == Status::closed    ? EPIPE
          : status == Status::too_large ? EMSGSIZE
          : status == Status::corrupt   ? EBADMSG
                                        : number;
  return -errno;
}

void fill(hobbes_peer* out, const hobbes::ChannelPeer& peer) {
  std::memset(out, 0, sizeof *out);
  std::strncpy(out->enclave, peer.enclave.c_str(), sizeof out->enclave - 1);
  out->pid = peer.pid;
  out->uid = peer.uid;
  out->gid = peer.gid;
}

hobbes::Bytes bytes_of(const void* bytes, std::size_t size) {
  const auto* begin = static_cast<const std::uint8_t*>(bytes);
  return {begin, begin + size};
}

// The inverse of number_of, for errors that a program makes itself.
hobbes::Code code_of(int number) { return hobbes::os_error("", number).code; }

}  // namespace

extern "C" {

int hobbes_name_publish(const char* name, uint32_t scope, const void* value, size_t size,
                        unsigned mode, unsigned flags) {
  return publish(
      name, scope, mode, flags,
      {{"kind", "value"}, {"value", hobbes::to_hex({static_cast<const char*>(value), size})}});
}

int hobbes_name_publish_segment(const char* name, uint32_t scope, hobbes_segid segment,
                                unsigned mode, unsigned flags) {
  return publish(name, scope, mode, flags, {{"kind", "segment"}, {"segment", segment}});
}

int hobbes_name_withdraw(const char* name, const struct hobbes_where* where) {
  hobbes_record record;
  if (int error = hobbes_name_find(name, where, &record); error != 0) return error;
  auto client = hobbes::Client::connect(false);
  if (!client) return failed(client.error());
  auto gone = client->call("name.withdraw", {{"handle", record.id}});
  return gone ? 0 : failed(gone.error());
}

int hobbes_name_find(const char* name, const struct hobbes_where* where,
                     struct hobbes_record* out) {
  auto nis = hobbes::NisReader::open(hobbes::mirror_path());
  if (!nis) return failed(nis.error());
  auto found = hobbes::find_name(**nis, query_of(name, where), standing());
  if (!found) return failed(found.error());
  *out = *found;
  return 0;
}

int hobbes_name_wait(const char* name, const struct hobbes_where* where, struct hobbes_record* out,
                     int timeout_ms) {
  auto found = hobbes::wait_for_name(query_of(name, where), standing(), milliseconds(timeout_ms));
  if (!found) return failed(found.error());
  *out = *found;
  return 0;
}

hobbes_listener* hobbes_listen(const char* name, const struct hobbes_listen_options* options) {
  auto listener = hobbes::Listener::open(name, options_of(options));
  if (listener) return new hobbes_listener{std::move(*listener)};
  failed(listener.error());
  return nullptr;
}

hobbes_channel* hobbes_accept(hobbes_listener* listener, int timeout_ms) {
  auto channel = listener->listener.accept(milliseconds(timeout_ms));
  if (channel) return new hobbes_channel{std::move(*channel)};
  failed(channel.error());
  return nullptr;
}

int hobbes_listener_descriptor(hobbes_listener* listener) {
  return listener->listener.descriptor();
}
void hobbes_listener_close(hobbes_listener* listener) { delete listener; }

hobbes_channel* hobbes_connect(const char* name, const struct hobbes_where* where, int timeout_ms) {
  auto channel = hobbes::Channel::connect(name, options_of(where), milliseconds(timeout_ms));
  if (channel) return new hobbes_channel{std::move(*channel)};
  failed(channel.error());
  return nullptr;
}

int hobbes_send(hobbes_channel* channel, const void* bytes, size_t size, int timeout_ms) {
  auto status = channel->channel.send(bytes, size, milliseconds(timeout_ms));
  return status == hobbes::Channel::Status::good ? 0 : failed(status, "send a message");
}

int64_t hobbes_receive(hobbes_channel* channel, void* bytes, size_t room, int timeout_ms) {
  std::size_t size = 0;
  auto status = channel->channel.receive(bytes, room, &size, milliseconds(timeout_ms));
  return status == hobbes::Channel::Status::good ? static_cast<int64_t>(size)
                                                 : failed(status, "receive a message");
}

int hobbes_channel_descriptor(hobbes_channel* channel) { return channel->channel.descriptor(); }
size_t hobbes_channel_largest(hobbes_channel* channel) { return channel->channel.largest(); }
void hobbes_channel_peer(hobbes_channel* channel, struct hobbes_peer* out) {
  fill(out, channel->channel.peer());
}
void hobbes_channel_set_waiting(hobbes_channel* channel, int waiting) {
  channel->channel.set_waiting(waiting == HOBBES_WAIT_SPIN    ? hobbes::Waiting::spin
                               : waiting == HOBBES_WAIT_SLEEP ? hobbes::Waiting::sleep
                                                              : hobbes::Waiting::spin_then_sleep);
}
void hobbes_channel_close(hobbes_channel* channel) { delete channel; }

hobbes_service* hobbes_service_open(const char* name, const struct hobbes_listen_options* options) {
  auto service = hobbes::Service::open(name, options_of(options));
  if (service) return new hobbes_service{std::move(*service)};
  failed(service.error());
  return nullptr;
}

int hobbes_service_add(hobbes_service* service, const char* procedure, const char* description,
                       hobbes_handler handler, void* context) {
  service->service.add_bytes(procedure, {description != nullptr ? description : "", {}, {}},
                             [handler, context](hobbes::ServerCall command) {
                               handler(new hobbes_call{std::move(command)}, context);
                             });
  return 0;
}

int hobbes_service_run(hobbes_service* service, int timeout_ms) {
  auto served = service->service.serve(milliseconds(timeout_ms));
  return served ? 0 : failed(served.error());
}
void hobbes_service_stop(hobbes_service* service) { service->service.stop(); }
int hobbes_service_descriptor(hobbes_service* service) {
  return service->service.commands().descriptor();
}
void hobbes_service_close(hobbes_service* service) { delete service; }

const void* hobbes_call_payload(hobbes_call* call, size_t* size) {
  *size = call->command.payload().size();
  return call->command.payload().data();
}
void hobbes_call_peer(hobbes_call* call, struct hobbes_peer* out) {
  fill(out, call->command.peer());
}
int64_t hobbes_call_left(hobbes_call* call) {
  if (!call->command.deadline()) return -1;
  auto left =
      std::chrono::ceil<milliseconds>(*call->command.deadline() - std::chrono::steady_clock::now())
          .count();
  return left > 0 ? left : 0;
}
int hobbes_call_cancelled(hobbes_call* call) { return call->command.cancelled() ? 1 : 0; }
int hobbes_call_part(hobbes_call* call, const void* bytes, size_t size) {
  auto sent = call->command.part(bytes_of(bytes, size));
  return sent ? 0 : failed(sent.error());
}
void hobbes_call_reply(hobbes_call* call, const void* bytes, size_t size) {
  call->command.reply(bytes_of(bytes, size));
  delete call;
}
void hobbes_call_fail(hobbes_call* call, int error, const char* why) {
  call->command.fail(
      {code_of(error), "serve '" + call->command.name() + "'", why != nullptr ? why : "", ""});
  delete call;
}

hobbes_client* hobbes_client_open(const char* name, const struct hobbes_where* where,
                                  int timeout_ms) {
  auto client = hobbes::CommandClient::connect(name, options_of(where), milliseconds(timeout_ms));
  if (client) return new hobbes_client{std::move(*client)};
  failed(client.error());
  return nullptr;
}

int64_t hobbes_client_call(hobbes_client* client, const char* procedure, const void* arguments,
                           size_t size, void* answer, size_t room, int timeout_ms) {
  auto bytes = client->client.call(procedure, bytes_of(arguments, size), milliseconds(timeout_ms));
  if (!bytes) return failed(bytes.error());
  if (room != 0) std::memcpy(answer, bytes->data(), std::min(room, bytes->size()));
  return static_cast<int64_t>(bytes->size());
}

int64_t hobbes_client_issue(hobbes_client* client, const char* procedure, const void* arguments,
                            size_t size, int timeout_ms, hobbes_answered answered, void* context) {
  auto id =
      client->client.issue(procedure, bytes_of(arguments, size), milliseconds(timeout_ms),
                           [answered, context](hobbes::Result<hobbes::Bytes> answer, bool last) {
                             if (answered == nullptr) return;
                             if (answer)
                               answered(context, 0, answer->data(), answer->size(), last ? 1 : 0);
                             else
                               answered(context, failed(answer.error()), nullptr, 0, 1);
                           });
  return id ? static_cast<int64_t>(*id) : failed(id.error());
}

int hobbes_client_poll(hobbes_client* client, int timeout_ms) {
  auto left = client->client.poll(milliseconds(timeout_ms));
  return left ? static_cast<int>(*left) : failed(left.error());
}
void hobbes_client_cancel(hobbes_client* client, int64_t call) {
  client->client.cancel(static_cast<hobbes::CommandClient::Id>(call));
}
int hobbes_client_descriptor(hobbes_client* client) {
  return client->client.channel().descriptor();
}
void hobbes_client_close(hobbes_client* client) { delete client; }

hobbes_notifier* hobbes_notifier_open(const struct hobbes_filter* filter) {
  hobbes::ChangeFilter wanted;
  if (filter != nullptr) {
    wanted.type = static_cast<std::uint16_t>(filter->type);
    wanted.enclave = filter->enclave;
    if (filter->name != nullptr) wanted.name = filter->name;
  }
  auto notifier = hobbes::Notifier::open(wanted);
  if (notifier) return new hobbes_notifier{std::move(*notifier)};
  failed(notifier.error());
  return nullptr;
}
int hobbes_notifier_descriptor(hobbes_notifier* notifier) {
  return notifier->notifier.descriptor();
}
int hobbes_notifier_next(hobbes_notifier* notifier, struct hobbes_change* out) {
  switch (notifier->notifier.next(out)) {
    case hobbes::Notifier::Status::change:
      return 0;
    case hobbes::Notifier::Status::none:
      return -EAGAIN;
    default:
      return -EOVERFLOW;
  }
}
void hobbes_notifier_close(hobbes_notifier* notifier) { delete notifier; }

}  // extern "C"
