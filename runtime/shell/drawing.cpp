// The drawing of `hobbes topology`: sockets, NUMA nodes and cores, and who owns each.
#include <algorithm>
#include <map>
#include <set>

#include "core/size.h"
#include "enclave/describe.h"
#include "shell/views.h"

namespace hobbes {
namespace {

constexpr std::size_t cell_width = 16;
constexpr std::size_t row_cells = 4;

std::string fitted(const std::string& text, std::size_t width) {
  std::string out = text.size() > width ? text.substr(0, width - 1) + "~" : text;
  return out + std::string(width - out.size(), ' ');
}

std::string owner_of(NisReader& nis, const hobbes_record& core) {
  hobbes_record owner;
  if (core.state == HOBBES_CORE_RESERVED) return "(host)";
  if (core.state == HOBBES_CORE_OFFLINE) return "(offline)";
  if (core.enclave == 0 || nis.by_id(core.enclave, &owner) != NisReader::Status::good)
    return "free";
  return owner.name;
}

std::string painted(const std::string& text, const std::string& owner, bool colour) {
  if (!colour) return text;
  if (owner == "free") return "\033[32m" + text + "\033[0m";
  if (owner.front() == '(') return "\033[2m" + text + "\033[0m";
  return "\033[1;" + std::to_string(33 + static_cast<int>(std::hash<std::string>()(owner) % 4)) +
         "m" + text + "\033[0m";
}

std::string rows_of(NisReader& nis, const std::vector<const hobbes_record*>& cores,
                    const Style& style) {
  std::string out;
  for (std::size_t begin = 0; begin < cores.size(); begin += row_cells) {
    std::string names = "  |", owners = "  |";
    for (std::size_t i = begin; i < begin + row_cells; ++i) {
      if (i >= cores.size()) {
        std::string blank = std::string(cell_width, ' ') + (i + 1 == begin + row_cells ? "|" : " ");
        names += blank;
        owners += blank;
        continue;
      }
      std::string owner = owner_of(nis, *cores[i]);
      names += fitted(" core " + std::to_string(cores[i]->body.core.number) + " cpu " +
                          cpus_of(cores[i]->body.core.cpus).text(),
                      cell_width) +
               "|";
      // Double marks: Linux does not have it any more.
      std::string shown = cores[i]->state == HOBBES_CORE_DETACHED ? "[" + owner + "]" : " " + owner;
      owners += painted(fitted(shown, cell_width), owner, style.colour) + "|";
    }
    out += names + "\n" + owners + "\n";
    if (begin + row_cells < cores.size())
      out += "  |" + std::string(row_cells * (cell_width + 1) - 1, '-') + "|\n";
  }
  return out;
}

}  // namespace

std::string topology_view(NisReader& nis, const Style& style) {
  auto cores = nis.all(HOBBES_CORE);
  auto nodes = nis.all(HOBBES_NUMA);
  std::sort(cores.begin(), cores.end(),
            [](const auto& a, const auto& b) { return a.body.core.number < b.body.core.number; });
  std::sort(nodes.begin(), nodes.end(),
            [](const auto& a, const auto& b) { return a.body.numa.number < b.body.numa.number; });
  if (style.json) {
    Json out = {{"cores", Json::array()}, {"nodes", Json::array()}};
    for (const auto& core : cores) {
      Json one = describe(core);
      one["owner"] = owner_of(nis, core);
      out["cores"].push_back(one);
    }
    for (const auto& node : nodes) out["nodes"].push_back(describe(node));
    return to_text(out, 2) + "\n";
  }
  std::set<unsigned> packages;
  for (const auto& core : cores) packages.insert(core.body.core.package);
  std::string out;
  const std::string line = "  +" + std::string(row_cells * (cell_width + 1) - 1, '-') + "+\n";
  for (unsigned package : packages) {
    out += "socket " + std::to_string(package) + "\n";
    for (const auto& node : nodes) {
      std::vector<const hobbes_record*> inside;
      for (const auto& core : cores)
        if (core.body.core.package == package && core.body.core.numa == node.body.numa.number)
          inside.push_back(&core);
      const hobbes_numa& body = node.body.numa;
      bool memory_only = inside.empty() && cpus_of(body.cpus).empty() && body.package == package;
      if (inside.empty() && !memory_only) continue;
      out += line + "  | " +
             fitted("NUMA node " + std::to_string(body.number) + ": " + format_size(body.total) +
                        " memory, " + format_size(body.leased) + " leased" +
                        (memory_only ? ", no cores" : ""),
                    row_cells * (cell_width + 1) - 2) +
             "|\n";
      if (!memory_only) out += line + rows_of(nis, inside, style);
      out += line;
    }
  }
  return out;
}

}  // namespace hobbes
