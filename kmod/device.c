// SPDX-License-Identifier: GPL-2.0
/* The character device: one ioctl per request of abi/kmod.h, copied in, validated by its noun,
 * copied out.
 */
#include <linux/capability.h>
#include <linux/ctype.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/uaccess.h>
#include <asm/apic.h>
#include <asm/tsc.h>

#include "hobbes.h"

static ulong trampoline;
module_param(trampoline, ulong, 0444);
MODULE_PARM_DESC(trampoline,
		 "physical address of the free page below 1 MiB that cores start in (0: search)");

union request {
	struct hobbes_kmod_version version;
	struct hobbes_kmod_enclave enclave;
	struct hobbes_kmod_chunk chunk;
	struct hobbes_kmod_extent extent;
	struct hobbes_kmod_core core;
	struct hobbes_kmod_boot boot;
	struct hobbes_kmod_signal signal;
	struct hobbes_kmod_doorbell doorbell;
	struct hobbes_kmod_pin pin;
	struct hobbes_kmod_state state;
	struct hobbes_kmod_view view;
};

static void tell_state(struct enclave *enclave, struct hobbes_kmod_state *state)
{
	struct claim *claim;

	memset(state, 0, sizeof(*state));
	state->reason = atomic_read(&enclave->reason);
	state->rings = READ_ONCE(enclave->rings);
	list_for_each_entry(claim, &enclave->claims, link) {
		if (claim->kind == &core_claims)
			state->cores++;
		else if (claim->kind == &extent_claims)
			state->memory += container_of(claim, struct extent, claim)->size;
	}
}

/* Requests about the whole node. */
static long node_request(unsigned int command, union request *request)
{
	switch (command) {
	case HOBBES_IOC_VERSION:
		request->version.version = HOBBES_KMOD_VERSION;
		request->version.x2apic = x2apic_enabled();
		request->version.tsc_khz = tsc_khz;
		return 0;
	case HOBBES_IOC_POOL_ADD:
		return capable(CAP_SYS_ADMIN) ? pool_add(&request->chunk) : -EPERM;
	case HOBBES_IOC_POOL_REMOVE:
		return capable(CAP_SYS_ADMIN) ? pool_remove(&request->chunk) : -EPERM;
	case HOBBES_IOC_SETTLE:
		enclaves_settle();
		return 0;
	}
	return -ENOTTY;
}

/* A name stands in the lines of the report, where blanks separate words. */
static bool is_word(const char *name)
{
	const char *at;

	for (at = name; *at; at++)
		if (!isgraph(*at) || !isascii(*at))
			return false;
	return at != name;
}

/* Requests about one enclave, under its lock. */
static long enclave_request(struct enclave *enclave, unsigned int command, union request *request)
{
	switch (command) {
	case HOBBES_IOC_NAME:
		if (!is_word(request->enclave.name))
			return -EINVAL;
		strscpy(enclave->name, request->enclave.name, sizeof(enclave->name));
		return 0;
	case HOBBES_IOC_STATE:
		tell_state(enclave, &request->state);
		return 0;
	case HOBBES_IOC_EXTENT_TAKE:
		return capable(CAP_SYS_ADMIN) ? extent_take(enclave, &request->extent) : -EPERM;
	case HOBBES_IOC_EXTENT_RETURN:
		return extent_return(enclave, &request->extent);
	case HOBBES_IOC_CORE_TAKE:
		return capable(CAP_SYS_ADMIN) ? core_take(enclave, &request->core) : -EPERM;
	case HOBBES_IOC_CORE_RETURN:
		return core_return(enclave, &request->core);
	case HOBBES_IOC_BOOT:
		return core_boot(enclave, &request->boot);
	case HOBBES_IOC_STOP:
		return core_stop(enclave, &request->core);
	case HOBBES_IOC_SIGNAL:
		return core_signal(enclave, &request->signal);
	case HOBBES_IOC_DOORBELL:
		return doorbell_attach(enclave, &request->doorbell);
	case HOBBES_IOC_PIN:
		return pin_take(enclave, &request->pin);
	case HOBBES_IOC_UNPIN:
		return pin_return(enclave, &request->pin);
	case HOBBES_IOC_VIEW:
		return view_make(enclave, &request->view);
	}
	return -ENOTTY;
}

static long hobbes_ioctl(struct file *file, unsigned int command, unsigned long argument)
{
	struct seq_file *report = file->private_data;
	struct enclave *enclave = report->private;
	void __user *user = (void __user *)argument;
	union request request;
	size_t size = _IOC_SIZE(command);
	long result;

	if (_IOC_TYPE(command) != HOBBES_KMOD_MAGIC || size > sizeof(request))
		return -ENOTTY;
	memset(&request, 0, sizeof(request));
	if (size && copy_from_user(&request, user, size))
		return -EFAULT;
	if (command == HOBBES_IOC_NAME)
		request.enclave.name[HOBBES_KMOD_NAME_SIZE - 1] = '\0';

	result = node_request(command, &request);
	if (result == -ENOTTY) {
		if (mutex_lock_killable(&enclave->lock))
			return -EINTR;
		result = enclave_request(enclave, command, &request);
		mutex_unlock(&enclave->lock);
	}
	if (!result && size && copy_to_user(user, &request, size))
		return -EFAULT;
	return result;
}

static int hobbes_show(struct seq_file *out, void *unused)
{
	seq_printf(out, "version %d\n", HOBBES_KMOD_VERSION);
	pool_report(out);
	enclaves_report(out);
	return 0;
}

static int hobbes_open(struct inode *inode, struct file *file)
{
	struct enclave *enclave = enclave_new(file);
	int result;

	if (!enclave)
		return -ENOMEM;
	file->private_data = NULL; /* misc left its own there */
	result = single_open(file, hobbes_show, enclave);
	if (result)
		enclave_close(enclave);
	return result;
}

static int hobbes_release(struct inode *inode, struct file *file)
{
	struct seq_file *report = file->private_data;
	struct enclave *enclave = report->private;

	single_release(inode, file);
	enclave_close(enclave);
	return 0;
}

static int hobbes_mmap(struct file *file, struct vm_area_struct *area)
{
	struct seq_file *report = file->private_data;

	return extent_map(report->private, area);
}

static const struct file_operations hobbes_operations = {
	.owner = THIS_MODULE,
	.open = hobbes_open,
	.release = hobbes_release,
	.read = seq_read,
	.llseek = seq_lseek,
	.unlocked_ioctl = hobbes_ioctl,
	.mmap = hobbes_mmap,
};

static struct miscdevice hobbes_device = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "hobbes",
	.fops = &hobbes_operations,
	.mode = 0600,
};

static int __init hobbes_init(void)
{
	int result = pool_init();

	if (result)
		return result;
	result = trampoline_init(trampoline);
	if (result)
		goto no_trampoline;
	result = cores_init();
	if (result)
		goto no_cores;
	result = doorbells_init();
	if (result)
		goto no_doorbells;
	result = enclaves_init();
	if (result)
		goto no_enclaves;
	result = misc_register(&hobbes_device);
	if (result)
		goto no_device;
	notifiers_init();
	return 0;
no_device:
	enclaves_exit();
no_enclaves:
	doorbells_exit();
no_doorbells:
	cores_exit();
no_cores:
	trampoline_exit();
no_trampoline:
	pool_exit();
	return result;
}

/* Open descriptors hold the module, so there are no enclaves here but quarantined ones, which hold
 * it too.
 */
static void __exit hobbes_exit(void)
{
	notifiers_exit();
	misc_deregister(&hobbes_device);
	enclaves_exit();
	doorbells_exit();
	cores_exit();
	trampoline_exit();
	pool_exit();
}

module_init(hobbes_init);
module_exit(hobbes_exit);
MODULE_DESCRIPTION("Cores and memory for Hobbes co-kernels");
MODULE_LICENSE("GPL");
