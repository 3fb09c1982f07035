/* SPDX-License-Identifier: GPL-2.0 */
/* The encoding of an interrupt command (Intel SDM vol. 3, 11.6.1 and 11.12.9), free of any kernel
 * header so that it has unit tests.
 */
#ifndef HOBBES_APIC_H
#define HOBBES_APIC_H

/* `low` is the command's low word. xAPIC has the destination in bits 56-63, x2APIC in bits 32-63.
 */
static inline unsigned long long hobbes_interrupt_command(int x2apic, unsigned int destination, unsigned int low)
{
	unsigned int high = x2apic ? destination : destination << 24;

	return (unsigned long long)high << 32 | low;
}

#endif
