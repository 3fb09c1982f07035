#include "ipc/service.h"

namespace hobbes {

Bytes to_cbor(const Json& value) { return Json::to_cbor(value); }

Result<Json> from_cbor(const Bytes& bytes, const std::string& what) {
  return parse_cbor(bytes.data(), bytes.size(), what);
}

struct Service::Table {
  std::string name;
  std::map<std::string, About> procedures;
};

Service::Service(CommandServer server)
    : table_(std::make_shared<Table>()),
      server_(std::make_unique<CommandServer>(std::move(server))) {}

Result<Service> Service::open(const std::string& name, const Listener::Options& options) {
  HOBBES_TRY(server, CommandServer::open(name, options));
  Service out(std::move(server));
  out.table_->name = name;
  out.server_->add(describe_procedure, [table = out.table_](ServerCall call) {
    Json procedures = Json::object();
    for (const auto& [procedure, about] : table->procedures) {
      Json& one = procedures[procedure] = {{"description", about.description}};
      if (!about.arguments.is_null()) one["arguments"] = about.arguments;
      if (!about.result.is_null()) one["result"] = about.result;
    }
    call.reply(to_cbor({{"name", table->name}, {"procedures", std::move(procedures)}}));
  });
  return out;
}

void Service::add_procedure(const std::string& procedure, About about, Handler handler) {
  add_bytes(procedure, std::move(about),
            [procedure, handler = std::move(handler)](ServerCall call) {
              auto arguments = from_cbor(call.payload(), "the arguments of '" + procedure + "'");
              if (!arguments) return call.fail(arguments.error());
              handler(std::move(call), std::move(*arguments));
            });
}

void Service::add_bytes(const std::string& procedure, About about, CommandServer::Handler handler) {
  table_->procedures[procedure] = std::move(about);
  server_->add(procedure, std::move(handler));
}

Result<ServiceClient> ServiceClient::connect(const std::string& name, const ConnectOptions& options,
                                             milliseconds patience) {
  HOBBES_TRY(client, CommandClient::connect(name, options, patience));
  return ServiceClient(std::move(client));
}

Result<Json> ServiceClient::call_json(const std::string& procedure, const Json& arguments,
                                      milliseconds timeout) {
  HOBBES_TRY(answer, client_.call(procedure, to_cbor(arguments), timeout));
  return from_cbor(answer, "the answer of '" + procedure + "'");
}

Result<Json> ServiceClient::stream(const std::string& procedure, const Json& arguments,
                                   const std::function<void(Json)>& part, milliseconds timeout) {
  std::optional<Result<Bytes>> end;
  HOBBES_TRY(id, client_.issue(procedure, to_cbor(arguments), timeout,
                               [&](Result<Bytes> answer, bool last) {
                                 if (last) {
                                   end = std::move(answer);
                                 } else if (answer) {
                                   if (auto json = from_cbor(*answer, "a part")) part(*json);
                                 }
                               }));
  (void)id;
  while (!end) (void)client_.poll(Channel::forever);
  if (!*end) return std::move(*end).error();
  return from_cbor(**end, "the answer of '" + procedure + "'");
}

}  // namespace hobbes
