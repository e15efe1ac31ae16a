"""Curves of the toy over training: the lag in nats, the relative lag, spreads, information, and the likelihood.

`runs` is everywhere {label: list of the `Run`s of one method, one per seed}. Every function returns its figure.
"""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lagvae_lib.config.methods import colour
from lagvae_lib.metrics.comparison import Interval, paired, relative_lag
from lagvae_lib.plots import WIDTH, distinct
from lagvae_lib.runs.record import Run, paired_by_seed

Runs = dict[str, list[Run]]
MODEL, INFERENCE = "mean of $p(z|x)$ under the model", "mean of $q(z|x)$"
AXES = ("model_mean", "inference_mean")
FLOOR = 1e-5  # where curves on a logarithmic axis end


def shade(run: Run) -> str:
    """The colour of a run's method."""
    return colour(run.metrics["method"])


def shades(runs: Runs) -> dict[str, str]:
    """Each label's colour."""
    return distinct({label: shade(of[0]) for label, of in runs.items()})


def lags(run: Run) -> np.ndarray:
    """The relative lag at every measurement of `run.points`, [measurements]."""
    return relative_lag(*(run.points[name] for name in AXES))


def stage_end(run: Run) -> int | None:
    """The decoder updates after which aggressive training ended; None if it never was or never ended."""
    aggressive = run.history["aggressive"].astype(bool)
    if not aggressive.any() or aggressive.iloc[-1]:
        return None
    return int(run.history["iteration"][aggressive].iloc[-1])


def curves(runs: Runs, panels: dict[str, str], *, log_y: bool = False) -> Figure:
    """Columns of `Run.dynamics` over training, {column: title}; a thin line per seed, dotted where stages end."""
    figure, axes = plt.subplots(1, len(panels), figsize=(WIDTH, 3.6), sharex=True, sharey=True)
    for axis, (column, title) in zip(axes, panels.items(), strict=True):
        lowest = FLOOR if log_y else None
        _lines(
            axis, runs, {label: [run.dynamics[column].clip(lower=lowest) for run in of] for label, of in runs.items()}
        )
        axis.set_title(title)
        if log_y:
            axis.set_yscale("log")
    axes[0].set_ylabel("nats per example")
    axes[0].legend(loc="lower right" if log_y else "best")
    return figure


def lag_over_training(runs: Runs) -> Figure:
    """KL(q(z|x) || p(z|x)) on the grid, and the two gaps it is made of."""
    titles = {
        "lag": r"lag: KL$(q(z|x)\,\|\,p(z|x))$",
        "amortisation": "amortisation gap",
        "approximation": "approximation gap",
    }
    return curves(runs, titles, log_y=True)


def information_over_training(runs: Runs) -> Figure:
    """The KL term and what of it is mutual information (same-sample estimate over all points measured)."""
    return curves(runs, {"kl": r"KL$(q(z|x)\,\|\,p(z))$", "mi_large": "mutual information under $q$"})


def relative_lag_over_training(runs: Runs) -> Figure:
    """Left: how far the model's own means spread (standard deviation over the points). Right: the share of that
    spread, as a variance, which the inference network does not follow (`metrics.comparison.relative_lag`)."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(WIDTH, 4.2), layout="constrained")
    spread = {label: [run.points["model_mean"].astype(np.float64).std(1) for run in of] for label, of in runs.items()}
    _lines(left, runs, spread)
    left.set(title="The model's means spread ...", ylabel="sd over points, units of z", ylim=(0, None))
    _lines(right, runs, {label: [lags(run) for run in of] for label, of in runs.items()})
    right.set(title="... and who follows them?", ylabel="relative lag", ylim=(-0.03, 1.25))
    right.axhline(1, color="0.4", linewidth=0.8, linestyle="--", zorder=1)
    figure.legend(*right.get_legend_handles_labels(), loc="outside lower center", ncols=len(runs))
    return figure


def _lines(axis: Axes, runs: Runs, values: dict[str, list]) -> None:
    """A thin line per run over decoder updates, dotted where aggressive stages end."""
    for label, tint in shades(runs).items():
        for i, (run, line) in enumerate(zip(runs[label], values[label], strict=True)):
            name = label if i == 0 else None
            axis.plot(run.dynamics["iteration"], line, color=tint, linewidth=1.1, label=name)
            if (end := stage_end(run)) is not None:
                axis.axvline(end, color=tint, linewidth=1, linestyle=":")
    updates_axis(axis, max(run.dynamics["iteration"].max() for of in runs.values() for run in of))


def updates_axis(axis: Axes, longest: int) -> None:
    """Decoder updates: linear up to 1,000 and logarithmic beyond."""
    axis.set_xscale("symlog", linthresh=1000, linscale=0.7)
    ticks = {0: "0", 500: "500", 1000: "1k", 3000: "3k", 10_000: "10k", 30_000: "30k"}
    shown = {at: name for at, name in ticks.items() if at <= longest}
    axis.set_xticks(list(shown), list(shown.values()))
    axis.minorticks_off()
    axis.set(xlabel="decoder updates", xlim=(0, longest))


# -- likelihood --------------------------------------------------------------------------------------------------------

SPLITS = {"selection lines": "test", "fresh lines": "fresh"}


def likelihood(runs: Runs, oracle: dict) -> Figure:
    """Left: NLL of every run beside the oracle's, on selection and on fresh lines. Right: the second method minus the
    first, over the seeds that both have (grey; the same lines), with the mean and its 95% interval over seeds (black).

    oracle: what `lagvae_lib.data.oracle.read_oracle` gives. Bars on the left are standard errors over lines, which
    all runs share.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(WIDTH, 4), width_ratios=(3, 2))
    for column, split in enumerate(SPLITS.values()):
        exact = oracle[split]
        left.errorbar(
            column - 0.3, exact["nll"], exact["nll_se"], fmt="D", color="black", label=None if column else "oracle"
        )
        for row, (label, of) in enumerate(runs.items()):
            _likelihoods(left, column + 0.3 * row, of, split, None if column else label)
        _differences(right, column, less(*list(runs.values())[:2], split))
    left.set(ylabel="NLL, nats per line", xlim=(-0.6, 1.7))
    left.set_xticks([0.05, 1.05], SPLITS)
    left.legend(loc="center right")
    first, second = list(runs)[:2]
    right.axhline(0, color="0.5", linewidth=1)
    right.set(ylabel=f"NLL of {second} minus {first}, nats", xlim=(-0.6, 1.6))
    right.set_xticks([0, 1], SPLITS)
    right.legend(loc="upper right")
    return figure


def _likelihoods(axis: Axes, at: float, runs: list[Run], split: str, label: str | None) -> None:
    """The runs of one method side by side, each with its standard error over lines."""
    for i, run in enumerate(runs):
        values, place = split_metrics(run, split), at + 0.06 * (i - (len(runs) - 1) / 2)
        bars = {"fmt": "o", "markersize": 5, "color": shade(run), "label": None if i else label}
        axis.errorbar(place, values["nll"], values["nll_standard_error"], **bars)


def split_metrics(run: Run, split: str) -> dict:
    """A run's metrics on the `test` lines, which were selected on too, or on the `fresh` ones."""
    return run.metrics if split == "test" else run.metrics[split]


def nlls(runs: list[Run], split: str) -> list[float]:
    """The NLL of each run on a split."""
    return [split_metrics(run, split)["nll"] for run in runs]


def less(first: list[Run], second: list[Run], split: str) -> Interval:
    """NLL of the second method less that of the first, over the seeds that both have. Raises ValueError for none."""
    pairs = paired_by_seed(first, second)
    return paired(nlls([a for a, _ in pairs], split), nlls([b for _, b in pairs], split))


def _differences(axis: Axes, column: int, found: Interval) -> None:
    count = len(found.differences)
    spread = 0.08 * (np.arange(count) - (count - 1) / 2)
    labels = (None, None) if column else ("one seed", "mean, 95% interval")
    axis.plot(column - 0.15 + spread, found.differences, "o", color="0.45", markersize=5, label=labels[0])
    half = np.nan_to_num(found.half_width)
    axis.errorbar(column + 0.15, found.mean, half, fmt="s", color="black", capsize=4, label=labels[1])
