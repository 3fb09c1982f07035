// SPDX-License-Identifier: GPL-2.0
/* Views: one address space of a co-kernel shown to one process, its proxy, at identical addresses.
 * A fault walks the co-kernel's own page tables and trusts nothing in them: every table and every
 * page must lie in the enclave's extents. The kernel changes or frees a page only after it has
 * asked for the addresses to be forgotten and this module has said that they are.
 */
#include <linux/anon_inodes.h>
#include <linux/file.h>
#include <linux/interrupt.h>
#include <linux/kref.h>
#include <linux/magic.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/pagemap.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "hobbes.h"
#include "walk.h"

#define KERNEL_WAIT (5 * HZ)  /* what a living kernel needs at most to make an address space */
#define RECHECK	    (HZ / 20) /* a lost ring must not matter */

struct view {
	struct kref references;
	/* Read: something of the enclave is looked at or shown. Write: it is forgotten. */
	struct rw_semaphore lock;
	struct enclave *enclave; /* NULL: gone */
	unsigned int number, parent;
	bool opened;
	struct address_space mapping; /* where its user mappings are found */
	struct mm_struct *mm;	      /* the one process that has it mapped */
	atomic_t mappings;
	wait_queue_head_t wait;
	atomic_t kicks;
	struct mutex fill_lock;
	struct work_struct zap;
};

static const struct address_space_operations no_operations;

static struct hobbes_view *entry_of(struct view *view)
{
	const struct extent *base = READ_ONCE(view->enclave->base);

	return base ? &view_table(base)->view[view->number] : NULL;
}

static void tell_kernel(struct view *view)
{
	struct hobbes_view_table *table = view_table(view->enclave->base);

	smp_wmb(); /* what there is to tell, before the bit */
	set_bit(view->number, (unsigned long *)table->to_kernel);
	cores_ring(view->enclave, READ_ONCE(table->core), HOBBES_KITTEN_DOORBELL);
}

static void view_free(struct kref *references)
{
	kfree(container_of(references, struct view, references));
}

/* ---- what its kernel asks for ---- */

static void view_zap(struct work_struct *work)
{
	struct view *view = container_of(work, struct view, zap);
	struct hobbes_view *entry;

	/* Nothing is being shown while this is held, and what will be is looked up anew. */
	down_write(&view->lock);
	entry = view->enclave ? entry_of(view) : NULL;
	if (entry) {
		u32 asked = smp_load_acquire(&entry->zap_asked);
		u64 low = READ_ONCE(entry->zap_low), high = READ_ONCE(entry->zap_high);

		if (high > low)
			unmap_mapping_range(&view->mapping, low, high - low, 1);
		if (low == 0 && high >= HOBBES_PROGRAM_HIGH)
			memset(entry->touched, 0, sizeof(entry->touched));
		smp_store_release(&entry->zap_done, asked);
	}
	up_write(&view->lock);
}

bool views_rung(struct enclave *enclave)
{
	const struct extent *base = READ_ONCE(enclave->base);
	struct hobbes_view_table *table = base ? view_table(base) : NULL;
	bool found = false;
	unsigned long flags;
	unsigned int word;

	if (!table)
		return false;
	if (xchg(&table->released, 0))
		found = queue_work(system_unbound_wq, &enclave->unpinning);
	spin_lock_irqsave(&enclave->views_lock, flags);
	for (word = 0; word < HOBBES_VIEWS / 64; word++) {
		unsigned long bits = xchg(&table->to_linux[word], 0);

		while (bits) {
			unsigned int number = word * 64 + __ffs(bits);
			struct view *view = enclave->views[number];

			bits &= bits - 1;
			if (!view)
				continue;
			if (READ_ONCE(table->view[number].zap_asked) !=
			    READ_ONCE(table->view[number].zap_done))
				found |= queue_work(system_unbound_wq, &view->zap);
			atomic_inc(&view->kicks);
			found |= wq_has_sleeper(&view->wait);
			wake_up_all(&view->wait);
		}
	}
	spin_unlock_irqrestore(&enclave->views_lock, flags);
	return found;
}

/* ---- what is there ---- */

static const void *page_of(void *enclave, u64 address)
{
	return enclave_memory(enclave, address, PAGE_SIZE);
}

static enum walk_result find_frame(struct enclave *enclave, const struct hobbes_view *entry,
				   u64 number, u64 *physical)
{
	const u64 *frames = enclave_memory(enclave, READ_ONCE(entry->calls), PAGE_SIZE);

	if (!READ_ONCE(entry->calls))
		return WALK_NOTHING;
	if (!frames || number >= HOBBES_PROCESS_THREADS)
		return WALK_CORRUPT;
	*physical = READ_ONCE(frames[number]);
	if (!*physical)
		return WALK_NOTHING;
	return PAGE_ALIGNED(*physical) && enclave_memory(enclave, *physical, PAGE_SIZE)
		       ? WALK_FOUND
		       : WALK_CORRUPT;
}

static const struct hobbes_call *call_frame(struct view *view, u32 number)
{
	u64 physical;

	if (find_frame(view->enclave, entry_of(view), number, &physical) != WALK_FOUND)
		return NULL;
	return enclave_memory(view->enclave, physical, PAGE_SIZE);
}

/* Its kernel fills what a program has reserved and not touched. One question at a time. */
static bool ask_to_fill(struct view *view, u64 address)
{
	unsigned long limit = jiffies + KERNEL_WAIT;
	bool done = false;
	u32 asked = 0;

	if (mutex_lock_killable(&view->fill_lock))
		return false;
	while (!done && time_before(jiffies, limit) && !fatal_signal_pending(current)) {
		struct hobbes_view *entry;
		int kicks = atomic_read(&view->kicks);

		down_read(&view->lock);
		entry = view->enclave ? entry_of(view) : NULL;
		if (!entry) {
			up_read(&view->lock);
			break;
		}
		if (!asked) {
			asked = READ_ONCE(entry->fill_asked) + 1;
			asked += !asked;
			WRITE_ONCE(entry->fill_address, address);
			smp_store_release(&entry->fill_asked, asked);
			tell_kernel(view);
		}
		done = smp_load_acquire(&entry->fill_done) == asked;
		up_read(&view->lock);
		if (!done)
			wait_event_killable_timeout(view->wait, atomic_read(&view->kicks) != kicks,
						    RECHECK);
	}
	mutex_unlock(&view->fill_lock);
	return done;
}

/* Shows the page if there is one. */
static enum walk_result show(struct view *view, struct vm_fault *fault, u64 address, bool write,
			     vm_fault_t *result)
{
	struct hobbes_view *entry;
	enum walk_result found = WALK_CORRUPT;
	bool writable = true;
	u64 physical;

	down_read(&view->lock);
	entry = view->enclave ? entry_of(view) : NULL;
	if (entry) {
		down_read(&view->enclave->claims_lock);
		if (address >= HOBBES_VIEW_FRAMES) {
			found = find_frame(view->enclave, entry,
					   (address - HOBBES_VIEW_FRAMES) >> PAGE_SHIFT, &physical);
		} else {
			set_bit(address / HOBBES_FRAME_SIZE % HOBBES_VIEW_GRANULES,
				(unsigned long *)entry->touched);
			smp_mb(); /* its kernel clears an entry, then reads the mark */
			found = walk_tables(page_of, view->enclave, READ_ONCE(entry->root), address,
					    write, &physical, &writable);
		}
		if (found == WALK_FOUND && fault) {
			pgprot_t rights = vm_get_page_prot(
				writable ? fault->vma->vm_flags
					 : fault->vma->vm_flags & ~(VM_WRITE | VM_SHARED));

			*result = vmf_insert_pfn_prot(fault->vma, fault->address,
						      PHYS_PFN(physical), rights);
		}
		up_read(&view->enclave->claims_lock);
	}
	up_read(&view->lock);
	return found;
}

static vm_fault_t view_fault(struct vm_fault *fault)
{
	struct view *view = fault->vma->vm_private_data;
	u64 address = (u64)fault->pgoff << PAGE_SHIFT;
	bool write = fault->flags & FAULT_FLAG_WRITE;
	vm_fault_t result = VM_FAULT_SIGBUS;
	enum walk_result found = show(view, fault, address, write, &result);

	if (found == WALK_NOTHING && address < HOBBES_VIEW_FRAMES && ask_to_fill(view, address))
		show(view, fault, address, write, &result);
	return result;
}

/* A page that was shown read-only is written to: its kernel may allow that by now. */
static vm_fault_t view_mkwrite(struct vm_fault *fault)
{
	struct view *view = fault->vma->vm_private_data;

	return show(view, NULL, (u64)fault->pgoff << PAGE_SHIFT, true, NULL) == WALK_FOUND
		       ? 0
		       : VM_FAULT_SIGBUS;
}

static void view_area_open(struct vm_area_struct *area)
{
	struct view *view = area->vm_private_data;

	atomic_inc(&view->mappings);
}

static void view_area_close(struct vm_area_struct *area)
{
	struct view *view = area->vm_private_data;

	atomic_dec(&view->mappings);
}

static const struct vm_operations_struct view_area_operations = {
	.fault = view_fault,
	.pfn_mkwrite = view_mkwrite,
	.open = view_area_open,
	.close = view_area_close,
};

/* ---- the descriptor ---- */

static int view_mmap(struct file *file, struct vm_area_struct *area)
{
	struct view *view = file->private_data;
	u64 offset = (u64)area->vm_pgoff << PAGE_SHIFT, size = area->vm_end - area->vm_start;
	bool frames = offset >= HOBBES_VIEW_FRAMES;

	if (!(area->vm_flags & VM_SHARED) || (area->vm_flags & VM_EXEC))
		return -EINVAL;
	if (frames ? offset - HOBBES_VIEW_FRAMES + size > (u64)HOBBES_PROCESS_THREADS << PAGE_SHIFT
		   : offset != area->vm_start || offset < HOBBES_PROGRAM_LOW ||
			     area->vm_end > HOBBES_PROGRAM_HIGH)
		return -EINVAL;
	/* One process at a time. */
	if (atomic_inc_return(&view->mappings) > 1 && view->mm != current->mm) {
		atomic_dec(&view->mappings);
		return -EBUSY;
	}
	view->mm = current->mm;
	area_of_frames(area);
	area->vm_private_data = view;
	area->vm_ops = &view_area_operations;
	return 0;
}

static long view_open(struct view *view)
{
	unsigned long limit = jiffies + KERNEL_WAIT;
	bool told = false;

	while (time_before(jiffies, limit)) {
		struct hobbes_view *entry;
		int kicks = atomic_read(&view->kicks);
		bool there = false;

		down_write(&view->lock);
		entry = view->enclave ? entry_of(view) : NULL;
		if (entry && !told) {
			if (!view->opened) {
				WRITE_ONCE(entry->parent, view->parent);
				memset(entry->touched, 0, sizeof(entry->touched));
				smp_store_release(&entry->state, HOBBES_VIEW_OPENED);
			}
			view->opened = told = true;
			tell_kernel(view);
		}
		if (entry)
			there = smp_load_acquire(&entry->root) != 0;
		up_write(&view->lock);
		if (!entry)
			return -EOWNERDEAD;
		if (there)
			return 0;
		if (wait_event_killable_timeout(view->wait, atomic_read(&view->kicks) != kicks,
						RECHECK) < 0)
			return -EINTR;
	}
	return -ETIMEDOUT;
}

static long view_ring(struct view *view, u32 core)
{
	bool found = false;

	down_read(&view->lock);
	if (view->enclave)
		found = cores_ring(view->enclave, core, HOBBES_KITTEN_DOORBELL);
	up_read(&view->lock);
	return found ? 0 : -ENOENT;
}

static long view_wait(struct view *view, const struct hobbes_view_wait *request)
{
	if (request->core != ~0U)
		view_ring(view, request->core);
	for (;;) {
		int kicks = atomic_read(&view->kicks);
		const struct hobbes_call *call = NULL;
		bool alive, ready = false;
		long waited;

		down_read(&view->lock);
		alive = view->enclave && entry_of(view);
		if (alive) {
			down_read(&view->enclave->claims_lock);
			call = call_frame(view, request->frame);
			if (call) {
				u32 state = smp_load_acquire(&call->state);

				ready = state == HOBBES_CALL_ASKED || state == HOBBES_CALL_GRANTED;
			}
			up_read(&view->enclave->claims_lock);
		}
		up_read(&view->lock);
		if (!alive)
			return -EOWNERDEAD;
		if (ready)
			return 0;
		waited = wait_event_interruptible_timeout(view->wait,
							  atomic_read(&view->kicks) != kicks, HZ);
		if (waited < 0)
			return -EINTR;
	}
}

/* Only memory that has no disk behind it: nobody would know when to write the pages back. */
static bool is_memory_file(u64 address, u64 size)
{
	struct vm_area_struct *area;
	u64 end = address + size;
	bool good = true;

	mmap_read_lock(current->mm);
	while (good && address < end) {
		unsigned long magic;

		area = vma_lookup(current->mm, address);
		good = area && area->vm_file && (area->vm_flags & VM_MAYSHARE);
		if (!good)
			break;
		magic = file_inode(area->vm_file)->i_sb->s_magic;
		good = magic == TMPFS_MAGIC || magic == HUGETLBFS_MAGIC;
		address = area->vm_end;
	}
	mmap_read_unlock(current->mm);
	return good;
}

static long view_pin(struct view *view, const struct hobbes_view_pin *request)
{
	struct hobbes_view_run *runs = NULL;
	struct hobbes_view *entry = NULL;
	struct enclave *enclave;
	u32 room = 0, count;
	long result;

	if (request->writable > 1 || request->address + request->size < request->address)
		return -EINVAL;
	if (!is_memory_file(request->address, request->size))
		return -ENODEV;
	down_read(&view->lock);
	enclave = view->enclave;
	if (enclave)
		kref_get(&enclave->references);
	up_read(&view->lock);
	if (!enclave)
		return -EOWNERDEAD;
	mutex_lock(&enclave->lock);
	if (!enclave->closing && enclave->base) {
		entry = &view_table(enclave->base)->view[view->number];
		room = READ_ONCE(entry->pin_room);
		runs = enclave_memory(enclave, READ_ONCE(entry->pin_list),
				      (u64)room * sizeof(*runs));
	}
	if (!entry || !READ_ONCE(entry->pin_list) || !runs || !room) {
		result = -ENOBUFS;
	} else {
		result = pin_shared(enclave, request, runs, room, &count);
		if (result >= 0) {
			WRITE_ONCE(entry->pin_room, 0); /* once for each list */
			WRITE_ONCE(entry->pin_slot, result);
			WRITE_ONCE(entry->pin_runs, count);
			WRITE_ONCE(entry->pin_address, request->address);
			WRITE_ONCE(entry->pin_size, request->size);
			smp_store_release(&entry->pin_done, entry->pin_done + 1);
			result = 0;
		}
	}
	mutex_unlock(&enclave->lock);
	enclave_put(enclave);
	return result;
}

static int view_install(struct enclave *enclave, unsigned int parent, u32 *number);

static long view_ioctl(struct file *file, unsigned int command, unsigned long argument)
{
	struct view *view = file->private_data;
	void __user *user = (void __user *)argument;
	struct hobbes_view_wait wait;
	struct hobbes_view_pin pin;
	u32 core;
	long result;

	switch (command) {
	case HOBBES_VIEW_OPEN:
		return view_open(view);
	case HOBBES_VIEW_WAIT:
		if (copy_from_user(&wait, user, sizeof(wait)))
			return -EFAULT;
		return view_wait(view, &wait);
	case HOBBES_VIEW_RING:
		if (get_user(core, (u32 __user *)user))
			return -EFAULT;
		return view_ring(view, core);
	case HOBBES_VIEW_DERIVE:
		down_read(&view->lock);
		result = view->enclave ? view_install(view->enclave, view->number + 1, NULL)
				       : -EOWNERDEAD;
		up_read(&view->lock);
		return result;
	case HOBBES_VIEW_NUMBER:
		return view->number;
	case HOBBES_VIEW_PIN:
		if (copy_from_user(&pin, user, sizeof(pin)))
			return -EFAULT;
		return view_pin(view, &pin);
	}
	return -ENOTTY;
}

/* Its process is gone: no address space shows it any more. */
static int view_file_release(struct inode *inode, struct file *file)
{
	struct view *view = file->private_data;
	unsigned long flags;

	down_write(&view->lock);
	if (view->enclave) {
		struct enclave *enclave = view->enclave;
		struct hobbes_view *entry = entry_of(view);

		if (entry) {
			smp_store_release(&entry->state, HOBBES_VIEW_GONE);
			tell_kernel(view);
		}
		spin_lock_irqsave(&enclave->views_lock, flags);
		enclave->views[view->number] = NULL;
		spin_unlock_irqrestore(&enclave->views_lock, flags);
		view->enclave = NULL;
	}
	up_write(&view->lock);
	cancel_work_sync(&view->zap);
	kref_put(&view->references, view_free);
	return 0;
}

static const struct file_operations view_operations = {
	.owner = THIS_MODULE,
	.release = view_file_release,
	.unlocked_ioctl = view_ioctl,
	.mmap = view_mmap,
	.llseek = noop_llseek,
};

/* A number whose last user the kernel has forgotten, too. */
static int take_number(struct view *view, struct enclave *enclave)
{
	const struct extent *base = READ_ONCE(enclave->base);
	unsigned long flags;
	int number, result = -ENOSPC;

	spin_lock_irqsave(&enclave->views_lock, flags);
	for (number = 0; number < HOBBES_VIEWS; number++) {
		struct hobbes_view *entry = base ? &view_table(base)->view[number] : NULL;

		if (enclave->views[number] ||
		    (entry && (READ_ONCE(entry->root) || READ_ONCE(entry->calls))))
			continue;
		enclave->views[number] = view;
		view->number = number;
		if (entry) {
			WRITE_ONCE(entry->parent, view->parent);
			smp_store_release(&entry->state, HOBBES_VIEW_MADE);
		}
		result = 0;
		break;
	}
	spin_unlock_irqrestore(&enclave->views_lock, flags);
	return result;
}

/* The enclave stays while this runs: its lock or one of its views' is held. */
static int view_install(struct enclave *enclave, unsigned int parent, u32 *number)
{
	struct view *view = kzalloc(sizeof(*view), GFP_KERNEL_ACCOUNT);
	unsigned long flags;
	struct file *file;
	int result;

	if (!view)
		return -ENOMEM;
	kref_init(&view->references);
	init_rwsem(&view->lock);
	init_waitqueue_head(&view->wait);
	mutex_init(&view->fill_lock);
	INIT_WORK(&view->zap, view_zap);
	address_space_init_once(&view->mapping);
	view->mapping.a_ops = &no_operations;
	view->parent = parent;
	view->enclave = enclave;
	result = take_number(view, enclave);
	if (result) {
		kfree(view);
		return result;
	}
	result = get_unused_fd_flags(O_CLOEXEC);
	if (result < 0)
		goto no_descriptor;
	file = anon_inode_getfile("[hobbes-view]", &view_operations, view, O_RDWR);
	if (IS_ERR(file)) {
		put_unused_fd(result);
		result = PTR_ERR(file);
		goto no_descriptor;
	}
	view->mapping.host = file_inode(file);
	file->f_mapping = &view->mapping;
	if (number)
		*number = view->number;
	fd_install(result, file);
	return result;
no_descriptor:
	spin_lock_irqsave(&enclave->views_lock, flags);
	enclave->views[view->number] = NULL;
	spin_unlock_irqrestore(&enclave->views_lock, flags);
	kfree(view);
	return result;
}

int view_make(struct enclave *enclave, struct hobbes_kmod_view *request)
{
	int result = view_install(enclave, 0, &request->number);

	if (result < 0)
		return result;
	request->fd = result;
	return 0;
}

void views_release(struct enclave *enclave)
{
	unsigned int number;

	for (number = 0; number < HOBBES_VIEWS; number++) {
		struct view *view;

		spin_lock_irq(&enclave->views_lock);
		view = enclave->views[number];
		if (view && !kref_get_unless_zero(&view->references))
			view = NULL;
		spin_unlock_irq(&enclave->views_lock);
		if (!view)
			continue;
		down_write(&view->lock);
		if (view->enclave) {
			view->enclave = NULL;
			spin_lock_irq(&enclave->views_lock);
			enclave->views[number] = NULL;
			spin_unlock_irq(&enclave->views_lock);
		}
		unmap_mapping_range(&view->mapping, 0, 0, 1);
		up_write(&view->lock);
		cancel_work_sync(&view->zap);
		atomic_inc(&view->kicks);
		wake_up_all(&view->wait);
		kref_put(&view->references, view_free);
	}
}
