// SPDX-License-Identifier: GPL-2.0
/* The end of Linux: owned cores stop with it, and keep it from sleeping. */
#include <linux/notifier.h>
#include <linux/panic_notifier.h>
#include <linux/reboot.h>
#include <linux/suspend.h>

#include "hobbes.h"

static int on_panic(struct notifier_block *block, unsigned long event, void *data)
{
	cores_halt(NULL);
	return NOTIFY_DONE;
}

static int on_suspend(struct notifier_block *block, unsigned long event, void *data)
{
	static struct cpumask owned; /* one suspend at a time */

	if ((event == PM_SUSPEND_PREPARE || event == PM_HIBERNATION_PREPARE) &&
	    cores_owned(&owned)) {
		pr_err("no suspend while enclaves own CPUs %*pbl\n", cpumask_pr_args(&owned));
		return NOTIFY_BAD;
	}
	return NOTIFY_DONE;
}

static struct notifier_block panic_watcher = {.notifier_call = on_panic};
static struct notifier_block reboot_watcher = {.notifier_call = on_panic};
static struct notifier_block suspend_watcher = {.notifier_call = on_suspend};

void notifiers_init(void)
{
	atomic_notifier_chain_register(&panic_notifier_list, &panic_watcher);
	register_reboot_notifier(&reboot_watcher);
	register_pm_notifier(&suspend_watcher);
}

void notifiers_exit(void)
{
	unregister_pm_notifier(&suspend_watcher);
	unregister_reboot_notifier(&reboot_watcher);
	atomic_notifier_chain_unregister(&panic_notifier_list, &panic_watcher);
}
