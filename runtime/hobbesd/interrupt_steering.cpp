#include "hobbesd/interrupt_steering.h"

#include <unistd.h>

#include <cerrno>

namespace hobbes {
namespace {

std::string line_of(const std::string& text) { return text.substr(0, text.find('\n')); }

}  // namespace

Result<InterruptSteering::Interrupts> InterruptSteering::remembered() const {
  Interrupts out;
  if (!files_.exists(memory_)) return out;
  HOBBES_TRY(text, files_.read(memory_));
  HOBBES_TRY(json, parse_json(text, memory_));
  for (const auto& [number, lists] : json.items())
    if (lists.is_object()) out[number] = {text_at(lists, "before"), text_at(lists, "now")};
  return out;
}

Result<void> InterruptSteering::remember(const Interrupts& moved) const {
  if (moved.empty()) {
    if (::unlink(memory_.c_str()) != 0 && errno != ENOENT)
      return os_error("remove " + memory_, errno);
    return {};
  }
  Json json = Json::object();
  for (const auto& [number, lists] : moved)
    json[number] = {{"before", lists.before}, {"now", lists.now}};
  return replace_file(memory_, to_text(json), 0600);
}

Result<void> InterruptSteering::keep_off(const CpuSet& cpus) {
  if (called_ && cpus == cpus_) return {};
  HOBBES_TRY(before, remembered());
  if (cpus.empty() && before.empty()) {
    called_ = true;
    cpus_ = cpus;
    return {};
  }
  auto place_of = [&](const std::string& number) {
    return folder_ + "/" + number + "/smp_affinity_list";
  };
  Interrupts planned;  // what is to be moved, and what is to be put back
  for (const std::string& number : files_.list(folder_).value_or({})) {
    auto text = files_.read(place_of(number), 4096);
    if (!text) continue;  // a file beside the interrupts' folders, or a device that has gone
    const std::string now = line_of(*text);
    auto earlier = before.find(number);
    const std::string home =
        earlier != before.end() && earlier->second.now == now ? earlier->second.before : now;
    auto set = CpuSet::parse(home);
    if (!set) continue;
    const CpuSet left = *set - cpus;
    const bool stays = left.empty() || left == *set;
    if (!stays || home != now) planned[number] = {home, stays ? home : left.text()};
  }
  HOBBES_CHECK(remember(planned));  // before the first is moved: a crash forgets none
  for (auto at = planned.begin(); at != planned.end();) {
    const bool moved{files_.write(place_of(at->first), at->second.now)};
    const bool is_home = at->second.now == at->second.before;
    // The kernel may write the same set otherwise.
    if (moved && !is_home)
      if (auto text = files_.read(place_of(at->first), 4096)) at->second.now = line_of(*text);
    at = moved && !is_home ? std::next(at) : planned.erase(at);
  }
  HOBBES_CHECK(remember(planned));
  called_ = true;
  cpus_ = cpus;
  return {};
}

}  // namespace hobbes
