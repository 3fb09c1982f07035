/* What a virtual machine of Palacios finds beside what every PC has, version 1. Document:
 * docs/PALACIOS.md. */
#ifndef HOBBES_ABI_VM_H
#define HOBBES_ABI_VM_H

/* CPUID: EBX this magic, EDX the enclave's number, as in the ancestors; EAX the time stamp
 * counter's frequency in kHz, 0: not known. */
#define HOBBES_VM_LEAF 0x41000000
#define HOBBES_VM_MAGIC 0x53495350

/* Ports, also described by ACPI. */
#define HOBBES_VM_PANIC_PORT 0x505 /* writing HOBBES_VM_PANICKED ends the guest as crashed */
#define HOBBES_VM_PANICKED 0x01
#define HOBBES_VM_SLEEP_PORT 0x600 /* writing HOBBES_VM_POWER_OFF ends it in order */
#define HOBBES_VM_POWER_OFF 0x34
#define HOBBES_VM_RESET_PORT 0x604 /* writing HOBBES_VM_RESET asks for a reboot */
#define HOBBES_VM_RESET 0x01

#endif
