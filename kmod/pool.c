// SPDX-License-Identifier: GPL-2.0
/* The pool: memory that Linux has offlined, kept off while it is here, or never had (memmap= on its
 * command line), handed out in HOBBES_FRAME_SIZE granules.
 */
#include <linux/bitmap.h>
#include <linux/io.h>
#include <linux/ioport.h>
#include <linux/memory.h>
#include <linux/memory_hotplug.h>
#include <linux/mm.h>
#include <linux/moduleparam.h>
#include <linux/slab.h>

#include "hobbes.h"

#define CHUNK_LIMIT (1ULL << 40)

static char *reserved[8];
static int reserved_count;
module_param_array(reserved, charp, &reserved_count, 0444);
MODULE_PARM_DESC(reserved, "SIZE@ADDRESS,...: memory that memmap=SIZE$ADDRESS has kept from Linux");

/* The list changes under both locks; the memory notifier, which must not sleep on the mutex, reads
 * it under the spinlock.
 */
static DEFINE_MUTEX(pool_lock);
static DEFINE_SPINLOCK(pool_spinlock);
static LIST_HEAD(pool);
/* A range that is being onlined right now: past our veto, and not yet to be seen as online.
 * Onlining is serial. Under the spinlock.
 */
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
			ours |= overlaps(chunk, PFN_PHYS(range->start_pfn),
					 PFN_PHYS(range->nr_pages));
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

	if (region_intersects(address, size, IORESOURCE_SYSTEM_RAM, IORES_DESC_NONE) !=
	    REGION_INTERSECTS)
		return false;
	for (pfn = PHYS_PFN(address); pfn < PHYS_PFN(address + size);
	     pfn += PHYS_PFN(HOBBES_FRAME_SIZE))
		if (!pfn_valid(pfn) || pfn_to_online_page(pfn))
			return false;
	return true;
}

static void chunk_free(struct chunk *chunk)
{
	if (chunk->reserved) {
		memunmap(chunk->memory);
		release_mem_region(chunk->address, chunk->size);
	}
	bitmap_free(chunk->taken);
	kfree(chunk);
}

static struct chunk *chunk_make(u64 address, u64 size, u32 node)
{
	struct chunk *chunk;

	if (!size || size > CHUNK_LIMIT || address > CHUNK_LIMIT * 64 ||
	    !IS_ALIGNED(address | size, HOBBES_FRAME_SIZE) || node >= MAX_NUMNODES ||
	    !node_possible(node))
		return ERR_PTR(-EINVAL);
	chunk = kzalloc(sizeof(*chunk), GFP_KERNEL);
	if (!chunk)
		return ERR_PTR(-ENOMEM);
	chunk->address = address;
	chunk->size = size;
	chunk->node = node;
	chunk->memory = __va(address);
	chunk->taken = bitmap_zalloc(frames_of(chunk), GFP_KERNEL);
	if (chunk->taken)
		return chunk;
	kfree(chunk);
	return ERR_PTR(-ENOMEM);
}

int pool_add(const struct hobbes_kmod_chunk *request)
{
	struct chunk *chunk = chunk_make(request->address, request->size, request->node), *other;
	int result = 0;

	if (IS_ERR(chunk))
		return PTR_ERR(chunk);
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
		result = !chunk->reserved && bitmap_empty(chunk->taken, frames_of(chunk)) ? 0
											  : -EBUSY;
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
	bitmap_clear(chunk->taken, (address - chunk->address) / HOBBES_FRAME_SIZE,
		     size / HOBBES_FRAME_SIZE);
	mutex_unlock(&pool_lock);
}

void pool_report(struct seq_file *out)
{
	struct chunk *chunk;

	mutex_lock(&pool_lock);
	list_for_each_entry(chunk, &pool, link)
		seq_printf(out, "chunk 0x%llx size %llu node %d free %llu%s\n", chunk->address,
			   chunk->size, chunk->node,
			   (frames_of(chunk) - bitmap_weight(chunk->taken, frames_of(chunk))) *
				   HOBBES_FRAME_SIZE,
			   chunk->reserved ? " reserved" : "");
	mutex_unlock(&pool_lock);
}

/* All of it must be what the command line (or the firmware) has reserved, and nobody's yet: a
 * driver that has claimed a part of it keeps it.
 */
static int add_reserved(const char *text)
{
	struct chunk *chunk;
	u64 address, size;
	char *rest;
	int node, result = -EBUSY;

	size = memparse(text, &rest);
	if (rest == text || *rest != '@')
		return -EINVAL;
	text = rest + 1;
	address = memparse(text, &rest);
	if (rest == text || *rest)
		return -EINVAL;
	node = phys_to_target_node(address);
	chunk = chunk_make(address, size, node == NUMA_NO_NODE ? 0 : node);
	if (IS_ERR(chunk))
		return PTR_ERR(chunk);
	if (region_intersects(address, size, IORESOURCE_MEM, IORES_DESC_RESERVED) !=
	    REGION_INTERSECTS)
		goto fail;
	if (!request_mem_region(address, size, "hobbes"))
		goto fail;
	chunk->memory = memremap(address, size, MEMREMAP_WB);
	if (!chunk->memory) {
		release_mem_region(address, size);
		result = -ENOMEM;
		goto fail;
	}
	chunk->reserved = true;
	list_add_tail(&chunk->link, &pool);
	return 0;
fail:
	chunk_free(chunk);
	return result;
}

static void free_all(void)
{
	struct chunk *chunk, *next;

	list_for_each_entry_safe(chunk, next, &pool, link) {
		list_del(&chunk->link);
		chunk_free(chunk);
	}
}

int pool_init(void)
{
	int i, result = 0;

	for (i = 0; i < reserved_count && !result; i++) {
		result = add_reserved(reserved[i]);
		if (result)
			pr_err("hobbes: reserved=%s: %s\n", reserved[i],
			       result == -EINVAL  ? "write SIZE@ADDRESS, both multiples of 2M"
			       : result == -EBUSY ? "not all of it is reserved, or a driver has "
						    "it; boot with memmap=SIZE$ADDRESS"
						  : "no memory to map it");
	}
	if (!result)
		result = register_memory_notifier(&memory_watcher);
	if (result)
		free_all();
	return result;
}

/* What is still here may be onlined again; nobody uses it. */
void pool_exit(void)
{
	unregister_memory_notifier(&memory_watcher);
	free_all();
}
