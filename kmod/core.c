// SPDX-License-Identifier: GPL-2.0
/* Cores as claims: taken with CPU hotplug, kept off Linux while owned, interrupted, given back.
 * trampoline_boot.c starts and parks them.
 */
#include <linux/cpu.h>
#include <linux/cpuhotplug.h>
#include <linux/slab.h>
#include <linux/version.h>
#include <asm/apic.h>
#include <asm/smp.h>

#include "hobbes.h"

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
bool same_core(unsigned int a, unsigned int b)
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
	/* Before it is owned: code that halts owned cores must find where they are. */
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
	claim_add(enclave, &core->claim, &core_claims);
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

static void core_release(struct enclave *enclave, struct claim *claim)
{
	struct core *core = container_of(claim, struct core, claim);

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

static bool core_claim_park(struct claim *claim)
{
	return core_park(container_of(claim, struct core, claim));
}

static bool core_claim_runs(const struct claim *claim)
{
	return container_of(claim, struct core, claim)->state == CORE_RUNNING;
}

static void core_claim_report(const struct enclave *enclave, const struct claim *claim,
			      struct seq_file *out)
{
	const struct core *core = container_of(claim, struct core, claim);

	seq_printf(out, "core %u %s enclave %s\n", core->cpu,
		   enclave->quarantined		 ? "quarantined"
		   : core->state == CORE_RUNNING ? "running"
		   : core->state == CORE_PARKED	 ? "parked"
						 : "taken",
		   enclave->name);
}

const struct claim_kind core_claims = {.release = core_release,
				       .park = core_claim_park,
				       .runs = core_claim_runs,
				       .report = core_claim_report};

struct core *core_of_cpu(struct enclave *enclave, unsigned int cpu)
{
	struct claim *claim;

	list_for_each_entry(claim, &enclave->claims, link) {
		struct core *core = container_of(claim, struct core, claim);

		if (claim->kind == &core_claims && core->cpu == cpu)
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
	core_release(enclave, &core->claim);
	return 0;
}

int core_stop(struct enclave *enclave, const struct hobbes_kmod_core *request)
{
	struct core *core = core_of_cpu(enclave, request->cpu);

	if (!core)
		return -ENOENT;
	return core_park(core) ? 0 : -ETIMEDOUT;
}

/* ---- interrupts ---- */

void core_send(u32 apic_id, u32 command)
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
			core_send(apic_of[cpu],
				  APIC_INT_LEVELTRIG | APIC_INT_ASSERT | APIC_DM_INIT);
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
		core_send(apic_id, APIC_DM_FIXED | vector);
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
	core_send(core->apic_id, request->vector ? APIC_DM_FIXED | request->vector : APIC_DM_NMI);
	return 0;
}

bool cores_owned(struct cpumask *copy)
{
	cpumask_copy(copy, &owned);
	return !cpumask_empty(copy);
}

int cores_init(void)
{
	int result =
		cpuhp_setup_state_nocalls(CPUHP_BP_PREPARE_DYN, "hobbes:owned", refuse_owned, NULL);

	if (result < 0)
		return result;
	guard = result;
	return 0;
}

void cores_exit(void)
{
	cancel_delayed_work_sync(&online_work);
	cpuhp_remove_state_nocalls(guard);
	online_work_fn(NULL);
	cancel_delayed_work_sync(&online_work);
}
