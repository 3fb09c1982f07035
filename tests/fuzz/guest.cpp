// A hostile guest: arbitrary memory, then register accesses and notifications in any order, on every virtio device; and arbitrary images
// for the loader. The first byte chooses.
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>

#include "vmm/loader.h"
#include "vmm/virtio/block.h"
#include "vmm/virtio/entropy.h"
#include "vmm/virtio/pluggable.h"
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

// The rings lie in the first 16 KiB, which the input fills; queues are set up soundly, so that noise gets beyond the first check.
void drive(
    VirtioDevice& device, EventLoop& loop, const std::uint8_t* data, std::size_t size, const std::function<void()>& after_reset = [] {}) {
  int again = 0;
  VirtioTransport transport(
      memory(), device, [] {}, [&](unsigned) { ++again; });
  auto set = [&](std::uint64_t at, std::uint32_t value) { transport.write(at, std::as_bytes(std::span(&value, 1))); };
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
    transport.read(data[at + 1], std::as_writable_bytes(std::span(&read, 1)).first(1U << (data[at] % 3)));
    loop.run_once(0);
  }
  set(0x70, 0);
  after_reset();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < 2) return 0;
  auto loop = EventLoop::make();
  switch (data[0] % 5) {
    case 0: {
      Fd kernel = file_of(data + 1, size - 1);
      auto entry = load_guest(memory(), {kernel.get(), -1, -1, "x"}, acpi_at);
      if (entry && entry->address >= memory_size) __builtin_trap();
      break;
    }
    case 1: {
      static const std::string empty(8192, '\0');
      auto block = Block::make(file_of(reinterpret_cast<const std::uint8_t*>(empty.data()), empty.size()), (data[1] & 1U) != 0);
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
      PluggableMemory pluggable(other.spare());
      drive(pluggable, *loop, data + 1, size - 1, [&] {
        if (pluggable.plugged() > gib) __builtin_trap();
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
