// Every property of the runtime-spec is acted on or refused; none is passed over. The schema is the
// distribution's copy.
#include <gtest/gtest.h>

#include <functional>
#include <map>
#include <set>
#include <string>

#include "bundle/bundle.h"
#include "core/file.h"

namespace hobbes {
namespace {

const std::string schema_folder =
    "/usr/share/gocode/src/github.com/opencontainers/runtime-spec/schema/";

class Schema {
 public:
  // Calls `visit` with the pointer of each property that has a value of its own, and an example of
  // that value.
  void walk(const std::function<void(const std::string&, const Json&)>& visit) {
    visit_ = visit;
    descend(file("config-schema.json"), file("config-schema.json"), "", "");
  }

 private:
  const Json& file(const std::string& name) {
    auto at = files_.find(name);
    if (at != files_.end()) return at->second;
    auto text = Files::system().read(schema_folder + name);
    EXPECT_TRUE(text) << "install golang-github-opencontainers-specs-dev";
    return files_[name] = Json::parse(text ? *text : std::string("{}"));
  }

  void descend(const Json& document, const Json& node, const std::string& pointer,
               const std::string& name) {
    if (pointer.size() > 200) return;
    if (node.contains("$ref")) {
      std::string reference = node["$ref"];
      std::size_t hash = reference.find('#');
      const Json& other = hash == 0 ? document : file(reference.substr(0, hash));
      std::string inside = hash == std::string::npos ? "" : reference.substr(hash + 1);
      descend(other, inside.empty() ? other : other.at(Json::json_pointer(inside)), pointer, name);
      return;
    }
    for (const char* all : {"allOf", "anyOf", "oneOf"})
      if (node.contains(all))
        for (const Json& one : node[all]) descend(document, one, pointer, name);
    if (node.contains("properties")) {
      for (const auto& [key, inner] : node["properties"].items())
        descend(document, inner, pointer + "/" + key, key);
    } else if (node.contains("items") && node["items"].is_object()) {
      descend(document, node["items"], pointer + "/0", name);
    } else if (!node.contains("allOf") && !node.contains("anyOf") && !node.contains("oneOf")) {
      visit_(pointer, example(node));
    }
  }

  static Json example(const Json& node) {
    if (node.contains("enum")) return node["enum"][0];
    std::string type = node.contains("type") && node["type"].is_string()
                           ? node["type"].get<std::string>()
                           : "string";
    if (type == "boolean") return true;
    if (type == "integer" || type == "number") return 1;
    if (type == "object") return {{"k", "v"}};
    return "x";
  }

  std::map<std::string, Json> files_;
  std::function<void(const std::string&, const Json&)> visit_;
};

TEST(RuntimeSpec, EveryPropertyIsActedOnOrRefusedAndNoneIgnored) {
  // Of other platforms.
  const std::set<std::string> elsewhere = {"windows", "solaris", "zos", "freebsd"};
  int properties = 0;
  Schema().walk([&](const std::string& pointer, const Json& value) {
    std::string top = pointer.substr(1, pointer.find('/', 1) - 1);
    if (elsewhere.count(top) != 0 || pointer == "/process/commandLine" ||
        pointer == "/process/user/username")
      return;
    Json config = {{"ociVersion", "1.0.2"},
                   {"process", {{"args", {"true"}}, {"cwd", "/"}}},
                   {"root", {{"path", "r"}}}};
    config[Json::json_pointer(pointer)] = value;
    std::set<std::string> looked_at;
    Validation validation = validate_config("/b", config, &looked_at);
    bool refused = false;
    for (const Problem& problem : validation.problems)
      refused = refused || problem.pointer.rfind(pointer, 0) == 0 ||
                pointer.rfind(problem.pointer, 0) == 0;
    // Maps of free keys (annotations, sysctl) are read as a whole; arrays of words by their array.
    std::string whole = pointer;
    while (whole.size() > 2 && whole.compare(whole.size() - 2, 2, "/0") == 0)
      whole.resize(whole.size() - 2);
    EXPECT_TRUE(refused || looked_at.count(pointer) != 0 || looked_at.count(whole) != 0)
        << pointer << " is ignored";
    ++properties;
  });
  EXPECT_GT(properties, 100);
}

}  // namespace
}  // namespace hobbes
