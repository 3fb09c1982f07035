/* The encoding of an interrupt command (Intel SDM vol. 3, 11.6.1 and 11.12.9), shared by hobbes.ko
 * and Kitten. C11-clean; no libc. The emulator has no x2APIC, so that half is covered by unit tests
 * only. */
#ifndef HOBBES_ABI_APIC_H
#define HOBBES_ABI_APIC_H

#ifdef __KERNEL__
#include <linux/types.h>
#else
#include <stdint.h>
#endif

/* `low` is the command's low word. xAPIC has the destination in bits 56-63, x2APIC in bits 32-63.
 */
static inline uint64_t hobbes_interrupt_command(int x2apic, uint32_t destination, uint32_t low) {
  uint32_t high = x2apic ? destination : destination << 24;
  return (uint64_t)high << 32 | low;
}

#endif
