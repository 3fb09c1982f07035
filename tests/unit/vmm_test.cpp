// What of Palacios needs no KVM: guest memory, loaders, tables and devices, against well-behaved
// and hostile drivers.
#include <gtest/gtest.h>
#define VIRTIO_RING_NO_LEGACY
#include <fcntl.h>
#include <linux/virtio_config.h>
#include <linux/virtio_mmio.h>
#include <linux/virtio_ring.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/file.h"
#include "core/process.h"
#include "enclave/drivers/palacios/agent_connection.h"
#include "vmm/acpi.h"
#include "vmm/frames.h"
#include "vmm/loader.h"
#include "vmm/power.h"
#include "vmm/serial.h"
#include "vmm/virtio/block.h"
#include "vmm/virtio/console.h"
#include "vmm/virtio/entropy.h"
#include "vmm/virtio/mem.h"
#include "vmm/virtio/vsock.h"

namespace hobbes::vmm {
namespace {

GuestMemory make_memory(std::uint64_t size = 16 * mib) { return *GuestMemory::make(size, 4096); }

Fd memory_file(const std::string& content) {
  Fd out(static_cast<int>(::memfd_create("test", MFD_CLOEXEC)));
  EXPECT_TRUE(write_all(out.get(), content, "test"));
  return out;
}

TEST(GuestMemory, IsReachedOnlyWhereThereIsRam) {
  GuestMemory memory = make_memory();
  EXPECT_EQ(memory.at(0, 16 * mib).size(), 16 * mib);
  EXPECT_TRUE(memory.at(16 * mib, 1).empty());
  EXPECT_TRUE(memory.at(16 * mib - 1, 2).empty());
  EXPECT_TRUE(memory.at(~0ULL, 2).empty());
  EXPECT_TRUE(memory.at(1, ~0ULL).empty());
  std::uint64_t word = 7;
  EXPECT_FALSE(memory.write(16 * mib - 4, word));
  EXPECT_FALSE(memory.read(virtio_at, word));
  EXPECT_FALSE(GuestMemory::make(1 * mib, 4096));
  EXPECT_FALSE(GuestMemory::make(16 * mib + 1, 4096));
}

TEST(Serial, TakesWhatIsTypedAsFastAsItsGuestReads) {
  int interrupts = 0, room = 0;
  Serial serial([](char) {}, [&] { ++interrupts; });
  serial.on_room([&] { ++room; });
  std::byte wants_input{1};
  serial.write(1, {&wants_input, 1});
  std::string text(5000, 'x');
  text[0] = 'a';
  std::size_t taken = serial.type(text);
  EXPECT_GT(interrupts, 0);
  EXPECT_GE(taken, 16U);
  EXPECT_LT(taken, text.size());
  EXPECT_EQ(serial.type("more"), 0U) << "it is full";
  std::string read;
  for (std::byte byte{}; read.size() < taken; read += static_cast<char>(byte)) {
    serial.read(5, {&byte, 1});
    ASSERT_EQ(std::to_integer<unsigned>(byte) & 1U, 1U) << "there is more";
    serial.read(0, {&byte, 1});
  }
  EXPECT_EQ(read, text.substr(0, taken));
  EXPECT_EQ(room, 1);
  EXPECT_EQ(serial.type("more"), 4U);
}

TEST(Serial, PrintsEchoesInLoopbackAndTellsWhenItIsReady) {
  std::string out;
  int interrupts = 0;
  Serial serial([&](char c) { out += c; }, [&] { ++interrupts; });
  auto put = [&](std::uint64_t at, unsigned value) {
    auto byte = static_cast<std::byte>(value);
    serial.write(at, {&byte, 1});
  };
  auto get = [&](std::uint64_t at) {
    std::byte byte{};
    serial.read(at, {&byte, 1});
    return std::to_integer<unsigned>(byte);
  };
  put(3, 0x83);  // the divisor is not text
  put(0, 'x');
  put(3, 0x03);
  put(0, 'a');
  EXPECT_EQ(out, "a");
  EXPECT_EQ(get(5) & 0x60U, 0x60U);
  put(1, 2);
  EXPECT_GT(interrupts, 0);
  EXPECT_EQ(get(2) & 0x0fU, 0x02U);
  EXPECT_EQ(get(2) & 0x0fU, 0x01U) << "asking has acknowledged it";
  put(4, 0x10);
  put(0, 'l');
  EXPECT_EQ(out, "a");
  EXPECT_EQ(get(0), unsigned{'l'});
  EXPECT_EQ(get(5) & 1U, 0U) << "it has been read";
}

TEST(Power, OnlyTheAgreedValueEndsTheMachine) {
  int ends = 0;
  EndRegister off(HOBBES_VM_POWER_OFF, 7, [&] { ++ends; });
  for (int value = 0; value < 256; ++value) {
    auto byte = static_cast<std::byte>(value);
    off.write(1, {&byte, 1});
    if (value != HOBBES_VM_POWER_OFF) off.write(0, {&byte, 1});
  }
  EXPECT_EQ(ends, 0);
  std::byte word[4] = {std::byte{HOBBES_VM_POWER_OFF}};
  off.write(0, word);
  EXPECT_EQ(ends, 1);
  off.read(0, word);
  EXPECT_EQ(word[3], std::byte{7});
}

std::uint32_t word_at(const GuestMemory& memory, Gpa at) {
  std::uint32_t out = 0;
  EXPECT_TRUE(memory.read(at, out));
  return out;
}
unsigned sum_of(const GuestMemory& memory, Gpa at, std::uint64_t size) {
  unsigned sum = 0;
  for (std::byte byte : memory.at(at, size)) sum += std::to_integer<unsigned>(byte);
  return sum & 0xffU;
}

TEST(Acpi, TablesLeadToEachOtherAndAddUp) {
  GuestMemory memory = make_memory();
  auto root = write_acpi(memory, {3, {{virtio_at, 5}, {virtio_at + virtio_stride, 6}}});
  ASSERT_TRUE(root);
  EXPECT_EQ(std::memcmp(memory.at(*root, 8).data(), "RSD PTR ", 8), 0);
  EXPECT_EQ(sum_of(memory, *root, 20), 0U);
  EXPECT_EQ(sum_of(memory, *root, 36), 0U);
  Gpa all = 0;
  ASSERT_TRUE(memory.read(*root + 24, all));
  EXPECT_EQ(std::memcmp(memory.at(all, 4).data(), "XSDT", 4), 0);
  std::string found;
  for (Gpa entry = all + 36; entry < all + word_at(memory, all + 4); entry += 8) {
    Gpa table = 0;
    ASSERT_TRUE(memory.read(entry, table));
    EXPECT_EQ(sum_of(memory, table, word_at(memory, table + 4)), 0U);
    std::string name(reinterpret_cast<const char*>(memory.at(table, 4).data()), 4);
    found += name + " ";
    if (name == "FACP") {
      EXPECT_EQ(word_at(memory, table + 4), 276U);
      Gpa dsdt = 0;
      ASSERT_TRUE(memory.read(table + 140, dsdt));
      EXPECT_EQ(sum_of(memory, dsdt, word_at(memory, dsdt + 4)), 0U);
      EXPECT_EQ(word_at(memory, table + 112) >> 20U & 1U, 1U) << "hardware-reduced";
    }
    if (name == "APIC") {
      EXPECT_EQ(word_at(memory, table + 4), 44U + 3 * 8 + 12);
    }
  }
  EXPECT_EQ(found, "FACP APIC ");
  EXPECT_FALSE(write_acpi(memory, {40000, {}}));
}

std::string why_not(const std::string& content, const std::string& line = "") {
  GuestMemory memory = make_memory(32 * mib);
  Fd file = memory_file(content);
  auto loaded = load_guest(memory, {file.get(), -1, line}, acpi_at);
  return loaded ? "loaded" : loaded.error().cause;
}

TEST(Loader, OurKernelLoadsAndEveryCutOfItIsRefused) {
  std::string image = Files::system()
                          .read(HOBBES_BUILD_DIR "/share/hobbes/kitten/kitten.img", 64 << 20)
                          .value_or("");
  ASSERT_GT(image.size(), 4096U);
  GuestMemory memory = make_memory(32 * mib);
  Fd file = memory_file(image), disk = memory_file(std::string(10000, 'd'));
  auto entry = load_guest(memory, {file.get(), disk.get(), "a b"}, acpi_at);
  ASSERT_TRUE(entry) << entry.error().text();
  EXPECT_FALSE(entry->long_mode);
  EXPECT_EQ(word_at(memory, entry->rbx), 0x336ec578U);
  EXPECT_STREQ(reinterpret_cast<const char*>(memory.at(command_line_at, 4).data()), "a b");
  Gpa modules = 0, at = 0, size = 0;
  ASSERT_TRUE(memory.read(entry->rbx + 16, modules));
  ASSERT_TRUE(memory.read(modules, at) && memory.read(modules + 8, size));
  EXPECT_EQ(size, 10000U);
  EXPECT_EQ(memory.at(at, size).back(), std::byte{'d'});
  // Never a crash, and never "loaded" with segments missing.
  for (std::size_t cut = 0; cut < 4096; cut += 97)
    EXPECT_NE(why_not(image.substr(0, cut)), "loaded") << cut;
  EXPECT_NE(why_not(image, std::string(command_line_limit, 'x')).find("characters"),
            std::string::npos);
}

TEST(Loader, WhatIsNoKernelIsNamedAsSuch) {
  EXPECT_EQ(why_not(""), "the image is empty or no file");
  EXPECT_NE(why_not(std::string(5000, 'x')).find("neither an ELF image nor a bzImage"),
            std::string::npos);
  std::string elf(4096, '\0');
  elf.replace(0, 5,
              "\x7f"
              "ELF\x02");
  EXPECT_NE(why_not(elf).find("not an x86-64 ELF image"), std::string::npos);
  elf[18] = 62;
  elf[54] = 56;
  EXPECT_NE(why_not(elf).find("program headers"), std::string::npos);
}

// A driver of one virtio device, as a guest writes one.
class Driver {
 public:
  explicit Driver(VirtioDevice& device)
      : memory(make_memory()),
        transport(
            memory, device, [this] { ++interrupts; }, [this](unsigned) { ++agains; }) {
    set(VIRTIO_MMIO_STATUS, 3);
    set(VIRTIO_MMIO_DRIVER_FEATURES_SEL, 1);
    set(VIRTIO_MMIO_DRIVER_FEATURES, 1);
    set(VIRTIO_MMIO_STATUS, 11);
    for (unsigned queue = 0; queue < device.queues(); ++queue) {
      set(VIRTIO_MMIO_QUEUE_SEL, queue);
      set(VIRTIO_MMIO_QUEUE_NUM, size);
      set(VIRTIO_MMIO_QUEUE_DESC_LOW, static_cast<std::uint32_t>(base(queue)));
      set(VIRTIO_MMIO_QUEUE_AVAIL_LOW, static_cast<std::uint32_t>(base(queue) + 0x1000));
      set(VIRTIO_MMIO_QUEUE_USED_LOW, static_cast<std::uint32_t>(base(queue) + 0x2000));
      set(VIRTIO_MMIO_QUEUE_READY, 1);
    }
    set(VIRTIO_MMIO_STATUS, 15);
  }
  static constexpr std::uint16_t size = 8;
  static Gpa base(unsigned queue) { return 0x100000 + queue * 0x10000; }
  void set(std::uint64_t at, std::uint32_t value) {
    transport.write(at, std::as_bytes(std::span(&value, 1)));
  }
  std::uint32_t get(std::uint64_t at) {
    std::uint32_t out = 0;
    transport.read(at, std::as_writable_bytes(std::span(&out, 1)));
    return out;
  }
  void describe(unsigned queue, std::uint16_t number, Gpa at, std::uint32_t length,
                std::uint16_t flags, std::uint16_t next = 0) {
    EXPECT_TRUE(memory.write(base(queue) + number * sizeof(vring_desc),
                             vring_desc{at, length, flags, next}));
  }
  void offer(unsigned queue, std::uint16_t head) {
    EXPECT_TRUE(memory.write(base(queue) + 0x1004 + 2ULL * (offered[queue] % size), head));
    ++offered[queue];
    EXPECT_TRUE(memory.write(base(queue) + 0x1002, offered[queue]));
  }
  std::uint16_t used(unsigned queue) {
    std::uint16_t out = 0;
    EXPECT_TRUE(memory.read(base(queue) + 0x2002, out));
    return out;
  }
  std::uint32_t written(unsigned queue, std::uint16_t entry) {
    return word_at(memory, base(queue) + 0x2004 + 8ULL * (entry % size) + 4);
  }
  bool broken() { return (get(VIRTIO_MMIO_STATUS) & VIRTIO_CONFIG_S_NEEDS_RESET) != 0; }

  GuestMemory memory;
  int interrupts = 0, agains = 0;
  std::map<unsigned, std::uint16_t> offered;
  VirtioTransport transport;
};

TEST(Transport, ADriverMustAcceptTheNewInterfaceAndNothingThatWasNotOffered) {
  Entropy entropy;
  Driver driver(entropy);
  EXPECT_EQ(driver.get(VIRTIO_MMIO_MAGIC_VALUE), 0x74726976U);
  EXPECT_EQ(driver.get(VIRTIO_MMIO_STATUS), 15U);
  driver.set(VIRTIO_MMIO_STATUS, 0);
  driver.set(VIRTIO_MMIO_STATUS, 11);
  EXPECT_EQ(driver.get(VIRTIO_MMIO_STATUS) & VIRTIO_CONFIG_S_FEATURES_OK, 0U) << "no version 1";
  driver.set(VIRTIO_MMIO_DRIVER_FEATURES_SEL, 1);
  driver.set(VIRTIO_MMIO_DRIVER_FEATURES, 3);
  driver.set(VIRTIO_MMIO_STATUS, 11);
  EXPECT_EQ(driver.get(VIRTIO_MMIO_STATUS) & VIRTIO_CONFIG_S_FEATURES_OK, 0U) << "one too many";
  driver.set(VIRTIO_MMIO_QUEUE_SEL, 99);
  driver.set(VIRTIO_MMIO_QUEUE_NUM, 3);
  EXPECT_EQ(driver.get(VIRTIO_MMIO_QUEUE_NUM_MAX), 0U);
  driver.transport.notify(99);
}

TEST(VirtioMem, AGuestPlugsWhatIsRequestedInItsRegionAndNoMore) {
  GuestMemory memory = *GuestMemory::make(16 * mib, 4096, gib);
  ASSERT_EQ(memory.spare().size, gib);
  EXPECT_EQ(memory.spare().address, high_at);
  EXPECT_TRUE(memory.at(high_at + gib - 1, 2).empty());
  VirtioMem device(memory.spare());
  Driver driver(device);
  std::uint16_t entries = 0;
  auto ask = [&](std::uint16_t type, Gpa address, std::uint16_t blocks) {
    virtio_mem_req request{};
    request.type = type;
    request.u.plug.addr = address;
    request.u.plug.nb_blocks = blocks;
    EXPECT_TRUE(driver.memory.write(0x2000, request));
    driver.describe(0, 0, 0x2000, sizeof request, VRING_DESC_F_NEXT, 1);
    driver.describe(0, 1, 0x3000, sizeof(virtio_mem_resp), VRING_DESC_F_WRITE);
    driver.offer(0, 0);
    driver.transport.notify(0);
    EXPECT_EQ(driver.used(0), ++entries);
    virtio_mem_resp response{};
    EXPECT_TRUE(driver.memory.read(0x3000, response));
    return response;
  };
  constexpr std::uint64_t block = VirtioMem::block;
  EXPECT_EQ(ask(VIRTIO_MEM_REQ_PLUG, high_at, 1).type, VIRTIO_MEM_RESP_NACK)
      << "nothing is requested";
  std::uint32_t generation = driver.get(VIRTIO_MMIO_CONFIG_GENERATION);
  device.request(4 * block + 5);
  EXPECT_NE(driver.get(VIRTIO_MMIO_CONFIG_GENERATION), generation);
  EXPECT_EQ(driver.get(VIRTIO_MMIO_INTERRUPT_STATUS) & VIRTIO_MMIO_INT_CONFIG,
            unsigned{VIRTIO_MMIO_INT_CONFIG});
  EXPECT_EQ(ask(VIRTIO_MEM_REQ_PLUG, high_at + block, 3).type, VIRTIO_MEM_RESP_ACK);
  EXPECT_EQ(device.plugged(), 3 * block);
  EXPECT_EQ(ask(VIRTIO_MEM_REQ_PLUG, high_at + 4 * block, 2).type, VIRTIO_MEM_RESP_NACK)
      << "one too many";
  EXPECT_EQ(ask(VIRTIO_MEM_REQ_PLUG, high_at, 2).type, VIRTIO_MEM_RESP_ERROR)
      << "one of them is plugged";
  EXPECT_EQ(ask(VIRTIO_MEM_REQ_STATE, high_at, 1).u.state.state, VIRTIO_MEM_STATE_UNPLUGGED);
  EXPECT_EQ(ask(VIRTIO_MEM_REQ_STATE, high_at, 2).u.state.state, VIRTIO_MEM_STATE_MIXED);
  EXPECT_EQ(ask(VIRTIO_MEM_REQ_STATE, high_at + block, 3).u.state.state, VIRTIO_MEM_STATE_PLUGGED);
  memory.spare().host[2 * block] = std::byte{7};
  EXPECT_EQ(ask(VIRTIO_MEM_REQ_UNPLUG, high_at + 2 * block, 1).type, VIRTIO_MEM_RESP_ACK);
  EXPECT_EQ(memory.spare().host[2 * block], std::byte{0}) << "it went back to the node";
  EXPECT_EQ(device.plugged(), 2 * block);
  for (Gpa address : {Gpa{0}, high_at - block, high_at + 1, high_at + gib, high_at + gib - block,
                      ~Gpa{0} - block + 1})
    for (int type : {VIRTIO_MEM_REQ_PLUG, VIRTIO_MEM_REQ_UNPLUG, VIRTIO_MEM_REQ_STATE})
      EXPECT_EQ(ask(static_cast<std::uint16_t>(type), address, 2).type, VIRTIO_MEM_RESP_ERROR)
          << std::hex << address;
  EXPECT_EQ(ask(VIRTIO_MEM_REQ_PLUG, high_at, 0).type, VIRTIO_MEM_RESP_ERROR);
  EXPECT_EQ(ask(77, high_at, 1).type, VIRTIO_MEM_RESP_ERROR);
  EXPECT_EQ(ask(VIRTIO_MEM_REQ_UNPLUG_ALL, 0, 0).type, VIRTIO_MEM_RESP_ACK);
  EXPECT_EQ(device.plugged(), 0U);
}

TEST(Queue, RulesThatAreBrokenStopTheDeviceUntilItIsReset) {
  using Breaker = std::function<void(Driver&)>;
  const std::map<std::string, Breaker> ways = {
      {"a loop",
       [](Driver& d) {
         d.describe(0, 0, 0x1000, 8, VRING_DESC_F_WRITE | VRING_DESC_F_NEXT, 0);
         d.offer(0, 0);
       }},
      {"outside of memory",
       [](Driver& d) {
         d.describe(0, 0, 15 * mib, 2 * mib, VRING_DESC_F_WRITE);
         d.offer(0, 0);
       }},
      {"an address that wraps",
       [](Driver& d) {
         d.describe(0, 0, ~0ULL - 4, 8, VRING_DESC_F_WRITE);
         d.offer(0, 0);
       }},
      {"a head out of range", [](Driver& d) { d.offer(0, 200); }},
      {"a next out of range",
       [](Driver& d) {
         d.describe(0, 0, 0x1000, 8, VRING_DESC_F_NEXT, 77);
         d.offer(0, 0);
       }},
      {"indirect",
       [](Driver& d) {
         d.describe(0, 0, 0x1000, 16, VRING_DESC_F_INDIRECT);
         d.offer(0, 0);
       }},
      {"readable after writable",
       [](Driver& d) {
         d.describe(0, 0, 0x1000, 8, VRING_DESC_F_WRITE | VRING_DESC_F_NEXT, 1);
         d.describe(0, 1, 0x2000, 8, 0);
         d.offer(0, 0);
       }},
      {"more than there is room for",
       [](Driver& d) {
         EXPECT_TRUE(d.memory.write(Driver::base(0) + 0x1002, std::uint16_t{500}));
       }},
  };
  for (const auto& [name, breaks] : ways) {
    Entropy entropy;
    Driver driver(entropy);
    breaks(driver);
    driver.transport.notify(0);
    EXPECT_TRUE(driver.broken()) << name;
    driver.set(VIRTIO_MMIO_STATUS, 0);
    EXPECT_FALSE(driver.broken()) << name;
  }
}

TEST(Entropy, FillsWhatItIsGiven) {
  Entropy entropy;
  Driver driver(entropy);
  driver.describe(0, 0, 0x1000, 64, VRING_DESC_F_WRITE);
  driver.offer(0, 0);
  driver.transport.notify(0);
  EXPECT_EQ(driver.used(0), 1);
  EXPECT_EQ(driver.written(0, 0), 64U);
  EXPECT_EQ(driver.interrupts, 1);
  EXPECT_NE(sum_of(driver.memory, 0x1000, 64), sum_of(driver.memory, 0x2000, 64));
}

TEST(Console, PrintsWhatItIsGivenAndTakesKeysAsThereIsRoom) {
  std::string printed;
  int rooms = 0;
  Console console([&](std::string_view text) { printed += text; });
  console.on_room([&] { ++rooms; });
  Driver driver(console);
  std::uint64_t hello = 0x0a6f6c6c6568;  // "hello\n"
  EXPECT_TRUE(driver.memory.write(0x1000, hello));
  driver.describe(1, 0, 0x1000, 6, 0);
  driver.offer(1, 0);
  EXPECT_FALSE(console.used());
  driver.transport.notify(1);
  EXPECT_EQ(printed, "hello\n");
  EXPECT_TRUE(console.used());

  EXPECT_EQ(console.type("abcdef"), 0U) << "no room yet";
  driver.describe(0, 0, 0x2000, 4, VRING_DESC_F_WRITE);
  driver.offer(0, 0);
  driver.transport.notify(0);
  EXPECT_EQ(rooms, 1);
  EXPECT_EQ(console.type("abcdef"), 4U);
  EXPECT_EQ(word_at(driver.memory, 0x2000), 0x64636261U);
  EXPECT_EQ(driver.written(0, 0), 4U);
  driver.set(VIRTIO_MMIO_STATUS, 0);
  EXPECT_FALSE(console.used());
  EXPECT_EQ(rooms, 2) << "the rest belongs to somebody else now";
}

TEST(Console, ARequestWithoutEndIsCut) {
  std::uint64_t printed = 0;
  Console console([&](std::string_view text) { printed += text.size(); });
  Driver driver(console);
  for (std::uint16_t i = 0; i < Driver::size; ++i)
    driver.describe(1, i, 0, 8 * mib, i + 1 < Driver::size ? VRING_DESC_F_NEXT : 0,
                    static_cast<std::uint16_t>(i + 1));
  driver.offer(1, 0);
  driver.transport.notify(1);
  EXPECT_EQ(printed, Console::request_limit);
  EXPECT_EQ(driver.used(1), 1);
}

TEST(Console, TheWindowsSizeIsInItsConfiguration) {
  Console console([](std::string_view) {});
  Driver driver(console);
  console.resize(132, 43);
  EXPECT_EQ(driver.get(VIRTIO_MMIO_CONFIG), 43U << 16U | 132U);
  EXPECT_EQ(driver.interrupts, 1);
}

class Disk {
 public:
  explicit Disk(bool read_only = false)
      : file(memory_file(std::string(8192, 'o'))),
        block(*Block::make(Fd(::dup(file.get())), read_only)),
        driver(block) {}
  // One request with one data buffer; its status.
  unsigned request(std::uint32_t type, std::uint64_t sector, std::uint32_t length) {
    struct {
      std::uint32_t type, priority;
      std::uint64_t sector;
    } header{type, 0, sector};
    EXPECT_TRUE(driver.memory.write(0x1000, header));
    EXPECT_TRUE(driver.memory.write(0x3000, std::uint8_t{99}));
    driver.describe(0, 0, 0x1000, 16, VRING_DESC_F_NEXT, 1);
    driver.describe(0, 1, 0x2000, length,
                    static_cast<std::uint16_t>(VRING_DESC_F_NEXT |
                                               (type == VIRTIO_BLK_T_OUT ? 0 : VRING_DESC_F_WRITE)),
                    2);
    driver.describe(0, 2, 0x3000, 1, VRING_DESC_F_WRITE);
    driver.offer(0, 0);
    driver.transport.notify(0);
    return std::to_integer<unsigned>(driver.memory.at(0x3000, 1)[0]);
  }
  Fd file;
  Block block;
  Driver driver;
};

TEST(Block, ReadsWritesAndFlushesWithinItsDiskOnly) {
  Disk disk;
  EXPECT_EQ(disk.driver.get(VIRTIO_MMIO_CONFIG), 16U) << "sectors";
  EXPECT_EQ(disk.request(VIRTIO_BLK_T_IN, 0, 512), unsigned{VIRTIO_BLK_S_OK});
  EXPECT_EQ(disk.driver.memory.at(0x2000, 512)[511], std::byte{'o'});
  EXPECT_EQ(disk.driver.written(0, 0), 513U);
  disk.driver.memory.at(0x2000, 512)[0] = std::byte{'n'};
  EXPECT_EQ(disk.request(VIRTIO_BLK_T_OUT, 15, 512), unsigned{VIRTIO_BLK_S_OK});
  char c = 0;
  EXPECT_EQ(::pread(disk.file.get(), &c, 1, 15 * 512), 1);
  EXPECT_EQ(c, 'n');
  EXPECT_EQ(disk.request(VIRTIO_BLK_T_FLUSH, 0, 512), unsigned{VIRTIO_BLK_S_OK});
  for (auto [sector, length] :
       {std::pair{16ULL, 512U}, {15ULL, 1024U}, {~0ULL, 512U}, {1ULL << 55U, 512U}, {0ULL, 100U}})
    for (unsigned type : {VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT})
      EXPECT_EQ(disk.request(type, sector, length), unsigned{VIRTIO_BLK_S_IOERR}) << sector;
  EXPECT_EQ(disk.request(77, 0, 512), unsigned{VIRTIO_BLK_S_UNSUPP});
  EXPECT_EQ(::lseek(disk.file.get(), 0, SEEK_END), 8192);
  Disk fixed(true);
  EXPECT_EQ(fixed.request(VIRTIO_BLK_T_OUT, 0, 512), unsigned{VIRTIO_BLK_S_IOERR});
  EXPECT_FALSE(Block::make(memory_file(std::string(1000, 'x')), false));
  int pipe[2];
  ASSERT_EQ(::pipe(pipe), 0);
  Fd other(pipe[1]);
  EXPECT_FALSE(Block::make(Fd(pipe[0]), false));
}

class Sockets : public ::testing::Test {
 protected:
  Sockets() : loop(*EventLoop::make()), vsock(loop, [this] { ++woken; }), driver(vsock) {
    for (std::uint16_t i = 0; i < Driver::size; ++i) {
      driver.describe(0, i, 0x20000 + i * 0x1000ULL, 0x1000, VRING_DESC_F_WRITE);
      driver.offer(0, i);
    }
    driver.transport.notify(0);
  }
  struct Packet {
    virtio_vsock_hdr header{};
    std::string data;
  };
  // What the device has sent since the last look; the buffers are given back.
  std::vector<Packet> heard() {
    loop.run_once(0);
    std::vector<Packet> out;
    for (; seen != driver.used(0); ++seen) {
      std::uint32_t id =
          word_at(driver.memory, Driver::base(0) + 0x2004 + 8ULL * (seen % Driver::size));
      Packet packet;
      EXPECT_TRUE(driver.memory.read(0x20000 + id * 0x1000ULL, packet.header));
      auto bytes =
          driver.memory.at(0x20000 + id * 0x1000ULL + sizeof packet.header, packet.header.len);
      packet.data.assign(reinterpret_cast<const char*>(bytes.data()), bytes.size());
      out.push_back(packet);
      driver.offer(0, static_cast<std::uint16_t>(id));
    }
    driver.transport.notify(0);
    return out;
  }
  void say(std::uint32_t guest_port, std::uint32_t host_port, std::uint16_t operation,
           const std::string& data = {}, std::uint32_t room = 65536, std::uint32_t taken = 0) {
    virtio_vsock_hdr header{};
    header.src_cid = guest_cid;
    header.dst_cid = 2;
    header.src_port = guest_port;
    header.dst_port = host_port;
    header.len = static_cast<std::uint32_t>(data.size());
    header.type = VIRTIO_VSOCK_TYPE_STREAM;
    header.op = operation;
    header.buf_alloc = room;
    header.fwd_cnt = taken;
    EXPECT_TRUE(driver.memory.write(0x40000, header));
    if (!data.empty())
      std::memcpy(driver.memory.at(0x41000, data.size()).data(), data.data(), data.size());
    driver.describe(1, 0, 0x40000, sizeof header, VRING_DESC_F_NEXT, 1);
    driver.describe(1, 1, 0x41000, static_cast<std::uint32_t>(data.size()), 0);
    driver.offer(1, 0);
    driver.transport.notify(1);
  }
  EventLoop loop;
  int woken = 0;
  Vsock vsock;
  Driver driver;
  std::uint16_t seen = 0;
};

TEST_F(Sockets, AStreamToTheGuestCarriesBothWaysUntilOneEnds) {
  auto stream = vsock.connect(1024);
  ASSERT_TRUE(stream);
  auto asked = heard();
  ASSERT_EQ(asked.size(), 1U);
  EXPECT_EQ(asked[0].header.op, VIRTIO_VSOCK_OP_REQUEST);
  std::uint32_t port = asked[0].header.src_port;
  ASSERT_EQ(::write(stream->get(), "early", 5), 5);
  EXPECT_TRUE(heard().empty()) << "not before the guest has answered";
  say(1024, port, VIRTIO_VSOCK_OP_RESPONSE);
  auto sent = heard();
  ASSERT_EQ(sent.size(), 1U);
  EXPECT_EQ(sent[0].data, "early");
  say(1024, port, VIRTIO_VSOCK_OP_RW, "reply");
  char text[16] = {};
  EXPECT_EQ(::read(stream->get(), text, sizeof text), 5);
  EXPECT_STREQ(text, "reply");
  // The guest says how much it takes, and gets no more.
  std::string much(5000, 'm');
  ASSERT_EQ(::write(stream->get(), much.data(), much.size()), 5000);
  say(1024, port, VIRTIO_VSOCK_OP_CREDIT_UPDATE, "", 105, 5);
  std::string got;
  for (const Packet& packet : heard()) got += packet.data;
  EXPECT_EQ(got.size(), 105U);
  say(1024, port, VIRTIO_VSOCK_OP_CREDIT_UPDATE, "", 65536, 110);
  for (int i = 0; i < 10; ++i)
    for (const Packet& packet : heard()) got += packet.data;
  EXPECT_EQ(got.size(), 5000U);
  stream->reset();
  loop.run_once(10);
  auto end = heard();
  ASSERT_FALSE(end.empty());
  EXPECT_EQ(end.back().header.op, VIRTIO_VSOCK_OP_RST);
}

TEST_F(Sockets, ASlowReaderLosesNothingAndTheGuestLearnsOfItsRoom) {
  auto stream = vsock.connect(1024);
  std::uint32_t port = heard().at(0).header.src_port;
  say(1024, port, VIRTIO_VSOCK_OP_RESPONSE);
  std::size_t said = 0;
  std::uint32_t taken = 0;
  std::string chunk(4000, 'c');
  for (; said < 400'000 && said - taken + chunk.size() <= 256 * 1024; said += chunk.size()) {
    say(1024, port, VIRTIO_VSOCK_OP_RW, chunk);
    for (const Packet& packet : heard()) taken = packet.header.fwd_cnt;
  }
  say(1024, port, VIRTIO_VSOCK_OP_SHUTDOWN);
  say(1024, port, VIRTIO_VSOCK_OP_RST);
  std::string all(said + 1, '\0');
  std::size_t read = 0;
  for (int i = 0; i < 1000 && read < said; ++i) {
    ssize_t n = ::recv(stream->get(), all.data() + read, all.size() - read, MSG_DONTWAIT);
    if (n > 0) read += static_cast<std::size_t>(n);
    for (const Packet& packet : heard()) taken = packet.header.fwd_cnt;
  }
  EXPECT_EQ(read, said) << "what was said before the end arrives";
}

TEST_F(Sockets, AProgramOfTheGuestReachesOnlyPortsThatListenAndOnlyWithPrivilege) {
  std::vector<Fd> accepted;
  vsock.listen(1025, [&](Fd fd) { accepted.push_back(std::move(fd)); });
  say(1000, 1025, VIRTIO_VSOCK_OP_REQUEST);
  ASSERT_EQ(accepted.size(), 1U);
  EXPECT_EQ(heard().at(0).header.op, VIRTIO_VSOCK_OP_RESPONSE);
  say(1000, 1025, VIRTIO_VSOCK_OP_RW, "hi");
  char text[8] = {};
  EXPECT_EQ(::read(accepted[0].get(), text, sizeof text), 2);
  say(1001, 22, VIRTIO_VSOCK_OP_REQUEST);
  EXPECT_EQ(heard().at(0).header.op, VIRTIO_VSOCK_OP_RST);
  say(1024, 1025, VIRTIO_VSOCK_OP_REQUEST);
  EXPECT_EQ(heard().at(0).header.op, VIRTIO_VSOCK_OP_RST) << "anybody inside may have this port";
  say(1002, 1025, VIRTIO_VSOCK_OP_RW, "no stream");
  EXPECT_EQ(heard().at(0).header.op, VIRTIO_VSOCK_OP_RST);
}

TEST_F(Sockets, AResetLeavesNothingBehind) {
  auto stream = vsock.connect(1024);
  say(1024, heard().at(0).header.src_port, VIRTIO_VSOCK_OP_RESPONSE);
  driver.set(VIRTIO_MMIO_STATUS, 0);
  EXPECT_EQ(woken, 1);
  vsock.tend();
  char byte = 0;
  EXPECT_EQ(::read(stream->get(), &byte, 1), 0) << "the other side is gone";
  EXPECT_FALSE(vsock.connect(1024)) << "there is no driver";
}

TEST(Frames, PartsAreKeptUntilTheyAreWholeAndNonsenseEndsTheStream) {
  int pair[2];
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
  FrameStream frames((Fd(pair[0])));
  Fd other(pair[1]);
  std::string text = "{\"a\":1}";
  hobbes_frame head{static_cast<std::uint32_t>(text.size()), HOBBES_FRAME_JSON};
  std::string bytes(reinterpret_cast<const char*>(&head), sizeof head);
  bytes += text;
  for (char c : bytes) {
    auto before = frames.receive();
    ASSERT_TRUE(before);
    EXPECT_TRUE(before->empty());
    ASSERT_EQ(::write(other.get(), &c, 1), 1);
  }
  auto whole = frames.receive();
  ASSERT_TRUE(whole);
  ASSERT_EQ(whole->size(), 1U);
  EXPECT_EQ(number_at(whole->at(0), "a"), 1);
  // Of two frames, the first alone.
  ASSERT_EQ(::write(other.get(), (bytes + bytes).data(), 2 * bytes.size()),
            static_cast<ssize_t>(2 * bytes.size()));
  std::optional<std::vector<Json>> one = std::vector<Json>();
  while (one && one->empty()) one = frames.receive_one();
  EXPECT_EQ(one->size(), 1U);
  EXPECT_EQ(frames.receive()->size(), 1U);
  head.length = HOBBES_FRAME_LIMIT + 1;
  ASSERT_EQ(::write(other.get(), &head, sizeof head), static_cast<ssize_t>(sizeof head));
  EXPECT_FALSE(frames.receive());
}

// The agent closes its side while input is still on its way.
TEST(AgentConnection, AProgramThatHasEndedBeforeItTookItsInputIsHeardToItsEnd) {
  int pair[2], input[2], output[2];
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
  ASSERT_EQ(::pipe(input), 0);
  ASSERT_EQ(::pipe(output), 0);
  Fd in(input[0]), out(output[0]), written(output[1]);
  AgentConnection program((Fd(pair[0])));
  ASSERT_EQ(::write(input[1], "unwanted", 8), 8);
  ::close(input[1]);
  std::string words =
      framed(HOBBES_FRAME_STDOUT, "result") + framed(HOBBES_FRAME_JSON, R"({"exited":3})");
  ASSERT_EQ(::write(pair[1], words.data(), words.size()), static_cast<ssize_t>(words.size()));
  ::close(pair[1]);
  ::signal(SIGPIPE, SIG_IGN);
  auto status = relay_stdio(program, {in.get(), written.get(), written.get(), -1});
  ASSERT_TRUE(status) << status.error().text();
  EXPECT_EQ(*status, 3 << 8);
  char text[16];
  EXPECT_EQ(std::string(text, static_cast<std::size_t>(::read(out.get(), text, sizeof text))),
            "result");
}

}  // namespace
}  // namespace hobbes::vmm
