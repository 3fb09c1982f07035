// SPDX-License-Identifier: GPL-2.0
/* Extents: pieces of the pool that belong to one enclave, and their mappings in Linux processes.
 * The mmap offset is the physical address, so one address space finds every mapping of a frame.
 */
#include <linux/interrupt.h>
#include <linux/mm.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/version.h>

#include "hobbes.h"

static void *extent_memory(const struct extent *extent)
{
	return extent->chunk->memory + (extent->address - extent->chunk->address);
}

/* Not memset: under KASAN, memory that Linux never had online has no shadow to check. */
static void clear_memory(void *memory, u64 size)
{
	while (size) {
		void *to = memory;
		ulong count = HOBBES_FRAME_SIZE / 8;

		asm volatile("rep stosq" : "+D"(to), "+c"(count) : "a"(0) : "memory");
		memory += HOBBES_FRAME_SIZE;
		size -= HOBBES_FRAME_SIZE;
		cond_resched();
	}
}

int extent_take(struct enclave *enclave, struct hobbes_kmod_extent *request)
{
	struct extent *extent;
	int result;

	if (!request->size || !IS_ALIGNED(request->size, HOBBES_FRAME_SIZE) ||
	    request->node >= MAX_NUMNODES)
		return -EINVAL;
	extent = kzalloc(sizeof(*extent), GFP_KERNEL);
	if (!extent)
		return -ENOMEM;
	result = slot_take(enclave, &extent->claim.slot);
	if (result)
		goto no_slot;
	extent->size = request->size;
	extent->chunk = pool_take(request->node, &extent->size, &extent->address);
	if (!extent->chunk) {
		result = -ENOSPC;
		goto no_memory;
	}
	clear_memory(extent_memory(extent), extent->size);
	claim_add(enclave, &extent->claim, &extent_claims);
	request->size = extent->size;
	request->address = extent->address;
	request->slot = extent->claim.slot;
	return 0;
no_memory:
	clear_bit(extent->claim.slot, enclave->slots);
no_slot:
	kfree(extent);
	return result;
}

struct extent *extent_in_slot(struct enclave *enclave, u32 slot)
{
	struct claim *claim = claim_in_slot(enclave, &extent_claims, slot);

	return claim ? container_of(claim, struct extent, claim) : NULL;
}

static void extent_release(struct enclave *enclave, struct claim *claim)
{
	struct extent *extent = container_of(claim, struct extent, claim);

	/* Out of the list first: no fault can map it any more; then the mappings there are. */
	claim_remove(enclave, &extent->claim);
	if (enclave->mapping)
		unmap_mapping_range(enclave->mapping, extent->address, extent->size, 1);
	if (enclave->base == extent) {
		enclave->base = NULL;
		if (enclave->doorbell)
			synchronize_irq(enclave->doorbell->irq); /* it may be publishing there */
		identity_free(enclave->identity);
		enclave->identity = NULL;
	}
	clear_bit(extent->claim.slot, enclave->slots);
	pool_return(extent->chunk, extent->address, extent->size);
	kfree(extent);
}

static void extent_report(const struct enclave *enclave, const struct claim *claim,
			  struct seq_file *out)
{
	const struct extent *extent = container_of(claim, struct extent, claim);

	seq_printf(out, "extent 0x%llx size %llu slot %u enclave %s\n", extent->address,
		   extent->size, claim->slot, enclave->name);
}

const struct claim_kind extent_claims = {.release = extent_release, .report = extent_report};

int extent_return(struct enclave *enclave, const struct hobbes_kmod_extent *request)
{
	struct extent *extent = extent_in_slot(enclave, request->slot);

	if (!extent)
		return -ENOENT;
	if (!slot_is_quiet(enclave, request->slot) ||
	    (extent == enclave->base && enclave_runs(enclave)))
		return -EBUSY;
	extent_release(enclave, &extent->claim);
	return 0;
}

void *enclave_memory(struct enclave *enclave, u64 address, u64 size)
{
	struct claim *claim;

	list_for_each_entry(claim, &enclave->claims, link) {
		const struct extent *extent = container_of(claim, struct extent, claim);

		if (claim->kind == &extent_claims && address >= extent->address &&
		    address - extent->address < extent->size &&
		    size <= extent->size - (address - extent->address))
			return extent_memory(extent) + (address - extent->address);
	}
	return NULL;
}

static vm_fault_t extent_fault(struct vm_fault *fault)
{
	struct enclave *enclave = fault->vma->vm_private_data;
	u64 address = (u64)fault->pgoff << PAGE_SHIFT;
	vm_fault_t result = VM_FAULT_SIGBUS;
	struct claim *claim;

	down_read(&enclave->claims_lock);
	list_for_each_entry(claim, &enclave->claims, link) {
		const struct extent *extent = container_of(claim, struct extent, claim);

		if (claim->kind != &extent_claims || address < extent->address ||
		    address >= extent->address + extent->size)
			continue;
		result = vmf_insert_pfn(fault->vma, fault->address, PHYS_PFN(address));
		break;
	}
	up_read(&enclave->claims_lock);
	return result;
}

static const struct vm_operations_struct extent_operations = {.fault = extent_fault};

void area_of_frames(struct vm_area_struct *area)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 3, 0)
	vm_flags_mod(area, VM_PFNMAP | VM_IO | VM_DONTEXPAND | VM_DONTDUMP | VM_DONTCOPY,
		     VM_MAYEXEC);
#else
	area->vm_flags |= VM_PFNMAP | VM_IO | VM_DONTEXPAND | VM_DONTDUMP | VM_DONTCOPY;
	area->vm_flags &= ~VM_MAYEXEC;
#endif
}

int extent_map(struct enclave *enclave, struct vm_area_struct *area)
{
	if (!(area->vm_flags & VM_SHARED) || (area->vm_flags & VM_EXEC))
		return -EINVAL;
	area_of_frames(area);
	/* The file outlives its mappings, and the enclave lives as long as the file. */
	area->vm_private_data = enclave;
	area->vm_ops = &extent_operations;
	return 0;
}

/* A slot that is handed out anew is not released any more, whatever its predecessor was. */
void status_clear_released(const struct extent *base, u32 slot)
{
	struct hobbes_status *status = extent_memory(base);

	clear_bit(slot, (unsigned long *)status->released);
}

bool status_is_released(const struct extent *base, u32 slot)
{
	const struct hobbes_status *status = extent_memory(base);

	return READ_ONCE(status->released[slot / 64]) >> (slot % 64) & 1;
}

void status_set_doorbell(const struct extent *base, u64 value)
{
	struct hobbes_status *status = extent_memory(base);

	WRITE_ONCE(status->doorbell, value);
}

struct hobbes_view_table *view_table(const struct extent *base)
{
	return extent_memory(base) + HOBBES_VIEWS_OFFSET;
}
