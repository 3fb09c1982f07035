// A service and its caller; the same static program in all three kinds of enclave.
// Usage: greeter serve | greeter call [TIMES]
#include <sys/utsname.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "hobbes.h"
#include "ipc/service.h"

namespace {

std::string here() {
  utsname system{};
  ::uname(&system);
  const std::string enclave = hobbes_self();
  return (enclave.empty() ? "the node" : "enclave '" + enclave + "'") + " (" + system.sysname +
         " " + system.release + ", " + system.nodename + ")";
}

int give_up(const hobbes::Error& error) {
  std::fprintf(stderr, "greeter: %s\n", error.text().c_str());
  return 1;
}

int serve() {
  auto service = hobbes::Service::open("greeter");
  if (!service) return give_up(service.error());
  service->add("greet", "says where it runs",
               [](const std::string& name) { return "hello " + name + ", this is " + here(); });
  auto served = service->serve(hobbes::Channel::forever);
  return served ? 0 : give_up(served.error());
}

int call(int times) {
  auto client = hobbes::ServiceClient::connect("greeter", {}, std::chrono::seconds(20));
  if (!client) return give_up(client.error());
  for (int i = 0; i < times; ++i) {
    auto answer = client->call<std::string>("greet", here());
    if (!answer) return give_up(answer.error());
    if (i == 0) std::printf("%s\n", answer->c_str());
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  const std::string what = argc > 1 ? argv[1] : "";
  if (what == "serve") return serve();
  if (what == "call") return call(argc > 2 ? std::atoi(argv[2]) : 1);
  return 2;
}
