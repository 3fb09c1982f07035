/* System calls that a co-kernel forwards to Linux, version 1: what the kernel, hobbes.ko and the
 * proxies of its programs share. C11-clean; no libc. Document: docs/KITTEN.md, "Forwarded calls".
 * A change of this file is a change of the format: raise the version with it.
 *
 * A *view* shows one address space of a co-kernel to one Linux process, the *proxy*, at identical
 * addresses. The view table lies in the first extent at HOBBES_VIEWS_OFFSET and is seen by the
 * kernel and the module, never by a proxy. The call frames, one page for each thread, are seen by
 * the kernel and the proxy, and by nobody trusted by the other.
 */
#ifndef HOBBES_ABI_FORWARD_H
#define HOBBES_ABI_FORWARD_H

#ifdef __KERNEL__
#include <linux/ioctl.h>
#include <linux/types.h>
#else
#include <asm/ioctl.h>
#include <stdint.h>
#endif

#ifdef __cplusplus
#define HOBBES_FORWARD_ASSERT(condition) static_assert(condition, #condition)
extern "C" {
#else
#define HOBBES_FORWARD_ASSERT(condition) _Static_assert(condition, #condition)
#endif

#define HOBBES_FORWARD_VERSION 1
#define HOBBES_VIEWS_OFFSET 0x40000ULL

enum {
  HOBBES_VIEWS = 512,           /* of one enclave: its processes */
  HOBBES_PROCESS_THREADS = 256, /* of one process */
  HOBBES_VIEW_GRANULES = 512,   /* bits of `touched` */
  HOBBES_CALL_SIGNALS = 12,
  HOBBES_CALL_COPY = 2048 /* bytes of `copy` */
};

/* The addresses of a program. Above them the proxy has its own code, stacks and call frames. */
#define HOBBES_PROGRAM_LOW 0x10000ULL
#define HOBBES_PROGRAM_HIGH 0x7e0000000000ULL

/* ---- the view table ---- */

enum hobbes_view_state {
  HOBBES_VIEW_FREE = 0,
  HOBBES_VIEW_MADE = 1,   /* its descriptor exists, and `parent` is true */
  HOBBES_VIEW_OPENED = 2, /* its proxy waits for an address space */
  HOBBES_VIEW_GONE = 3    /* its proxy has ended; free once the kernel has cleared `root` */
};

/* Written by the kernel (K) or by the module (M). */
struct hobbes_view {
  uint64_t root;  /* K: physical address of the page tables; 0: none */
  uint64_t calls; /* K: physical address of a page with the addresses of the call frames */
  uint64_t zap_low, zap_high; /* K: the addresses that the view must forget */
  uint32_t zap_asked;         /* K: counts requests */
  uint32_t zap_done;          /* M: the last request that is done */
  uint64_t fill_address;      /* M: an address that Linux has found nothing at */
  uint32_t fill_asked;        /* M: counts requests */
  uint32_t fill_done;         /* K: the last request that is done */
  uint32_t state;             /* M: enum hobbes_view_state */
  uint32_t parent; /* M: 1 + the view it was derived from; 0: made by the enclave's holder */
  uint64_t touched[HOBBES_VIEW_GRANULES / 64]; /* M: bit (address / 2 MiB) modulo 512: shown once */
  uint64_t pin_list; /* K: physical address of room for runs of frames; 0: none is expected */
  uint32_t pin_room; /* K: how many; M clears it: one pin for each list */
  uint32_t pin_runs; /* M: how many there are */
  uint64_t pin_address, pin_size; /* M: what of the proxy's memory they are */
  uint32_t pin_slot; /* M: the slot that holds them, until its bit in hobbes_status.released */
  uint32_t pin_done; /* M: counts */
  uint64_t pad[3];
};

/* Frames of Linux, one after the other. */
struct hobbes_view_run {
  uint64_t address, size; /* physical */
};

struct hobbes_view_table {
  uint64_t to_linux[HOBBES_VIEWS / 64];  /* K sets, M clears: view n has a call or a zap */
  uint64_t to_kernel[HOBBES_VIEWS / 64]; /* M sets, K clears: view n has a fill or a new state */
  uint32_t to_control; /* K sets, M clears: the ring is for the enclave's holder, too */
  uint32_t core;       /* K: APIC id of the core that serves views */
  uint32_t released;   /* K sets, M clears: slots of shared memory are released */
  uint32_t pad1;
  uint64_t pad[510 - 2 * HOBBES_VIEWS / 64];
  struct hobbes_view view[HOBBES_VIEWS];
};

/* ---- call frames ---- */

/* Whose turn it is. The kernel moves 0 -> 1 and 3 -> 4, the proxy 1 -> 2, 1 -> 3, 4 -> 2, 4 -> 3.
 */
enum hobbes_call_state {
  HOBBES_CALL_IDLE = 0,     /* the program runs */
  HOBBES_CALL_ASKED = 1,    /* the proxy executes `number` */
  HOBBES_CALL_ANSWERED = 2, /* `result` is there */
  HOBBES_CALL_REQUEST = 3,  /* the proxy asks the kernel: `number` is an enum hobbes_request */
  HOBBES_CALL_GRANTED = 4   /* the kernel has answered that in `result` */
};

/* What a proxy asks of its kernel. `argument` and `result` as in the system calls of that name. */
enum hobbes_request {
  HOBBES_REQUEST_RESET = 1,   /* forget all memory and all other threads: a new program begins */
  HOBBES_REQUEST_MAP = 2,     /* address, size, protection, flags (MAP_*); anonymous */
  HOBBES_REQUEST_PROTECT = 3, /* address, size, protection */
  HOBBES_REQUEST_START = 4,   /* instruction, stack, end of the data segment, blocked signals;
                                 answered by IDLE */
  HOBBES_REQUEST_READ = 5,    /* address, size: into `copy` */
  HOBBES_REQUEST_BIND = 6, /* four words, bits by Linux's numbers of CPUs: where its threads go */
  HOBBES_REQUEST_CLOCK = 7 /* into `copy`: frequency of the time stamp counter in kHz, its value at
                              one instant, CLOCK_REALTIME and CLOCK_MONOTONIC then; each uint64_t */
};

/* `number` of what is no system call. */
enum hobbes_forwarded {
  HOBBES_FORWARD_SIGNAL_ACTION = 0x10000, /* signal, handler 0 / 1 / 2 (default, ignore, caught),
                                             flags, mask */
  HOBBES_FORWARD_CLONE = 0x10001,         /* frame of the new thread; result: its thread id */
  HOBBES_FORWARD_FORK = 0x10002,          /* exit signal; result: pid, argument[5]: its view */
  HOBBES_FORWARD_DIE = 0x10003,           /* signal: end the process as that signal does */
  HOBBES_FORWARD_PROGRAM_PATH = 0x10004,  /* buffer, size: what /proc/self/exe leads to */
  HOBBES_FORWARD_SHARE = 0x10005,   /* address, size, protection, flags, descriptor, offset: map
                                       it in the proxy at that address and pin it */
  HOBBES_FORWARD_UNSHARE = 0x10006, /* address, size: show the view there again */
  HOBBES_FORWARD_ATTACH = 0x10007,  /* address, size, protection, flags, System V id: as SHARE */
  HOBBES_FORWARD_SEGMENT_SIZE = 0x10008, /* System V id; result: bytes */
  HOBBES_FORWARD_UNFORK = 0x10009        /* pid: take a child back that there is no memory for;
                                            result: -ENOMEM */
};

/* Added to a number: no signal keeps the call from beginning. */
#define HOBBES_FORWARD_ALWAYS (1ULL << 32U)
/* A result: a signal came first and the call has not begun. Never seen by a program. */
#define HOBBES_CALL_NOT_BEGUN (-513)

struct hobbes_call_signal {
  uint32_t number;
  uint32_t pad;
  uint8_t info[128]; /* siginfo_t */
};

/* One page for each thread of a program. */
struct hobbes_call {
  uint32_t state; /* enum hobbes_call_state */
  uint32_t core;  /* the kernel's: APIC id of the core to ring */
  uint64_t number, argument[6];
  int64_t result;
  uint32_t proxy_sleeps;  /* the proxy waits in HOBBES_VIEW_WAIT */
  uint32_t kernel_sleeps; /* the core sleeps until it is rung */
  uint32_t thread;        /* thread id; set before the thread's first answer, cleared by its exit */
  uint32_t caught;        /* signals written so far */
  uint32_t delivered;     /* signals the kernel has taken */
  struct hobbes_call_signal signal[HOBBES_CALL_SIGNALS];
  uint8_t copy[HOBBES_CALL_COPY]; /* program memory that the proxy has asked for */
};

/* ---- requests on a view's descriptor ---- */

#define HOBBES_VIEW_FRAMES (1ULL << 47U) /* mmap offset: the call frames; addresses are below */

struct hobbes_view_wait {
  uint32_t frame; /* in: sleep until this call frame is ASKED or GRANTED */
  uint32_t core;  /* in: APIC id of a core to ring first; ~0: none */
};

struct hobbes_view_pin {
  uint64_t address, size; /* in: of the caller's memory, page-aligned, mapped shared from tmpfs, a
                             memfd or huge pages */
  uint32_t writable;      /* in: 0 or 1 */
  uint32_t pad;
};

#define HOBBES_VIEW_MAGIC 0xB6
/* Asks the kernel for an address space; ETIMEDOUT. */
#define HOBBES_VIEW_OPEN _IO(HOBBES_VIEW_MAGIC, 0)
/* Errors: EINTR, EOWNERDEAD when the enclave is gone. */
#define HOBBES_VIEW_WAIT _IOW(HOBBES_VIEW_MAGIC, 1, struct hobbes_view_wait)
/* Rings the core with this APIC id; ENOENT. */
#define HOBBES_VIEW_RING _IOW(HOBBES_VIEW_MAGIC, 2, uint32_t)
/* A view for a process that is about to be forked; result: its descriptor. */
#define HOBBES_VIEW_DERIVE _IO(HOBBES_VIEW_MAGIC, 3)
/* result: its number in the view table. */
#define HOBBES_VIEW_NUMBER _IO(HOBBES_VIEW_MAGIC, 4)
/* Pins it for the kernel that has made room for it. Errors: ENODEV for other memory, ENOBUFS
 * without room, ENOMEM beyond the memory that the enclave owns. */
#define HOBBES_VIEW_PIN _IOW(HOBBES_VIEW_MAGIC, 5, struct hobbes_view_pin)

HOBBES_FORWARD_ASSERT(sizeof(struct hobbes_view) == 192);
HOBBES_FORWARD_ASSERT(sizeof(struct hobbes_view_table) == 4096 + 512 * 192);
HOBBES_FORWARD_ASSERT(sizeof(struct hobbes_call_signal) == 136);
HOBBES_FORWARD_ASSERT(sizeof(struct hobbes_call) <= 4096);

#ifdef __cplusplus
}
#endif
#endif
