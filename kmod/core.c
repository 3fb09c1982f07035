// SPDX-License-Identifier: GPL-2.0
/* Cores: taken with CPU hotplug, kept off Linux while owned, started and parked through the
 * trampoline page, given back.
 */
#include <linux/cpu.h>
#include <linux/cpuhotplug.h>
#include <linux/delay.h>
#include <linux/io.h>
#include <linux/ioport.h>
#include <linux/mm.h>
#include <linux/panic_notifier.h>
#include <linux/reboot.h>
#include <linux/slab.h>
#include <linux/suspend.h>
#include <linux/version.h>
#include <asm/apic.h>
#include <asm/smp.h>

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
static struct cpumask owned;
/* Taking and giving back, one at a time: who offlines a CPU is also who owns it. */
static DEFINE_MUTEX(hotplug_lock);
static struct cpumask offlined_cpus; /* free, but not yet back; under the lock */
static void online_work_fn(struct work_struct *work);
static DECLARE_DELAYED_WORK(online_work, online_work_fn);
/* Which enclave's, and how it is addressed: read in interrupt and panic context, so never freed. */
static struct enclave *owner_of[NR_CPUS];
static u32 apic_of[NR_CPUS];
static enum cpuhp_state guard;

/* ---- keeping Linux off ---- */

/* Its name since Linux 6.9. */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 9, 0)
#define __max_threads_per_core smp_num_siblings
#endif

/* By APIC id: Linux forgets the core number of a CPU that it takes offline. */
static bool same_core(unsigned int a, unsigned int b)
{
	unsigned int threads = get_count_order(__max_threads_per_core);

	return per_cpu(x86_cpu_to_apicid, a) >> threads == per_cpu(x86_cpu_to_apicid, b) >> threads;
}

/* Runs before a CPU comes up, with CPU hotplug locked. Two hardware threads of one core never serve
 * two kernels.
 */
static int refuse_owned(unsigned int cpu)
{
	unsigned int other;

	for_each_cpu(other, &owned)
		if (same_core(other, cpu))
			return -EBUSY;
	return 0;
}

int core_take(struct enclave *enclave, struct hobbes_kmod_core *request)
{
	unsigned int cpu = request->cpu;
	struct core *core;
	int result = 0;

	if (cpu == 0 || cpu >= nr_cpu_ids || !cpu_present(cpu))
		return -EINVAL;
	if (cpumask_test_cpu(cpu, &owned))
		return -EEXIST;
	core = kzalloc(sizeof(*core), GFP_KERNEL);
	if (!core)
		return -ENOMEM;
	mutex_lock(&hotplug_lock);
	core->was_online = cpu_online(cpu);
	if (core->was_online)
		result = remove_cpu(cpu);
	else
		core->was_online = cpumask_test_and_clear_cpu(cpu, &offlined_cpus);
	if (result > 0) { /* it went off by itself meanwhile */
		core->was_online = false;
		result = 0;
	}
	apic_of[cpu] = per_cpu(x86_cpu_to_apicid, cpu);
	/* Before it is owned: whoever halts owned cores must find where they are. */
	smp_wmb();
	if (!result) {
		cpus_read_lock();
		if (cpu_online(cpu))
			result = -EBUSY; /* somebody brought it back just now */
		else if (cpumask_test_and_set_cpu(cpu, &owned))
			result = -EEXIST;
		cpus_read_unlock();
	}
	mutex_unlock(&hotplug_lock);
	if (result) {
		kfree(core);
		return result;
	}
	core->cpu = cpu;
	core->apic_id = per_cpu(x86_cpu_to_apicid, cpu);
	core->state = CORE_TAKEN;
	WRITE_ONCE(owner_of[cpu], enclave);
	claim_add(enclave, &core->claim, CLAIM_CORE);
	request->apic_id = core->apic_id;
	return 0;
}

/* Gives Linux every CPU that nobody owns any more; under hotplug_lock. One whose other hardware
 * thread is still owned waits until that comes back too; one that does not come up is tried again.
 */
static void online_offlined_cpus(void)
{
	unsigned int cpu;

	for_each_cpu(cpu, &offlined_cpus) {
		int result = cpu_online(cpu) ? 0 : add_cpu(cpu);

		if (result >= 0) {
			cpumask_clear_cpu(cpu, &offlined_cpus);
		} else if (!refuse_owned(cpu)) {
			pr_err_ratelimited("CPU %u is free but Linux does not take it back: error "
					   "%d; trying again\n",
					   cpu, result);
			schedule_delayed_work(&online_work, HZ);
		}
	}
}

static void online_work_fn(struct work_struct *work)
{
	mutex_lock(&hotplug_lock);
	online_offlined_cpus();
	mutex_unlock(&hotplug_lock);
}

void core_release(struct enclave *enclave, struct core *core)
{
	claim_remove(enclave, &core->claim);
	/* In one step: a CPU that is neither owned nor on its way home would be taken for one that
	 * was offline before.
	 */
	mutex_lock(&hotplug_lock);
	if (core->was_online)
		cpumask_set_cpu(core->cpu, &offlined_cpus);
	WRITE_ONCE(owner_of[core->cpu], NULL);
	cpumask_clear_cpu(core->cpu, &owned);
	synchronize_rcu(); /* nobody in cores_halt still takes it for owned */
	online_offlined_cpus();
	mutex_unlock(&hotplug_lock);
	kfree(core);
}

static struct core *core_of_cpu(struct enclave *enclave, unsigned int cpu)
{
	struct claim *claim;

	list_for_each_entry(claim, &enclave->claims, link) {
		struct core *core = container_of(claim, struct core, claim);

		if (claim->kind == CLAIM_CORE && core->cpu == cpu)
			return core;
	}
	return NULL;
}

int core_return(struct enclave *enclave, const struct hobbes_kmod_core *request)
{
	struct core *core = core_of_cpu(enclave, request->cpu);

	if (!core)
		return -ENOENT;
	if (!core_park(core))
		return -ETIMEDOUT;
	core_release(enclave, core);
	return 0;
}

/* ---- interrupts ---- */

static void send(u32 apic_id, u32 command)
{
	unsigned long flags;

	local_irq_save(flags);
	apic->icr_write(command, apic_id);
	safe_apic_wait_icr_idle();
	local_irq_restore(flags);
}

/* From any context, NMI and panic included. INIT stops a core whatever it does; it then waits for
 * SIPI.
 */
void cores_halt(struct enclave *enclave)
{
	unsigned int cpu;

	preempt_disable();
	for_each_cpu(cpu, &owned)
		if (!enclave || READ_ONCE(owner_of[cpu]) == enclave)
			send(apic_of[cpu], APIC_INT_LEVELTRIG | APIC_INT_ASSERT | APIC_DM_INIT);
	preempt_enable();
}

bool cores_ring(struct enclave *enclave, u32 apic_id, u32 vector)
{
	unsigned int cpu;
	bool found = false;

	preempt_disable();
	for_each_cpu(cpu, &owned) {
		if (READ_ONCE(owner_of[cpu]) != enclave || apic_of[cpu] != apic_id)
			continue;
		send(apic_id, APIC_DM_FIXED | vector);
		found = true;
		break;
	}
	preempt_enable();
	return found;
}

int core_signal(struct enclave *enclave, const struct hobbes_kmod_signal *request)
{
	struct core *core = core_of_cpu(enclave, request->cpu);

	if (request->vector > 0xff || (request->vector && request->vector < 0x20))
		return -EINVAL;
	if (!core)
		return -ENOENT;
	if (core->state != CORE_RUNNING)
		return -ESHUTDOWN;
	send(core->apic_id, request->vector ? APIC_DM_FIXED | request->vector : APIC_DM_NMI);
	return 0;
}

/* ---- the trampoline ---- */

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
	send(apic_id, APIC_INT_LEVELTRIG | APIC_INT_ASSERT | APIC_DM_INIT);
	udelay(10);
	send(apic_id, APIC_INT_LEVELTRIG | APIC_DM_INIT);
	for (attempt = 0; attempt < 2; attempt++) {
		ktime_t deadline =
			ktime_add_us(ktime_get(), attempt ? ACKNOWLEDGE_US : ACKNOWLEDGE_US / 20);

		send(apic_id, APIC_DM_STARTUP | low_page >> PAGE_SHIFT);
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
	send(core->apic_id, APIC_INT_LEVELTRIG | APIC_INT_ASSERT | APIC_DM_INIT);
	mutex_unlock(&trampoline_lock);
	if (parked)
		core->state = CORE_PARKED;
	else
		pr_err("CPU %u does not acknowledge its stop\n", core->cpu);
	return parked;
}

int core_stop(struct enclave *enclave, const struct hobbes_kmod_core *request)
{
	struct core *core = core_of_cpu(enclave, request->cpu);

	if (!core)
		return -ENOENT;
	return core_park(core) ? 0 : -ETIMEDOUT;
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

/* ---- the end of Linux ---- */

static int on_panic(struct notifier_block *block, unsigned long event, void *data)
{
	cores_halt(NULL);
	return NOTIFY_DONE;
}

static int on_suspend(struct notifier_block *block, unsigned long event, void *data)
{
	if ((event == PM_SUSPEND_PREPARE || event == PM_HIBERNATION_PREPARE) &&
	    !cpumask_empty(&owned)) {
		pr_err("no suspend while enclaves own CPUs %*pbl\n", cpumask_pr_args(&owned));
		return NOTIFY_BAD;
	}
	return NOTIFY_DONE;
}

static struct notifier_block panic_watcher = {.notifier_call = on_panic};
static struct notifier_block reboot_watcher = {.notifier_call = on_panic};
static struct notifier_block suspend_watcher = {.notifier_call = on_suspend};

int cores_init(ulong trampoline)
{
	int result;

	low_page = trampoline ? trampoline & PAGE_MASK : find_low_page();
	if (!low_page || low_page >= LOW_MEMORY) {
		pr_err("no free page below 1 MiB to start cores in; name one with trampoline=\n");
		return -ENOMEM;
	}
	low = memremap(low_page, PAGE_SIZE, MEMREMAP_WB);
	if (!low)
		return -ENOMEM;
	if (memchr_inv(low, 0, PAGE_SIZE)) {
		pr_err("page 0x%lx is not free\n", low_page);
		result = -EBUSY;
		goto not_free;
	}
	memcpy(low, hobbes_trampoline, hobbes_trampoline_end - hobbes_trampoline);
	result =
		cpuhp_setup_state_nocalls(CPUHP_BP_PREPARE_DYN, "hobbes:owned", refuse_owned, NULL);
	if (result < 0)
		goto no_guard;
	guard = result;
	atomic_notifier_chain_register(&panic_notifier_list, &panic_watcher);
	register_reboot_notifier(&reboot_watcher);
	register_pm_notifier(&suspend_watcher);
	pr_info("cores start at 0x%lx, %s\n", low_page, x2apic_enabled() ? "x2APIC" : "xAPIC");
	return 0;
no_guard:
	memset(low, 0, PAGE_SIZE);
not_free:
	memunmap(low);
	return result;
}

void cores_exit(void)
{
	cancel_delayed_work_sync(&online_work);
	unregister_pm_notifier(&suspend_watcher);
	unregister_reboot_notifier(&reboot_watcher);
	atomic_notifier_chain_unregister(&panic_notifier_list, &panic_watcher);
	cpuhp_remove_state_nocalls(guard);
	online_work_fn(NULL);
	cancel_delayed_work_sync(&online_work);
	memset(low, 0, PAGE_SIZE);
	memunmap(low);
}
