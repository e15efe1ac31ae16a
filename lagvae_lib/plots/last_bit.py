"""How much of the toy's beginning is rounding: runs by seed, beside runs that differ in the last bit of one weight."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from lagvae_lib.config.methods import colour
from lagvae_lib.plots import WIDTH
from lagvae_lib.runs.last_bit import AS_IT_IS, METHOD
from lagvae_lib.runs.record import Run


def early_information(runs: Sequence[Run], updates: int) -> list[float]:
    """The MI of each run after so many decoder updates, over all points measured, in nats."""
    return [float(run.dynamics.set_index("iteration").loc[updates, "mi_large"]) for run in runs]


def information_by_last_bit(record: pd.DataFrame, runs: Sequence[Run]) -> Figure:
    """MI after the updates of the trial, nats: above the seeds on record, a point each; below, for each seed of
    `record` (`runs.last_bit.read`), its own run as a ring and one point for each weight that was moved.
    """
    figure, ax = plt.subplots(figsize=(0.8 * WIDTH, 0.9 + 0.6 * (1 + record["seed"].nunique())))
    point = {"color": colour(METHOD), "alpha": 0.7, "linewidths": 0, "zorder": 3}
    ring = {"facecolors": "none", "edgecolors": "black", "linewidths": 1.2, "zorder": 4}
    found = early_information(runs, int(record["iteration"].iloc[0]))
    names = [f"seeds {runs[0].metrics['seed']} to {runs[-1].metrics['seed']}, on record"]
    ax.scatter(found, [0] * len(found), 55, label="a run", **point)
    for place, (seed, of) in enumerate(record.groupby("seed"), start=1):
        names.append(f"seed {seed}, last bit moved")
        own = of["weight"] == AS_IT_IS
        ax.scatter(of.loc[~own, "mi_large"], [place] * (~own).sum(), 55, **point)
        ax.scatter(of.loc[own, "mi_large"], [place], 110, label="the seed as it is" if place == 1 else None, **ring)
    ax.set_yticks(range(len(names)), names)
    ax.invert_yaxis()
    ax.set(xlabel="mutual information, nats", ylim=(len(names) - 0.5, -0.5))
    ax.set_xlim(left=-0.05)
    ax.grid(axis="y", visible=False)
    ax.legend(loc="upper left")
    return figure
