// A node on which co-kernels run, for tests inside the virtual node: the module is loaded, and
// after each test Linux must have back everything it had before.
#pragma once
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>

#include "abi/kitten.h"
#include "core/file.h"
#include "enclave/drivers/kitten/driver.h"
#include "node/fault_kinds.h"
#include "node_harness.h"
#include "partition/memory_pool.h"

namespace hobbes::test {

inline std::string file(const std::string& path) {
  return Files::system().read(path, 4 << 20).value_or("");
}
inline std::string line(const std::string& path) {
  std::string text = file(path);
  return text.substr(0, text.find('\n'));
}

template <class T>
std::string hex_of(const T& value) {
  const auto* bytes = reinterpret_cast<const unsigned char*>(&value);
  std::string out;
  for (std::size_t i = 0; i < sizeof value; ++i) {
    char two[3];
    std::snprintf(two, sizeof two, "%02x", bytes[i]);
    out += two;
  }
  return out;
}

/// Nothing is in the module's pool, and nobody owns anything.
inline bool module_is_empty() {
  return file("/dev/hobbes") == "version " + std::to_string(HOBBES_KMOD_VERSION) + "\n";
}

// What Linux has: everything that must be the same after an enclave as before it.
inline std::string linux_has() {
  std::string out = "online " + line("/sys/devices/system/cpu/online") + "\n";
  std::size_t count = 0;
  for (const MemoryBlock& block : memory_blocks(Files::system())) count += block.online ? 1 : 0;
  return out + "blocks online " + std::to_string(count) + "\nmodule " + file("/dev/hobbes");
}

class Kitten : public ::testing::Test {
 protected:
  void SetUp() override {
    const char* named = std::getenv("HOBBES_MODULE");
    std::string module = named != nullptr ? named : HOBBES_BUILD_DIR "/kmod/hobbes.ko";
    if (::access("/dev/hobbes", F_OK) != 0) node.good({"/sbin/insmod", module});
    before_ = linux_has();
  }
  void TearDown() override {
    for (const std::string& id : Files::system().list(node.run_folder() + "/enclaves").value_or({}))
      node.good({"hobbes-run", "delete", "--force", id});
    node.expect_clean();
    EXPECT_TRUE(eventually([&] { return all_is_back(); }, 20)) << "before:\n"
                                                               << before_ << "after:\n"
                                                               << linux_has();
  }
  [[nodiscard]] bool all_is_back() const { return linux_has() == before_; }

  std::string bundle(const std::string& name, const Json& patch = {},
                     const std::string& image = HOBBES_BUILD_DIR "/tests/node/kitten-faulty.img") {
    Json config = *parse_json(file(HOBBES_BUILD_DIR "/share/hobbes/kitten/config.json"), "config");
    config["hobbes"]["image"]["kernel"] = image;
    config["hobbes"]["memory"]["size"] = "64MiB";
    config.merge_patch(patch.is_null() ? Json::object() : patch);
    std::string path = node.folder() + "/" + name;
    EXPECT_TRUE(make_directories(path));
    EXPECT_TRUE(replace_file(path + "/config.json", to_text(config, 2)));
    return path;
  }
  void boot(const std::string& id, const Json& patch = {}) {
    Outcome made = node.create(id, bundle(id, patch));
    ASSERT_EQ(made.wait_status, 0) << made.err;
    node.good({"hobbes-run", "start", id});
  }
  EnclaveRecord record(const std::string& id) {
    auto out = EnclaveRecord::load(node.run_folder() + "/enclaves", id);
    EXPECT_TRUE(out);
    return out ? *out : EnclaveRecord();
  }
  Result<Json> ask(const std::string& id, unsigned operation, const std::string& payload) {
    return ask_control(record(id),
                       {{"op", "call"}, {"operation", operation}, {"payload", payload}});
  }
  void provoke(const std::string& id, Fault fault) {
    (void)ask(id, HOBBES_KITTEN_OWN, hex_of(static_cast<std::uint32_t>(fault)));
  }
  std::string console(const std::string& id) { return file(record(id).folder() + "/console.log"); }
  Json statistics(const std::string& id) {
    return ask_control(record(id), {{"op", "statistics"}}).value_or(Json::object());
  }
  // The enclave must count as crashed, say why, and be gone from the cores at once; Linux goes on.
  void expect_crash(const std::string& id, const std::string& why, int seconds = 15) {
    EXPECT_TRUE(
        eventually([&] { return text_at(node.enclave(id), "state") == "crashed"; }, seconds))
        << to_text(node.enclave(id));
    EXPECT_NE(console(id).find(why), std::string::npos) << console(id);
    EXPECT_TRUE(eventually([&] {
      return before_.find("online " + line("/sys/devices/system/cpu/online") + "\n") == 0;
    })) << "cores that did not come back: "
        << line("/sys/devices/system/cpu/online");
  }

  Node node;

 private:
  std::string before_;
};

}  // namespace hobbes::test
