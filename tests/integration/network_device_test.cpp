// Network devices move into an enclave and come back when it does not come to be (runtime-spec
// config-linux.md, "Network Devices").
#include <net/if.h>
#include <unistd.h>

#include "core/file.h"
#include "node_harness.h"

namespace hobbes::test {
namespace {

class NetworkDevice : public ::testing::Test {
 protected:
  NetworkDevice() {
    node.good({"ip", "link", "add", name, "type", "veth", "peer", "name", name + "p"});
    node.good({"ip", "address", "add", "10.99.7.1/24", "dev", name});
    node.good({"ip", "-6", "address", "add", "fd00:99::7/64", "dev", name, "nodad"});
    node.good({"ip", "link", "set", name, "mtu", "1400", "up"});
  }
  ~NetworkDevice() override { (void)node.run({"ip", "link", "delete", name}); }
  [[nodiscard]] std::string bundle(const std::string& folder, const Json& devices,
                                   const Json& more = Json::object()) const {
    Json patch = {
        {"hobbes", {{"cores", nullptr}}},
        {"linux",
         {{"namespaces",
           {{{"type", "mount"}}, {{"type", "pid"}}, {{"type", "uts"}}, {{"type", "network"}}}},
          {"netDevices", devices}}}};
    patch.update(more);
    return node.bundle(folder, "ip -o addr show dev inside; ip -o link show dev inside", patch);
  }
  const std::string name = "hb" + std::to_string(::getpid() % 1'000'000);
  Node node;
};

TEST_F(NetworkDevice, ArrivesUpWithItsNewNameItsAddressesAndItsSettings) {
  Outcome outcome =
      node.run({"hobbes-run", "run", "--bundle", bundle("b", {{name, {{"name", "inside"}}}}), "n"});
  EXPECT_EQ(outcome.wait_status, 0) << outcome.err;
  for (const char* expected : {"10.99.7.1/24", "fd00:99::7/64", "mtu 1400", ",UP"})
    EXPECT_NE(outcome.out.find(expected), std::string::npos)
        << expected << " is missing in " << outcome.out;
  EXPECT_EQ(::if_nametoindex(name.c_str()), 0U) << "it has left the node";
}

TEST_F(NetworkDevice, ComesBackWhenTheEnclaveDoesNotComeToBe) {
  Json hooks = {{"hooks", {{"createRuntime", Json::array({{{"path", "/bin/false"}}})}}}};
  EXPECT_NE(node.run({"hobbes-run", "create", "--bundle",
                      bundle("b1", {{name, {{"name", "inside"}}}}, hooks), "n1"})
                .wait_status,
            0);
  std::string there = node.good({"ip", "-o", "address", "show", "dev", name});
  EXPECT_NE(there.find("10.99.7.1/24"), std::string::npos) << there;
  EXPECT_NE(node.good({"ip", "-o", "link", "show", "dev", name}).find(",UP"), std::string::npos);
  // The second one is not there: the first one stays.
  Outcome outcome =
      node.run({"hobbes-run", "create", "--bundle",
                bundle("b2", {{name, {{"name", "inside"}}}, {"zz-nosuch", Json::object()}}), "n2"});
  EXPECT_NE(outcome.wait_status, 0);
  EXPECT_NE(outcome.err.find("zz-nosuch"), std::string::npos) << outcome.err;
  EXPECT_NE(::if_nametoindex(name.c_str()), 0U);
}

// The kernel would move it first and only then see that it cannot have the name.
TEST_F(NetworkDevice, StaysWhereItsNewNameIsTaken) {
  Outcome outcome =
      node.run({"hobbes-run", "create", "--bundle", bundle("t", {{name, {{"name", "lo"}}}}), "n3"});
  EXPECT_NE(outcome.wait_status, 0);
  EXPECT_NE(outcome.err.find("lo"), std::string::npos) << outcome.err;
  std::string there = node.good({"ip", "-o", "address", "show", "dev", name});
  EXPECT_NE(there.find("10.99.7.1/24"), std::string::npos) << there;
}

TEST_F(NetworkDevice, IsRefusedWithoutANetworkNamespaceAndByNamesThatAreNone) {
  auto refused = [&](const Json& patch) {
    return node.run({"hobbes-run", "validate", "--bundle", node.bundle("v", "true", patch)})
               .wait_status != 0;
  };
  Json spaces = {{{"type", "mount"}}, {{"type", "uts"}}, {{"type", "network"}}};
  EXPECT_TRUE(refused({{"linux", {{"netDevices", {{name, Json::object()}}}}}}));
  for (const char* wrong : {"a/b", "..", "a name", "eth%d", "sixteen-letters-"}) {
    EXPECT_TRUE(
        refused({{"linux", {{"namespaces", spaces}, {"netDevices", {{name, {{"name", wrong}}}}}}}}))
        << wrong;
    EXPECT_TRUE(
        refused({{"linux", {{"namespaces", spaces}, {"netDevices", {{wrong, Json::object()}}}}}}))
        << wrong;
  }
  EXPECT_TRUE(
      refused({{"linux",
                {{"namespaces", spaces},
                 {"netDevices", {{"eth7", {{"name", "x"}}}, {"eth8", {{"name", "x"}}}}}}}}));
}

}  // namespace
}  // namespace hobbes::test
