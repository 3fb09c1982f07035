// What a command line says in place of a bundle.
#include "bundle/overrides.h"

#include <gtest/gtest.h>

#include "bundle/bundle.h"

namespace hobbes {
namespace {

Json applied(const BundleOverrides& overrides, Json config,
             const std::vector<std::string>& environment = {}) {
  auto done = overrides.apply(config, environment);
  EXPECT_TRUE(done) << done.error().text();
  return config;
}

template <class T, class U>
BundleOverrides with(T BundleOverrides::*member, U value) {
  BundleOverrides out;
  out.*member = value;
  return out;
}

TEST(BundleOverrides, NothingChangesNothing) {
  const Json config = example_config(Kind::linux_, true);
  EXPECT_FALSE(BundleOverrides().any());
  EXPECT_EQ(applied({}, config), config);
  EXPECT_EQ(applied(with(&BundleOverrides::cores, 1U), Json::array()), Json::array())
      << "the validation says it";
}

TEST(BundleOverrides, ProgramFolderCoresAndMemoryAreTheCommandLines) {
  BundleOverrides wanted;
  wanted.cores = 3;
  wanted.memory = "2GiB";
  wanted.args = {"a program", "--its", "arguments"};
  wanted.cwd = "/work";
  wanted.volumes = {"/work", "/data:/input:ro"};
  Json config = example_config(Kind::linux_, true);
  config["hobbes"]["cores"] = {{"list", "0-1"}};
  Json out = applied(wanted, config);
  EXPECT_EQ(out["process"]["args"], Json(wanted.args));
  EXPECT_EQ(out["process"]["cwd"], "/work");
  EXPECT_EQ(out["hobbes"]["cores"], Json({{"count", 3}}));
  EXPECT_EQ(out["hobbes"]["memory"]["size"], "2GiB");
  const auto& mounts = out["mounts"];
  EXPECT_EQ(mounts[mounts.size() - 2]["destination"], "/work");
  EXPECT_EQ(applied(with(&BundleOverrides::volumes, std::vector<std::string>{"/run_12\\:30"}),
                    Json::object())["mounts"][0]["source"],
            "/run_12:30");
  EXPECT_EQ(mounts.back()["source"], "/data");
  EXPECT_EQ(mounts.back()["destination"], "/input");
  EXPECT_EQ(mounts.back()["options"], Json({"rbind", "ro"}));
  EXPECT_EQ(validate_config("/nowhere", out).problems.size(), 0U);
}

TEST(BundleOverrides, VariablesStandInAStatedOrder) {
  BundleOverrides wanted;
  wanted.host_env = true;
  wanted.env = {"GIVEN=1", "TAKEN_*", "MISSING"};
  Json config = {
      {"process", {{"args", {"x"}}, {"cwd", "/"}, {"env", {"PATH=/image", "TAKEN_A=i"}}}}};
  Json out = applied(wanted, config, {"PATH=/host", "HOME=/h", "TAKEN_A=c", "GIVEN=0"});
  EXPECT_EQ(out["process"]["env"], Json({"HOME=/h", "PATH=/image", "GIVEN=1", "TAKEN_A=c"}));
  wanted.host_env = false;
  out = applied(wanted, config, {"PATH=/host", "HOME=/h", "TAKEN_A=c"});
  EXPECT_EQ(out["process"]["env"], Json({"PATH=/image", "GIVEN=1", "TAKEN_A=c"}));
}

TEST(BundleOverrides, WhatIsMissingIsMadeAndWhatIsWrongIsLeftToTheValidation) {
  EXPECT_EQ(applied(with(&BundleOverrides::cores, 2U), Json::object())["hobbes"]["cores"]["count"],
            2);
  EXPECT_EQ(applied(with(&BundleOverrides::env, std::vector<std::string>{"A=1"}),
                    Json::object())["process"]["env"],
            Json({"A=1"}));
  for (const Json& wrong : {Json({{"hobbes", 1}}), Json({{"hobbes", {{"cores", "x"}}}}),
                            Json({{"process", {{"env", "x"}}}}), Json({{"mounts", 1}})}) {
    BundleOverrides all;
    all.cores = 1;
    all.memory = "1GiB";
    all.kind = "palacios";
    all.env = {"A=1"};
    all.volumes = {"/v"};
    EXPECT_EQ(applied(all, wrong), wrong);
  }
}

TEST(BundleOverrides, AKindBringsItsKernelWhereTheBundleNamesNone) {
  Json config = example_config(Kind::linux_, true);
  Json machine = applied(with(&BundleOverrides::kind, "palacios"), config);
  EXPECT_NE(machine["hobbes"]["image"]["kernel"].get<std::string>().find("linux-vm/vmlinux"),
            std::string::npos);
  EXPECT_TRUE(machine["hobbes"]["image"].contains("initrd"));
  config["hobbes"]["image"] = {{"kernel", "/mine"}};
  EXPECT_EQ(applied(with(&BundleOverrides::kind, "kitten"), config)["hobbes"]["image"],
            Json({{"kernel", "/mine"}}));
}

TEST(BundleOverrides, AVolumeThatIsNoneIsRefusedByItsName) {
  for (const char* volume : {"", "relative", "/a:relative", "/a:/b:rx", "/a:/b:ro:more", ":/b"}) {
    Json config = Json::object();
    auto done = with(&BundleOverrides::volumes, std::vector<std::string>{volume}).apply(config, {});
    ASSERT_FALSE(done) << volume;
    EXPECT_NE(done.error().text().find("'" + std::string(volume) + "'"), std::string::npos);
  }
}

}  // namespace
}  // namespace hobbes
