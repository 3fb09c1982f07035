/* SPDX-License-Identifier: GPL-2.0 */
/* Where an address leads by page tables that a co-kernel has written: the four levels of x86-64
 * (AMD64 Architecture Programmer's Manual vol. 2, 5.3), and nothing trusted in them. Also compiled
 * for the host, by tests/unit/walk_test.cpp and tests/fuzz/walk.cpp.
 */
#ifndef HOBBES_WALK_H
#define HOBBES_WALK_H

#ifdef __KERNEL__
#include <linux/types.h>
#else
#include <stdbool.h>
#include <stdint.h>
#endif

enum walk_result {
	WALK_NOTHING,	/* no page is there */
	WALK_FORBIDDEN, /* a page is there, but not for programs, or not to be written */
	WALK_CORRUPT,	/* a table or page is none of the enclave's */
	WALK_FOUND,
};

#define WALK_PAGE     4096ULL
#define WALK_PRESENT  1ULL
#define WALK_WRITABLE 2ULL
#define WALK_PROGRAM  4ULL
#define WALK_LARGE    0x80ULL
#define WALK_ADDRESS  0x000ffffffffff000ULL

/* `memory` gives this kernel's address of a page of the enclave's, NULL for any other. The entries
 * may change at any time: each is read once.
 */
static inline enum walk_result walk_tables(const void *(*memory)(void *context, uint64_t address),
					   void *context, uint64_t root, uint64_t address,
					   bool write, uint64_t *physical, bool *writable)
{
	uint64_t entry = root & WALK_ADDRESS, rights = WALK_PROGRAM | WALK_WRITABLE, inside;
	int shift;

	for (shift = 39;; shift -= 9) {
		const volatile uint64_t *table =
			(const volatile uint64_t *)memory(context, entry & WALK_ADDRESS);

		if (!table)
			return WALK_CORRUPT;
		entry = table[address >> shift & 511];
		if (!(entry & WALK_PRESENT))
			return WALK_NOTHING;
		rights &= entry;
		if (shift == 12 || ((entry & WALK_LARGE) && shift != 39))
			break;
		if (entry & WALK_LARGE)
			return WALK_CORRUPT;
	}
	if (!(rights & WALK_PROGRAM) || (write && !(rights & WALK_WRITABLE)))
		return WALK_FORBIDDEN;
	inside = (1ULL << shift) - 1;
	*physical = (entry & WALK_ADDRESS & ~inside) + (address & inside & ~(WALK_PAGE - 1));
	*writable = rights & WALK_WRITABLE;
	return memory(context, *physical) ? WALK_FOUND : WALK_CORRUPT;
}

#endif
