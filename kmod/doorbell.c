// SPDX-License-Identifier: GPL-2.0
/* Doorbells towards Linux: one vector per enclave from the x86 vector domain, so that an enclave
 * that storms is known by its vector.
 */
#include <linux/interrupt.h>
#include <linux/irq.h>
#include <linux/irqdomain.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/version.h>
#include <asm/apic.h>
#include <asm/hw_irq.h>
#include <asm/irqdomain.h>

#include "hobbes.h"
#include "abi/apic.h"

static uint storm_limit = 2000;
module_param(storm_limit, uint, 0644);
MODULE_PARM_DESC(storm_limit, "rings within 100 ms that stop an enclave");

#define WINDOW_MS 100

static struct fwnode_handle *node;
static struct irq_domain *domain;

/* Where its kernel has to send the interrupt, as the destination is now. */
static void publish(struct enclave *enclave, struct irq_data *data)
{
	const struct extent *base = READ_ONCE(enclave->base);
	struct irq_cfg *target = irqd_cfg(data);
	u32 command = APIC_DM_FIXED | target->vector;

	/* With the flat driver the destination is a logical mask. */
	if (apic->dest_mode_logical)
		command |= APIC_DEST_LOGICAL;
	if (base)
		status_set_doorbell(base, hobbes_interrupt_command(x2apic_enabled(),
								   target->dest_apicid, command));
}

static int set_affinity(struct irq_data *data, const struct cpumask *mask, bool force)
{
	int result = irq_chip_set_affinity_parent(data, mask, force);
	struct doorbell *doorbell = irq_data_get_irq_chip_data(data);

	if (result >= 0 && doorbell)
		publish(doorbell->enclave, data);
	return result;
}

static void nothing(struct irq_data *data)
{
}

static struct irq_chip chip = {
	.name = "hobbes",
	.irq_ack = irq_chip_ack_parent,
	.irq_set_affinity = set_affinity,
	.irq_mask = nothing,
	.irq_unmask = nothing,
	.flags = IRQCHIP_SKIP_SET_WAKE,
};

static int allocate(struct irq_domain *in, unsigned int irq, unsigned int count, void *argument)
{
	struct irq_alloc_info info = {};
	int result;

	info.mask = argument;
	result = irq_domain_alloc_irqs_parent(in, irq, count, &info);
	if (result < 0)
		return result;
	irq_domain_set_info(in, irq, irq, &chip, NULL, handle_edge_irq, NULL, "edge");
	return 0;
}

static const struct irq_domain_ops operations = {.alloc = allocate,
						 .free = irq_domain_free_irqs_common};

static void wake(struct doorbell *doorbell)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 8, 0)
	eventfd_signal(doorbell->eventfd);
#else
	eventfd_signal(doorbell->eventfd, 1);
#endif
}

/* Its kernel has something to say to the enclave's holder as well. */
static bool for_holder(struct enclave *enclave)
{
	const struct extent *base = READ_ONCE(enclave->base);

	return base && xchg(&view_table(base)->to_control, 0);
}

static irqreturn_t rung(int irq, void *argument)
{
	struct doorbell *doorbell = argument;
	struct enclave *enclave = doorbell->enclave;
	ktime_t now = ktime_get();

	WRITE_ONCE(enclave->rings, enclave->rings + 1);
	/* A ring that finds a proxy asleep is no storm: its rate is what proxies can sleep at. */
	if (views_rung(enclave) && !for_holder(enclave))
		return IRQ_HANDLED;
	if (ktime_ms_delta(now, doorbell->window) >= WINDOW_MS) {
		doorbell->window = now;
		doorbell->rings_in_window = 0;
	}
	if (++doorbell->rings_in_window > storm_limit) {
		bool first = atomic_cmpxchg(&enclave->reason, HOBBES_KMOD_NO_REASON,
					    HOBBES_KMOD_STORM) == HOBBES_KMOD_NO_REASON;

		cores_halt(enclave); /* again, if a core was just being started */
		if (first)
			pr_warn("enclave '%s' stopped: more than %u doorbells within %d ms\n",
				enclave->name, storm_limit, WINDOW_MS);
	}
	wake(doorbell);
	return IRQ_HANDLED;
}

void doorbell_publish(struct enclave *enclave)
{
	preempt_disable();
	if (enclave->doorbell)
		publish(enclave, irq_get_irq_data(enclave->doorbell->irq));
	preempt_enable();
}

static void doorbell_release(struct enclave *enclave, struct claim *claim)
{
	struct doorbell *doorbell = container_of(claim, struct doorbell, claim);

	claim_remove(enclave, &doorbell->claim);
	enclave->doorbell = NULL;
	free_irq(doorbell->irq, doorbell);
	irq_dispose_mapping(doorbell->irq);
	eventfd_ctx_put(doorbell->eventfd);
	kfree(doorbell);
}

const struct claim_kind doorbell_claims = {.release = doorbell_release};

int doorbell_attach(struct enclave *enclave, const struct hobbes_kmod_doorbell *request)
{
	struct doorbell *doorbell;
	int result;

	if (enclave->doorbell)
		return -EEXIST;
	if (request->cpu >= nr_cpu_ids || !cpu_online(request->cpu))
		return -EINVAL;
	doorbell = kzalloc(sizeof(*doorbell), GFP_KERNEL);
	if (!doorbell)
		return -ENOMEM;
	doorbell->enclave = enclave;
	doorbell->window = ktime_get();
	doorbell->eventfd = eventfd_ctx_fdget(request->eventfd);
	if (IS_ERR(doorbell->eventfd)) {
		result = PTR_ERR(doorbell->eventfd);
		goto no_eventfd;
	}
	result = irq_domain_alloc_irqs(domain, 1, NUMA_NO_NODE, (void *)cpumask_of(request->cpu));
	if (result < 0)
		goto no_irq;
	doorbell->irq = result;
	irq_set_chip_data(doorbell->irq, doorbell);
	result = request_irq(doorbell->irq, rung, IRQF_NO_THREAD | IRQF_NOBALANCING, "hobbes",
			     doorbell);
	if (result)
		goto no_handler;
	claim_add(enclave, &doorbell->claim, &doorbell_claims);
	enclave->doorbell = doorbell;
	irq_set_affinity(doorbell->irq, cpumask_of(request->cpu));
	doorbell_publish(enclave);
	return 0;
no_handler:
	irq_dispose_mapping(doorbell->irq);
no_irq:
	eventfd_ctx_put(doorbell->eventfd);
no_eventfd:
	kfree(doorbell);
	return result;
}

int doorbells_init(void)
{
	node = irq_domain_alloc_named_fwnode("hobbes");
	if (!node)
		return -ENOMEM;
	domain = irq_domain_create_hierarchy(x86_vector_domain, 0, 0, node, &operations, NULL);
	if (!domain) {
		irq_domain_free_fwnode(node);
		return -ENOMEM;
	}
	return 0;
}

void doorbells_exit(void)
{
	irq_domain_remove(domain);
	irq_domain_free_fwnode(node);
}
