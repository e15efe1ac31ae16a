"""Figures of the toy: the posterior mean space (Figures 2 and 3 of the paper), the lag, and the likelihood.

`runs` is everywhere {label: list of the `Run`s of one method, one a seed}. Every function returns its figure.
"""

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.animation import FuncAnimation, PillowWriter
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lagvae_lib.config.methods import colour
from lagvae_lib.metrics.comparison import agreement, paired
from lagvae_lib.plots import COLOURS
from lagvae_lib.runs.record import Run, Trajectory

Runs = dict[str, list[Run]]
MODEL, INFERENCE = "mean of $p(z|x)$ under the model", "mean of $q(z|x)$"
PANELS = (0, 200, 1000, 3000, None)
INNER, OUTER = COLOURS[2], COLOURS[1]
GIF_DPI = 72


def _colour(run: Run) -> str:
    return colour(run.metrics["method"])


def looks(run: Run, iterations: tuple[int | None, ...] = PANELS) -> list[int]:
    """Rows of `run.points` nearest to the wanted iterations, None being the last; in order, without repeats."""
    at = run.points["iteration"]
    rows = [len(at) - 1 if wanted is None else int(np.abs(at - wanted).argmin()) for wanted in iterations]
    return sorted(set(rows))


def figure_2(runs: Runs, iterations: tuple[int | None, ...] = PANELS) -> Figure:
    """One row of panels a method (its first run), one column an iteration; correlation and slope in the last panel."""
    chosen = {label: looks(of[0], iterations) for label, of in runs.items()}
    columns = max(map(len, chosen.values()))
    figure, axes = plt.subplots(
        len(runs), columns, figsize=(2.6 * columns, 2.75 * len(runs)), sharex=True, sharey=True, squeeze=False
    )
    limit = _limit([of[0] for of in runs.values()], chosen.values())
    for row, (label, of) in enumerate(runs.items()):
        for column, look in enumerate(chosen[label]):
            _space(axes[row, column], of[0], look, limit, _colour(of[0]))
        _annotate(axes[row, len(chosen[label]) - 1], of[0], chosen[label][-1])
        axes[row, 0].set_ylabel(f"{label}\n{INFERENCE}")
        for unused in axes[row, len(chosen[label]) :]:
            unused.set_visible(False)
    figure.supxlabel(MODEL, fontsize=11)
    return figure


def final_spaces(runs: Runs, columns: int = 4) -> Figure:
    """Figure 2's last look at each method (its first run), a panel a method, with correlation and slope."""
    rows = max(1, -(-len(runs) // columns))
    figure, axes = plt.subplots(rows, columns, figsize=(2.9 * columns, 3.1 * rows), sharex=True, sharey=True)
    axes = axes.flatten()
    firsts = {label: of[0] for label, of in runs.items()}
    limit = _limit(list(firsts.values()), [[-1]] * len(firsts)) if firsts else 1.0
    for axis, (label, run) in zip(axes, firsts.items(), strict=False):
        _space(axis, run, -1, limit, _colour(run))
        _annotate(axis, run, -1)
        axis.set_title(label)
    for unused in axes[len(firsts) :]:
        unused.set_visible(False)
    figure.supxlabel(MODEL, fontsize=11)
    figure.supylabel(INFERENCE, fontsize=11)
    return figure


def _limit(runs: list[Run], rows) -> float:
    """Half the side of a square that holds all chosen points."""
    values = [np.abs(run.points[name][list(at)]).max() for run, at in zip(runs, rows, strict=True) for name in AXES]
    return 1.05 * max(*map(float, values), 1e-3)


AXES = ("model_mean", "inference_mean")


def _space(axis: Axes, run: Run, look: int, limit: float, colour) -> None:
    axis.axline((0, 0), slope=1, color="0.6", linewidth=1, zorder=1)
    axis.scatter(*(run.points[name][look] for name in AXES), s=7, alpha=0.5, color=colour, linewidths=0, zorder=2)
    axis.set(xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal")
    axis.set_title(f"iteration {run.points['iteration'][look]:,}")


def _annotate(axis: Axes, run: Run, look: int) -> None:
    found = agreement(*(run.points[name][look] for name in AXES))
    text = f"correlation {found.correlation:.3f}\nslope {found.slope:.2f}"
    if np.isnan(found.correlation):
        text = f"collapsed: sd {found.model_sd:.0e}, {found.inference_sd:.0e}"
    axis.text(0.04, 0.96, text, transform=axis.transAxes, va="top", fontsize=9, backgroundcolor=(1, 1, 1, 0.7))


def figure_3(paths: dict[str, Trajectory], updates: int, points: int = 2) -> Figure:
    """The ways of a few points over the first `updates` decoder updates and what inner loop follows them.

    One panel a method, with all points where they are at the end. Inner loops are vertical, generator steps horizontal
    lines; joint steps have the generator's colour. The points followed are spread over the network's means at the end
    of the last panel's stretch, the extreme ones included.
    """
    figure, axes = plt.subplots(1, len(paths), figsize=(5.2 * len(paths), 5), sharex=True, sharey=True, squeeze=False)
    *_, last = paths.values()
    order = last.inference_mean[np.flatnonzero(last.iteration <= updates)[-1]].argsort()
    chosen = order[np.linspace(0, len(order) - 1, points).round().astype(int)]
    for axis, (label, path) in zip(axes[0], paths.items(), strict=True):
        drawn = path.iteration <= updates
        x, y = (getattr(path, name)[drawn] for name in AXES)
        axis.axline((0, 0), slope=1, color="0.6", linewidth=1, zorder=1)
        axis.scatter(x[-1], y[-1], s=10, color="0.55", linewidths=0, zorder=2)
        for point in chosen:
            _way(axis, x[:, point], y[:, point], path.after_inner[drawn])
        axis.set(title=label, xlabel=MODEL)
    axes[0, 0].set_ylabel(INFERENCE)
    keys = [
        Line2D([], [], color=INNER, label="inner loop (φ)"),
        Line2D([], [], color=OUTER, label="generator step (θ), or joint (both)"),
        Line2D([], [], color="black", marker="o", linestyle="", label="end of a way"),
        Line2D([], [], color="0.55", marker=".", linestyle="", label="the other points at that time"),
    ]
    figure.legend(handles=keys, loc="outside lower center", ncols=4)
    return figure


def _way(axis: Axes, x: np.ndarray, y: np.ndarray, after_inner: np.ndarray) -> None:
    for step in range(1, len(x)):
        colour = INNER if after_inner[step] else OUTER
        axis.plot(x[step - 1 : step + 1], y[step - 1 : step + 1], color=colour, linewidth=1.1, alpha=0.85, zorder=3)
    axis.plot(x[-1], y[-1], "o", color="black", markersize=5, zorder=4)


def stage_end(run: Run) -> int | None:
    """The decoder updates after which aggressive training ended; None if it never was or never ended."""
    aggressive = run.history["aggressive"].astype(bool)
    if not aggressive.any() or aggressive.iloc[-1]:
        return None
    return int(run.history["iteration"][aggressive].iloc[-1])


def curves(runs: Runs, panels: dict[str, str], *, log_y: bool = False) -> Figure:
    """Columns of `Run.dynamics` over training, {column: title}; a thin line a seed, dotted where stages end."""
    figure, axes = plt.subplots(1, len(panels), figsize=(4.6 * len(panels), 3.8), sharex=True, sharey=True)
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


FLOOR = 1e-5  # where curves on a logarithmic axis end


def lag_over_training(runs: Runs) -> Figure:
    """KL(q(z|x) || p(z|x)) on the grid, and the two gaps it is made of."""
    titles = {
        "lag": r"lag: KL$(q(z|x)\,\|\,p(z|x))$",
        "amortisation": "amortisation gap",
        "approximation": "approximation gap",
    }
    return curves(runs, titles, log_y=True)


def information_over_training(runs: Runs) -> Figure:
    """The KL term and what of it is mutual information (same-sample estimate over all points looked at)."""
    return curves(runs, {"kl": r"KL$(q(z|x)\,\|\,p(z))$", "mi_large": "mutual information under $q$"})


def spreads_over_training(runs: Runs) -> Figure:
    """How far the points spread (standard deviation over them) along each axis of the posterior mean space."""
    figure, axes = plt.subplots(1, 2, figsize=(9.2, 3.8), sharey=True)
    for axis, name, title in zip(axes, AXES, (MODEL, INFERENCE), strict=True):
        values = {label: [run.points[name].astype(np.float64).std(1) for run in of] for label, of in runs.items()}
        _lines(axis, runs, values)
        axis.set_title(f"sd over points of the {title}")
    axes[0].legend()
    return figure


def _lines(axis: Axes, runs: Runs, values: dict[str, list]) -> None:
    """A thin line a run over decoder updates, dotted where aggressive stages end."""
    for label, of in runs.items():
        shade = _colour(of[0])
        for i, (run, line) in enumerate(zip(of, values[label], strict=True)):
            name = label if i == 0 else None
            axis.plot(run.dynamics["iteration"], line, color=shade, linewidth=1.1, label=name)
            if (end := stage_end(run)) is not None:
                axis.axvline(end, color=shade, linewidth=1, linestyle=":")
    longest = max(run.dynamics["iteration"].max() for of in runs.values() for run in of)
    axis.set_xscale("symlog", linthresh=1000, linscale=0.7)
    axis.set_xticks([0, 500, 1000, 5000, 10_000, 50_000], ["0", "500", "1k", "5k", "10k", "50k"])
    axis.set(xlabel="decoder updates", xlim=(0, longest))


def likelihood(runs: Runs, oracle: dict) -> Figure:
    """NLL of every run beside the oracle's, on selection and on fresh lines, and the second method minus the first.

    oracle: what `lagvae_lib.data.oracle.read_oracle` gives. Bars are standard errors over lines, which all runs
    share; the right panel's differences are between runs of one seed on one set of lines.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), width_ratios=(3, 2))
    for column, split in enumerate(SPLITS.values()):
        exact = oracle[split]
        left.errorbar(
            column - 0.3, exact["nll"], exact["nll_se"], fmt="D", color="black", label=None if column else "oracle"
        )
        for row, (label, of) in enumerate(runs.items()):
            for i, run in enumerate(of):
                values = split_metrics(run, split)
                left.errorbar(
                    column + 0.3 * row + 0.06 * (i - (len(of) - 1) / 2),
                    values["nll"],
                    values["nll_standard_error"],
                    fmt="o",
                    markersize=5,
                    color=_colour(run),
                    label=None if column or i else label,
                )
        _differences(right, column, *(nlls(of, split) for of in list(runs.values())[:2]))
    left.set(ylabel="NLL, nats per line", xlim=(-0.6, 1.7))
    left.set_xticks([0.05, 1.05], SPLITS)
    left.legend(loc="center right")
    first, second = list(runs)[:2]
    right.axhline(0, color="0.5", linewidth=1)
    right.set(ylabel=f"NLL: {second} − {first}", xlim=(-0.6, 1.6))
    right.set_xticks([0, 1], SPLITS)
    return figure


SPLITS = {"selection lines": "test", "fresh lines": "fresh"}


def split_metrics(run: Run, split: str) -> dict:
    """A run's metrics on the `test` lines, which were selected on too, or on the `fresh` ones."""
    return run.metrics if split == "test" else run.metrics[split]


def nlls(runs: list[Run], split: str) -> list[float]:
    """The NLL of each run on a split."""
    return [split_metrics(run, split)["nll"] for run in runs]


def _differences(axis: Axes, column: int, first: list[float], second: list[float]) -> None:
    found = paired(first, second)
    spread = 0.08 * (np.arange(len(first)) - (len(first) - 1) / 2)
    axis.plot(column - 0.15 + spread, found.differences, "o", color="0.45", markersize=5)
    axis.errorbar(column + 0.15, found.mean, np.nan_to_num(found.half_width), fmt="s", color="black", capsize=4)


def animation(runs: Runs, frames: int = 40) -> FuncAnimation:
    """The points of every method's first run over training: early frames every look, later ones further apart."""
    first = {label: of[0] for label, of in runs.items()}
    longest = max(len(run.points["iteration"]) for run in first.values())
    at = np.unique(np.round(np.geomspace(1, longest, frames)).astype(int) - 1)
    limit = _limit(list(first.values()), [range(len(run.points["iteration"])) for run in first.values()])
    figure, axes = plt.subplots(1, len(first), figsize=(4 * len(first), 4.2), sharex=True, sharey=True, squeeze=False)

    def draw(look: int) -> list:
        for axis, (label, run) in zip(axes[0], first.items(), strict=True):
            axis.clear()
            _space(axis, run, min(look, len(run.points["iteration"]) - 1), limit, _colour(run))
            axis.set_title(f"{label}, {axis.get_title()}")
            axis.set_xlabel(MODEL)
        axes[0, 0].set_ylabel(INFERENCE)
        return list(axes[0])

    draw(0)
    plt.close(figure)
    return FuncAnimation(figure, draw, frames=[*at, *[at[-1]] * 6])


def gif(of: FuncAnimation, per_second: int = 6) -> bytes:
    """The animation as the bytes of a GIF."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "animation.gif"
        of.save(path, PillowWriter(fps=per_second), dpi=GIF_DPI)
        return path.read_bytes()
