#!/usr/bin/env bash
# A sweep on Slurm, from nothing: a one-node cluster in a temporary folder, five runs at profile `smoke`, one of them
# cancelled while it runs. The same command again must make that run and touch no other.
#
#   sudo tests/slurm/run.sh       Debian 12, as root. PY=python: another interpreter than that of .venv
#
# Everything listens on the loopback alone and is gone at the end, but the packages slurm-wlm and munge stay. KEEP=1 leaves
# the folder with all logs.
set -euo pipefail
cd "$(dirname "$0")/../.."
PY=${PY:-.venv/bin/python}
PY=$(command -v "$PY")
[ "$(id -u)" = 0 ] || { echo "as root, please" >&2; exit 2; }
if ! command -v slurmctld slurmd munged >/dev/null; then
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends slurm-wlm munge >/dev/null
fi

conf=/etc/slurm/slurm.conf
[ ! -e $conf ] || { echo "$conf is there: this machine has a Slurm of its own, which stays as it is" >&2; exit 2; }

tmp=$(mktemp -d)
daemons=()
stop() {
    [ -z "${first:-}" ] || kill "$first" 2>/dev/null || true
    [ ! -e $conf ] || scancel --user=root 2>/dev/null || true
    sleep 1
    [ "$(readlink $conf)" != "$tmp/slurm.conf" ] || rm $conf
    [ ${#daemons[@]} = 0 ] || kill "${daemons[@]}" 2>/dev/null || true
    wait 2>/dev/null || true
    if [ -n "${KEEP:-}" ]; then echo "kept: $tmp"; else rm -rf "$tmp"; fi
}
trap stop EXIT
failed=0
check() { # check "what" command...: one line, PASS or FAIL
    local what=$1
    shift
    if "$@"; then echo "PASS  $what"; else echo "FAIL  $what"; failed=1; fi
}
until_true() { # until_true SECONDS command...
    local end=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do [ $SECONDS -lt $end ] || return 1; sleep 0.5; done
}

# ------------------------------------------------------------------------------------------------- the cluster

chmod 755 "$tmp"
mkdir -p "$tmp"/{munge,state,spool,work}
host=$(hostname -s)
dd if=/dev/urandom of="$tmp/munge/key" bs=128 count=1 status=none
chmod 600 "$tmp/munge/key"
chown -R munge: "$tmp/munge"
memory=$(awk '/MemTotal/ { print int($2 / 1024 * 0.9) }' /proc/meminfo)
cat >"$tmp/slurm.conf" <<CONF
ClusterName=sweep
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=26817
SlurmdPort=26818
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$tmp/munge/socket
StateSaveLocation=$tmp/state
SlurmdSpoolDir=$tmp/spool
SlurmctldPidFile=$tmp/slurmctld.pid
SlurmdPidFile=$tmp/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
ReturnToService=2
NodeName=$host NodeAddr=127.0.0.1 CPUs=2 RealMemory=$memory State=UNKNOWN
PartitionName=main Nodes=$host Default=YES MaxTime=INFINITE State=UP
CONF
# Not by SLURM_CONF: the executor plugin takes the variables SLURM_* out of a job's environment, for the sake of nested jobs
mkdir -p /etc/slurm
ln -s "$tmp/slurm.conf" "$conf"
setpriv --reuid munge --regid munge --clear-groups munged --foreground --key-file="$tmp/munge/key" \
    --socket="$tmp/munge/socket" --pid-file="$tmp/munge/pid" --log-file="$tmp/munge/log" \
    --seed-file="$tmp/munge/seed" 2>/dev/null &
daemons+=($!)
until_true 20 test -S "$tmp/munge/socket"
slurmctld -D >"$tmp/slurmctld.log" 2>&1 &
daemons+=($!)
until_true 30 scontrol ping
slurmd -D >"$tmp/slurmd.log" 2>&1 &
daemons+=($!)
idle() { [ "$(sinfo -h -o %t)" = idle ]; }
check "a one-node Slurm ($(sinfo --version)) is up" until_true 60 idle
[ $failed = 0 ] || { tail -n 20 "$tmp"/slurm*.log "$tmp/munge/log"; exit 1; }

# --------------------------------------------------------------------------------------------------- the sweep

export LAGVAE_RESULTS=$tmp/results OMP_NUM_THREADS=1
sweep() { # sweep LOG
    # --retries 0: snakemake can't tell a job that was cancelled from one that failed, and would submit it again within
    # the same call. What is tested here is the next call.
    "$PY" -m snakemake --workflow-profile slurm --directory "$tmp/work" --slurm-status-command squeue \
        --slurm-init-seconds-before-status-checks 5 --retries 0 --config profile=smoke datasets=yelp \
        methods=vae,vae-anneal,aggressive+fixed_steps=10 seeds=0,1 device=cpu >"$1" 2>&1
}
records() { [ ! -d "$LAGVAE_RESULTS/runs" ] || find "$LAGVAE_RESULTS/runs" -name metrics.json | sort; }
count() { records | wc -l; }
prints() { records | while read -r path; do echo "$(stat -c '%n %Y %Z %i' "$path") $(sha256sum <"$path")"; done; }
submitted() { grep -c "has been submitted with SLURM jobid" "$1" || true; }
# The first run whose notebook is being executed, as "profile_dataset_method_seed", which is in its job's comment (%k)
begun() {
    [ ! -d "$LAGVAE_RESULTS/notebooks" ] || find "$LAGVAE_RESULTS/notebooks" -name '*.ipynb' | head -n 1 |
        sed -E 's|.*/notebooks/||; s|/seed([0-9]+)\.ipynb|_\1|; y|/|_|'
}
job_of() { squeue -h -t R -o '%i %k' | grep -F "wildcards_$1_" | cut -d' ' -f1; }
a_notebook_runs() { [ -n "$(begun)" ] && [ -n "$(job_of "$(begun)")" ]; }

sweep "$tmp/first.log" &
first=$!
check "a notebook runs as a job" until_true 120 a_notebook_runs
run=$(begun)
job=$(job_of "$run")
scancel "$job"
echo "      cancelled job $job, $run, while its notebook ran"
status=0
wait $first || status=$?
check "the sweep went on and ended with that failure (status $status)" [ $status != 0 ]
check "it submitted 5 jobs" [ "$(submitted "$tmp/first.log")" = 5 ]
check "4 of 5 records are there" [ "$(count)" = 4 ]
check "the missing one is that of the job" [ -z "$(records | sed -E 's|/seed([0-9]+)/.*|_\1|; y|/|_|' | grep "_$run\$")" ]
before=$(prints)
[ "$(count)" = 4 ] || { tail -n 60 "$tmp/first.log"; find "$tmp/work/.snakemake/slurm_logs" -name '*.log' -exec tail -n 30 {} +; }

status=0
sweep "$tmp/second.log" || status=$?
check "the same command again ends well" [ $status = 0 ]
check "it submitted the missing job and no other" [ "$(submitted "$tmp/second.log")" = 1 ]
check "5 of 5 records are there" [ "$(count)" = 5 ]
check "the 4 others were not touched" [ "$(prints | grep -Fxc -f <(echo "$before"))" = 4 ]
[ $failed = 0 ] || tail -n 60 "$tmp/second.log"

status=0
sweep "$tmp/third.log" || status=$?
check "once more: nothing to do" [ "$status $(submitted "$tmp/third.log")" = "0 0" ]
[ $failed = 0 ] && echo "PASS" || echo "FAIL"
exit $failed
