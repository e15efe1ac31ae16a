"""Which runs fill a row of the paper's tables, and its cells: mean and sd over seeds, and what the training cost.

A row is converged where every one of its runs ended by its schedule's rule.
"""

from collections.abc import Iterable

import pandas as pd

from lagvae_lib.config.methods import knobs, label
from lagvae_lib.data import family
from lagvae_lib.metrics.comparison import Interval, paired
from lagvae_lib.metrics.inner_loop import counts_of_noise, mean_count
from lagvae_lib.runs.record import Run, paired_by_seed

DATASETS = {"yahoo": "Yahoo", "yelp": "Yelp", "omniglot": "OMNIGLOT"}
METRICS = {"nll": "NLL", "kl": "KL", "mi": "MI", "au": "AU"}
BESIDE = {"mi_large": "MI, all examples"}  # what the paper does not have
NO_RUN = "no run"
AT_CAP, EARLIER = "†", "‡"
DAGGER = (
    f"{AT_CAP} not converged: a run of the row ended at its cap on epochs or had a smaller budget, and no verdict on "
    "NLL or cost rests on it."
)
DOUBLE_DAGGER = (
    f"{EARLIER} made under earlier settings of the profile: to be compared with rows of this mark alone, and no "
    "verdict rests on it."
)
BUDGET = {"steps", "max_epochs"}  # knobs


def row_runs(runs: Iterable[Run], method: str) -> list[Run]:
    """The runs of a row: those of the method itself, else those of another budget (`steps`, `max_epochs`).

    Runs of earlier settings fill a row that has no others.
    """
    runs = list(runs)
    named = {run.metrics["method"] for run in runs}
    others = [name for name in named if name.split("+")[0] == method and knobs(name) <= BUDGET]
    found = [run for run in runs if run.metrics["method"] in ([method] if method in named else others)]
    return [run for run in found if not run.earlier] or found


def marked(run: Run) -> str:
    """What a run's method is called on its kind of data, with the mark of earlier settings."""
    return label(run.metrics["method"], run.family) + EARLIER * run.earlier


def beside(run: Run, runs: Iterable[Run], method: str) -> Run | None:
    """The first run of `method` among `runs` that was made under the settings of `run`; None where there is none."""
    return next((r for r in runs if r.metrics["method"] == method and r.earlier == run.earlier), None)


def converged(run: Run) -> bool:
    """Whether training ended by the schedule's rule; one with fewer steps of SA-VAE never counts."""
    return run.ended == "schedule" and "steps" not in knobs(run.metrics["method"])


def count(runs: list[Run]) -> str:
    """How many runs a row has, with the marks that `legend` explains."""
    return f"{len(runs)}{AT_CAP * (not all(map(converged, runs)))}{EARLIER * any(run.earlier for run in runs)}"


def legend(runs: Iterable[Run]) -> str:
    """What the marks of `count` mean: the second is explained where one of these runs has it."""
    return DAGGER + f" {DOUBLE_DAGGER}" * any(run.earlier for run in runs)


def how_ended(runs: list[Run]) -> str:
    """The same in words: "schedule", "cap", or how many of them ended at their cap."""
    capped = sum(not converged(run) for run in runs)
    ended = "schedule" if not capped else "cap" if capped == len(runs) else f"{capped} of {len(runs)} at the cap"
    return ended + ", earlier settings" * any(run.earlier for run in runs)


def paired_difference(metric: str, base: list[Run], of: list[Run]) -> Interval | None:
    """A metric of the runs `of` less that of the runs `base`, over the seeds that both have; None without one."""
    pairs = paired_by_seed(base, of)
    return paired(*([run.metrics[metric] for run in row] for row in zip(*pairs, strict=True))) if pairs else None


def hours(runs: list[Run]) -> float:
    """Mean time of a run, evaluation included, in hours: of the processor, which waiting for other work does not touch;
    on a GPU by the clock on the wall."""
    return sum(sum(run.metrics[_clock(run)].values()) for run in runs) / len(runs) / 3600


def _clock(run: Run) -> str:
    """Which seconds of a run say what it cost: on a GPU the processor only waits."""
    return "seconds" if "cuda" in run.metrics.get("provenance", {}) else "cpu_seconds"


def costs(run: Run) -> dict[str, float]:
    """What a run's time went into, in seconds, and in what it was spent.

    wall: everything, as the paper's whole-script time. cpu: the processor's seconds of training alone (steps of the
    model; measurements, validation and the test left out). epochs, aggressive_epochs. step, aggressive_step: processor
    seconds of a decoder update without and with an inner loop; inner_steps: the inner loop's mean length.
    aggressive_ratio, plain_updates: an aggressive update, and the whole training, in the run's own plain updates, which
    other load on the same core does not change as long as it is even. NaN where a run has no such stage. Of a run on a
    GPU, for which the processor only waits, all these are seconds of the clock on the wall.
    """
    history, cpu = run.history, run.metrics[_clock(run)]
    updates = history["iteration"].diff().fillna(history["iteration"].iloc[0])
    stage = history["aggressive"].astype(bool)
    pretrained = run.config["method"].get("objective", {}).get("pretrain_epochs", 0)
    aggressive, plain = updates[stage].sum(), updates[~stage].iloc[pretrained:].sum()
    total = sum(cpu.get(phase, 0.0) for phase in ("pretraining", "aggressive", "plain"))
    step = cpu["plain"] / plain if plain else float("nan")
    aggressive_step = cpu["aggressive"] / aggressive if aggressive else float("nan")
    return {
        "wall": sum(run.metrics["seconds"].values()),
        "cpu": total,
        "epochs": len(history),
        "aggressive_epochs": int(stage.sum()),
        "step": step,
        "aggressive_step": aggressive_step,
        "inner_steps": (history["inner_steps"] * updates)[stage].sum() / aggressive if aggressive else float("nan"),
        "aggressive_ratio": aggressive_step / step,
        "plain_updates": total / step if aggressive else float("nan"),
        "updates": float(updates.sum()),
    }


def inner_lengths(runs: Iterable[Run]) -> pd.DataFrame:
    """How long the inner loops were that ended by the paper's test of convergence, one row per run with such a stage.

    by epoch: mean inner steps of each aggressive epoch, as text; first, last: of the first and the last of them; noise:
    what windows of nothing but noise would give (`metrics.inner_loop`).
    """
    rows = []
    for run in runs:
        knobs, stage = run.config["method"]["inference"], run.history[run.history["aggressive"].astype(bool)]
        if len(stage) and run.ends_by_window:
            steps = stage["inner_steps"]
            line = {key: run.metrics[key] for key in ("dataset", "method", "seed")} | {"window": knobs["window"]}
            noise = mean_count(counts_of_noise(knobs["window"], knobs["max_steps"]))
            line |= {
                "by epoch": " ".join(f"{value:.0f}" for value in steps),
                "all": round(costs(run)["inner_steps"], 1),
            }
            rows.append(line | {"first": steps.iloc[0], "last": steps.iloc[-1], "noise": noise})
    return pd.DataFrame(rows).rename(columns={"dataset": "data"})


def mean_costs(runs: list[Run]) -> dict[str, float] | None:
    """The means of `costs` over runs; None where there is no run."""
    return pd.DataFrame([costs(run) for run in runs]).mean().to_dict() if runs else None


def row_label(name: str, method: str, runs: list[Run]) -> str:
    """What a row of the table of `name` (`yelp`, `yahoo`, `omniglot`) is called: its runs' method, budget included."""
    if method == "sa-vae-anneal-kim2018":
        return "SA-VAE + anneal (Kim et al. 2018)"
    return label(row_method(method, runs), family(name))


def row_method(method: str, runs: list[Run]) -> str:
    """What a row's runs are really called; the row's own name where it has none."""
    return runs[0].metrics["method"] if runs else method


def moments(metric: str, runs: Iterable[Run]) -> dict[str, float]:
    """Mean and sd of a metric over runs, nats per example on the test set; NaN where there are too few runs.

    A model without a latent variable has an NLL alone.
    """
    values = pd.Series([run.metrics[metric] for run in runs if _has(metric, run)], dtype=float)
    return {"mean": values.mean(), "sd": values.std()}


def cell(metric: str, runs: list[Run]) -> str:
    """The same as text, "mean (sd)", without the sd for one run; "-" for a metric that the model does not have.

    A KL by Monte Carlo (a prior other than N(0, I)) begins with "~".
    """
    if not all(_has(metric, run) for run in runs):
        return "-"
    digits, of = 1 if metric == "au" else 2, moments(metric, runs)
    sampled = metric == "kl" and not all(run.metrics.get("kl_is_exact", True) for run in runs)
    sd = "" if pd.isna(of["sd"]) else f" ({of['sd']:.{digits}f})"
    return "~" * sampled + f"{round(of['mean'], digits) + 0.0:.{digits}f}{sd}"  # + 0.0: no "-0.00"


def _has(metric: str, run: Run) -> bool:
    return metric == "nll" or not run.metrics["nll_is_exact"]
