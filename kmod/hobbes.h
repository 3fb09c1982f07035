/* SPDX-License-Identifier: GPL-2.0 */
/* What the files of hobbes.ko know of each other. Document: docs/KMOD.md. */
#ifndef HOBBES_H
#define HOBBES_H

#include <linux/cpumask.h>
#include <linux/eventfd.h>
#include <linux/fs.h>
#include <linux/kref.h>
#include <linux/list.h>
#include <linux/mutex.h>
#include <linux/rwsem.h>
#include <linux/seq_file.h>
#include <linux/spinlock.h>
#include <linux/workqueue.h>

#include "abi/forward.h"
#include "abi/kitten.h"
#include "abi/kmod.h"

#undef pr_fmt
#define pr_fmt(fmt) "hobbes: " fmt

struct claim;
struct enclave;

/* What there is to do with a claim, whatever it is of. Optional but `release`. */
struct claim_kind {
	void (*release)(struct enclave *enclave, struct claim *claim);
	/* Its part in running the co-kernel has ended. False: it does not acknowledge. */
	bool (*park)(struct claim *claim);
	/* It may execute the co-kernel's code. */
	bool (*runs)(const struct claim *claim);
	void (*report)(const struct enclave *enclave, const struct claim *claim,
		       struct seq_file *out);
};
extern const struct claim_kind core_claims, extent_claims, pin_claims, doorbell_claims;

/* One thing an enclave has taken. The list is in the order of taking and is undone from its end. */
struct claim {
	struct list_head link;
	const struct claim_kind *kind;
	u32 slot; /* extents and pins: the number both sides know it by */
};

enum core_phase {
	CORE_TAKEN,   /* offline for Linux, never started by us */
	CORE_RUNNING, /* may execute the co-kernel's code */
	CORE_PARKED,  /* acknowledged the parking stub: executes nothing of the co-kernel's */
};

struct core {
	struct claim claim;
	unsigned int cpu;
	u32 apic_id;
	enum core_phase state;
	bool was_online;
};

struct chunk {
	struct list_head link;
	u64 address, size;
	int node;
	void *memory;	      /* where this kernel sees it */
	bool reserved;	      /* since boot: never Linux's, and ours until we are unloaded */
	unsigned long *taken; /* one bit per HOBBES_FRAME_SIZE */
};

struct extent {
	struct claim claim;
	u64 address, size;
	struct chunk *chunk;
};

struct pin {
	struct claim claim;
	struct mm_struct *mm; /* whose limit it counts against; NULL: the enclave's */
	unsigned long count;
	bool writable;
	bool shared; /* made through a view: released as soon as the kernel says so */
	struct page **pages;
};

struct doorbell {
	struct claim claim;
	struct enclave *enclave;
	unsigned int irq;
	struct eventfd_ctx *eventfd;
	ktime_t window; /* beginning of the interval in which rings are counted */
	u32 rings_in_window;
};

/* Everything behind one open descriptor. `lock` orders its ioctls; `claims_lock`, inside it, lets
 * page faults look at the extents.
 */
struct enclave {
	struct kref references; /* its descriptor's, and of views at work */
	bool closing;		/* under the lock: nothing is taken any more */
	struct list_head link;	/* all enclaves, under enclaves_lock */
	struct mutex lock;
	struct rw_semaphore claims_lock;
	struct list_head claims;
	struct address_space
		*mapping; /* where user mappings of its extents are found; NULL: there are none */
	struct extent
		*base; /* the extent the cores were booted in; its first page is the status page */
	struct identity *identity; /* the page tables they start in */
	struct doorbell *doorbell;
	spinlock_t views_lock;
	struct view *views[HOBBES_VIEWS]; /* those whose proxies live */
	unsigned long shared_pages;	  /* pinned for its programs */
	u64 rings;
	atomic_t reason; /* enum hobbes_kmod_reason */
	bool quarantined;
	char name[HOBBES_KMOD_NAME_SIZE];
	DECLARE_BITMAP(slots, HOBBES_KMOD_SLOTS);
	struct work_struct teardown;
	struct work_struct unpinning;
};

/* enclave.c */
struct enclave *enclave_new(struct file *file);
void enclave_close(struct enclave *enclave);
void enclaves_settle(void);
void enclaves_report(struct seq_file *out);
int enclaves_init(void);
void enclaves_exit(void);
void enclave_put(struct enclave *enclave);
void claim_add(struct enclave *enclave, struct claim *claim, const struct claim_kind *kind);
void claim_remove(struct enclave *enclave, struct claim *claim);
struct claim *claim_in_slot(struct enclave *enclave, const struct claim_kind *kind, u32 slot);
/* Where this kernel sees `size` bytes of an extent of the enclave; NULL: they are none of its.
 * Under claims_lock.
 */
void *enclave_memory(struct enclave *enclave, u64 address, u64 size);
int slot_take(struct enclave *enclave, u32 *slot);
/* No core of the enclave can still use what is in this slot: none runs, or its kernel said so in
 * the status page.
 */
bool slot_is_quiet(struct enclave *enclave, u32 slot);
bool enclave_runs(struct enclave *enclave);

/* pool.c */
int pool_add(const struct hobbes_kmod_chunk *request);
int pool_remove(const struct hobbes_kmod_chunk *request);
struct chunk *pool_take(int node, u64 *size, u64 *address);
void pool_return(struct chunk *chunk, u64 address, u64 size);
void pool_report(struct seq_file *out);
bool pool_is_empty(void);
int pool_init(void);
void pool_exit(void);

/* extent.c */
int extent_take(struct enclave *enclave, struct hobbes_kmod_extent *request);
int extent_return(struct enclave *enclave, const struct hobbes_kmod_extent *request);
int extent_map(struct enclave *enclave, struct vm_area_struct *area);
/* A mapping of frames without struct pages: not executed, copied or dumped. */
void area_of_frames(struct vm_area_struct *area);
struct extent *extent_in_slot(struct enclave *enclave, u32 slot);
void status_clear_released(const struct extent *base, u32 slot);
bool status_is_released(const struct extent *base, u32 slot);
void status_set_doorbell(const struct extent *base, u64 value);
struct hobbes_view_table *view_table(const struct extent *base);

/* core.c */
int core_take(struct enclave *enclave, struct hobbes_kmod_core *request);
int core_return(struct enclave *enclave, const struct hobbes_kmod_core *request);
int core_stop(struct enclave *enclave, const struct hobbes_kmod_core *request);
int core_signal(struct enclave *enclave, const struct hobbes_kmod_signal *request);
struct core *core_of_cpu(struct enclave *enclave, unsigned int cpu);
/* Hardware threads of one core. */
bool same_core(unsigned int a, unsigned int b);
void core_send(u32 apic_id, u32 command);
/* At once and from any context: no instruction of theirs runs any more. The parking acknowledgement
 * is still to be had.
 */
void cores_halt(struct enclave *enclave);
/* Interrupts a core of the enclave, from any context. False: it has none with that APIC id. */
bool cores_ring(struct enclave *enclave, u32 apic_id, u32 vector);
/* False: none is owned. */
bool cores_owned(struct cpumask *copy);
int cores_init(void);
void cores_exit(void);

/* trampoline_boot.c */
int core_boot(struct enclave *enclave, const struct hobbes_kmod_boot *request);
/* Parks it if it runs. False: it did not acknowledge. */
bool core_park(struct core *core);
void identity_free(struct identity *identity);
int trampoline_init(ulong address);
void trampoline_exit(void);

/* notifiers.c */
void notifiers_init(void);
void notifiers_exit(void);

/* doorbell.c */
int doorbell_attach(struct enclave *enclave, const struct hobbes_kmod_doorbell *request);
void doorbell_publish(struct enclave *enclave);
int doorbells_init(void);
void doorbells_exit(void);

/* view.c */
int view_make(struct enclave *enclave, struct hobbes_kmod_view *request);
/* Wakes the proxies that its kernel has work for. False: there was none. From interrupts. */
bool views_rung(struct enclave *enclave);
/* No process sees any of its memory any more. */
void views_release(struct enclave *enclave);

/* pin.c */
int pin_take(struct enclave *enclave, struct hobbes_kmod_pin *request);
/* The caller's memory for the kernel behind a view: its runs are written to `runs`. The slot. */
int pin_shared(struct enclave *enclave, const struct hobbes_view_pin *request,
	       struct hobbes_view_run *runs, u32 room, u32 *count);
void pins_unpin_released(struct work_struct *work);
int pin_return(struct enclave *enclave, const struct hobbes_kmod_pin *request);

#endif
