// A parameter of the kernel, or a name of the host, that is outside the bundle's own namespaces is
// the host's. Each is put back as it was, whatever a test finds.
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/utsname.h>
#include <sys/wait.h>

#include <cstring>
#include <regex>

#include "attack.h"
#include "core/fd.h"

namespace hobbes::test {
namespace {

// A parameter of the host, which must stay what it was.
class Kept {
 public:
  explicit Kept(std::string name)
      : path_("/proc/sys/" + name), before_(Files::system().read(path_).value_or("")) {}
  ~Kept() {
    if (now() != before_) (void)Files::system().write(path_, before_);
  }
  Kept(const Kept&) = delete;
  Kept& operator=(const Kept&) = delete;
  [[nodiscard]] std::string now() const { return Files::system().read(path_).value_or(""); }
  [[nodiscard]] const std::string& before() const { return before_; }

 private:
  std::string path_, before_;
};

struct Parameter {
  const char *name, *file, *value, *space;  // the namespace it belongs to, "" for none
};

constexpr Parameter parameters[] = {
    {"net.ipv4.ip_default_ttl", "net/ipv4/ip_default_ttl", "63", "network"},
    {"net/ipv4/ip_default_ttl", "net/ipv4/ip_default_ttl", "63", "network"},
    {"kernel.msgmax", "kernel/msgmax", "8191", "ipc"},
    {"kernel.sem", "kernel/sem", "32000 1024000000 500 31999", "ipc"},
    {"fs.mqueue.msg_max", "fs/mqueue/msg_max", "11", "ipc"},
    {"kernel.domainname", "kernel/domainname", "hobbes-test", "uts"},
    {"kernel.hostname", "kernel/hostname", "hobbes-test", "uts"},
    {"vm.admin_reserve_kbytes", "vm/admin_reserve_kbytes", "8191", ""},
    {"vm/admin_reserve_kbytes", "vm/admin_reserve_kbytes", "8191", ""},
    {"kernel.printk_ratelimit", "kernel/printk_ratelimit", "6", ""},
    {"fs.lease-break-time", "fs/lease-break-time", "46", ""},
};

// A bundle whose /proc/sys can be written to while it is made.
std::string bundle_of(const Node& node, const std::string& name, const Parameter& parameter) {
  std::string bundle = node.busybox_bundle(name, "true", no_lease());
  edit(bundle, [&](Json& config) {
    config["linux"]["sysctl"] = {{parameter.name, parameter.value}};
    config.erase("hostname");
    keep_mounts(config, [](const std::string& at) { return at != "/dev/mqueue" && at != "/sys"; });
  });
  return bundle;
}

TEST(HostParameters, AParameterOutsideTheBundlesNamespacesIsRefused) {
  Node node;
  int number = 0;
  for (const Parameter& parameter : parameters) {
    Kept kept(parameter.file);
    if (kept.before().empty()) continue;  // this kernel has none of that name
    std::string name = "b" + std::to_string(++number);
    std::string bundle = bundle_of(node, name, parameter);
    edit(bundle, [&](Json& config) { set_namespace(config, parameter.space, ""); });
    Outcome outcome = node.run({"hobbes-run", "run", "--bundle", bundle, name});
    EXPECT_NE(outcome.wait_status, 0) << parameter.name;
    // A JSON pointer writes "/" as "~1".
    std::string pointer = std::regex_replace(parameter.name, std::regex("/"), "~1");
    EXPECT_TRUE(holds(outcome.err, "/sysctl/" + pointer)) << outcome.err;
    EXPECT_EQ(kept.now(), kept.before()) << parameter.name << " of the host was changed";
  }
  node.expect_clean();
}

// A namespace that is joined is the bundle's own only when it is not the host's.
TEST(HostParameters, AParameterOfANamespaceThatIsTheHostsIsRefused) {
  Node node;
  int number = 0;
  for (const Parameter& parameter : parameters) {
    std::string space = parameter.space;
    Kept kept(parameter.file);
    if (space.empty() || kept.before().empty()) continue;
    std::string name = "b" + std::to_string(++number);
    std::string file = space == "network" ? "net" : space;
    std::string bundle = bundle_of(node, name, parameter);
    edit(bundle, [&](Json& config) {
      set_namespace(config, space, "/proc/" + std::to_string(::getpid()) + "/ns/" + file);
    });
    EXPECT_NE(node.run({"hobbes-run", "run", "--bundle", bundle, name}).wait_status, 0)
        << parameter.name;
    EXPECT_EQ(kept.now(), kept.before()) << parameter.name << " of the host was changed";
  }
  node.expect_clean();
}

TEST(HostParameters, AParameterOfTheBundlesOwnNamespaceIsSetThereOnly) {
  Node node;
  int number = 0;
  for (const Parameter& parameter : parameters) {
    Kept kept(parameter.file);
    std::string name_of_host =
        "kernel.hostname";  // may also be refused for the property "hostname"
    if (*parameter.space == '\0' || kept.before().empty() || name_of_host == parameter.name)
      continue;
    std::string name = "b" + std::to_string(++number);
    std::string bundle = bundle_of(node, name, parameter);
    edit(bundle, [&](Json& config) {
      config["process"]["args"] = {
          "sh", "-c", "cat /proc/sys/" + std::string(parameter.file) + " | busybox tr '\\t' ' '"};
    });
    Outcome outcome = node.run({"hobbes-run", "run", "--bundle", bundle, name});
    EXPECT_EQ(outcome.out, std::string(parameter.value) + "\n")
        << parameter.name << ": " << outcome.err;
    EXPECT_EQ(kept.now(), kept.before()) << parameter.name;
  }
}

TEST(HostParameters, ANameOfTheHostIsRefusedWithoutAUtsNamespaceOfTheBundles) {
  Node node;
  int number = 0;
  for (const char* property : {"hostname", "domainname"})
    for (const std::string& joined :
         {std::string(), "/proc/" + std::to_string(::getpid()) + "/ns/uts"}) {
      Kept kept("kernel/" + std::string(property));
      std::string name = "b" + std::to_string(++number);
      std::string bundle = node.busybox_bundle(name, "true", no_lease());
      edit(bundle, [&](Json& config) {
        config.erase("hostname");
        config[property] = "hobbes-test";
        set_namespace(config, "uts", joined);
      });
      Outcome outcome = node.run({"hobbes-run", "run", "--bundle", bundle, name});
      EXPECT_NE(outcome.wait_status, 0) << property;
      EXPECT_TRUE(holds(outcome.err, "uts namespace") || holds(outcome.err, "UTS namespace"))
          << outcome.err;
      EXPECT_EQ(kept.now(), kept.before()) << property << " of the host was changed";
    }
  node.expect_clean();
}

// A process that holds a network namespace whose only interface has a dot in its name.
class Network {
 public:
  Network() {
    int ready[2];
    EXPECT_EQ(::pipe2(ready, O_CLOEXEC), 0);
    holder_ = ::fork();
    if (holder_ == 0) {
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      ifreq request{};
      std::strcpy(request.ifr_name, "lo");
      std::strcpy(request.ifr_newname, "eth0.7");
      bool good = ::unshare(CLONE_NEWNET) == 0;
      int socket = good ? ::socket(AF_INET, SOCK_DGRAM, 0) : -1;
      good = good && ::ioctl(socket, SIOCSIFNAME, &request) == 0;
      (void)!::write(ready[1], good ? "y" : "n", 1);
      for (;;) ::pause();
    }
    char word = 0;
    EXPECT_TRUE(::read(ready[0], &word, 1) == 1 && word == 'y');
    ::close(ready[0]);
    ::close(ready[1]);
  }
  ~Network() {
    ::kill(holder_, SIGKILL);
    ::waitpid(holder_, nullptr, 0);
  }
  Network(const Network&) = delete;
  Network& operator=(const Network&) = delete;
  [[nodiscard]] std::string path() const { return "/proc/" + std::to_string(holder_) + "/ns/net"; }

 private:
  pid_t holder_ = -1;
};

// sysctl(8): the first separator tells which of the two stands for the other.
TEST(HostParameters, AnInterfaceWithADotInItsNameWorksInBothSpellings) {
  Node node;
  int number = 0;
  for (const char* name : {"net.ipv4.conf.eth0/7.forwarding", "net/ipv4/conf/eth0.7/forwarding"}) {
    Network network;
    std::string id = "b" + std::to_string(++number);
    std::string bundle =
        node.busybox_bundle(id, "cat /proc/sys/net/ipv4/conf/eth0.7/forwarding", no_lease());
    edit(bundle, [&](Json& config) {
      config["linux"]["sysctl"] = {{name, "1"}};
      set_namespace(config, "network", network.path());
    });
    Outcome outcome = node.run({"hobbes-run", "run", "--bundle", bundle, id});
    EXPECT_EQ(outcome.out, "1\n") << name << ": " << outcome.err;
  }
}

}  // namespace
}  // namespace hobbes::test
