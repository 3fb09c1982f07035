#include "hobbesd/authorization.h"

#include <sys/wait.h>

#include <optional>

#include "partition/cgroup.h"
#include "unit/manager_part.h"

namespace hobbes::test {
namespace {

constexpr std::uint32_t manages_itself = 1U << 8U, manages_the_node = 2U << 8U;

class AuthorizationTest : public ManagerPart {
 protected:
  Authorization authorization{*nis};
  // A caller inside an enclave.
  Session inside(const hobbes_record& enclave) const {
    Session out = session(0);
    out.inside = enclave.id;
    return out;
  }
};

TEST_F(AuthorizationTest, OutsideOfEnclavesNoGrantIsNeeded) {
  const hobbes_record other = enclave("other", "0");
  EXPECT_TRUE(authorization.check_grant(session(0), other.id));
  EXPECT_TRUE(authorization.check_grant(session(0), 0));
}

TEST_F(AuthorizationTest, InsideTheBundlesGrantDecides) {
  const hobbes_record other = enclave("other", "0"), plain = enclave("plain", "1"),
                      self = enclave("self", "2", 0, manages_itself),
                      node = enclave("node", "3", 0, manages_the_node);
  EXPECT_EQ(authorization.check_grant(inside(plain), plain.id).error().code, Code::denied);
  EXPECT_TRUE(authorization.check_grant(inside(self), self.id));
  EXPECT_EQ(authorization.check_grant(inside(self), other.id).error().code, Code::denied);
  EXPECT_EQ(authorization.check_grant(inside(self), 0).error().code, Code::denied);
  EXPECT_TRUE(authorization.check_grant(inside(node), other.id));
}

// The control group of a process, made for it where this process is in none of its own.
class OwnGroup {
 public:
  OwnGroup() {
    std::string groups = Files::system().read("/proc/self/cgroup").value_or("");
    std::string last = groups.substr(groups.rfind(':') + 1);
    path_ = last.substr(0, last.find('\n'));
    pid_ = ::getpid();
    if (path_ != "/" || ::geteuid() != 0) return;
    pid_ = ::fork();
    if (pid_ == 0) {
      ::pause();
      ::_exit(0);
    }
    path_ = "/hobbes-test-" + std::to_string(pid_);
    group_.emplace(*CgroupLayout::detect(), path_);
    EXPECT_TRUE(group_->create());
    EXPECT_TRUE(group_->enter(pid_));
  }
  ~OwnGroup() {
    if (!group_) return;
    (void)group_->kill_all();
    ::waitpid(pid_, nullptr, 0);
    (void)group_->remove();
  }
  OwnGroup(const OwnGroup&) = delete;
  OwnGroup& operator=(const OwnGroup&) = delete;
  [[nodiscard]] pid_t pid() const { return pid_; }
  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  std::string path_;
  pid_t pid_ = 0;
  std::optional<Cgroup> group_;
};

TEST_F(AuthorizationTest, AProcessIsInTheEnclaveWhoseControlGroupItIsIn) {
  const hobbes_record a = enclave("a", "0");
  OwnGroup group;
  if (group.path() == "/") GTEST_SKIP() << "without root there is no group but the root's here";
  EXPECT_EQ(authorization.enclave_containing(group.pid()), 0U);
  authorization.set_group(a.id, group.path().substr(0, group.path().size() - 1));
  EXPECT_EQ(authorization.enclave_containing(group.pid()), 0U) << "a name that begins alike";
  authorization.set_group(a.id, group.path());
  EXPECT_EQ(authorization.group_of(a.id), group.path());
  EXPECT_EQ(authorization.enclave_containing(group.pid()), a.id);
  authorization.forget(a.id);
  EXPECT_EQ(authorization.enclave_containing(group.pid()), 0U);
}

TEST_F(AuthorizationTest, ATokensUserIsNoProcessOfTheNode) {
  Session remote;
  remote.peer.uid = 0;
  remote.inside = 7;
  remote.allowed.add(0);
  ASSERT_TRUE(authorization.identify(remote, "enclave.reserve"));
  EXPECT_TRUE(remote.privileged);
  EXPECT_EQ(remote.inside, 0U);
  EXPECT_TRUE(remote.allowed.empty());
}

}  // namespace
}  // namespace hobbes::test
