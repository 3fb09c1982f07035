// SPDX-License-Identifier: GPL-2.0
/* Pins: frames of a Linux process held in place so that a co-kernel may map them, counted against
 * that process's locked memory.
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
	account_locked_vm(pin->mm, pin->count, false);
	mmdrop(pin->mm);
	kvfree(pin->pages);
	kfree(pin);
}

/* Writes the frames to user space as runs of adjacent ones. */
static int tell_runs(const struct pin *pin, struct hobbes_kmod_pin *request)
{
	struct hobbes_kmod_run __user *to = u64_to_user_ptr(request->runs);
	unsigned long at = 0;

	request->count = 0;
	while (at < pin->count) {
		struct hobbes_kmod_run run = {.address = page_to_phys(pin->pages[at]), .size = 0};

		while (at < pin->count && page_to_phys(pin->pages[at]) == run.address + run.size) {
			run.size += PAGE_SIZE;
			at++;
		}
		if (request->count == request->capacity)
			return -E2BIG;
		if (copy_to_user(to + request->count++, &run, sizeof(run)))
			return -EFAULT;
	}
	return 0;
}

int pin_take(struct enclave *enclave, struct hobbes_kmod_pin *request)
{
	unsigned int flags = FOLL_LONGTERM | (request->writable ? FOLL_WRITE : 0);
	unsigned long done = 0;
	struct pin *pin;
	int result;

	if (!request->size || request->size > PIN_LIMIT ||
	    !PAGE_ALIGNED(request->address | request->size) ||
	    request->address + request->size < request->address || request->writable > 1)
		return -EINVAL;
	pin = kzalloc(sizeof(*pin), GFP_KERNEL);
	if (!pin)
		return -ENOMEM;
	pin->count = request->size >> PAGE_SHIFT;
	pin->writable = request->writable;
	/* The limit first: the list of pages is memory too. */
	result = account_locked_vm(current->mm, pin->count, true);
	if (result) {
		kfree(pin);
		return result;
	}
	pin->pages = kvcalloc(pin->count, sizeof(*pin->pages), GFP_KERNEL_ACCOUNT | __GFP_NOWARN);
	if (!pin->pages) {
		account_locked_vm(current->mm, pin->count, false);
		kfree(pin);
		return -ENOMEM;
	}
	pin->mm = current->mm;
	mmgrab(pin->mm);
	while (done < pin->count) {
		int got = pin_user_pages_fast(request->address + (done << PAGE_SHIFT),
					      min(pin->count - done, 4096UL), flags,
					      pin->pages + done);

		if (got <= 0) {
			result = got ? got : -EFAULT;
			goto undo;
		}
		done += got;
	}
	result = tell_runs(pin, request);
	if (!result)
		result = slot_take(enclave, &pin->claim.slot);
	if (result)
		goto undo;
	claim_add(enclave, &pin->claim, CLAIM_PIN);
	request->slot = pin->claim.slot;
	return 0;
undo:
	unpin(pin, done);
	return result;
}

void pin_release(struct enclave *enclave, struct pin *pin)
{
	claim_remove(enclave, &pin->claim);
	clear_bit(pin->claim.slot, enclave->slots);
	unpin(pin, pin->count);
}

int pin_return(struct enclave *enclave, const struct hobbes_kmod_pin *request)
{
	struct claim *claim = claim_in_slot(enclave, CLAIM_PIN, request->slot);

	if (!claim)
		return -ENOENT;
	if (!slot_is_quiet(enclave, request->slot))
		return -EBUSY;
	pin_release(enclave, container_of(claim, struct pin, claim));
	return 0;
}
