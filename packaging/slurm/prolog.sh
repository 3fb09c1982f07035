#!/bin/sh
# Slurm prolog: makes the node ready for a job's enclaves. Idempotent and within seconds. Never fails: a nonzero prolog drains the node, and
# what is missing here the job's user is told by hobbes-run in a sentence.
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
  state=$(timeout -k 1 5 scontrol show job "$job" 2>&1) || case $state in
    *Invalid*) ;; # Slurm has forgotten it
    *) break ;;   # nobody knows
  esac
  case $state in *JobState=RUNNING* | *JobState=COMPLETING* | *JobState=SUSPENDED* | *JobState=CONFIGURING*) continue ;; esac
  SLURM_JOB_ID=$job SLURM_JOB_UID=$uid "$(dirname "$(readlink -f "$0")")/epilog.sh"
done
exit 0
