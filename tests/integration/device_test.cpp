// Devices of the Container Device Interface, by descriptions that this test puts where vendors'
// tools do.
#include <unistd.h>

#include "core/file.h"
#include "node_harness.h"

namespace hobbes::test {
namespace {

class Device : public ::testing::Test {
 protected:
  Device() {
    // A folder that is there already is somebody else's.
    had_folder_ = Files::system().exists(folder_);
    EXPECT_TRUE(make_directories(folder_));
    const std::string shown = node.folder() + "/shown";
    EXPECT_TRUE(replace_file(shown, "from the vendor\n", 0644));
    Json zero = {{"path", "/dev/accel"}, {"hostPath", "/dev/zero"}};
    Json full = {{"path", "/dev/accel-full"}, {"hostPath", "/dev/full"}};
    describe(
        ".json",
        to_text(
            {{"cdiVersion", "0.6.0"},
             {"kind", kind},
             {"containerEdits",
              {{"mounts",
                {{{"hostPath", shown},
                  {"containerPath", "/etc/accel"},
                  {"options", {"ro", "bind"}}}}}}},
             {"devices",
              {{{"name", "0"}, {"containerEdits", {{"deviceNodes", {zero}}, {"env", {"ACCEL=0"}}}}},
               {{"name", "all"}, {"containerEdits", {{"deviceNodes", {zero, full}}}}},
               {{"name", "odd"}, {"containerEdits", {{"lasers", 3}}}}}}}));
    describe(".yaml",
             "cdiVersion: 0.5.0\nkind: " + kind +
                 "-net\ndevices:\n  - name: eth\n    containerEdits:\n      env: [\"PORT=7\"]\n");
  }
  ~Device() override {
    for (const char* end : {".json", ".yaml"}) ::unlink((file_ + end).c_str());
    if (!had_folder_) ::rmdir(folder_.c_str());
  }
  void describe(const std::string& end, const std::string& text) const {
    EXPECT_TRUE(replace_file(file_ + end, text, 0644));
  }
  [[nodiscard]] std::string wanting(const std::string& name, const std::string& script,
                                    const std::vector<std::string>& devices,
                                    const Json& patch = Json::object()) const {
    Json all = {{"hobbes", {{"cores", nullptr}, {"memory", nullptr}, {"devices", devices}}}};
    all.merge_patch(patch);
    return node.busybox_bundle(name, script, all);
  }
  [[nodiscard]] std::string listed(const std::string& device) const {
    auto json = parse_json(node.good({"hobbes", "devices", "--json"}), "devices");
    if (!json) return "no answer";
    for (const Json& one : (*json)["devices"])
      if (text_at(one, "name") == device) return text_at(one, "enclave", "free");
    return "not there";
  }
  Node node;
  const std::string kind = "test" + std::to_string(::getpid()) + ".example/accel";

 private:
  const std::string folder_ = "/var/run/cdi",
                    file_ = folder_ + "/hobbes-test-" + std::to_string(::getpid());
  bool had_folder_ = false;
};

TEST_F(Device, AnEnclaveHasWhatItsDescriptionSays) {
  const std::string bundle =
      wanting("b", "head -c 2 /dev/accel | od -An -tx1; echo $ACCEL $PORT; cat /etc/accel",
              {kind + "=0", kind + "-net=eth"});
  EXPECT_EQ(node.good({"hobbes-run", "run", "--bundle", bundle, "a"}),
            " 00 00\n0 7\nfrom the vendor\n");
  node.expect_clean();
}

TEST_F(Device, IsOneEnclavesAtATimeAndSoIsANodeThatTwoHaveInCommon) {
  const std::string first = wanting("first", "sleep 1000", {kind + "=0"}),
                    same = wanting("same", "sleep 1000", {kind + "=0"}),
                    all = wanting("all", "sleep 1000", {kind + "=all"}),
                    net = wanting("net", "sleep 1000", {kind + "-net=eth"});
  EXPECT_EQ(listed(kind + "=0"), "free");
  node.good({"hobbes-run", "run", "--detach", "--bundle", first, "one"});
  EXPECT_EQ(listed(kind + "=0"), "one");
  EXPECT_EQ(listed(kind + "=all"), "one") << "it has a node of the other";
  EXPECT_EQ(listed(kind + "-net=eth"), "free");
  for (const std::string& bundle : {same, all})
    for (const char* how : {"create", "plan"}) {
      std::vector<std::string> words = {"hobbes-run", "create", "--bundle", bundle, "two"};
      if (how[0] == 'p') words.insert(words.begin() + 2, "--dry-run");
      Outcome outcome = node.run(words);
      EXPECT_FALSE(outcome.good()) << how;
      EXPECT_NE(outcome.err.find("is held by enclave 'one'"), std::string::npos) << outcome.err;
    }
  node.good({"hobbes-run", "run", "--detach", "--bundle", net, "three"});
  node.kill_daemon();
  EXPECT_EQ(listed(kind + "=0"), "one") << "also after hobbesd was killed";
  node.good({"hobbes-run", "delete", "--force", "one"});
  EXPECT_EQ(listed(kind + "=0"), "free");
  node.good({"hobbes-run", "run", "--detach", "--bundle", all, "four"});
  EXPECT_EQ(listed(kind + "=0"), "four");
  for (const char* id : {"three", "four"}) node.good({"hobbes-run", "delete", "--force", id});
  node.expect_clean();
}

TEST_F(Device, WhatIsNotThereOrNotKnownIsRefusedAndNothingIsKept) {
  Outcome missing =
      node.run({"hobbes-run", "create", "--bundle", wanting("m", "true", {kind + "=9"}), "a"});
  EXPECT_FALSE(missing.good());
  EXPECT_NE(missing.err.find("has no device '" + kind + "=9'"), std::string::npos) << missing.err;
  Outcome odd =
      node.run({"hobbes-run", "create", "--bundle", wanting("o", "true", {kind + "=odd"}), "a"});
  EXPECT_FALSE(odd.good());
  EXPECT_NE(odd.err.find("\"lasers\""), std::string::npos) << odd.err;
  EXPECT_EQ(listed(kind + "=odd"), "free");
  describe(".json", "{");
  EXPECT_NE(node.run({"hobbes", "devices"}).err.find("hobbes-test-"), std::string::npos)
      << "a description that is wrong is told";
  EXPECT_EQ(listed(kind + "-net=eth"), "free") << "and the others hold";
  node.expect_clean();
}

TEST_F(Device, AUserWithoutPrivilegeHasAsManyAsHisQuotaSays) {
  node.wake_daemon();
  const std::string bundle = wanting("b", "echo $PORT", {kind + "-net=eth"});
  node.good({"chmod", "-R", "a+rX", node.folder()});
  node.good({"chown", "-R", "1234:1234", bundle});
  Outcome outcome =
      node.run({"setpriv", "--reuid=1234", "--regid=1234", "--clear-groups", "--inh-caps=-all",
                HOBBES_BUILD_DIR "/bin/hobbes-run", "run", "--bundle", bundle, "a"});
  EXPECT_FALSE(outcome.good()) << outcome.out;
  EXPECT_NE(outcome.err.find("the quota is 0"), std::string::npos) << outcome.err;
  EXPECT_EQ(listed(kind + "-net=eth"), "free");
}

// Its first process ends; another one that it has left behind has the device open still.
TEST_F(Device, IsHeldUntilTheLastProcessOfItsEnclaveHasEnded) {
  const Json shares = {{"linux", {{"namespaces", {{{"type", "mount"}}, {{"type", "uts"}}}}}}};
  const std::string leaves = wanting("leaves", "sleep 1000 </dev/null >/dev/null 2>&1 & exit 0",
                                     {kind + "=0"}, shares),
                    same = wanting("same", "true", {kind + "=0"});
  node.good({"hobbes-run", "run", "--detach", "--bundle", leaves, "one"});
  EXPECT_TRUE(eventually([&] { return text_at(node.enclave("one"), "state") == "stopped"; }));
  EXPECT_EQ(listed(kind + "=0"), "one");
  EXPECT_FALSE(node.run({"hobbes-run", "run", "--bundle", same, "two"}).good());
  node.good({"hobbes-run", "delete", "--force", "one"});
  node.good({"hobbes-run", "run", "--bundle", same, "two"});
  node.expect_clean();
}

}  // namespace
}  // namespace hobbes::test
