/* The character device of hobbes.ko, version 2: what user space may ask of the co-kernel module.
 * C11-clean; no libc. Document: docs/KMOD.md. A change of this file is a change of the format:
 * raise the version and the document with it.
 *
 * Six nouns. A *pool* is memory that Linux has given up. An open descriptor is an *enclave*: the
 * ordered list of what it has claimed, undone in reverse when the last copy of the descriptor is
 * closed. An *extent* is a piece of the pool, a *pin* is Linux's memory made visible to the
 * enclave, a *doorbell* is an interrupt in one of the two directions, a *view* shows one address
 * space of a co-kernel to one process (abi/forward.h). Cores are claims of an enclave.
 *
 * Taking from Linux (pool, core, extent) needs CAP_SYS_ADMIN; all else needs only the descriptor.
 * reading the device gives a report for people and programs (docs/KMOD.md).
 */
#ifndef HOBBES_ABI_KMOD_H
#define HOBBES_ABI_KMOD_H

#ifdef __KERNEL__
#include <linux/ioctl.h>
#include <linux/types.h>
#else
#include <stdint.h>
#include <sys/ioctl.h>
#endif

#define HOBBES_KMOD_DEVICE "/dev/hobbes"
#define HOBBES_KMOD_VERSION 2
#define HOBBES_FRAME_SIZE 0x200000ULL /* extents are multiples of this */

enum { HOBBES_KMOD_NAME_SIZE = 64, HOBBES_KMOD_SLOTS = 512 };

/* Why Linux stopped an enclave's cores by itself. */
enum hobbes_kmod_reason { HOBBES_KMOD_NO_REASON = 0, HOBBES_KMOD_STORM = 1 };

struct hobbes_kmod_version {
  uint32_t version; /* out: HOBBES_KMOD_VERSION */
  uint32_t x2apic;  /* out: 1 when interrupts are sent in x2APIC encoding */
  uint64_t tsc_khz; /* out: what Linux measured */
};

struct hobbes_kmod_enclave {
  char name[HOBBES_KMOD_NAME_SIZE]; /* in: for reports, NUL-terminated */
};

/* A piece of memory that Linux must have offline; it stays off while it is in the pool. */
struct hobbes_kmod_chunk {
  uint64_t address, size; /* in: physical, multiples of HOBBES_FRAME_SIZE */
  uint32_t node;          /* in: NUMA node */
  uint32_t pad;
};

struct hobbes_kmod_extent {
  uint64_t
      size; /* in: wanted; out: got, at most the wanted, at least HOBBES_FRAME_SIZE. Cleared. */
  uint64_t address; /* out: physical */
  uint32_t node;    /* in */
  uint32_t slot;    /* out of TAKE, in of RETURN */
};

struct hobbes_kmod_core {
  uint32_t cpu;     /* in: Linux's number */
  uint32_t apic_id; /* out */
};

/* Starts a taken core in 64-bit mode with interrupts off, paging on with the frames of extent
 * `slot` (its first GiB) mapped at their physical addresses, %rdi and %rsi as given. The extent's
 * first page is the enclave's status page (abi/kitten.h). */
struct hobbes_kmod_boot {
  uint32_t cpu, slot;
  uint64_t entry; /* physical, inside the extent */
  uint64_t rdi, rsi;
};

struct hobbes_kmod_signal {
  uint32_t cpu;
  uint32_t vector; /* 0x20 .. 0xff, or 0 for an NMI */
};

/* The doorbell towards Linux: the interrupt vector's number and destination are published in the
 * status page and kept current. */
struct hobbes_kmod_doorbell {
  int32_t eventfd; /* in: signalled at each ring */
  uint32_t cpu;    /* in: where Linux takes the interrupt */
};

struct hobbes_kmod_run {
  uint64_t address, size; /* physical */
};

struct hobbes_kmod_pin {
  uint64_t address, size; /* in: of the caller's memory, page-aligned */
  uint64_t runs;          /* in: pointer to struct hobbes_kmod_run[capacity] */
  uint32_t capacity;      /* in */
  uint32_t count;         /* out: runs written */
  uint32_t writable;      /* in: 0 or 1 */
  uint32_t slot;          /* out of PIN, in of UNPIN */
};

struct hobbes_kmod_view {
  int32_t fd;      /* out: its descriptor, close-on-exec */
  uint32_t number; /* out: in the view table */
};

struct hobbes_kmod_state {
  uint32_t reason; /* out: enum hobbes_kmod_reason */
  uint32_t cores;  /* out: how many it holds */
  uint64_t rings;  /* out: doorbells taken by Linux */
  uint64_t memory; /* out: bytes of extents it holds */
};

#define HOBBES_KMOD_MAGIC 0xB5
#define HOBBES_IOC_VERSION _IOWR(HOBBES_KMOD_MAGIC, 0, struct hobbes_kmod_version)
#define HOBBES_IOC_POOL_ADD _IOWR(HOBBES_KMOD_MAGIC, 1, struct hobbes_kmod_chunk)
/* Errors: EBUSY while an extent is taken from it. */
#define HOBBES_IOC_POOL_REMOVE _IOWR(HOBBES_KMOD_MAGIC, 2, struct hobbes_kmod_chunk)
/* Waits until every enclave whose descriptor was closed has given back what it held. */
#define HOBBES_IOC_SETTLE _IO(HOBBES_KMOD_MAGIC, 3)
/* Errors: EINVAL for a name that is empty or has other characters than printable ASCII without
 * blanks. */
#define HOBBES_IOC_NAME _IOWR(HOBBES_KMOD_MAGIC, 4, struct hobbes_kmod_enclave)
#define HOBBES_IOC_STATE _IOWR(HOBBES_KMOD_MAGIC, 5, struct hobbes_kmod_state)
#define HOBBES_IOC_EXTENT_TAKE _IOWR(HOBBES_KMOD_MAGIC, 6, struct hobbes_kmod_extent)
/* Errors: EBUSY while a core runs and has not marked the slot released in the status page. */
#define HOBBES_IOC_EXTENT_RETURN _IOWR(HOBBES_KMOD_MAGIC, 7, struct hobbes_kmod_extent)
#define HOBBES_IOC_CORE_TAKE _IOWR(HOBBES_KMOD_MAGIC, 8, struct hobbes_kmod_core)
#define HOBBES_IOC_CORE_RETURN _IOWR(HOBBES_KMOD_MAGIC, 9, struct hobbes_kmod_core)
#define HOBBES_IOC_BOOT _IOWR(HOBBES_KMOD_MAGIC, 10, struct hobbes_kmod_boot)
/* Parks the core; ETIMEDOUT when it did not acknowledge: then it and the enclave's memory are
 * quarantined. */
#define HOBBES_IOC_STOP _IOWR(HOBBES_KMOD_MAGIC, 11, struct hobbes_kmod_core)
#define HOBBES_IOC_SIGNAL _IOWR(HOBBES_KMOD_MAGIC, 12, struct hobbes_kmod_signal)
#define HOBBES_IOC_DOORBELL _IOWR(HOBBES_KMOD_MAGIC, 13, struct hobbes_kmod_doorbell)
#define HOBBES_IOC_PIN _IOWR(HOBBES_KMOD_MAGIC, 14, struct hobbes_kmod_pin)
/* Errors: as EXTENT_RETURN. */
#define HOBBES_IOC_UNPIN _IOWR(HOBBES_KMOD_MAGIC, 15, struct hobbes_kmod_pin)
/* Errors: ENOSPC when all HOBBES_VIEWS are in use. */
#define HOBBES_IOC_VIEW _IOWR(HOBBES_KMOD_MAGIC, 16, struct hobbes_kmod_view)

#endif
