/* What Linux and a co-kernel share, version 3: the status page, the boot parameters, and the
 * messages of its command channel. C11-clean; no libc. Document: docs/KITTEN.md. A change of this
 * file is a change of the format: raise the version with it.
 *
 * The first extent of an enclave (2 MiB-aligned) begins with
 *     +0        struct hobbes_status            4 KiB
 *     +4 KiB    struct hobbes_boot              28 KiB
 *     +64 KiB   console ring                    64 KiB    (abi/ring.h)
 *     +128 KiB  request ring, Linux to kernel   64 KiB
 *     +192 KiB  reply ring, kernel to Linux     64 KiB
 *     +256 KiB  view table                      100 KiB    (abi/forward.h)
 *     +2 MiB    the kernel image
 */
#ifndef HOBBES_ABI_KITTEN_H
#define HOBBES_ABI_KITTEN_H

#ifdef __KERNEL__
#include <linux/types.h>
#else
#include <stdint.h>
#endif

#ifdef __cplusplus
#define HOBBES_KITTEN_ASSERT(condition) static_assert(condition, #condition)
extern "C" {
#else
#define HOBBES_KITTEN_ASSERT(condition) _Static_assert(condition, #condition)
#endif

#define HOBBES_BOOT_MAGIC 0x746f6f422d62624fULL   /* "Obb-Boot" */
#define HOBBES_STATUS_MAGIC 0x746174532d62624fULL /* "Obb-Stat" */
#define HOBBES_KITTEN_VERSION 3

#define HOBBES_BOOT_OFFSET 0x1000ULL
#define HOBBES_CONSOLE_OFFSET 0x10000ULL
#define HOBBES_REQUEST_OFFSET 0x20000ULL
#define HOBBES_REPLY_OFFSET 0x30000ULL
#define HOBBES_RING_BYTES 0x10000ULL
#define HOBBES_IMAGE_OFFSET 0x200000ULL

enum { HOBBES_KITTEN_CORES = 256, HOBBES_KITTEN_EXTENTS = 256, HOBBES_KITTEN_SLOTS = 512 };

/* The vector Linux rings a co-kernel's core 0 with. */
#define HOBBES_KITTEN_DOORBELL 0xf0

enum hobbes_kitten_state {
  HOBBES_KITTEN_ENTERED = 1, /* its first instruction ran */
  HOBBES_KITTEN_BOOTING = 2, /* in its own page tables */
  HOBBES_KITTEN_RUNNING = 3, /* answers commands */
  HOBBES_KITTEN_HALTED = 4,  /* shut down as asked */
  HOBBES_KITTEN_FAULTED = 5  /* see `fault` */
};

/* The last report of a core that met a fault or an NMI. */
struct hobbes_fault {
  uint32_t vector; /* x86 exception number; 2 is an NMI, 0x100 a panic */
  uint32_t core;   /* the enclave's number */
  uint64_t error, rip, rsp, rflags, cr2, cr3;
  uint64_t registers[16]; /* rax rbx rcx rdx rsi rdi rbp r8 .. r15, 0 */
  uint64_t trace[16];     /* return addresses, 0-terminated */
  char text[160];         /* for people, NUL-terminated */
};

/* One page, written by the co-kernel except where said. Linux trusts nothing in it. */
struct hobbes_status {
  uint64_t magic;
  uint32_t version;
  uint32_t state;               /* enum hobbes_kitten_state */
  uint64_t heartbeat;           /* raised at every entry to the kernel on core 0 */
  uint64_t doorbell;            /* written by Linux: ICR for the interrupt towards it, high half the
                                   destination register; 0: none yet */
  uint32_t cores_up;            /* how many have been started */
  uint32_t probes;              /* NMIs answered */
  uint64_t unknown;             /* interrupts of vectors nobody asked for */
  uint64_t rings;               /* doorbells taken */
  uint64_t memory, memory_free; /* bytes */
  uint64_t processes;           /* of programs */
  uint64_t forwarded;           /* system calls, to proxies */
  uint64_t proxies_woken;       /* of these, with a doorbell */
  uint64_t page_faults;         /* of programs, that were filled */
  uint64_t released[HOBBES_KITTEN_SLOTS /
                    64]; /* bit n: slot n of the module is mapped by no core any more */
  struct hobbes_fault fault;
  struct hobbes_fault nmi;
  uint64_t interrupts[HOBBES_KITTEN_CORES]; /* taken by each core */
};

struct hobbes_boot_core {
  uint32_t apic_id;
  uint32_t cpu; /* Linux's number */
};

struct hobbes_boot_extent {
  uint64_t address, size; /* physical */
  uint32_t slot, node;
};

struct hobbes_boot {
  uint64_t magic;
  uint32_t version;
  uint32_t size;              /* bytes of this struct */
  uint64_t base;              /* physical address of the first extent, where this layout begins */
  uint64_t image, image_size; /* physical, bytes loaded (the kernel's own bss included) */
  uint64_t tsc_khz;
  uint64_t wall_ns, wall_tsc; /* CLOCK_REALTIME and the time stamp counter at one instant */
  uint64_t monotonic_ns;      /* CLOCK_MONOTONIC at that instant */
  uint64_t xcr0;              /* the processor's extended states that Linux uses; 0: unknown */
  uint64_t enclave;           /* id in the NIS, 0: none */
  uint32_t cores, extents;
  uint32_t x2apic;
  uint32_t alone; /* 1: no Linux on this machine; the console is the serial port */
  char name[128];
  char command_line[1024];
  struct hobbes_boot_core core[HOBBES_KITTEN_CORES];
  struct hobbes_boot_extent extent[HOBBES_KITTEN_EXTENTS];
};

/* Messages of the command channel (abi/ring.h frames them). A reply repeats the number and the
 * operation. */
enum hobbes_kitten_operation {
  HOBBES_KITTEN_PING = 1,  /* payload comes back */
  HOBBES_KITTEN_QUERY = 2, /* reply: struct hobbes_kitten_facts */
  HOBBES_KITTEN_ADD_CORE =
      3, /* struct hobbes_boot_core; Linux then boots it with the index of the reply (u32) */
  HOBBES_KITTEN_REMOVE_CORE = 4,   /* u32 apic id; afterwards that core is halted for good */
  HOBBES_KITTEN_ADD_MEMORY = 5,    /* struct hobbes_boot_extent */
  HOBBES_KITTEN_REMOVE_MEMORY = 6, /* u32 slot; afterwards its released bit is set */
  HOBBES_KITTEN_MAP = 7,           /* struct hobbes_kitten_map and its runs */
  HOBBES_KITTEN_UNMAP = 8, /* u32 slot, of a whole window; afterwards its released bit is set */
  HOBBES_KITTEN_FIND = 9,  /* looks its own record up in the mirror; reply: struct hobbes_record */
  HOBBES_KITTEN_SHUT_DOWN = 10,
  HOBBES_KITTEN_CALLS = 11,  /* reply: struct hobbes_kitten_calls[], of what was forwarded */
  HOBBES_KITTEN_OWN = 0x1000 /* from here on: commands of test images */
};

struct hobbes_kitten_message {
  uint32_t number;    /* chosen by the asker */
  uint16_t operation; /* enum hobbes_kitten_operation */
  uint16_t error;     /* in replies: an errno, 0 good */
};

struct hobbes_kitten_facts {
  uint32_t cores, extents;
  uint64_t memory, memory_free;
  uint64_t uptime_ns;
  uint64_t wall_ns;
  char name[128];
};

struct hobbes_kitten_calls {
  uint64_t number; /* of the system call */
  uint64_t count;
};

enum hobbes_kitten_window { HOBBES_WINDOW_NIS = 1, HOBBES_WINDOWS = 16 };

/* Linux's frames at a known place of the co-kernel's address space, to be read. Windows larger than
 * one message come in several, in order. */
struct hobbes_kitten_map {
  uint32_t slot;
  uint16_t window; /* enum hobbes_kitten_window */
  uint16_t pad;
  uint64_t offset; /* bytes into the window where the first run goes */
  uint64_t total;  /* bytes of the whole window */
  /* struct { uint64_t address, size; } runs[] up to the end of the message */
};

HOBBES_KITTEN_ASSERT(sizeof(struct hobbes_fault) == 472);
HOBBES_KITTEN_ASSERT(sizeof(struct hobbes_status) <= 4096);
HOBBES_KITTEN_ASSERT(sizeof(struct hobbes_boot) <= HOBBES_CONSOLE_OFFSET - HOBBES_BOOT_OFFSET);
HOBBES_KITTEN_ASSERT(sizeof(struct hobbes_kitten_message) == 8);
HOBBES_KITTEN_ASSERT(sizeof(struct hobbes_kitten_map) == 24);

#ifdef __cplusplus
}
#endif
#endif
