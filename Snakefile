# The sweep: every run of lagvae_lib/paper/plan.py that has no record yet, each by executing its essay.
#
#   snakemake                                              what is missing of profile `scaled`, on two cores
#   snakemake --config profile=smoke datasets=yelp methods=vae,aggressive seeds=0,1 device=cpu
#   snakemake --workflow-profile slurm --config profile=paper
#
# Options that every call needs stand in profiles/default/config.yaml, which snakemake reads by itself, and in
# profiles/slurm/config.yaml. A record is written in one step and last of all (lagvae_lib/runs/train.py), so one that is
# there is finished: it is neither deleted nor made again, whatever became of the sweep that made it.

import sys

from snakemake.exceptions import WorkflowError

from lagvae_lib import paths
from lagvae_lib.data import sources
from lagvae_lib.paper import plan

# For a scheduler: memory in MB and minutes of one job, by kind of data; `paper` on a GPU. Table 3 has up to 65 hours.
# A job that is cut off goes on from its checkpoint when it is submitted again.
SMALL = {"smoke": (4_000, 20), "quick": (4_000, 120), "scaled": (6_000, 720)}
NEEDS = {
    "toy": SMALL | {"paper": (4_000, 720)},
    "text": SMALL | {"paper": (24_000, 4320)},
    "images": SMALL | {"paper": (16_000, 4320)},
}


def run_of(wildcards):
    """The planned run that a record's path names."""
    named = wildcards.dataset, wildcards.method, wildcards.profile, int(wildcards.seed)
    return PLANNED.get(named) or plan.Planned(*named)


def needs(index):
    """A resource of `NEEDS`."""
    return lambda wildcards: NEEDS[run_of(wildcards).family][wildcards.profile][index]


def gpus(wildcards):
    """Only the paper's models are large enough to want one."""
    wanted = wildcards.profile == "paper" and run_of(wildcards).family != "toy" and DEVICE != "cpu"
    return int(wanted or DEVICE.startswith("cuda"))


RESULTS = paths.results_dir().absolute()
RUN = "{profile}/{dataset}/{method}/seed{seed}{changed}"
try:
    RUNS, DEVICE = plan.configured(config)
except (ValueError, sources.DataError) as error:
    raise WorkflowError(str(error))
PLANNED = {(run.dataset, run.method, run.profile, run.seed): run for run in RUNS}


wildcard_constraints:
    profile="[^/]+",
    dataset="[^/]+",
    method="[^/]+",
    seed=r"\d+",
    changed="(-[0-9a-f]{8})?",  # of a run whose configuration is no longer that of the record in `seed<k>`


localrules:
    all,


onstart:
    try:
        plan.at_hand(run for run in RUNS if not run.record.exists())
    except sources.DataError as error:
        raise WorkflowError(str(error))


rule all:
    input:
        [str(run.record.absolute()) for run in RUNS],


# The executed notebook is a log, because snakemake deletes the outputs of a job that fails, and with them the traceback.
# The notebook is `ancient`, so that editing its prose trains nothing anew, and the record is to be `update`d, so that a
# job that finds it finished (by the orphan of a sweep that was killed, say) loads it instead of finding it deleted.
rule train:
    input:
        notebook=ancient(lambda wildcards: str(paths.ROOT / "notebooks" / run_of(wildcards).notebook)),
    output:
        update(f"{RESULTS}/runs/{RUN}/metrics.json"),
    log:
        f"{RESULTS}/notebooks/{RUN}.ipynb",
    params:
        python=sys.executable,
        parameters=lambda wildcards: plan.parameters(run_of(wildcards), DEVICE),
    threads: 1
    resources:
        mem_mb=needs(0),
        runtime=needs(1),
        gpu=gpus,
    shell:
        # LAGVAE_WAIT: where an orphan still works on this run, wait for what it makes
        "LAGVAE_WAIT=1 OMP_NUM_THREADS={threads} MKL_NUM_THREADS={threads} {params.python:q} -m papermill"
        " {input.notebook:q} {log:q} {params.parameters:q} --no-progress-bar --start-timeout 300"
