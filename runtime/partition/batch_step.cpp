#include "partition/batch_step.h"

#include <algorithm>
#include <array>
#include <sstream>

namespace hobbes {
namespace {

enum class Match { begins, is, ends };
struct Part {
  Match match;
  const char* text;
};
// "/slurm/uid_1000/job_7/step_0/task_0"; with several slurmd on a node the first is "slurm_NODE".
constexpr std::array<Part, 5> v1 = {{{Match::begins, "slurm"},
                                     {Match::begins, "uid_"},
                                     {Match::begins, "job_"},
                                     {Match::begins, "step_"},
                                     {Match::begins, "task_"}}};
// "/system.slice/slurmstepd.scope/job_7/step_0/user/task_0", or "NODE_slurmstepd.scope".
constexpr std::array<Part, 5> v2 = {{{Match::is, "system.slice"},
                                     {Match::ends, "slurmstepd.scope"},
                                     {Match::begins, "job_"},
                                     {Match::begins, "step_"},
                                     {Match::is, "user"}}};
constexpr std::size_t step_parts = 4;  // of v1

bool fits(const Part& part, const std::string& name) {
  const std::string text = part.text;
  switch (part.match) {
    case Match::begins:
      return name.rfind(text, 0) == 0;
    case Match::is:
      return name == text;
    case Match::ends:
      return name.size() >= text.size() &&
             name.compare(name.size() - text.size(), text.size(), text) == 0;
  }
  return false;
}

// How much of a path fits, in parts, and that much of it.
template <std::size_t N>
std::pair<std::size_t, std::string> fitting(const std::array<Part, N>& parts,
                                            const std::string& path) {
  std::string out;
  std::size_t count = 0;
  std::istringstream names(path.substr(0, 4096));
  std::string name;
  std::getline(names, name, '/');  // before the first slash
  while (count < N && std::getline(names, name, '/') && fits(parts[count], name)) {
    out += "/" + name;
    ++count;
  }
  return {count, out};
}

template <std::size_t N>
void find(const std::array<Part, N>& parts, std::size_t depth, std::size_t enough,
          const std::string& mount, const std::string& path, const Files& files,
          std::vector<std::string>& out) {
  if (depth >= enough) out.push_back(path);
  if (depth == N) return;
  for (const std::string& name : files.list(mount + path).value_or({}))
    if (fits(parts[depth], name) && files.exists(mount + path + "/" + name + "/cgroup.procs"))
      find(parts, depth + 1, enough, mount, path + "/" + name, files, out);
}

}  // namespace

std::string batch_step_in(const std::string& path) {
  if (auto [count, step] = fitting(v1, path); count >= step_parts) return step;
  if (auto [count, step] = fitting(v2, path); count == v2.size()) return step;
  return "";
}

std::string without_task(const std::string& step) {
  const std::size_t last = step.rfind('/');
  return last != std::string::npos && step.compare(last, 6, "/task_") == 0 ? step.substr(0, last)
                                                                           : step;
}

std::string batch_step_of(const std::string& cgroups) {
  std::string out;
  std::istringstream lines(cgroups);
  for (std::string line; std::getline(lines, line);) {
    // "4:memory:/slurm/..."
    const std::size_t second = line.find(':', line.find(':') + 1);
    if (second == std::string::npos) continue;
    std::string step = batch_step_in(line.substr(second + 1));
    if (step.size() > out.size()) out = std::move(step);
  }
  return out;
}

std::vector<std::string> batch_steps(const std::string& mount, const Files& files) {
  std::vector<std::string> out;
  find(v1, 0, step_parts, mount, "", files, out);
  find(v2, 0, v2.size(), mount, "", files, out);
  return out;
}

}  // namespace hobbes
