// Where things are in a guest's physical address space, version 1. Document: docs/PALACIOS.md.
#pragma once
#include <cstdint>

#include "abi/vm.h"

namespace hobbes::vmm {

using Gpa = std::uint64_t;  ///< guest physical address

inline constexpr std::uint64_t mib = 1 << 20;
inline constexpr std::uint64_t gib = 1 << 30;

// What a guest's first instructions need, below 640 KiB; all of it is RAM that the guest may use
// again.
inline constexpr Gpa gdt_at = 0x500;
inline constexpr Gpa start_info_at = 0x6000;  ///< PVH
inline constexpr Gpa memory_map_at = 0x6100;
inline constexpr Gpa modules_at = 0x6800;
inline constexpr Gpa boot_params_at = 0x7000;  ///< Linux's 64-bit protocol
inline constexpr Gpa page_tables_at = 0x9000;  ///< six pages
inline constexpr Gpa command_line_at = 0x20000;
inline constexpr std::uint64_t command_line_limit = 2048;  ///< Linux's COMMAND_LINE_SIZE
inline constexpr Gpa conventional_end = 0x9fc00;
inline constexpr Gpa acpi_at = 0xe0000;  ///< reserved, up to 1 MiB
inline constexpr Gpa extended_at = 0x100000;

inline constexpr Gpa low_end = 0xc000'0000;  ///< RAM goes on at 4 GiB
inline constexpr Gpa virtio_at = 0xd000'0000;
inline constexpr std::uint64_t virtio_stride = 0x1000;
inline constexpr unsigned virtio_gsi = 5;  ///< of the first device; edge triggered
inline constexpr Gpa io_apic_at = 0xfec0'0000;
inline constexpr Gpa local_apic_at = 0xfee0'0000;
inline constexpr Gpa identity_map_at = 0xfffb'c000;  ///< KVM's own, on Intel
inline constexpr Gpa task_state_at = 0xfffb'd000;
inline constexpr Gpa high_at = 0x1'0000'0000;
inline constexpr Gpa window_at =
    0x40'0000'0000;  ///< segments of the fabric, each its own memory slot
inline constexpr std::uint64_t window_stride = 4 * gib;  ///< every slot has so much to itself
inline constexpr Gpa window_end = 0x80'0000'0000;        ///< within 39 bits
inline constexpr Gpa dax_at = 0x78'0000'0000;  ///< windows of shared folders, behind the segments
inline constexpr std::uint64_t dax_stride = gib;
inline constexpr std::uint64_t dax_unit = 2 * mib;  ///< drivers map so much at once

// Ports.
inline constexpr std::uint16_t serial_port = 0x3f8;
inline constexpr unsigned serial_gsi = 4;
inline constexpr unsigned power_button_gsi = 3;
inline constexpr std::uint16_t panic_port = HOBBES_VM_PANIC_PORT;
inline constexpr std::uint16_t sleep_port =
    HOBBES_VM_SLEEP_PORT;  ///< control; status is the next one
inline constexpr std::uint16_t reset_port = HOBBES_VM_RESET_PORT;

}  // namespace hobbes::vmm
