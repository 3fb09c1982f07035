/* Kitten's address space; the same in every enclave, wherever its memory is. Also read by the
 * assembler.
 *
 *   0xffff800000000000  every byte of its own memory, at this plus its physical address (tables and
 * stacks read-only, the image absent) 0xffffc00000000000  stacks, one megabyte of addresses per
 * core, guard pages between 0xffffe00000000000  the local APIC 0xfffff00000000000  windows: Linux's
 * frames that its control process has pinned, 64 GiB of addresses each 0xffffffff80000000  the
 * image: text, constants, data 0xffffffff80200000  the first 2 MiB of its memory: status page, boot
 * parameters, rings (abi/kitten.h)
 */
#ifndef KITTEN_LAYOUT_H
#define KITTEN_LAYOUT_H

#define IMAGE_ADDRESS 0xffffffff80000000
#define SHARED_ADDRESS 0xffffffff80200000
#define IMAGE_LOAD_ADDRESS 0x1200000 /* when it is loaded alone */
#define STATUS_FAULT 168             /* offsetof(hobbes_status, fault) */

#ifdef __ASSEMBLER__
#define HOBBES_IMAGE_OFFSET 0x200000
#else
#include "abi/kitten.h"

namespace kitten {

constexpr uint64_t physical_map = 0xffff800000000000;
constexpr uint64_t stack_area = 0xffffc00000000000;
constexpr uint64_t stack_stride = 1ULL << 20U;
constexpr uint64_t apic_address = 0xffffe00000000000;
constexpr uint64_t window_area = 0xfffff00000000000;
constexpr uint64_t window_stride = 64ULL << 30U;
constexpr uint64_t frame_size = 4096;
constexpr uint64_t block_size = 0x200000;

static_assert(__builtin_offsetof(hobbes_status, fault) == STATUS_FAULT);
static_assert(__builtin_offsetof(hobbes_status, state) == 12);
static_assert(__builtin_offsetof(hobbes_fault, error) == 8 &&
              __builtin_offsetof(hobbes_fault, cr2) == 40);

}  // namespace kitten
#endif
#endif
