// Control groups that Slurm makes for the steps of its jobs (cgroup.conf(5), CgroupPlugin), which
// the enclaves of a step stay inside of, so that the limits of the job hold for them.
#pragma once
#include <string>
#include <vector>

#include "core/file.h"

namespace hobbes {

/// The group that enclaves made by a process are to be put below, from its /proc/PID/cgroup
/// (cgroups(7)). With v1 it is the process's own group of its task or step, whichever is deepest in
/// any hierarchy; with v2, where a group with processes has no controllers below it, the group of
/// all tasks of the step. Empty: the process is in no step. Only paths below the groups that
/// Slurm has made count; with v1 a job's user may make groups below those of his step.
std::string batch_step_of(const std::string& cgroups);

/// The part of a group's path that batch_step_of would return; empty: it is not in a step.
std::string batch_step_in(const std::string& path);

/// The path without its last part where that is a task, for hierarchies in which Slurm has groups
/// for steps only. `step` is what batch_step_in returned.
std::string without_task(const std::string& step);

/// Every such group of a hierarchy, relative to where it is mounted.
std::vector<std::string> batch_steps(const std::string& mount,
                                     const Files& files = Files::system());

}  // namespace hobbes
