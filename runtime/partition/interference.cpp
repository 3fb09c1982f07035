#include "partition/interference.h"

#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <sstream>

namespace hobbes {
namespace {

std::vector<std::string> words_of(const std::string& text) {
  std::istringstream in(text);
  std::vector<std::string> out;
  for (std::string word; in >> word;) out.push_back(std::move(word));
  return out;
}

std::uint64_t number_in(const std::string& word) {
  return std::strtoull(word.c_str(), nullptr, 10);
}

bool is_number(const std::string& word) {
  return !word.empty() && word.find_first_not_of("0123456789") == std::string::npos;
}

// A program names its threads as it likes, and the name is shown on terminals. A worker of the
// kernel's is shown with what it does at the moment: "kworker/1:0-events".
std::string name_of_thread(std::string shown) {
  for (char& c : shown)
    if (c < ' ' || c > '~') c = '?';
  return shown.rfind("kworker/", 0) == 0 ? shown.substr(0, shown.find_first_of("-+")) : shown;
}

std::vector<Offender> by_name(
    const std::map<std::pair<std::string, unsigned>, std::uint64_t>& counts) {
  std::map<std::string, Offender> all;
  for (const auto& [key, amount] : counts) {
    if (amount == 0) continue;
    Offender& one = all[key.first];
    one.name = key.first;
    one.amount += amount;
    one.cpus.add(key.second);
  }
  std::vector<Offender> out;
  for (auto& [name, offender] : all) out.push_back(std::move(offender));
  std::stable_sort(out.begin(), out.end(),
                   [](const Offender& a, const Offender& b) { return a.amount > b.amount; });
  return out;
}

}  // namespace

// proc(5), /proc/interrupts: a line of CPUs, then "KEY: count for each CPU, words". A key that is a
// number is followed by its controller, its line there and what handles it.
void InterferenceWatch::count_interrupts(const std::string& text) {
  std::istringstream lines(text);
  std::string line;
  std::vector<unsigned> columns;
  if (!std::getline(lines, line)) return;
  for (const std::string& word : words_of(line))
    if (word.rfind("CPU", 0) == 0)
      columns.push_back(static_cast<unsigned>(number_in(word.substr(3))));
  while (std::getline(lines, line)) {
    const auto words = words_of(line);
    if (words.size() <= columns.size()) continue;  // of no one CPU: "ERR: 0"
    std::size_t first = columns.size() + 1;
    if (is_number(words[0].substr(0, words[0].size() - 1)) && words.size() > first + 2) first += 2;
    std::string name;
    for (std::size_t i = first; i < words.size(); ++i) name += (name.empty() ? "" : " ") + words[i];
    if (name.empty()) name = words[0].substr(0, words[0].size() - 1);
    for (std::size_t i = 0; i < columns.size(); ++i) {
      if (!cpus_.has(columns[i])) continue;
      const std::uint64_t count = number_in(words[i + 1]);
      std::uint64_t& before = interrupts_before_[{words[0] + name, columns[i]}];
      if (begun_ && count > before) interrupts_[{name, columns[i]}] += count - before;
      before = count;
    }
  }
}

// proc(5), /proc/stat: "cpuN user nice system idle iowait irq softirq steal ...", in clock ticks.
void InterferenceWatch::count_times(const std::string& text) {
  std::uint64_t handled = 0, stolen = 0;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    const auto words = words_of(line);
    if (words.size() < 9 || words[0].rfind("cpu", 0) != 0 || !is_number(words[0].substr(3)) ||
        !cpus_.has(static_cast<unsigned>(number_in(words[0].substr(3)))))
      continue;
    handled += number_in(words[6]) + number_in(words[7]);
    stolen += number_in(words[8]);
  }
  const std::uint64_t tick_ns = 1'000'000'000U / static_cast<std::uint64_t>(::sysconf(_SC_CLK_TCK));
  if (begun_) {
    found_.handled_ns += (handled - std::min(handled, handled_before_)) * tick_ns;
    found_.stolen_ns += (stolen - std::min(stolen, stolen_before_)) * tick_ns;
  }
  handled_before_ = handled;
  stolen_before_ = stolen;
}

// /proc/PID/task/TID/schedstat (Documentation/scheduler/sched-stats.rst): time on a processor, time
// ready without one, in nanoseconds. A thread that ends while it is looked at is not there.
void InterferenceWatch::count_threads(const std::set<pid_t>& own) {
  std::map<std::pair<pid_t, std::string>, Thread> now;
  for (const std::string& process : files_.list(proc_).value_or({})) {
    if (!is_number(process)) continue;
    const bool is_own = own.count(static_cast<pid_t>(number_in(process))) != 0;
    const std::string tasks = proc_ + "/" + process + "/task";
    for (const std::string& thread : files_.list(tasks).value_or({})) {
      const std::string folder = tasks + "/" + thread;
      const auto stat = files_.read(folder + "/stat", 4096);
      const auto times = words_of(files_.read(folder + "/schedstat", 4096).value_or(""));
      const std::size_t begin = stat ? stat->find('(') : std::string::npos,
                        end = stat ? stat->rfind(')') : std::string::npos;
      if (begin == std::string::npos || end == std::string::npos || end < begin || times.size() < 2)
        continue;
      const auto fields = words_of(stat->substr(end + 1));  // the third of the manual is the first
      constexpr std::size_t start_time = 22 - 3, processor = 39 - 3;
      if (fields.size() <= processor) continue;
      const std::pair<pid_t, std::string> key{static_cast<pid_t>(number_in(thread)),
                                              fields[start_time]};
      const Thread seen{number_in(times[0]), number_in(times[1])};
      now[key] = seen;
      if (!begun_) continue;
      const auto earlier = threads_.find(key);  // none: it is new, and all of its time since
      const Thread before = earlier != threads_.end() ? earlier->second : Thread{};
      const std::uint64_t ran = seen.ran_ns - std::min(seen.ran_ns, before.ran_ns);
      const auto cpu = static_cast<unsigned>(number_in(fields[processor]));
      if (is_own) {
        found_.ran_ns += ran;
        found_.waited_ns += seen.waited_ns - std::min(seen.waited_ns, before.waited_ns);
      } else if (ran != 0 && cpus_.has(cpu)) {
        programs_[{name_of_thread(stat->substr(begin + 1, end - begin - 1)), cpu}] += ran;
      }
    }
  }
  threads_ = std::move(now);
}

Result<void> InterferenceWatch::look(const std::set<pid_t>& own, std::uint64_t now_ns) {
  HOBBES_TRY(interrupts, files_.read(proc_ + "/interrupts", 16 << 20));
  HOBBES_TRY(times, files_.read(proc_ + "/stat", 16 << 20));
  count_interrupts(interrupts);
  count_times(times);
  count_threads(own);
  if (!begun_) began_ns_ = now_ns;
  begun_ = true;
  found_.elapsed_ns = now_ns - began_ns_;
  return {};
}

Interference InterferenceWatch::result() const {
  Interference out = found_;
  out.interrupts = by_name(interrupts_);
  out.programs = by_name(programs_);
  return out;
}

}  // namespace hobbes
