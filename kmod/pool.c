// SPDX-License-Identifier: GPL-2.0
/* The pool: memory that Linux has offlined, kept off while it is here, handed out in
 * HOBBES_FRAME_SIZE granules.
 */
#include <linux/bitmap.h>
#include <linux/ioport.h>
#include <linux/memory.h>
#include <linux/memory_hotplug.h>
#include <linux/mm.h>
#include <linux/slab.h>

#include "hobbes.h"

#define CHUNK_LIMIT (1ULL << 40)

/* The list changes under both locks; the memory notifier, which must not sleep on the mutex, reads
 * it under the spinlock.
 */
static DEFINE_MUTEX(pool_lock);
static DEFINE_SPINLOCK(pool_spinlock);
static LIST_HEAD(pool);
/* A range that is being onlined right now: past our veto, and not yet to be seen as online. Onlining is serial. Under the spinlock. */
static u64 coming, coming_size;

static u64 frames_of(const struct chunk *chunk)
{
	return chunk->size / HOBBES_FRAME_SIZE;
}

static bool overlaps(const struct chunk *chunk, u64 address, u64 size)
{
	return address < chunk->address + chunk->size && chunk->address < address + size;
}

static int memory_event(struct notifier_block *block, unsigned long event, void *data)
{
	const struct memory_notify *range = data;
	struct chunk *chunk;
	bool ours = false;

	if (event != MEM_GOING_ONLINE && event != MEM_ONLINE && event != MEM_CANCEL_ONLINE)
		return NOTIFY_OK;
	spin_lock(&pool_spinlock);
	coming_size = 0;
	if (event == MEM_GOING_ONLINE) {
		list_for_each_entry(chunk, &pool, link)
			ours |= overlaps(chunk, PFN_PHYS(range->start_pfn), PFN_PHYS(range->nr_pages));
		coming = PFN_PHYS(range->start_pfn);
		coming_size = ours ? 0 : PFN_PHYS(range->nr_pages);
	}
	spin_unlock(&pool_spinlock);
	return ours ? notifier_from_errno(-EBUSY) : NOTIFY_OK;
}

static struct notifier_block memory_watcher = {.notifier_call = memory_event};

static bool is_offline_memory(u64 address, u64 size)
{
	unsigned long pfn;

	if (region_intersects(address, size, IORESOURCE_SYSTEM_RAM, IORES_DESC_NONE) != REGION_INTERSECTS)
		return false;
	for (pfn = PHYS_PFN(address); pfn < PHYS_PFN(address + size); pfn += PHYS_PFN(HOBBES_FRAME_SIZE))
		if (!pfn_valid(pfn) || pfn_to_online_page(pfn))
			return false;
	return true;
}

static void chunk_free(struct chunk *chunk)
{
	bitmap_free(chunk->taken);
	kfree(chunk);
}

int pool_add(const struct hobbes_kmod_chunk *request)
{
	struct chunk *chunk, *other;
	int result = 0;

	if (!request->size || request->size > CHUNK_LIMIT || request->address > CHUNK_LIMIT * 64 ||
	    !IS_ALIGNED(request->address | request->size, HOBBES_FRAME_SIZE) || request->node >= MAX_NUMNODES ||
	    !node_possible(request->node))
		return -EINVAL;
	chunk = kzalloc(sizeof(*chunk), GFP_KERNEL);
	if (!chunk)
		return -ENOMEM;
	chunk->address = request->address;
	chunk->size = request->size;
	chunk->node = request->node;
	chunk->taken = bitmap_zalloc(frames_of(chunk), GFP_KERNEL);
	if (!chunk->taken) {
		kfree(chunk);
		return -ENOMEM;
	}
	mutex_lock(&pool_lock);
	list_for_each_entry(other, &pool, link)
		if (overlaps(other, chunk->address, chunk->size))
			result = -EEXIST;
	if (!result) {
		/* The veto first, then the look: nobody can online it in between. */
		bool arriving;

		spin_lock(&pool_spinlock);
		arriving = coming_size && overlaps(chunk, coming, coming_size);
		list_add_tail(&chunk->link, &pool);
		spin_unlock(&pool_spinlock);
		if (arriving || !is_offline_memory(chunk->address, chunk->size)) {
			spin_lock(&pool_spinlock);
			list_del(&chunk->link);
			spin_unlock(&pool_spinlock);
			result = -EBUSY;
		}
	}
	mutex_unlock(&pool_lock);
	if (result)
		chunk_free(chunk);
	return result;
}

int pool_remove(const struct hobbes_kmod_chunk *request)
{
	struct chunk *chunk;
	int result = -ENOENT;

	mutex_lock(&pool_lock);
	list_for_each_entry(chunk, &pool, link) {
		if (chunk->address != request->address || chunk->size != request->size)
			continue;
		result = bitmap_empty(chunk->taken, frames_of(chunk)) ? 0 : -EBUSY;
		break;
	}
	if (!result) {
		spin_lock(&pool_spinlock);
		list_del(&chunk->link);
		spin_unlock(&pool_spinlock);
	}
	mutex_unlock(&pool_lock);
	if (!result)
		chunk_free(chunk);
	return result;
}

/* The longest free run of a chunk, at most `want` frames. */
static u64 longest_run(const struct chunk *chunk, u64 want, u64 *start)
{
	u64 begin = 0, best = 0, limit = frames_of(chunk);

	while (begin < limit && best < want) {
		u64 end;

		begin = find_next_zero_bit(chunk->taken, limit, begin);
		if (begin >= limit)
			break;
		end = min(find_next_bit(chunk->taken, limit, begin), (unsigned long)(begin + want));
		if (end - begin > best) {
			best = end - begin;
			*start = begin;
		}
		begin = end;
	}
	return best;
}

/* One contiguous piece, the wanted size if any chunk has it, else the largest there is. */
struct chunk *pool_take(int node, u64 *size, u64 *address)
{
	struct chunk *chunk, *from = NULL;
	u64 want = *size / HOBBES_FRAME_SIZE, best = 0, start = 0;

	mutex_lock(&pool_lock);
	list_for_each_entry(chunk, &pool, link) {
		u64 at = 0, run;

		if (chunk->node != node || best == want)
			continue;
		run = longest_run(chunk, want, &at);
		if (run > best) {
			best = run;
			start = at;
			from = chunk;
		}
	}
	if (from) {
		bitmap_set(from->taken, start, best);
		*size = best * HOBBES_FRAME_SIZE;
		*address = from->address + start * HOBBES_FRAME_SIZE;
	}
	mutex_unlock(&pool_lock);
	return from;
}

void pool_return(struct chunk *chunk, u64 address, u64 size)
{
	mutex_lock(&pool_lock);
	bitmap_clear(chunk->taken, (address - chunk->address) / HOBBES_FRAME_SIZE, size / HOBBES_FRAME_SIZE);
	mutex_unlock(&pool_lock);
}

void pool_report(struct seq_file *out)
{
	struct chunk *chunk;

	mutex_lock(&pool_lock);
	list_for_each_entry(chunk, &pool, link)
		seq_printf(out, "chunk 0x%llx size %llu node %d free %llu\n", chunk->address, chunk->size, chunk->node,
			   (frames_of(chunk) - bitmap_weight(chunk->taken, frames_of(chunk))) * HOBBES_FRAME_SIZE);
	mutex_unlock(&pool_lock);
}

int pool_init(void)
{
	return register_memory_notifier(&memory_watcher);
}

/* What is still here may be onlined again; nobody uses it. */
void pool_exit(void)
{
	struct chunk *chunk, *next;

	unregister_memory_notifier(&memory_watcher);
	list_for_each_entry_safe(chunk, next, &pool, link)
		chunk_free(chunk);
}
