#include "hobbesd/authorization.h"

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

TEST_F(AuthorizationTest, AProcessIsInTheEnclaveWhoseControlGroupItIsIn) {
  const hobbes_record a = enclave("a", "0");
  EXPECT_EQ(authorization.enclave_containing(::getpid()), 0U);
  // The group of this process, and one that only begins alike.
  std::string groups = Files::system().read("/proc/self/cgroup").value_or("");
  std::string own = groups.substr(groups.rfind(':') + 1);
  own = own.substr(0, own.find('\n'));
  if (own == "/") GTEST_SKIP() << "this process is in the root's group";
  authorization.set_group(a.id, own.substr(0, own.size() - 1));
  EXPECT_EQ(authorization.enclave_containing(::getpid()), 0U);
  authorization.set_group(a.id, own);
  EXPECT_EQ(authorization.group_of(a.id), own);
  EXPECT_EQ(authorization.enclave_containing(::getpid()), a.id);
  authorization.forget(a.id);
  EXPECT_EQ(authorization.enclave_containing(::getpid()), 0U);
}

TEST_F(AuthorizationTest, ATokensUserIsNoProcessOfTheNode) {
  Session remote;
  remote.peer.uid = 0;
  ASSERT_TRUE(authorization.identify(remote, "enclave.reserve"));
  EXPECT_TRUE(remote.privileged);
  EXPECT_EQ(remote.inside, 0U);
  EXPECT_TRUE(remote.allowed.empty());
}

}  // namespace
}  // namespace hobbes::test
