// Descriptions of devices, and what they change in a bundle.
#include "hobbesd/cdi.h"

#include <gtest/gtest.h>

#include "bundle/device_edits.h"
#include "made_up_files.h"

namespace hobbes {
namespace {

class Descriptions final : public MadeUpFiles {
 public:
  std::map<std::string, std::string> texts;
  Result<std::string> read(const std::string& path, std::size_t) const override {
    auto at = texts.find(path);
    if (at == texts.end()) return os_error("read " + path, ENOENT);
    return at->second;
  }
  Result<std::vector<std::string>> list(const std::string& path) const override {
    std::vector<std::string> out;
    for (const auto& [name, text] : texts)
      if (name.rfind(path + "/", 0) == 0) out.push_back(name.substr(path.size() + 1));
    if (out.empty()) return os_error("list " + path, ENOENT);
    return out;
  }
  bool exists(const std::string& path) const override { return texts.count(path) != 0; }
};

const char* in_json = R"({"cdiVersion": "0.6.0", "kind": "acme.com/gpu",
  "containerEdits": {"env": ["ACME=1"], "deviceNodes": [{"path": "/dev/acmectl"}]},
  "devices": [{"name": "0", "containerEdits": {"deviceNodes": [{"path": "/dev/acme0"}]}},
              {"name": "all", "containerEdits": {"deviceNodes": [{"path": "/dev/acme0"},
                                                                   {"path": "/dev/acme1"}]}}]})";
const char* in_yaml = R"(cdiVersion: 0.5.0
kind: acme.com/net
devices:
  - name: 0
    containerEdits:
      env: [PORT=0, "QUOTED=true"]
      deviceNodes:
        - path: /dev/net0
          hostPath: /dev/zero
          major: 1
)";

TEST(Cdi, DescriptionsAreReadAsJsonAndAsYaml) {
  Descriptions files;
  files.texts = {{"/etc/cdi/a.json", in_json},
                 {"/etc/cdi/b.yaml", in_yaml},
                 {"/etc/cdi/README", "no description"}};
  const CdiRegistry registry = CdiRegistry::read({"/etc/cdi", "/var/run/cdi"}, files);
  EXPECT_EQ(registry.problems(), std::vector<std::string>());
  ASSERT_EQ(registry.devices().size(), 3U);
  const CdiDevice* all = registry.find("acme.com/gpu=all");
  ASSERT_NE(all, nullptr);
  EXPECT_EQ(all->nodes, (std::vector<std::string>{"/dev/acme0", "/dev/acme1"}))
      << "those that all devices of the file have are nobody's";
  ASSERT_EQ(all->edits.size(), 2U);
  EXPECT_EQ(all->edits[0]["env"][0], "ACME=1") << "the file's come first";
  const CdiDevice* net = registry.find("acme.com/net=0");
  ASSERT_NE(net, nullptr);
  EXPECT_EQ(net->nodes, std::vector<std::string>{"/dev/zero"}) << "as the host has them";
  EXPECT_EQ(net->edits[0]["deviceNodes"][0]["major"], 1);
  EXPECT_EQ(net->edits[0]["env"][1], "QUOTED=true");
}

TEST(Cdi, ALaterFolderStandsAboveAnEarlierOneAndTwoFilesOfOneFolderAboveNone) {
  Descriptions files;
  std::string other = in_json;
  other.replace(other.find("ACME=1"), 6, "ACME=2");
  files.texts = {{"/etc/cdi/a.json", in_json}, {"/var/run/cdi/a.json", other}};
  CdiRegistry registry = CdiRegistry::read({"/etc/cdi", "/var/run/cdi"}, files);
  ASSERT_NE(registry.find("acme.com/gpu=0"), nullptr);
  EXPECT_EQ(registry.find("acme.com/gpu=0")->edits[0]["env"][0], "ACME=2");
  files.texts["/var/run/cdi/b.json"] = in_json;
  registry = CdiRegistry::read({"/etc/cdi", "/var/run/cdi"}, files);
  EXPECT_EQ(registry.find("acme.com/gpu=0"), nullptr);
  ASSERT_EQ(registry.problems().size(), 2U);
  EXPECT_NE(registry.problems()[0].find("/var/run/cdi/a.json and by /var/run/cdi/b.json"),
            std::string::npos)
      << registry.problems()[0];
}

TEST(Cdi, AWrongDescriptionIsAProblemAndTheOthersHold) {
  Descriptions files;
  const std::string head = R"({"cdiVersion": "0.6.0", "kind": "acme.com/x", )";
  files.texts = {{"/c/good.json", in_json},
                 {"/c/a.json", "{"},
                 {"/c/b.json", R"({"cdiVersion": "7", "kind": "acme.com/x", "devices": []})"},
                 {"/c/c.json", R"({"cdiVersion": "0.6.0", "kind": "acme", "devices": []})"},
                 {"/c/d.json", head + R"("devices": 3})"},
                 {"/c/e.json", head + R"("devices": [{"name": "a b"}]})"},
                 {"/c/f.json", head + R"("devices": [{"name": [1]}]})"},
                 {"/c/g.json", head + R"("devices": [{"name": "0", "containerEdits": [1]}]})"},
                 {"/c/h.yaml", "a: &a [*a, *a]"},
                 {"/c/i.yaml", "[1, 2"},
                 {"/c/j.json", "[]"}};
  std::string bomb = "a0: &a0 [x, x]\n";
  for (int i = 1; i < 40; ++i)
    bomb += "a" + std::to_string(i) + ": &a" + std::to_string(i) + " [*a" + std::to_string(i - 1) +
            ", *a" + std::to_string(i - 1) + "]\n";
  files.texts["/c/k.yaml"] = bomb;
  files.texts["/c/l.yaml"] = "a: &a \"" + std::string(1 << 20, 'x') + "\"\nb: [";
  for (int i = 0; i < 1000; ++i) files.texts["/c/l.yaml"] += "*a, ";
  files.texts["/c/l.yaml"] += "*a]\n";
  const CdiRegistry registry = CdiRegistry::read({"/c"}, files);
  EXPECT_EQ(registry.devices().size(), 2U);
  EXPECT_EQ(registry.problems().size(), 12U);
}

Bundle bundle_of(const Json& patch, bool host_root) {
  Json config = example_config(Kind::linux_, host_root);
  if (!patch.is_null()) config.merge_patch(patch);
  Validation checked = validate_config("/nowhere", config);
  EXPECT_TRUE(checked.bundle) << report(checked.problems);
  return std::move(*checked.bundle);
}

TEST(DeviceEdits, GiveNodesVariablesMountsHooksAndGroups) {
  Bundle bundle = bundle_of({{"process", {{"env", {"PATH=/bin", "ACME=old"}}}}}, false);
  const std::size_t mounts = bundle.oci.mounts.size();
  const Json edits = Json::parse(R"([{"env": ["ACME=new", "MORE=1"],
    "deviceNodes": [{"path": "/dev/acme", "hostPath": "/dev/zero", "permissions": "r",
                     "fileMode": 384}],
    "mounts": [{"hostPath": "/usr/lib/acme", "containerPath": "/lib/acme", "options": ["ro"]}],
    "hooks": [{"hookName": "createContainer", "path": "/bin/true", "args": ["true"]}],
    "additionalGids": [44]}])");
  auto applied = apply_device_edits(bundle, edits);
  ASSERT_TRUE(applied) << applied.error().text();
  EXPECT_EQ(bundle.oci.process->env, (std::vector<std::string>{"PATH=/bin", "ACME=new", "MORE=1"}));
  EXPECT_EQ(bundle.config["process"]["env"][1], "ACME=new") << "for processes of exec, too";
  ASSERT_FALSE(bundle.oci.linux_.devices.empty());
  EXPECT_EQ(bundle.oci.linux_.devices.back().path, "/dev/acme");
  EXPECT_EQ(bundle.oci.linux_.devices.back().major, 1);
  EXPECT_EQ(bundle.oci.linux_.devices.back().minor, 5) << "those of /dev/zero";
  EXPECT_EQ(bundle.config["linux"]["resources"]["devices"].back()["access"], "r");
  ASSERT_EQ(bundle.oci.mounts.size(), mounts + 1);
  EXPECT_EQ(bundle.oci.mounts.back().destination, "/lib/acme");
  EXPECT_EQ(bundle.oci.hooks.create_container.size(), 1U);
  EXPECT_EQ(bundle.oci.process->user.additional_gids, std::vector<gid_t>{44});
}

TEST(DeviceEdits, TakeThePlaceOfWhatTheBundleHasThere) {
  Bundle bundle = bundle_of({}, false);
  const std::size_t mounts = bundle.oci.mounts.size();
  const Json edits =
      Json::parse(R"([{"deviceNodes": [{"path": "/dev/acme", "hostPath": "/dev/zero"}],
    "mounts": [{"hostPath": "/usr/share", "containerPath": "/dev/shm", "options": ["ro"]}]}])");
  ASSERT_TRUE(apply_device_edits(bundle, edits));
  ASSERT_TRUE(apply_device_edits(bundle, edits)) << "as of a bundle that names them itself";
  EXPECT_EQ(bundle.oci.mounts.size(), mounts);
  EXPECT_EQ(bundle.oci.linux_.devices.size(), 1U);
}

TEST(DeviceEdits, InTheHostsTreeANodeIsWhereItIsAndOnlyMayBeUsed) {
  Bundle bundle = bundle_of({}, true);
  ASSERT_TRUE(
      apply_device_edits(bundle, Json::parse(R"([{"deviceNodes": [{"path": "/dev/zero"}]}])")));
  EXPECT_TRUE(bundle.oci.linux_.devices.empty());
  EXPECT_EQ(bundle.config["linux"]["resources"]["devices"].back()["minor"], 5);
  auto elsewhere = apply_device_edits(
      bundle, Json::parse(R"([{"deviceNodes": [{"path": "/dev/a", "hostPath": "/dev/zero"}]}])"));
  ASSERT_FALSE(elsewhere);
  EXPECT_EQ(elsewhere.error().code, Code::unsupported);
}

TEST(DeviceEdits, WhatCannotBeDoneIsRefusedAndTheBundleStaysAsItWas) {
  for (const char* edits :
       {R"([{"intelRdt": {"closID": "x"}}])", R"([{"deviceNodes": [{"path": "/dev/nowhere"}]}])",
        R"([{"deviceNodes": [{"path": "/etc/passwd"}]}])", R"([{"env": [3]}])",
        R"([{"mounts": [{"hostPath": "/x", "containerPath": "relative"}]}])",
        R"([{"hooks": [{"hookName": "someday", "path": "/bin/true"}]}])", R"([7])",
        R"([{"deviceNodes": [{"path": "/dev/zero", "colour": "red"}]}])"}) {
    Bundle bundle = bundle_of({}, false);
    const Json before = bundle.config;
    EXPECT_FALSE(apply_device_edits(bundle, Json::parse(edits))) << edits;
    EXPECT_EQ(bundle.config, before) << edits;
  }
}

TEST(DeviceEdits, NamesAreFullyQualified) {
  for (const char* good : {"nvidia.com/gpu=0", "a/b=c", "vendor.com/net-if=eth0:1.2"})
    EXPECT_TRUE(is_device_name(good)) << good;
  for (const char* bad : {"", "gpu", "nvidia.com/gpu", "nvidia.com/gpu=", "/gpu=0", "a/=0",
                          "a/b=c d", "a=b/c", "a/b=-c", "a./b=c"})
    EXPECT_FALSE(is_device_name(bad)) << bad;
}

}  // namespace
}  // namespace hobbes
