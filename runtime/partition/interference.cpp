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

// A program names its threads, and root of a network namespace its devices, as they like; the names
// are shown on terminals.
std::string printable(std::string name) {
  for (char& c : name)
    if (c < ' ' || c > '~') c = '?';
  return name;
}

// A worker of the kernel's is shown with what it does at the moment: "kworker/1:0-events".
std::string name_of_thread(const std::string& shown) {
  return printable(shown.rfind("kworker/", 0) == 0 ? shown.substr(0, shown.find_first_of("-+"))
                                                   : shown);
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
  CpuSet seen;
  (void)std::getline(lines, line);
  for (const std::string& word : words_of(line))
    if (word.rfind("CPU", 0) == 0) {
      columns.push_back(static_cast<unsigned>(number_in(word.substr(3))));
      if (columns.back() < CpuSet::capacity) seen.add(columns.back());
    }
  while (std::getline(lines, line)) {
    const auto words = words_of(line);
    if (words.size() <= columns.size()) continue;  // of no one CPU: "ERR: 0"
    std::size_t first = columns.size() + 1;
    if (is_number(words[0].substr(0, words[0].size() - 1)) && words.size() > first + 2) first += 2;
    std::string name;
    for (std::size_t i = first; i < words.size(); ++i) name += (name.empty() ? "" : " ") + words[i];
    name = printable(name.empty() ? words[0].substr(0, words[0].size() - 1) : name);
    for (std::size_t i = 0; i < columns.size(); ++i) {
      if (!cpus_.has(columns[i])) continue;
      const std::uint64_t count = number_in(words[i + 1]);
      std::uint64_t& before = interrupts_before_[{words[0] + name, columns[i]}];
      if (columns_.has(columns[i]) && count > before)
        interrupts_[{name, columns[i]}] += count - before;
      before = count;
    }
  }
  columns_ = seen;
}

// proc(5), /proc/stat: "cpuN user nice system idle iowait irq softirq steal ...", in clock ticks.
void InterferenceWatch::count_times(const std::string& text) {
  std::map<unsigned, Times> now;
  std::istringstream lines(text);
  const std::uint64_t tick_ns = 1'000'000'000U / static_cast<std::uint64_t>(::sysconf(_SC_CLK_TCK));
  for (std::string line; std::getline(lines, line);) {
    const auto words = words_of(line);
    if (words.size() < 9 || words[0].rfind("cpu", 0) != 0 || !is_number(words[0].substr(3)))
      continue;
    const auto cpu = static_cast<unsigned>(number_in(words[0].substr(3)));
    if (!cpus_.has(cpu)) continue;
    const Times times{number_in(words[6]) + number_in(words[7]), number_in(words[8])};
    now[cpu] = times;
    auto before = times_.find(cpu);
    if (before == times_.end()) continue;
    found_.handled_ns +=
        (times.handled - std::min(times.handled, before->second.handled)) * tick_ns;
    found_.stolen_ns += (times.stolen - std::min(times.stolen, before->second.stolen)) * tick_ns;
  }
  times_ = std::move(now);
}

// /proc/PID/task/TID/schedstat (Documentation/scheduler/sched-stats.rst): time on a processor, time
// ready without one, in nanoseconds. A thread that ends while it is looked at is not there. One
// that was not there at the look before has run since then at most.
Result<void> InterferenceWatch::count_threads(const OwnProcesses& own, std::uint64_t elapsed_ns) {
  struct Ran {
    pid_t process = 0;
    std::string name;
    unsigned cpu = 0;
    Thread time;
  };
  std::vector<Ran> all;
  std::map<std::pair<pid_t, std::string>, Thread> now;
  HOBBES_TRY(mine, own());
  HOBBES_TRY(processes, files_.list(proc_));
  for (const std::string& process : processes) {
    if (!is_number(process)) continue;
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
      const auto earlier = threads_.find(key);
      const Thread before = earlier != threads_.end() ? earlier->second : Thread{};
      auto since = [&](std::uint64_t later, std::uint64_t first) {
        return std::min(later - std::min(later, first), elapsed_ns);
      };
      all.push_back({static_cast<pid_t>(number_in(process)),
                     name_of_thread(stat->substr(begin + 1, end - begin - 1)),
                     static_cast<unsigned>(number_in(fields[processor])),
                     {since(seen.ran_ns, before.ran_ns), since(seen.waited_ns, before.waited_ns)}});
    }
  }
  threads_ = std::move(now);
  if (!begun_) return {};
  HOBBES_TRY(also_mine, own());
  mine.insert(also_mine.begin(), also_mine.end());
  for (const Ran& one : all) {
    if (mine.count(one.process) != 0) {
      found_.ran_ns += one.time.ran_ns;
      found_.waited_ns += one.time.waited_ns;
    } else if (one.time.ran_ns != 0 && cpus_.has(one.cpu)) {
      programs_[{one.name, one.cpu}] += one.time.ran_ns;
    }
  }
  return {};
}

Result<void> InterferenceWatch::look(const OwnProcesses& own, std::uint64_t now_ns) {
  HOBBES_TRY(interrupts, files_.read(proc_ + "/interrupts", 16 << 20));
  HOBBES_TRY(times, files_.read(proc_ + "/stat", 16 << 20));
  count_interrupts(interrupts);
  count_times(times);
  HOBBES_CHECK(count_threads(own, begun_ ? now_ns - looked_ns_ : 0));
  if (!begun_) began_ns_ = now_ns;
  begun_ = true;
  looked_ns_ = now_ns;
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
