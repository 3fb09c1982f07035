// SPDX-License-Identifier: GPL-2.0
/* Starting and parking of owned cores: INIT, SIPI, and one page below 1 MiB in which they begin. */
#include <linux/cpu.h>
#include <linux/delay.h>
#include <linux/io.h>
#include <linux/mm.h>
#include <linux/slab.h>
#include <asm/apic.h>

#include "hobbes.h"
#include "trampoline.h"

#define ACKNOWLEDGE_US 1000000
#define LOW_MEMORY     0x9f000UL
#define CLEAR_PAGES    16 /* Linux's own trampoline is shorter and has no such run of zeros */

/* Identity mappings for the first instructions of a co-kernel: the trampoline page and the
 * beginning of its first extent.
 */
struct identity {
	u64 *pages[8]; /* [0] is the root */
	int count;
};

static DEFINE_MUTEX(trampoline_lock);
static unsigned long low_page;
static void *low;

static struct parameters *parameters(void)
{
	return low + (hobbes_trampoline_parameters - hobbes_trampoline);
}

/* Nobody but us has written to the page. */
static bool trampoline_is_intact(void)
{
	size_t code = hobbes_trampoline_parameters - hobbes_trampoline;
	size_t size = hobbes_trampoline_end - hobbes_trampoline;

	return !memcmp(low, hobbes_trampoline, code) &&
	       !memchr_inv(low + size, 0, PAGE_SIZE - size);
}

/* INIT, then up to two SIPIs, until the core says that it has arrived. Delays are by the clock:
 * loops are wrong under emulation.
 */
static bool send_to_trampoline(u32 apic_id, u32 expected)
{
	int attempt;

	WRITE_ONCE(parameters()->arrived, 0);
	mb(); /* the core reads what we wrote */
	core_send(apic_id, APIC_INT_LEVELTRIG | APIC_INT_ASSERT | APIC_DM_INIT);
	udelay(10);
	core_send(apic_id, APIC_INT_LEVELTRIG | APIC_DM_INIT);
	for (attempt = 0; attempt < 2; attempt++) {
		ktime_t deadline =
			ktime_add_us(ktime_get(), attempt ? ACKNOWLEDGE_US : ACKNOWLEDGE_US / 20);

		core_send(apic_id, APIC_DM_STARTUP | low_page >> PAGE_SHIFT);
		while (ktime_before(ktime_get(), deadline)) {
			if (READ_ONCE(parameters()->arrived) == expected)
				return true;
			usleep_range(20, 50);
		}
	}
	return false;
}

bool core_park(struct core *core)
{
	bool parked;

	if (core->state != CORE_RUNNING)
		return true;
	mutex_lock(&trampoline_lock);
	parameters()->mode = MODE_PARK;
	parked = trampoline_is_intact() && send_to_trampoline(core->apic_id, 1);
	/*
	 * Acknowledged or not, it ends waiting for a SIPI: there it takes no NMI, needs the page
	 * no more, and cannot arrive late with another core's parameters.
	 */
	core_send(core->apic_id, APIC_INT_LEVELTRIG | APIC_INT_ASSERT | APIC_DM_INIT);
	mutex_unlock(&trampoline_lock);
	if (parked)
		core->state = CORE_PARKED;
	else
		pr_err("CPU %u does not acknowledge its stop\n", core->cpu);
	return parked;
}

static u64 *identity_table(struct identity *identity, u64 *entry)
{
	u64 *page;

	if (*entry & _PAGE_PRESENT)
		return phys_to_virt(*entry & PHYSICAL_PAGE_MASK);
	if (identity->count == ARRAY_SIZE(identity->pages))
		return NULL;
	/* The root is loaded in 32-bit code, and one rule for all is simpler. */
	page = (u64 *)get_zeroed_page(GFP_KERNEL | GFP_DMA32);
	if (!page)
		return NULL;
	identity->pages[identity->count++] = page;
	*entry = virt_to_phys(page) | _PAGE_PRESENT | _PAGE_RW;
	return page;
}

static bool identity_map(struct identity *identity, u64 address, bool large)
{
	static const int shift[] = {39, 30, 21, 12};
	u64 *table = identity->pages[0];
	int level, leaf = large ? 2 : 3;

	for (level = 0; level < leaf; level++) {
		table = identity_table(identity, &table[address >> shift[level] & 511]);
		if (!table)
			return false;
	}
	table[address >> shift[leaf] & 511] =
		address | _PAGE_PRESENT | _PAGE_RW | (large ? _PAGE_PSE : 0);
	return true;
}

void identity_free(struct identity *identity)
{
	if (!identity)
		return;
	while (identity->count)
		free_page((unsigned long)identity->pages[--identity->count]);
	kfree(identity);
}

static struct identity *identity_new(const struct extent *base)
{
	struct identity *identity = kzalloc(sizeof(*identity), GFP_KERNEL);
	u64 root = 0, offset;
	bool good;

	if (!identity)
		return NULL;
	good = identity_table(identity, &root) && identity_map(identity, low_page, false);
	for (offset = 0; good && offset < min_t(u64, base->size, SZ_1G);
	     offset += HOBBES_FRAME_SIZE)
		good = identity_map(identity, base->address + offset, true);
	if (good)
		return identity;
	identity_free(identity);
	return NULL;
}

int core_boot(struct enclave *enclave, const struct hobbes_kmod_boot *request)
{
	struct core *core = core_of_cpu(enclave, request->cpu);
	struct extent *base = extent_in_slot(enclave, request->slot);
	struct parameters *to = parameters();
	unsigned int cpu;
	bool arrived;

	if (!core || !base)
		return -ENOENT;
	if (enclave->base && enclave->base != base)
		return -EINVAL;
	if (request->entry < base->address ||
	    request->entry - base->address >= min_t(u64, base->size, SZ_1G))
		return -EINVAL;
	if (core->state == CORE_RUNNING || atomic_read(&enclave->reason))
		return -EBUSY;
	for_each_online_cpu(cpu)
		if (same_core(cpu, core->cpu))
			return -EXDEV; /* its other hardware thread still serves Linux */
	if (!enclave->identity)
		enclave->identity = identity_new(base);
	if (!enclave->identity)
		return -ENOMEM;
	enclave->base = base;
	doorbell_publish(enclave);

	mutex_lock(&trampoline_lock);
	if (!trampoline_is_intact()) {
		mutex_unlock(&trampoline_lock);
		pr_err("the page at 0x%lx was written to by somebody else\n", low_page);
		return -EIO;
	}
	to->mode = MODE_BOOT;
	to->tables = virt_to_phys(enclave->identity->pages[0]);
	to->entry = request->entry;
	to->argument0 = request->rdi;
	to->argument1 = request->rsi;
	to->long_entry = low_page + hobbes_trampoline_long;
	to->long_selector = 0x08;
	to->gdt_limit = 0x17;
	to->gdt_address = low_page + (hobbes_trampoline_gdt - hobbes_trampoline);
	core->state = CORE_RUNNING; /* from the first SIPI on, whatever we hear of it */
	arrived = send_to_trampoline(core->apic_id, 2);
	mutex_unlock(&trampoline_lock);
	/* A storm that was stopped meanwhile did not stop this one. */
	if (arrived && !atomic_read(&enclave->reason))
		return 0;
	core_park(core);
	return arrived ? -EBUSY : -ETIMEDOUT;
}

/* A page of RAM in the middle of a run that Linux keeps reserved and nobody has ever written to. */
static unsigned long find_low_page(void)
{
	unsigned long page, run = 0;

	for (page = 2 * PAGE_SIZE; page < LOW_MEMORY; page += PAGE_SIZE) {
		struct page *frame = pfn_to_page(PHYS_PFN(page));
		void *content;

		if (!page_is_ram(PHYS_PFN(page)) || !pfn_valid(PHYS_PFN(page)) ||
		    !PageReserved(frame)) {
			run = 0;
			continue;
		}
		content = memremap(page, PAGE_SIZE, MEMREMAP_WB);
		run = content && !memchr_inv(content, 0, PAGE_SIZE) ? run + 1 : 0;
		if (content)
			memunmap(content);
		if (run == CLEAR_PAGES)
			return page - CLEAR_PAGES / 2 * PAGE_SIZE;
	}
	return 0;
}

int trampoline_init(ulong address)
{
	low_page = address ? address & PAGE_MASK : find_low_page();
	if (!low_page || low_page >= LOW_MEMORY) {
		pr_err("no free page below 1 MiB to start cores in; name one with trampoline=\n");
		return -ENOMEM;
	}
	low = memremap(low_page, PAGE_SIZE, MEMREMAP_WB);
	if (!low)
		return -ENOMEM;
	if (memchr_inv(low, 0, PAGE_SIZE)) {
		pr_err("page 0x%lx is not free\n", low_page);
		memunmap(low);
		return -EBUSY;
	}
	memcpy(low, hobbes_trampoline, hobbes_trampoline_end - hobbes_trampoline);
	pr_info("cores start at 0x%lx, %s\n", low_page, x2apic_enabled() ? "x2APIC" : "xAPIC");
	return 0;
}

void trampoline_exit(void)
{
	memset(low, 0, PAGE_SIZE);
	memunmap(low);
}
