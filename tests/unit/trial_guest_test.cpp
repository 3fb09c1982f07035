#include "enclave/drivers/palacios/trial_guest.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <unistd.h>

#include "core/file.h"
#include "core/identity.h"
#include "core/json.h"

namespace hobbes {
namespace {

class TrialGuest : public ::testing::Test {
 protected:
  TrialGuest() {
    char name[] = "/tmp/trial.XXXXXX";
    folder_ = ::mkdtemp(name);
  }
  ~TrialGuest() override { (void)remove_tree(folder_); }
  [[nodiscard]] std::string note() const { return folder_ + "/kvm-trial.json"; }
  void remember(const std::string& boot, const std::string& obstacle) const {
    ASSERT_TRUE(replace_file(note(), to_text({{"boot", boot}, {"obstacle", obstacle}})));
  }
  // A descriptor that answers no request of KVM's.
  Fd deaf_{::open("/dev/null", O_RDWR | O_CLOEXEC)};

 private:
  std::string folder_;
};

TEST_F(TrialGuest, AnAnswerOfThisBootIsNotAskedForAgain) {
  remember(*boot_id(), "");
  auto works = remembered_trial(deaf_, note());
  ASSERT_TRUE(works) << works.error().text();
  EXPECT_FALSE(*works);
  remember(*boot_id(), "it did not end");
  auto fails = remembered_trial(deaf_, note());
  ASSERT_TRUE(fails);
  EXPECT_EQ(fails->value_or(""), "it did not end");
}

TEST_F(TrialGuest, AnAnswerOfAnotherBootOrNoAnswerIsFoundOutAnew) {
  remember("another-boot", "");
  EXPECT_FALSE(remembered_trial(deaf_, note()));
  ASSERT_TRUE(replace_file(note(), "{\"boot\": 7"));
  EXPECT_FALSE(remembered_trial(deaf_, note()));
}

TEST_F(TrialGuest, ARefusalOfKvmIsAnErrorAndIsNotKept) {
  auto refused = remembered_trial(deaf_, note());
  ASSERT_FALSE(refused);
  EXPECT_NE(refused.error().text().find("KVM_CREATE_VM"), std::string::npos)
      << refused.error().text();
  EXPECT_NE(::access(note().c_str(), F_OK), 0);
}

}  // namespace
}  // namespace hobbes
