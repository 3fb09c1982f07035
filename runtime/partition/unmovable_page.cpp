#include "partition/unmovable_page.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <sstream>

#include "core/file.h"

namespace hobbes {
namespace {

constexpr std::uint64_t page_bytes = 4096;
// Of an entry of /proc/PID/pagemap (Documentation/admin-guide/mm/pagemap.rst).
constexpr std::uint64_t is_present = 1ULL << 63, frame_mask = (1ULL << 55) - 1;

template <class Number>
std::optional<Number> number(std::string_view text, int base) {
  Number out{};
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out, base);
  if (error != std::errc() || end == text.data()) return std::nullopt;
  return out;
}

bool maps(const std::string& process, std::uint64_t frame,
          std::chrono::steady_clock::time_point until) {
  auto ranges = Files::system().read(process + "/maps", 64 << 20);
  if (!ranges || ranges->empty()) return false;
  Fd pagemap(::open((process + "/pagemap").c_str(), O_RDONLY | O_CLOEXEC));
  if (!pagemap) return false;
  std::vector<std::uint64_t> entries(1 << 16);
  std::istringstream lines(*ranges);
  for (std::string line; std::getline(lines, line);) {
    auto begin = number<std::uint64_t>(line, 16);
    auto dash = line.find('-');
    auto end = dash == std::string::npos
                   ? std::nullopt
                   : number<std::uint64_t>(std::string_view(line).substr(dash + 1), 16);
    if (!begin || !end) continue;
    for (std::uint64_t page = *begin / page_bytes; page < *end / page_bytes;) {
      if (std::chrono::steady_clock::now() > until) return false;
      std::size_t want = std::min<std::uint64_t>(entries.size(), *end / page_bytes - page);
      ssize_t n = ::pread(pagemap.get(), entries.data(), want * 8, static_cast<off_t>(page * 8));
      if (n < 8) break;
      std::size_t got = static_cast<std::size_t>(n) / 8;
      for (std::size_t i = 0; i < got; ++i)
        if ((entries[i] & is_present) != 0 && (entries[i] & frame_mask) == frame) return true;
      page += got;
    }
  }
  return false;
}

}  // namespace

KernelLog::KernelLog() : log_(::open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC)) {
  if (log_) ::lseek(log_.get(), 0, SEEK_END);
}

std::string KernelLog::since() {
  std::string out;
  char record[8192];
  while (log_) {
    ssize_t n = ::read(log_.get(), record, sizeof record);
    if (n < 0 && (errno == EINTR || errno == EPIPE))
      continue;  // EPIPE: older records are overwritten, the next read goes on
    if (n <= 0) break;
    std::string_view text(record, static_cast<std::size_t>(n));
    out += text.substr(std::min(text.find(';') + 1, text.size()));
    if (out.back() != '\n') out += '\n';
  }
  return out;
}

std::optional<UnmovablePage> unmovable_page(std::string_view log, std::uint64_t address,
                                            std::uint64_t size) {
  std::optional<UnmovablePage> out;
  std::uint64_t frame = 0;  // of the dump that is being read; nobody waits for frame 0
  for (std::size_t at = 0; at < log.size();) {
    std::string_view line = log.substr(at, log.find('\n', at) - at);
    at += line.size() + 1;
    constexpr std::string_view frame_is = " pfn:0x", because = "page dumped because: ";
    if (auto found = line.find(frame_is);
        line.substr(0, 5) == "page:" && found != std::string_view::npos)
      frame = number<std::uint64_t>(line.substr(found + frame_is.size()), 16).value_or(0);
    if (frame == 0 || line.substr(0, because.size()) != because) continue;
    if (frame >= address / page_bytes && frame < (address + size) / page_bytes)
      out = UnmovablePage{frame * page_bytes, std::string(line.substr(because.size(), 80))};
    frame = 0;
  }
  return out;
}

std::vector<Process> who_maps(const UnmovablePage& page) {
  auto until = std::chrono::steady_clock::now() + std::chrono::seconds(3);
  std::vector<Process> out;
  auto names = Files::system().list("/proc");
  if (!names) return out;
  for (const std::string& name : *names) {
    auto pid = number<int>(name, 10);
    std::string process = "/proc/" + name;
    if (!pid || !maps(process, page.address / page_bytes, until)) continue;
    std::string command = Files::system().read(process + "/comm").value_or("?\n");
    if (!command.empty() && command.back() == '\n') command.pop_back();
    out.push_back({*pid, command});
    if (out.size() == 3) break;
  }
  return out;
}

std::string describe(const UnmovablePage& page, const std::vector<Process>& mappers) {
  std::ostringstream out;
  out << "page 0x" << std::hex << page.address << std::dec << " (" << page.reason << "), which ";
  if (mappers.empty()) out << "no process is seen to map: perhaps the kernel or a device has it";
  for (std::size_t i = 0; i < mappers.size(); ++i)
    out << (i == 0 ? mappers.size() == 1 ? "process " : "processes " : ", ") << mappers[i].pid
        << " (" << mappers[i].name << ")";
  if (!mappers.empty()) out << (mappers.size() == 1 ? " maps" : " map");
  return out.str();
}

}  // namespace hobbes
