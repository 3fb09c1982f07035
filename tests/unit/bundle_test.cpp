#include "bundle/bundle.h"

#include <gtest/gtest.h>

#include <valijson/adapters/nlohmann_json_adapter.hpp>
#include <valijson/schema.hpp>
#include <valijson/schema_parser.hpp>
#include <valijson/validator.hpp>

#include "core/file.h"

namespace hobbes {
namespace {

Json valid() { return example_config(Kind::linux_, true); }

bool mentions(const std::vector<Problem>& problems, const std::string& pointer) {
  for (const Problem& p : problems)
    if (p.pointer == pointer) return true;
  return false;
}

TEST(Bundle, EveryExampleIsValid) {
  for (Kind kind : {Kind::linux_, Kind::kitten, Kind::palacios}) {
    auto validation = validate_config("/b", example_config(kind, false));
    ASSERT_TRUE(validation.bundle) << report(validation.problems);
    EXPECT_EQ(validation.bundle->hobbes.kind, kind);
  }
  EXPECT_TRUE(validate_config("/b", valid()).bundle);
}

TEST(Bundle, WhatAKindCannotDoIsRefusedByItsField) {
  auto refuses = [](Kind kind, const std::string& pointer, const Json& value,
                    const std::string& said = "") {
    Json config = example_config(kind, false);
    // A co-kernel without a program has no sandbox whose rules these are.
    if (kind == Kind::kitten)
      for (const char* key : {"process", "root", "mounts", "linux", "hostname"}) config.erase(key);
    config[Json::json_pointer(pointer)] = value;
    return mentions(validate_config("/b", config).problems, said.empty() ? pointer : said);
  };
  EXPECT_TRUE(refuses(Kind::kitten, "/hobbes/root", "host"));
  EXPECT_TRUE(refuses(Kind::kitten, "/process", {{"args", {"true"}}, {"cwd", "/"}}, "/root"));
  for (Kind kind : {Kind::kitten, Kind::palacios}) {
    EXPECT_TRUE(refuses(kind, "/linux/mountLabel", "a:b:c"));
    EXPECT_TRUE(refuses(kind, "/linux/netDevices", {{"eth1", Json::object()}}));
    EXPECT_TRUE(refuses(kind, "/mounts",
                        Json::array({{{"destination", "/m"},
                                      {"type", "bind"},
                                      {"source", "/s"},
                                      {"options", {"bind", "idmap"}}}}),
                        "/mounts/0"));
  }
  for (const char* label : {"apparmorProfile", "selinuxLabel"}) {
    Json process = {{"args", {"true"}}, {"cwd", "/"}, {label, "some"}};
    EXPECT_TRUE(refuses(Kind::palacios, "/process", process, std::string("/process/") + label));
  }
}

TEST(Bundle, AllProblemsAreReportedAtOnceWithPointers) {
  Json config = valid();
  config["process"]["args"] = Json::array();
  config["process"]["cwd"] = "relative";
  config["hobbes"]["cores"]["count"] = "two";
  config["hobbes"]["memory"]["size"] = "12 parsecs";
  config["linux"]["namespaces"].push_back({{"type", "pid"}});
  auto validation = validate_config("/b", config);
  EXPECT_FALSE(validation.bundle);
  for (const char* pointer : {"/process/args", "/process/cwd", "/hobbes/cores/count",
                              "/hobbes/memory/size", "/linux/namespaces/4/type"})
    EXPECT_TRUE(mentions(validation.problems, pointer)) << pointer << "\n"
                                                        << report(validation.problems);
  for (const Problem& p : validation.problems) {
    EXPECT_FALSE(p.found.empty());
    EXPECT_FALSE(p.allowed.empty());
  }
}

TEST(Bundle, UnknownOciFieldsAreKeptAndIgnored) {
  Json config = valid();
  config["zzz"] = {{"a", 1}};
  config["process"]["future"] = true;
  auto validation = validate_config("/b", config);
  ASSERT_TRUE(validation.bundle) << report(validation.problems);
  EXPECT_EQ(validation.bundle->config["zzz"]["a"], 1);
}

TEST(Bundle, UnknownHobbesKeysAreErrorsWithASuggestion) {
  Json config = valid();
  config["hobbes"]["core"] = {{"count", 1}};
  auto validation = validate_config("/b", config);
  ASSERT_EQ(validation.problems.size(), 1U);
  EXPECT_EQ(validation.problems[0].pointer, "/hobbes/core");
  EXPECT_NE(validation.problems[0].remedy.find("cores"), std::string::npos);
}

TEST(Bundle, AnnotationsAreEquivalentToTheObject) {
  Json object = valid();
  object["hobbes"] = {{"kind", "linux"},
                      {"root", "host"},
                      {"cores", {{"count", 2}, {"policy", "spread"}}},
                      {"memory", {{"size", "1GiB"}, {"numa", 0}}},
                      {"segments", {{{"name", "a"}, {"size", "1MiB"}}}},
                      {"labels", {{"team.name", "x"}}}};
  Json annotated = valid();
  annotated.erase("hobbes");
  annotated["annotations"] = {{"org.hobbes.kind", "linux"},
                              {"org.hobbes.root", "host"},
                              {"org.hobbes.cores.count", "2"},
                              {"org.hobbes.cores.policy", "spread"},
                              {"org.hobbes.memory.size", "1GiB"},
                              {"org.hobbes.memory.numa", "0"},
                              {"org.hobbes.segments", R"([{"name":"a","size":"1MiB"}])"},
                              {"org.hobbes.labels.team.name", "x"}};
  auto a = validate_config("/b", object), b = validate_config("/b", annotated);
  ASSERT_TRUE(a.bundle) << report(a.problems);
  ASSERT_TRUE(b.bundle) << report(b.problems);
  EXPECT_EQ(a.bundle->hobbes.cores.count, b.bundle->hobbes.cores.count);
  EXPECT_EQ(a.bundle->hobbes.cores.policy, b.bundle->hobbes.cores.policy);
  EXPECT_EQ(a.bundle->hobbes.memory.size, b.bundle->hobbes.memory.size);
  EXPECT_EQ(a.bundle->hobbes.memory.numa, b.bundle->hobbes.memory.numa);
  EXPECT_EQ(a.bundle->hobbes.segments.size(), b.bundle->hobbes.segments.size());
  EXPECT_EQ(a.bundle->hobbes.labels, b.bundle->hobbes.labels);
}

TEST(Bundle, AnAnnotationThatContradictsTheObjectIsAnError) {
  Json config = valid();
  config["annotations"] = {{"org.hobbes.cores.count", "7"}};
  EXPECT_TRUE(
      mentions(validate_config("/b", config).problems, "/annotations/org.hobbes.cores.count"));
}

TEST(Bundle, ADomainNameIsGivenOnceOrTwiceTheSame) {
  Json config = example_config(Kind::linux_, false);
  config["domainname"] = "example.org";
  config["linux"]["sysctl"] = {{"kernel.domainname", "example.org"}};
  EXPECT_TRUE(validate_config("/b", config).problems.empty())
      << report(validate_config("/b", config).problems);
  config["linux"]["sysctl"] = {{"kernel/domainname", "example.com"}};
  EXPECT_TRUE(mentions(validate_config("/b", config).problems, "/domainname"));
}

TEST(Bundle, AVmObjectMakesItPalacios) {
  Json config = {{"ociVersion", "1.3.0"},
                 {"vm", {{"kernel", {{"path", "/vmlinuz"}}}}},
                 {"hobbes", {{"cores", {{"count", 1}}}, {"memory", {{"size", "128MiB"}}}}}};
  auto validation = validate_config("/b", config);
  ASSERT_TRUE(validation.bundle) << report(validation.problems);
  EXPECT_EQ(validation.bundle->hobbes.kind, Kind::palacios);
}

// The shipped schema and the loader are two descriptions of one format.
TEST(Bundle, OnlyAGuestWithoutAnAgentHasItsSerialPortForATerminal) {
  Json config = example_config(Kind::palacios, false);
  config["hobbes"]["image"]["terminal"] = true;
  EXPECT_TRUE(mentions(validate_config("/b", config).problems, "/hobbes/image/terminal"))
      << "it has a process";
  config.erase("process");
  Validation alone = validate_config("/b", config);
  ASSERT_TRUE(alone.bundle) << report(alone.problems);
  EXPECT_TRUE(alone.bundle->terminal());
  config["hobbes"]["image"]["agent"] = true;
  EXPECT_TRUE(mentions(validate_config("/b", config).problems, "/hobbes/image/terminal"))
      << "it has an agent";
}

TEST(Bundle, TheSchemaAndTheLoaderAgree) {
  Json schema_document =
      *parse_json(*Files::system().read(HOBBES_SOURCE_DIR "/bundles/schema.json"), "schema");
  valijson::Schema schema;
  valijson::SchemaParser().populateSchema(valijson::adapters::NlohmannJsonAdapter(schema_document),
                                          schema);
  auto by_schema = [&](const Json& section) {
    return valijson::Validator().validate(schema, valijson::adapters::NlohmannJsonAdapter(section),
                                          nullptr);
  };
  std::vector<Json> sections = {example_config(Kind::linux_, true)["hobbes"],
                                example_config(Kind::kitten, false)["hobbes"],
                                example_config(Kind::palacios, false)["hobbes"]};
  const Json base = sections[0];
  for (const char* patch : {R"({"kind":"windows"})",
                            R"({"cores":{"count":0}})",
                            R"({"cores":{"count":2,"list":"0"}})",
                            R"({"cores":{"count":null}})",
                            R"({"cores":{"policy":"wide"}})",
                            R"({"cores":{"extra":1}})",
                            R"({"memory":{"size":"lots"}})",
                            R"({"memory":{"size":null}})",
                            R"({"segments":[{"name":"a/b","size":1}]})",
                            R"({"segments":[{"size":1}]})",
                            R"({"segments":[{"name":"a","size":"1MiB","access":"rw"}]})",
                            R"({"segments":[{"name":"melt.*","access":"ro"}]})",
                            R"({"segments":[{"composition":true}]})",
                            R"({"segments":[{"composition":false}]})",
                            R"({"segments":[{"name":"melt.*","size":"1MiB"}]})",
                            R"({"segments":[{"name":"a","size":"1MiB","composition":true}]})",
                            R"({"remora":{"composition":"c"}})",
                            R"({"manage":"all"})",
                            R"({"serviceCores":"0-1"})",
                            R"({"serviceCores":"x"})",
                            R"({"labels":{"a":1}})",
                            R"({"labels":{"a":"1"}})",
                            R"({"unknown":1})"}) {
    Json section = base;
    section.merge_patch(*parse_json(patch, "patch"));
    sections.push_back(section);
  }
  for (const Json& section : sections) {
    Json config = example_config(Kind::linux_, true);
    if (text_at(section, "kind") != "linux") config = example_config(Kind::kitten, false);
    config["hobbes"] = section;
    auto validation = validate_config("/b", config);
    EXPECT_EQ(by_schema(section), validation.problems.empty()) << to_text(section) << "\n"
                                                               << report(validation.problems);
  }
}

TEST(Bundle, DocumentsThatAreNoObjectsAreRefused) {
  for (const Json& config : {Json(), Json(3), Json("x"), Json::array()})
    EXPECT_FALSE(validate_config("/b", config).problems.empty());
}

TEST(Json, HostileDocumentsAreRefusedWithTheReason) {
  std::string deep(100000, '[');
  EXPECT_NE(parse_json(deep, "x").error().cause.find("nests deeper"), std::string::npos);
  EXPECT_NE(parse_json(R"({"a":1,"a":2})", "x").error().cause.find("twice"), std::string::npos);
  EXPECT_FALSE(parse_json("{\"a\":\"\xff\xfe\"}", "x"));
  EXPECT_FALSE(parse_json("", "x"));
  EXPECT_FALSE(parse_json("{} trailing", "x"));
  EXPECT_FALSE(parse_json(std::string(json_size_limit + 1, ' '), "x"));
  EXPECT_NE(parse_json("{\n \"a\": }", "x").error().cause.find("line 2"), std::string::npos);
}

}  // namespace
}  // namespace hobbes
