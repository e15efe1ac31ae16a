#!/usr/bin/env bash
# A sweep that is killed with SIGKILL in the middle, and the same command again, end as a sweep that nobody disturbed.
#
#   tests/slurm/kill9.sh          PY=python: another interpreter than that of .venv; KEEP=1 leaves the folder with all logs
#
# SIGKILL takes snakemake alone: its notebooks live on as orphans and hold the locks of their runs. One of them is
# stopped (SIGSTOP) until the second sweep has come to the same run and waits, so that both meet in any case.
set -euo pipefail
cd "$(dirname "$0")/../.."
PY=${PY:-.venv/bin/python}
PY=$(command -v "$PY")
tmp=$(mktemp -d)
mkdir "$tmp/work"
failed=0
trap '[ -n "${KEEP:-}" ] && echo "kept: $tmp" || rm -rf "$tmp"' EXIT
export OMP_NUM_THREADS=1

check() { # check "what" command...: one line, PASS or FAIL
    local what=$1
    shift
    if "$@"; then echo "PASS  $what"; else echo "FAIL  $what"; failed=1; fi
}
sweep() { # sweep RESULTS LOG
    LAGVAE_RESULTS=$1 exec "$PY" -m snakemake --directory "$tmp/work" --cores 2 --config profile=smoke datasets=yelp \
        methods=vae,aggressive seeds=0,1 device=cpu >>"$2" 2>&1
}
finished() { [ ! -d "$1/runs" ] || find "$1/runs" -name metrics.json | sort; }
count() { finished "$1" | wc -l; }
stamps() { finished "$1" | xargs -r stat -c '%n %Y %Z %i'; }
holder() { # the process that holds the lock of an unfinished run, and the run's folder
    local lock pid
    [ -d "$1/runs" ] || return 0
    for lock in $(find "$1/runs" -name .lock); do
        [ -e "${lock%/.lock}/config.json" ] && [ ! -e "${lock%/.lock}/metrics.json" ] || continue
        for pid in $(users_of "$lock"); do
            echo "$pid ${lock%/.lock}"
            return
        done
    done
}
users_of() { { find /proc/[0-9]*/fd -lname "$1" 2>/dev/null || true; } | cut -d/ -f3 | sort -u; }

whole=$tmp/whole killed=$tmp/killed
(sweep "$whole" "$tmp/whole.log") || { tail -50 "$tmp/whole.log"; exit 1; }
check "the undisturbed sweep has 4 records" [ "$(count "$whole")" = 4 ]

sweep "$killed" "$tmp/killed.log" &
snakemake=$!
found=
while [ -z "$found" ] && kill -0 $snakemake 2>/dev/null; do # after the first record, in the middle of the next run
    [ "$(count "$killed")" -lt 1 ] || found=$(holder "$killed")
done
check "a run was caught in the middle" [ -n "$found" ]
read -r orphan folder <<<"$found"
kill -STOP "$orphan"
kill -KILL $snakemake
wait $snakemake 2>/dev/null || true
before=$(stamps "$killed")
echo "      killed with $(count "$killed") of 4 records; process $orphan lives on with ${folder#"$killed/"}"
check "the run of the orphan is unfinished" [ ! -e "$folder/metrics.json" ]

sweep "$killed" "$tmp/again.log" &
snakemake=$!
both() { [ "$(users_of "$folder/.lock" | wc -l)" -ge 2 ]; }
for _ in $(seq 240); do both && break || sleep 0.5; done
check "the same command again waits for the orphan" both
kill -CONT "$orphan"
status=0
wait $snakemake || status=$?
check "and ends well" [ $status = 0 ]
check "it has 4 records" [ "$(count "$killed")" = 4 ]
check "what was finished before was left alone" [ "$(stamps "$killed" | grep -Fxc -f <(echo "$before"))" = "$(echo "$before" | wc -l)" ]
check "all numbers are those of the undisturbed sweep" "$PY" tests/slurm/compare.py "$whole" "$killed"
[ $failed = 0 ] || tail -n 40 "$tmp"/again.log
[ $failed = 0 ] && echo "PASS" || echo "FAIL"
exit $failed
