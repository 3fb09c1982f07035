// SPDX-License-Identifier: GPL-2.0
/* Enclaves: what one descriptor has claimed, and its undoing in exact reverse order from a
 * workqueue.
 */
#include <linux/module.h>
#include <linux/slab.h>

#include "hobbes.h"

static DEFINE_MUTEX(enclaves_lock);
static LIST_HEAD(enclaves);
static struct workqueue_struct *teardowns;

void claim_add(struct enclave *enclave, struct claim *claim, const struct claim_kind *kind)
{
	claim->kind = kind;
	down_write(&enclave->claims_lock);
	list_add_tail(&claim->link, &enclave->claims);
	up_write(&enclave->claims_lock);
}

void claim_remove(struct enclave *enclave, struct claim *claim)
{
	down_write(&enclave->claims_lock);
	list_del(&claim->link);
	up_write(&enclave->claims_lock);
}

struct claim *claim_in_slot(struct enclave *enclave, const struct claim_kind *kind, u32 slot)
{
	struct claim *claim;

	list_for_each_entry(claim, &enclave->claims, link)
		if (claim->kind == kind && claim->slot == slot)
			return claim;
	return NULL;
}

int slot_take(struct enclave *enclave, u32 *slot)
{
	*slot = find_first_zero_bit(enclave->slots, HOBBES_KMOD_SLOTS);
	if (*slot >= HOBBES_KMOD_SLOTS)
		return -ENOSPC;
	set_bit(*slot, enclave->slots);
	if (enclave->base)
		status_clear_released(enclave->base, *slot);
	return 0;
}

bool enclave_runs(struct enclave *enclave)
{
	struct claim *claim;

	list_for_each_entry(claim, &enclave->claims, link)
		if (claim->kind->runs && claim->kind->runs(claim))
			return true;
	return false;
}

bool slot_is_quiet(struct enclave *enclave, u32 slot)
{
	return !enclave_runs(enclave) || (enclave->base && status_is_released(enclave->base, slot));
}

static void enclave_free(struct kref *references)
{
	struct enclave *enclave = container_of(references, struct enclave, references);

	mutex_lock(&enclaves_lock);
	list_del(&enclave->link);
	mutex_unlock(&enclaves_lock);
	kvfree(enclave);
}

void enclave_put(struct enclave *enclave)
{
	kref_put(&enclave->references, enclave_free);
}

static void enclave_teardown(struct work_struct *work)
{
	struct enclave *enclave = container_of(work, struct enclave, teardown);
	struct claim *claim, *next;
	bool stopped = true;

	mutex_lock(&enclave->lock);
	enclave->closing = true;
	/* Every core first: nothing is taken from under a running kernel. */
	list_for_each_entry_reverse(claim, &enclave->claims, link)
		if (claim->kind->park)
			stopped &= claim->kind->park(claim);
	if (!stopped) {
		/* What may still run may still use everything: all of it stays where it is, and the
		 * module with it.
		 */
		enclave->quarantined = true;
		__module_get(THIS_MODULE);
		pr_err("enclave '%s': a core did not acknowledge its stop; all it holds is "
		       "quarantined\n",
		       enclave->name);
		mutex_unlock(&enclave->lock);
		return;
	}
	/* Views are no claims: they come and go with processes. Nobody looks at memory that is
	 * about to change its owner.
	 */
	views_release(enclave);
	list_for_each_entry_safe_reverse(claim, next, &enclave->claims, link)
		claim->kind->release(enclave, claim);
	identity_free(enclave->identity);
	mutex_unlock(&enclave->lock);
	cancel_work_sync(&enclave->unpinning);
	enclave_put(enclave);
	module_put(THIS_MODULE);
}

struct enclave *enclave_new(struct file *file)
{
	struct enclave *enclave = kvzalloc(sizeof(*enclave), GFP_KERNEL);

	if (!enclave)
		return NULL;
	kref_init(&enclave->references);
	mutex_init(&enclave->lock);
	init_rwsem(&enclave->claims_lock);
	spin_lock_init(&enclave->views_lock);
	INIT_LIST_HEAD(&enclave->claims);
	INIT_WORK(&enclave->teardown, enclave_teardown);
	INIT_WORK(&enclave->unpinning, pins_unpin_released);
	enclave->mapping = file->f_mapping;
	strscpy(enclave->name, "(unnamed)", sizeof(enclave->name));
	mutex_lock(&enclaves_lock);
	list_add_tail(&enclave->link, &enclaves);
	mutex_unlock(&enclaves_lock);
	return enclave;
}

/* The last descriptor is gone, and with it every user mapping. */
void enclave_close(struct enclave *enclave)
{
	if (list_empty(&enclave->claims)) {
		views_release(enclave);
		identity_free(enclave->identity);
		enclave_put(enclave);
		return;
	}
	enclave->mapping = NULL; /* the inode may go before the work is done */
	__module_get(THIS_MODULE);
	queue_work(teardowns, &enclave->teardown);
}

void enclaves_settle(void)
{
	flush_workqueue(teardowns);
}

void enclaves_report(struct seq_file *out)
{
	struct enclave *enclave;

	mutex_lock(&enclaves_lock);
	list_for_each_entry(enclave, &enclaves, link) {
		struct claim *claim;

		/* Not while it boots: a report does not wait for anybody's claims. */
		if (!mutex_trylock(&enclave->lock)) {
			seq_printf(out, "busy enclave %s\n", enclave->name);
			continue;
		}
		list_for_each_entry(claim, &enclave->claims, link)
			if (claim->kind->report)
				claim->kind->report(enclave, claim, out);
		mutex_unlock(&enclave->lock);
	}
	mutex_unlock(&enclaves_lock);
}

int enclaves_init(void)
{
	teardowns = alloc_workqueue("hobbes", WQ_UNBOUND, 0);
	return teardowns ? 0 : -ENOMEM;
}

void enclaves_exit(void)
{
	destroy_workqueue(teardowns);
}
