#include "vmm/acpi.h"

#include <string>

#include "vmm/power.h"

namespace hobbes::vmm {
namespace {

class Bytes {
 public:
  Bytes& u8(std::uint64_t value) { return put(value, 1); }
  Bytes& u16(std::uint64_t value) { return put(value, 2); }
  Bytes& u32(std::uint64_t value) { return put(value, 4); }
  Bytes& u64(std::uint64_t value) { return put(value, 8); }
  Bytes& text(std::string_view chars, std::size_t width) {
    for (std::size_t i = 0; i < width; ++i) data_ += i < chars.size() ? chars[i] : '\0';
    return *this;
  }
  Bytes& raw(const std::string& bytes) {
    data_ += bytes;
    return *this;
  }
  Bytes& zeros(std::size_t count) {
    data_.append(count, '\0');
    return *this;
  }
  [[nodiscard]] const std::string& str() const { return data_; }

 private:
  Bytes& put(std::uint64_t value, unsigned width) {
    for (unsigned i = 0; i < width; ++i) data_ += static_cast<char>(value >> (8 * i));
    return *this;
  }
  std::string data_;
};

// The sum of a table's bytes is zero (5.2.6).
void seal(std::string& table, std::size_t at, std::size_t length) {
  unsigned sum = 0;
  for (std::size_t i = 0; i < length; ++i) sum += static_cast<unsigned char>(table[i]);
  table[at] = static_cast<char>(static_cast<unsigned char>(table[at]) - sum);
}

std::string table(std::string_view signature, unsigned revision, const std::string& body) {
  Bytes out;
  out.text(signature, 4)
      .u32(36 + body.size())
      .u8(revision)
      .u8(0)
      .text("HOBBES", 6)
      .text("PALACIOS", 8)
      .u32(1)
      .text("HOBB", 4)
      .u32(1);
  std::string text = out.raw(body).str();
  seal(text, 9, text.size());
  return text;
}

// ---- AML (chapter 20): just what a few devices need ----

std::string package_length(std::size_t content) {
  Bytes out;
  if (content + 1 < 64) return out.u8(content + 1).str();
  if (content + 2 < 4096) return out.u8(0x40 | ((content + 2) & 15U)).u8((content + 2) >> 4U).str();
  return out.u8(0x80 | ((content + 3) & 15U))
      .u8((content + 3) >> 4U & 255U)
      .u8((content + 3) >> 12U)
      .str();
}
std::string name(std::string_view segment, const std::string& value) {
  return "\x08" + std::string(segment) + value;
}
std::string text_value(const std::string& text) { return "\x0d" + text + std::string(1, '\0'); }
std::string dword(std::uint64_t value) { return Bytes().u8(0x0c).u32(value).str(); }
std::string device(std::string_view segment, const std::string& content) {
  return "\x5b\x82" + package_length(4 + content.size()) + std::string(segment) + content;
}
std::string method(std::string_view segment, unsigned arguments, const std::string& content) {
  constexpr unsigned serialized = 8;
  std::string flags = Bytes().u8(serialized | arguments).str();
  return "\x14" + package_length(4 + flags.size() + content.size()) + std::string(segment) + flags +
         content;
}
std::string notify(std::string_view segment, unsigned what) {
  return "\x86" + std::string(segment) + Bytes().u8(0x0a).u8(what).str();
}
std::string scope(const std::string& path, const std::string& content) {
  return "\x10" + package_length(path.size() + content.size()) + path + content;
}
std::string buffer(const std::string& content) {
  std::string size = Bytes().u8(0x0b).u16(content.size()).str();
  return "\x11" + package_length(size.size() + content.size()) + size + content;
}
std::string resources(const std::string& content) {
  return buffer(content + std::string("\x79\0", 2));
}
std::string memory_range(Gpa address, std::uint64_t size) {
  return Bytes().u8(0x86).u16(9).u8(1).u32(address).u32(size).str();
}
// Consumer, edge triggered, active high, exclusive.
std::string interrupt(unsigned gsi) {
  return Bytes().u8(0x89).u16(6).u8(0x03).u8(1).u32(gsi).str();
}
std::string ports(std::uint16_t base, unsigned count) {
  return Bytes().u8(0x47).u8(1).u16(base).u16(base).u8(1).u8(count).str();
}

std::string definition_block(const AcpiMachine& machine) {
  std::string devices;
  unsigned number = 0;
  for (const AcpiMachine::Virtio& one : machine.virtio) {
    std::string id = "VR0" + std::string(1, static_cast<char>('A' + number));
    devices += device(id, name("_HID", text_value("LNRO0005")) + name("_UID", dword(number)) +
                              name("_CRS", resources(memory_range(one.address, virtio_stride) +
                                                     interrupt(one.gsi))));
    ++number;
  }
  devices +=
      device("COM1", name("_HID", "\x0c\x41\xd0\x05\x01") + name("_UID", dword(0)) +
                         name("_CRS", resources(ports(serial_port, 8) + interrupt(serial_gsi))));
  devices += device("PEVT", name("_HID", text_value("QEMU0001")) + name("_STA", dword(15)) +
                                name("_CRS", resources(ports(panic_port, 1))));
  // The power button, and whose interrupt tells that it was pressed (5.6.9).
  constexpr unsigned pressed = 0x80;
  devices += device("PWRB", name("_HID", "\x0c\x41\xd0\x0c\x0c"));
  devices += device("EVTS", name("_HID", text_value("ACPI0013")) +
                                name("_CRS", resources(interrupt(power_button_gsi))) +
                                method("_EVT", 1, notify("PWRB", pressed)));
  // \_S5 = Package { 5, 5, 0, 0 }
  std::string off = name(
      "_S5_",
      "\x12" + package_length(7) +
          Bytes().u8(4).u8(0x0a).u8(sleep_type_off).u8(0x0a).u8(sleep_type_off).u8(0).u8(0).str());
  return off + scope("\\_SB_", devices);
}

// A generic address structure (5.2.3.2) of one byte in port space.
std::string port_register(std::uint16_t port) {
  return Bytes().u8(1).u8(8).u8(0).u8(1).u64(port).str();
}

std::string fixed_description(Gpa dsdt) {
  constexpr std::uint32_t hardware_reduced = 1U << 20U, reset_supported = 1U << 10U,
                          no_fixed_buttons = 3U << 4U;
  Bytes out;  // offsets below are from the table's beginning, of which 36 bytes are its header
  out.u32(0).u32(0).zeros(1).u8(0).u16(0);  // 36: FACS, DSDT, reserved, profile, SCI
  out.zeros(109 - 48);                      // 48: what hardware-reduced machines do not have
  out.u16(0x0024).u8(0);  // 109: no VGA, no clock chip (KVM's clock tells the time); reserved
  out.u32(hardware_reduced | reset_supported | no_fixed_buttons);  // 112
  out.raw(port_register(reset_port)).u8(HOBBES_VM_RESET);          // 116
  out.u16(0).u8(4);                                                // 129: minor version
  out.u64(0).u64(dsdt);                                            // 132
  out.zeros(244 - 148);                                            // 148
  out.raw(port_register(sleep_port)).raw(port_register(sleep_port + 1)).u64(0);
  return table("FACP", 6, out.str());
}

std::string processors(unsigned cpus) {
  Bytes out;
  out.u32(local_apic_at).u32(0);
  for (unsigned i = 0; i < cpus; ++i) out.u8(0).u8(8).u8(i).u8(i).u32(1);
  out.u8(1).u8(12).u8(0).u8(0).u32(io_apic_at).u32(0);
  return table("APIC", 5, out.str());
}

}  // namespace

Result<Gpa> write_acpi(const GuestMemory& memory, const AcpiMachine& machine) {
  Gpa next = acpi_at + 64;
  auto place = [&](const std::string& content) -> Gpa {
    Gpa at = next;
    auto to = memory.at(at, content.size());
    if (to.empty() || at + content.size() > extended_at) return 0;
    std::memcpy(to.data(), content.data(), content.size());
    next = (at + content.size() + 15) & ~std::uint64_t{15};
    return at;
  };
  Gpa dsdt = place(table("DSDT", 2, definition_block(machine)));
  Gpa fixed = place(fixed_description(dsdt));
  Gpa apics = place(processors(machine.cpus));
  Gpa all = place(table("XSDT", 1, Bytes().u64(fixed).u64(apics).str()));
  std::string root = Bytes()
                         .text("RSD PTR ", 8)
                         .u8(0)
                         .text("HOBBES", 6)
                         .u8(2)
                         .u32(0)
                         .u32(36)
                         .u64(all)
                         .u8(0)
                         .zeros(3)
                         .str();
  seal(root, 8, 20);
  seal(root, 32, 36);
  auto to = memory.at(acpi_at, root.size());
  if (dsdt == 0 || fixed == 0 || apics == 0 || all == 0 || to.empty())
    return Error{Code::exhausted, "describe the machine to the guest",
                 "its ACPI tables do not fit below 1 MiB", "use fewer vCPUs"};
  std::memcpy(to.data(), root.data(), root.size());
  return acpi_at;
}

}  // namespace hobbes::vmm
