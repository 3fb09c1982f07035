#include "vmm/agent/places.h"

#include <sys/prctl.h>
#include <unistd.h>

#include <algorithm>
#include <cinttypes>
#include <csignal>
#include <cstdio>
#include <sstream>
#include <vector>

#include "core/file.h"
#include "core/json.h"
#include "vmm/agent/monitor.h"

namespace hobbes::agent {
namespace {

constexpr const char* device = "/dev/mem";
constexpr unsigned look_period = 2;  // seconds

bool ends_with_device(const std::string& text) {
  std::string_view name(device);
  return text.size() >= name.size() &&
         text.compare(text.size() - name.size(), name.size(), name) == 0;
}

struct Uses {
  bool open = false;                    // somebody may map something any moment
  std::vector<std::uint64_t> mappings;  // offsets into the device
};

Uses look() {
  Uses out;
  std::string self = std::to_string(::getpid());
  for (const std::string& process : Files::system().list("/proc").value_or({})) {
    if (process == self || process.find_first_not_of("0123456789") != std::string::npos) continue;
    for (const std::string& fd : Files::system().list("/proc/" + process + "/fd").value_or({}))
      out.open =
          out.open || ends_with_device(read_link("/proc/" + process + "/fd/" + fd).value_or(""));
    std::istringstream maps(
        Files::system().read("/proc/" + process + "/maps", 16 << 20).value_or(""));
    for (std::string line; std::getline(maps, line);) {
      std::uint64_t offset = 0;
      if (ends_with_device(line) && std::sscanf(line.c_str(), "%*s %*s %" SCNx64, &offset) == 1)
        out.mappings.push_back(offset);
    }
  }
  return out;
}

}  // namespace

void give_back_places(int attached) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  Json before = Json::array();  // unused at the last look; twice in a row, since memory may be on
                                // its way between two processes
  auto look_again = [attached] {
    std::uint64_t one = 1;
    (void)!::write(attached, &one, sizeof one);
  };
  for (;;) {
    std::uint64_t count = 0;
    if (before.empty()) (void)!::read(attached, &count, sizeof count);
    ::sleep(look_period);
    auto shown = ask_monitor({{"op", "shown"}});
    if (!shown || !shown->contains("places")) {
      look_again();
      continue;
    }
    Uses uses = look();
    Json unused = Json::array(), left = Json::array();
    for (const Json& place : (*shown)["places"]) {
      auto from = static_cast<std::uint64_t>(number_at(place, "address")),
           size = static_cast<std::uint64_t>(number_at(place, "size"));
      bool used = uses.open || std::any_of(uses.mappings.begin(), uses.mappings.end(),
                                           [&](std::uint64_t offset) {
                                             return offset >= from && offset - from < size;
                                           });
      if (!used && std::find(before.begin(), before.end(), place) != before.end() &&
          ask_monitor({{"op", "hide"}, {"place", place}}))
        continue;
      (used ? left : unused).push_back(place);
    }
    before = std::move(unused);
    if (before.empty() && !left.empty()) look_again();
  }
}

}  // namespace hobbes::agent
