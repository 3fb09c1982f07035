#include "hobbesd/interrupt_steering.h"

#include <unistd.h>

#include <cerrno>
#include <cstdio>

namespace hobbes {
namespace {

constexpr std::size_t list_limit = 1 << 16;

std::string line_of(const std::string& text) { return text.substr(0, text.find('\n')); }

// The kernel may write a set otherwise than it was written.
bool same_set(const std::string& a, const std::string& b) {
  auto first = CpuSet::parse(a), second = CpuSet::parse(b);
  return first && second && *first == *second;
}

}  // namespace

Result<InterruptSteering::Interrupts> InterruptSteering::remembered() const {
  Interrupts out;
  if (!files_.exists(memory_)) return out;
  HOBBES_TRY(text, files_.read(memory_, json_size_limit));
  auto json = parse_json(text, memory_);
  if (!json) {
    const std::string aside = memory_ + ".unreadable";
    (void)std::rename(memory_.c_str(), aside.c_str());
    return Error{Code::corrupt, "put interrupts back", "hobbesd does not know where they were",
                 "see " + aside + "; set /proc/irq/*/smp_affinity_list by hand"};
  }
  for (const auto& [number, lists] : json->items())
    if (lists.is_object())
      out[number] = {text_at(lists, "home"), text_at(lists, "now"), text_at(lists, "next")};
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
    json[number] = {{"home", lists.home}, {"now", lists.now}, {"next", lists.next}};
  return replace_file(memory_, to_text(json), 0600);
}

// What is to be moved, what is to be put back, and what stays moved.
Result<InterruptSteering::Interrupts> InterruptSteering::plan(const Interrupts& before,
                                                              const CpuSet& cpus) const {
  HOBBES_TRY(numbers, files_.list(folder_));
  auto online = CpuSet::parse(
      line_of(files_.read("/sys/devices/system/cpu/online", list_limit).value_or("")));
  Interrupts out;
  for (const std::string& number : numbers) {
    const auto earlier = before.find(number);
    auto text = files_.read(place_of(number), list_limit);
    if (!text) {  // a file beside the interrupts' folders, or a device that has gone
      if (text.error().code != Code::not_found && earlier != before.end()) out.insert(*earlier);
      continue;
    }
    const std::string now = line_of(*text);
    // The one before may have been killed just before the move, or just after it.
    const bool is_ours = earlier != before.end() && (same_set(now, earlier->second.now) ||
                                                     same_set(now, earlier->second.next));
    const std::string home = is_ours ? earlier->second.home : now;
    auto set = CpuSet::parse(home);
    if (!set) continue;
    const CpuSet left = *set - cpus;
    const bool nowhere = (online ? left & *online : left).empty();
    const std::string next = nowhere || left == *set ? home : left.text();
    if (!same_set(now, home) || !same_set(next, home)) out[number] = {home, now, next};
  }
  return out;
}

Result<void> InterruptSteering::keep_off(const CpuSet& cpus) const {
  HOBBES_TRY(before, remembered());
  if (cpus.empty() && before.empty()) return {};
  HOBBES_TRY(planned, plan(before, cpus));
  if (planned != before) HOBBES_CHECK(remember(planned));  // before the first is moved
  const Interrupts noted = planned;
  for (auto at = planned.begin(); at != planned.end();) {
    auto& [home, now, next] = at->second;
    if (!same_set(now, next)) {
      if (files_.write(place_of(at->first), next))
        now = next;
      else
        next = now;  // it stays; the next call tries again
    }
    at = same_set(now, home) ? planned.erase(at) : std::next(at);
  }
  if (planned != noted) HOBBES_CHECK(remember(planned));
  return {};
}

}  // namespace hobbes
