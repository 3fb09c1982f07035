#!/bin/sh
# Slurm epilog: takes away what one job left on this node, in whatever state root it was made. What its user has made in other jobs, or
# outside of any, stays. Never fails: a nonzero epilog drains the node.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:$PATH # Slurm gives none
[ -n "$SLURM_JOB_UID" ] && [ -n "$SLURM_JOB_ID" ] || exit 0
group=$(id -g "$SLURM_JOB_UID") || exit 0
# Made by a step's container (oci.conf names them by job), or by a program of the job (hobbes-run notes the job as a label).
{
  timeout -k 5 30 hobbes --json enclaves --label "slurm.job=$SLURM_JOB_ID" || echo '[]'
  timeout -k 5 30 hobbes --json enclaves || echo '[]'
} 2>/dev/null | python3 -c '
import json, sys
uid, job, text, found = int(sys.argv[1]), sys.argv[2], sys.stdin.read(), set()
decoder, at = json.JSONDecoder(), 0
for labelled in (True, False):
    if not text[at:].strip():
        break
    enclaves, end = decoder.raw_decode(text[at:].lstrip())
    at += len(text[at:]) - len(text[at:].lstrip()) + end
    for one in enclaves:
        words = one["id"].split(".")
        if one["uid"] == uid and one.get("root") and (labelled or (len(words) >= 5 and words[-3] == job)):
            found.add((one["root"], one["id"]))
for root, name in sorted(found):
    print(root, name, sep="\t")' "$SLURM_JOB_UID" "$SLURM_JOB_ID" |
while IFS="$(printf '\t')" read -r root id; do
  timeout -k 5 30 setpriv --reuid="$SLURM_JOB_UID" --regid="$group" --clear-groups hobbes-run --root "$root" delete --force "$id" || true
done
exit 0
