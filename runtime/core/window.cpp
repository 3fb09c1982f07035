#include "core/window.h"

#include <fcntl.h>

#include <cerrno>

#include "core/file.h"
#include "core/json.h"
#include "core/paths.h"

namespace hobbes {
namespace {

std::string note_path() { return run_directory() + "/nis.window"; }

}  // namespace

std::optional<Window> mirror_window() {
  auto text = Files::system().read(note_path());
  if (!text) return std::nullopt;
  auto json = parse_json(*text, note_path());
  if (!json || number_at(*json, "size") <= 0) return std::nullopt;
  return Window{static_cast<std::uint64_t>(number_at(*json, "address")),
                static_cast<std::uint64_t>(number_at(*json, "size"))};
}

Result<void> note_mirror_window(const Window& window) {
  return replace_file(note_path(),
                      to_text(Json{{"address", window.address}, {"size", window.size}}) + "\n");
}

Result<Fd> open_physical_memory(bool writable) {
  Fd out(::open("/dev/mem", (writable ? O_RDWR : O_RDONLY) | O_CLOEXEC));
  if (!out)
    return os_error("open the node's memory in this virtual machine", errno,
                    "run as root of the guest");
  return out;
}

}  // namespace hobbes
