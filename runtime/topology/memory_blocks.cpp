#include "topology/memory_blocks.h"

#include <algorithm>
#include <cstdlib>

namespace hobbes {
namespace {

std::string trimmed(std::string text) {
  while (!text.empty() && (text.back() == '\n' || text.back() == ' ')) text.pop_back();
  return text;
}

}  // namespace

std::uint64_t memory_block_size(const Files& files, const std::string& root) {
  return std::strtoull(
      files.read(root + "/devices/system/memory/block_size_bytes").value_or("0").c_str(), nullptr,
      16);
}

std::vector<MemoryBlock> memory_blocks(const Files& files, const std::string& root) {
  std::vector<MemoryBlock> out;
  // Each node's folder links to its blocks.
  auto nodes = files.list(root + "/devices/system/node");
  if (!nodes) return out;
  for (const std::string& name : *nodes) {
    if (name.rfind("node", 0) != 0 || name.size() == 4 ||
        name.find_first_not_of("0123456789", 4) != std::string::npos)
      continue;
    auto node = static_cast<unsigned>(std::strtoul(name.c_str() + 4, nullptr, 10));
    auto entries = files.list(root + "/devices/system/node/" + name);
    if (!entries) continue;
    for (const std::string& entry : *entries) {
      if (entry.rfind("memory", 0) != 0 || entry.size() == 6 ||
          entry.find_first_not_of("0123456789", 6) != std::string::npos)
        continue;
      MemoryBlock block;
      block.number = static_cast<unsigned>(std::strtoul(entry.c_str() + 6, nullptr, 10));
      block.node = node;
      std::string path = root + "/devices/system/memory/" + entry;
      block.online = trimmed(files.read(path + "/state").value_or("")) != "offline";
      block.movable =
          files.read(path + "/valid_zones").value_or("").find("Movable") != std::string::npos;
      out.push_back(block);
    }
  }
  std::sort(out.begin(), out.end(),
            [](const auto& a, const auto& b) { return a.number < b.number; });
  return out;
}

}  // namespace hobbes
