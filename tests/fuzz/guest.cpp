// A hostile guest: arbitrary memory, then register accesses and notifications in any order, on
// every virtio device; and arbitrary images for the loader. The first byte chooses.
#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>

#include "core/file.h"
#include "vmm/loader.h"
#include "vmm/virtio/block.h"
#include "vmm/virtio/console.h"
#include "vmm/virtio/entropy.h"
#include "vmm/virtio/fs/filesystem.h"
#include "vmm/virtio/mem.h"
#include "vmm/virtio/vsock.h"

using namespace hobbes;
using namespace hobbes::vmm;

namespace {

constexpr std::uint64_t memory_size = 32 * mib;

GuestMemory& memory() {
  static GuestMemory out = *GuestMemory::make(memory_size, 4096);
  return out;
}

Fd file_of(const std::uint8_t* data, std::size_t size) {
  Fd out(static_cast<int>(::memfd_create("fuzz", MFD_CLOEXEC)));
  (void)!::write(out.get(), data, size);
  return out;
}

// The rings lie in the first 16 KiB, which the input fills; queues are set up soundly, so that
// noise gets beyond the first check.
void drive(
    VirtioDevice& device, EventLoop& loop, const std::uint8_t* data, std::size_t size,
    const std::function<void()>& after_reset = [] {}) {
  int again = 0;
  VirtioTransport transport(
      memory(), device, [] {}, [&](unsigned) { ++again; });
  auto set = [&](std::uint64_t at, std::uint32_t value) {
    transport.write(at, std::as_bytes(std::span(&value, 1)));
  };
  std::size_t noise = std::min<std::size_t>(size, 16384);
  auto place = memory().at(0, 16384);
  std::fill(place.begin(), place.end(), std::byte{0});
  std::memcpy(place.data(), data, noise);
  set(0x24, 1);
  set(0x20, 1);
  set(0x70, 11);
  for (unsigned queue = 0; queue < device.queues(); ++queue) {
    set(0x30, queue);
    set(0x38, 16);
    set(0x80, queue * 0x1000);
    set(0x90, queue * 0x1000 + 0x400);
    set(0xa0, queue * 0x1000 + 0x800);
    set(0x44, 1);
  }
  set(0x70, 15);
  for (std::size_t at = size / 2; at + 6 <= size; at += 6) {
    std::uint32_t value = 0;
    std::memcpy(&value, data + at + 2, 4);
    if (data[at] % 4 == 0)
      set(static_cast<std::uint64_t>(data[at + 1]) * 4, value);
    else
      transport.notify(data[at + 1] % 4);
    std::uint32_t read = 0;
    transport.read(data[at + 1],
                   std::as_writable_bytes(std::span(&read, 1)).first(1U << (data[at] % 3)));
    loop.run_once(0);
  }
  set(0x70, 0);
  after_reset();
}

// A folder with a file, a link out of it, and a neighbour that no request may reach.
struct Shared {
  Shared() {
    char name[] = "/tmp/fuzz.XXXXXX";
    top = ::mkdtemp(name);
    inside = top + "/inside";
    (void)::mkdir(inside.c_str(), 0755);
    (void)!::symlink("../outside", (inside + "/l").c_str());
    for (const std::string& file : {top + "/outside", inside + "/a"})
      Fd(::open(file.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
  }
  void check() const {
    struct stat info {};
    if (::stat((top + "/outside").c_str(), &info) != 0 || info.st_size != 0 ||
        info.st_mode != (S_IFREG | 0600))
      __builtin_trap();
  }
  ~Shared() { (void)hobbes::remove_tree(top); }
  std::string top, inside;
};

// One request as it comes, its length in the second and third byte: what follows is room for the
// answer.
void ask_folder(Folder& folder, const std::uint8_t* data, std::size_t size) {
  auto bytes = std::as_bytes(std::span(data, size));
  while (bytes.size() > 2) {
    std::size_t length =
        std::to_integer<std::size_t>(bytes[0]) + 256 * (std::to_integer<std::size_t>(bytes[1]) % 8);
    bytes = bytes.subspan(2);
    length = std::min(length, bytes.size());
    std::byte room[2048];
    DescriptorChain chain;
    chain.readable = {bytes.first(length)};
    chain.writable = {std::span(room)};
    if (folder.serve(chain) > sizeof room) __builtin_trap();
    bytes = bytes.subspan(length);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < 2) return 0;
  auto loop = EventLoop::make();
  switch (data[0] % 8) {
    case 0: {
      Fd kernel = file_of(data + 1, size - 1);
      auto entry = load_guest(memory(), {kernel.get(), -1, "x"}, acpi_at);
      if (entry && entry->address >= memory_size) __builtin_trap();
      break;
    }
    case 1: {
      static const std::string empty(8192, '\0');
      auto block =
          Block::make(file_of(reinterpret_cast<const std::uint8_t*>(empty.data()), empty.size()),
                      (data[1] & 1U) != 0);
      drive(*block, *loop, data + 1, size - 1);
      break;
    }
    case 2: {
      Entropy entropy;
      drive(entropy, *loop, data + 1, size - 1);
      break;
    }
    case 3: {
      static GuestMemory other = *GuestMemory::make(16 * mib, 4096, gib);
      VirtioMem virtio_mem(other.spare());
      drive(virtio_mem, *loop, data + 1, size - 1, [&] {
        if (virtio_mem.plugged() > gib) __builtin_trap();
      });
      break;
    }
    case 4:
    case 5: {
      Shared shared;
      auto window = DaxWindow::make(dax_at, 4 * mib);
      Folder folder(Fd(::open(shared.inside.c_str(), O_PATH | O_CLOEXEC)),
                    Fd(::open("/proc/self/fd", O_PATH | O_CLOEXEC)), 100, false, &*window);
      if (data[0] % 8 == 4) {
        ask_folder(folder, data + 1, size - 1);
      } else {
        Fd bell(::eventfd(
            1, EFD_CLOEXEC | EFD_NONBLOCK));  // never emptied: it is asked after each step
        FileSystem files(std::move(folder), "fuzz", &*window, [] {});
        (void)loop->watch(bell.get(), EPOLLIN, [&](auto) { files.serve(); });
        drive(files, *loop, data + 1, size - 1);
      }
      shared.check();
      break;
    }
    case 6: {
      Console console([](std::string_view text) {
        if (text.empty() || text.size() > Console::piece) __builtin_trap();
      });
      drive(console, *loop, data + 1, size - 1, [&] {
        if (console.type("keys") > 4) __builtin_trap();
      });
      break;
    }
    default: {
      Vsock vsock(*loop, [] {});
      std::vector<Fd> accepted;
      vsock.listen(1025, [&](Fd fd) { accepted.push_back(std::move(fd)); });
      drive(vsock, *loop, data + 1, size - 1, [&] { vsock.tend(); });
    }
  }
  return 0;
}
