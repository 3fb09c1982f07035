/* SPDX-License-Identifier: GPL-2.0 */
/* The page of trampoline.S as C sees it. */
#ifndef HOBBES_TRAMPOLINE_H
#define HOBBES_TRAMPOLINE_H

#include <linux/types.h>

extern const u8 hobbes_trampoline[], hobbes_trampoline_end[], hobbes_trampoline_parameters[];
extern const u8 hobbes_trampoline_gdt[];
extern const u32 hobbes_trampoline_long;

enum trampoline_mode { MODE_BOOT = 0, MODE_PARK = 1 };

struct parameters {
	u32 mode;
	u32 arrived; /* 1 parked, 2 in 64-bit mode */
	u32 tables;
	u32 pad;
	u64 entry, argument0, argument1;
	u32 long_entry, long_selector;
	u16 gdt_limit;
	u32 gdt_address;
} __packed;

#endif
