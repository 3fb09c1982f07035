#!/bin/sh
# Slurm prolog: makes the node ready for a job's enclaves. Idempotent and within seconds. Never fails: a nonzero prolog drains the node, and
# what is missing here the job's user is told by hobbes-run in a sentence.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:$PATH # Slurm gives none
timeout -k 1 10 modprobe -q hobbes 2>/dev/null # co-kernels
timeout -k 1 10 modprobe -q kvm-amd 2>/dev/null || timeout -k 1 10 modprobe -q kvm-intel 2>/dev/null # virtual machines
# hobbesd runs from now on, and takes away what processes that are gone have left.
enclaves=$(timeout -k 1 10 hobbes --json enclaves 2>/dev/null) || exit 0
# Steps of jobs that had no epilog, as after a crash of slurmd: their enclaves are named NODE.USER.JOB.STEP.TASK.
printf %s "$enclaves" | python3 -c '
import json, sys
for one in json.load(sys.stdin):
    words = one["id"].split(".")
    if len(words) >= 5 and words[-4] == str(one["uid"]) and words[-3].isdigit():
        print(words[-3], one["uid"])' 2>/dev/null | sort -u |
while read -r job uid; do
  [ "$job" != "$SLURM_JOB_ID" ] || continue
  states=$(timeout -k 1 5 scontrol show job "$job" 2>&1) || case $states in
    *"Invalid job id"*) states= ;; # Slurm has forgotten it
    *) break ;;                    # nobody knows
  esac
  # Every record of it, as of an array's tasks, has to be of a job that has ended.
  printf '%s\n' "$states" | sed -n 's/.*JobState=\([A-Z_]*\).*/\1/p' |
    grep -qvxE 'COMPLETED|CANCELLED|FAILED|TIMEOUT|NODE_FAIL|PREEMPTED|BOOT_FAIL|DEADLINE|OUT_OF_MEMORY' && continue
  SLURM_JOB_ID=$job SLURM_JOB_UID=$uid "$(dirname "$(readlink -f "$0")")/epilog.sh"
done
exit 0
