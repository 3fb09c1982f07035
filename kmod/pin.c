// SPDX-License-Identifier: GPL-2.0
/* Pins: frames of a Linux process held in place so that a co-kernel may map them. Those of the
 * enclave's holder count against its locked memory. Those that its programs share count against
 * the memory that the enclave owns: they are charged to a process already, and are only kept from
 * being swapped.
 */
#include <linux/io.h>
#include <linux/mm.h>
#include <linux/sched/mm.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "hobbes.h"

#define PIN_LIMIT (1ULL << 40)

static void unpin(struct pin *pin, unsigned long count)
{
	unpin_user_pages_dirty_lock(pin->pages, count, pin->writable);
	if (pin->mm) {
		account_locked_vm(pin->mm, pin->count, false);
		mmdrop(pin->mm);
	}
	kvfree(pin->pages);
	kfree(pin);
}

static void pin_release(struct enclave *enclave, struct claim *claim)
{
	struct pin *pin = container_of(claim, struct pin, claim);

	claim_remove(enclave, &pin->claim);
	clear_bit(pin->claim.slot, enclave->slots);
	if (pin->shared)
		enclave->shared_pages -= pin->count;
	unpin(pin, pin->count);
}

const struct claim_kind pin_claims = {.release = pin_release};

/* The frames as runs of adjacent ones; how many runs. */
static long write_runs(const struct pin *pin, u32 room,
		       int (*write)(void *to, u32 index, u64 address, u64 size), void *to)
{
	unsigned long at = 0;
	u32 count = 0;

	while (at < pin->count) {
		u64 address = page_to_phys(pin->pages[at]), size = 0;
		int result;

		while (at < pin->count && page_to_phys(pin->pages[at]) == address + size) {
			size += PAGE_SIZE;
			at++;
		}
		if (count == room)
			return -E2BIG;
		result = write(to, count++, address, size);
		if (result)
			return result;
	}
	return count;
}

static int write_to_user(void *to, u32 index, u64 address, u64 size)
{
	struct hobbes_kmod_run run = {.address = address, .size = size};
	struct hobbes_kmod_run __user *runs = (struct hobbes_kmod_run __user __force *)to;

	return copy_to_user(runs + index, &run, sizeof(run)) ? -EFAULT : 0;
}

static int write_to_kernel(void *to, u32 index, u64 address, u64 size)
{
	struct hobbes_view_run *run = (struct hobbes_view_run *)to + index;

	WRITE_ONCE(run->address, address);
	WRITE_ONCE(run->size, size);
	return 0;
}

static struct pin *pin_pages(u64 address, u64 size, bool writable, bool locked)
{
	unsigned int flags = FOLL_LONGTERM | (writable ? FOLL_WRITE : 0);
	unsigned long done = 0;
	struct pin *pin;
	int result;

	if (!size || size > PIN_LIMIT || !PAGE_ALIGNED(address | size) || address + size < address)
		return ERR_PTR(-EINVAL);
	pin = kzalloc(sizeof(*pin), GFP_KERNEL);
	if (!pin)
		return ERR_PTR(-ENOMEM);
	pin->count = size >> PAGE_SHIFT;
	pin->writable = writable;
	/* The limit first: the list of pages is memory too. */
	result = locked ? account_locked_vm(current->mm, pin->count, true) : 0;
	if (result) {
		kfree(pin);
		return ERR_PTR(result);
	}
	pin->pages = kvcalloc(pin->count, sizeof(*pin->pages), GFP_KERNEL_ACCOUNT | __GFP_NOWARN);
	if (!pin->pages) {
		if (locked)
			account_locked_vm(current->mm, pin->count, false);
		kfree(pin);
		return ERR_PTR(-ENOMEM);
	}
	if (locked) {
		pin->mm = current->mm;
		mmgrab(pin->mm);
	}
	while (done < pin->count) {
		int got = pin_user_pages_fast(address + (done << PAGE_SHIFT),
					      min(pin->count - done, 4096UL), flags,
					      pin->pages + done);

		if (got <= 0) {
			unpin(pin, done);
			return ERR_PTR(got ? got : -EFAULT);
		}
		done += got;
	}
	return pin;
}

int pin_take(struct enclave *enclave, struct hobbes_kmod_pin *request)
{
	struct pin *pin;
	long result;

	if (request->writable > 1)
		return -EINVAL;
	pin = pin_pages(request->address, request->size, request->writable, true);
	if (IS_ERR(pin))
		return PTR_ERR(pin);
	result = write_runs(pin, request->capacity, write_to_user,
			    (void __force *)u64_to_user_ptr(request->runs));
	if (result >= 0) {
		request->count = result;
		result = slot_take(enclave, &pin->claim.slot);
	}
	if (result) {
		unpin(pin, pin->count);
		return result;
	}
	claim_add(enclave, &pin->claim, &pin_claims);
	request->slot = pin->claim.slot;
	return 0;
}

/* What the enclave's programs may share at most: as much as the enclave owns. */
static bool may_share(struct enclave *enclave, u64 size)
{
	struct claim *claim;
	u64 owned = 0;

	list_for_each_entry(claim, &enclave->claims, link)
		if (claim->kind == &extent_claims)
			owned += container_of(claim, struct extent, claim)->size;
	return size <= owned && (u64)enclave->shared_pages << PAGE_SHIFT <= owned - size;
}

int pin_shared(struct enclave *enclave, const struct hobbes_view_pin *request,
	       struct hobbes_view_run *runs, u32 room, u32 *count)
{
	struct pin *pin;
	long result;

	if (!may_share(enclave, request->size))
		return -ENOMEM;
	pin = pin_pages(request->address, request->size, request->writable, false);
	if (IS_ERR(pin))
		return PTR_ERR(pin);
	pin->shared = true;
	result = write_runs(pin, room, write_to_kernel, runs);
	if (result >= 0) {
		*count = result;
		result = slot_take(enclave, &pin->claim.slot);
	}
	if (result) {
		unpin(pin, pin->count);
		return result;
	}
	enclave->shared_pages += pin->count;
	claim_add(enclave, &pin->claim, &pin_claims);
	return pin->claim.slot;
}

/* Shared memory that no program of the enclave has mapped any more. */
void pins_unpin_released(struct work_struct *work)
{
	struct enclave *enclave = container_of(work, struct enclave, unpinning);
	struct claim *claim, *next;

	mutex_lock(&enclave->lock);
	list_for_each_entry_safe(claim, next, &enclave->claims, link) {
		struct pin *pin = container_of(claim, struct pin, claim);

		if (claim->kind == &pin_claims && pin->shared && !enclave->closing &&
		    slot_is_quiet(enclave, claim->slot))
			pin_release(enclave, claim);
	}
	mutex_unlock(&enclave->lock);
}

int pin_return(struct enclave *enclave, const struct hobbes_kmod_pin *request)
{
	struct claim *claim = claim_in_slot(enclave, &pin_claims, request->slot);

	if (!claim)
		return -ENOENT;
	if (!slot_is_quiet(enclave, request->slot))
		return -EBUSY;
	pin_release(enclave, claim);
	return 0;
}
