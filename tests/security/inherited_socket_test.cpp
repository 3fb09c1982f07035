// What a program is started with: the streams and the descriptors that it is meant to have, and
// none of the process that serves requests.
#include <arpa/inet.h>
#include <sys/socket.h>

#include <sstream>

#include "attack.h"
#include "core/fd.h"

namespace hobbes::test {
namespace {

// A port of this machine that nobody uses at the moment.
unsigned free_port() {
  Fd socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  EXPECT_EQ(::bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), size), 0);
  EXPECT_EQ(::getsockname(socket.get(), reinterpret_cast<sockaddr*>(&address), &size), 0);
  return ntohs(address.sin_port);
}

// What hobbes-run holds while it makes an enclave that was asked for over TLS, as a hook of it
// sees.
TEST(InheritedSocket, WhoMakesAnEnclaveHoldsNoConnectionOfWhoAsked) {
  Node node;
  std::string f = node.folder(), port = std::to_string(free_port());
  node.good({"sh", "-c",
             "cd " + f +
                 " && openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem "
                 "-days 1 -subj /CN=localhost 2>/dev/null"});
  std::string digest =
      node.good({"sh", "-c", "printf secret | sha256sum | cut -c1-64 | tr -d '\\n'"});
  ASSERT_TRUE(replace_file(f + "/config.json", to_text({{"tokens", {{digest, "0"}}}})));
  std::string bundle = node.bundle("b", "true");
  edit(bundle, [&](Json& config) {
    config["hooks"]["createRuntime"] = {
        {{"path", "/bin/sh"},
         {"args",
          {"sh", "-c",
           "for fd in /proc/self/fd/* /proc/$PPID/fd/*; do readlink $fd; done > " + f +
               "/held; cat /proc/net/unix > " + f + "/unix; mv " + f + "/held " + f + "/seen"}}}};
  });
  node.good({"sh", "-c",
             HOBBES_BUILD_DIR "/bin/hobbesd --config " + f +
                 "/config.json --listen 127.0.0.1:" + port + " --tls-certificate " + f +
                 "/cert.pem --tls-key " + f + "/key.pem >/dev/null 2>&1 &"});
  std::string curl =
      "curl -sk --max-time 20 -H 'Authorization: Bearer secret' https://127.0.0.1:" + port + "/v1/";
  ASSERT_TRUE(eventually([&] { return node.run({"sh", "-c", curl + "node"}).wait_status == 0; }));
  node.good(
      {"sh", "-c", curl + "enclaves -d '" + to_text({{"id", "a"}, {"bundle", bundle}}) + "'"});
  EXPECT_TRUE(eventually([&] { return Files::system().exists(f + "/seen"); }));
  std::istringstream held(Files::system().read(f + "/seen").value_or(""));
  std::string local = Files::system().read(f + "/unix").value_or(""), one;
  EXPECT_FALSE(held.str().empty());
  while (std::getline(held, one)) {
    if (one.rfind("socket:[", 0) != 0) continue;
    // Its connection to hobbesd, and to the new process, are local ones.
    EXPECT_TRUE(holds(local, " " + one.substr(8, one.size() - 9)))
        << "a connection is held: " << one << "\n"
        << held.str();
  }
  node.run({"hobbes-run", "delete", "--force", "a"});
}

}  // namespace
}  // namespace hobbes::test
