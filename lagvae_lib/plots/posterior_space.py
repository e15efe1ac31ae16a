"""The posterior mean space of the toy: Figures 2 and 3 of the paper, single half-steps, and the space in motion.

`runs` is everywhere {label: list of the `Run`s of one method, one per seed}. Every function returns its figure.
"""

import re
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.animation import FuncAnimation, PillowWriter
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lagvae_lib.metrics.comparison import agreement
from lagvae_lib.plots import COLOURS, WIDTH
from lagvae_lib.plots.toy_curves import AXES, INFERENCE, MODEL, Runs, lags, shade, updates_axis
from lagvae_lib.runs.record import Run, Trajectory

PANELS = (0, 200, 1000, 3000, None)
INNER, OUTER = COLOURS[2], COLOURS[1]
SHORT = 0.13  # of half a panel: moves shorter than this have no number
GIF_DPI = 72
SYMBOLS = {  # of the scrubber's buttons, by the names that matplotlib gives them
    "minus": "−",
    "fast-backward": "⏮",
    "step-backward": "◂",
    "play": "▶",
    "pause": "⏸",
    "step-forward": "▸",
    "fast-forward": "⏭",
    "plus": "+",
}


def nearest(run: Run, iterations: tuple[int | None, ...] = PANELS) -> list[int]:
    """Rows of `run.points` nearest to the wanted decoder updates, None being the last; in order, without repeats."""
    at = run.points["iteration"]
    rows = [len(at) - 1 if wanted is None else int(np.abs(at - wanted).argmin()) for wanted in iterations]
    return sorted(set(rows))


def figure_2(runs: Runs, iterations: tuple[int | None, ...] = PANELS) -> Figure:
    """One row of panels per method (its first run), one column per measurement; the last panel has the correlation."""
    chosen = {label: nearest(of[0], iterations) for label, of in runs.items()}
    columns = max(map(len, chosen.values()))
    side = WIDTH / columns
    figure, axes = plt.subplots(
        len(runs), columns, figsize=(WIDTH, (side + 0.35) * len(runs)), sharex=True, sharey=True, squeeze=False
    )
    limit = _limit([of[0] for of in runs.values()], chosen.values())
    for row, (label, of) in enumerate(runs.items()):
        for column, at in enumerate(chosen[label]):
            _space(axes[row, column], of[0], at, limit)
        _annotate(axes[row, len(chosen[label]) - 1], of[0], chosen[label][-1])
        axes[row, 0].set_ylabel(f"{label}\n{INFERENCE}", fontsize=10)
        for unused in axes[row, len(chosen[label]) :]:
            unused.set_visible(False)
    figure.supxlabel(MODEL, fontsize=11)
    return figure


def final_spaces(runs: Runs, columns: int = 4) -> Figure:
    """The last measurement of each method (its first run), one panel per method, with correlation and slope."""
    rows = max(1, -(-len(runs) // columns))
    figure, axes = plt.subplots(
        rows, columns, figsize=(WIDTH, 2.55 * rows + 0.3), sharex=True, sharey=True, squeeze=False
    )
    axes = axes.flatten()
    firsts = {label: of[0] for label, of in runs.items()}
    limit = _limit(list(firsts.values()), [[-1]] * len(firsts)) if firsts else 1.0
    for axis, (label, run) in zip(axes, firsts.items(), strict=False):
        _space(axis, run, -1, limit)
        _annotate(axis, run, -1)
        axis.set_title(label.replace(" (", "\n("), fontsize=10)
    for unused in axes[len(firsts) :]:
        unused.set_visible(False)
    figure.supxlabel(MODEL, fontsize=11)
    figure.supylabel(INFERENCE, fontsize=11)
    return figure


def _limit(runs: list[Run], rows) -> float:
    """Half the side of a square that holds all chosen points."""
    values = [np.abs(run.points[name][list(at)]).max() for run, at in zip(runs, rows, strict=True) for name in AXES]
    return 1.05 * max(*map(float, values), 1e-3)


def _space(axis: Axes, run: Run, at: int, limit: float) -> None:
    """One measurement: the lines x = 0, y = 0 and y = x, and a dot per example."""
    for line in ({"slope": 1}, {"xy2": (1, 0)}, {"xy2": (0, 1)}):
        axis.axline((0, 0), **line, color="0.6", linewidth=0.9, zorder=1)
    points = (run.points[name][at] for name in AXES)
    axis.scatter(*points, s=7, alpha=0.5, color=shade(run), linewidths=0, zorder=2)
    axis.set(xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal")
    axis.set_title(f"{run.points['iteration'][at]:,} updates", fontsize=11)


def _annotate(axis: Axes, run: Run, at: int) -> None:
    found = agreement(*(run.points[name][at] for name in AXES))
    text = f"correlation {found.correlation:.3f}\nslope {found.slope:.2f}"
    if np.isnan(found.correlation):
        text = f"collapsed:\nsd {found.model_sd:.2f} and {found.inference_sd:.4f}"
    axis.text(0.03, 0.97, text, transform=axis.transAxes, va="top", fontsize=9, backgroundcolor=(1, 1, 1, 0.7))


# -- Figure 3 ----------------------------------------------------------------------------------------------------------


def half_steps(paths: dict[str, Trajectory], first: int, moves: int = 8, point: int | None = None) -> Figure:
    """One example, followed through `moves` numbered moves from decoder update `first` on; one panel per method.

    Vertical arrows are inner loops (phi moves), horizontal ones decoder steps (theta moves); joint steps move both and
    have the decoder's colour. point: which example; by default the one that the last panel's method moves most.
    """
    figure, axes = plt.subplots(
        1, len(paths), figsize=(WIDTH, WIDTH / 2 + 1.1), sharex=True, sharey=True, squeeze=False
    )
    *_, last = paths.values()
    if point is None:
        rows = _moves(last, first, moves)
        point = int(np.abs(np.diff(last.model_mean[rows], axis=0)).sum(0).argmax())
    drawn = [getattr(path, name)[_moves(path, first, moves), point] for path in paths.values() for name in AXES]
    limit = 1.2 * max(float(np.abs(values).max()) for values in drawn)
    for axis, (label, path) in zip(axes[0], paths.items(), strict=True):
        rows = _moves(path, first, moves)
        axis.set(xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal")
        _numbered(axis, path.model_mean[rows, point], path.inference_mean[rows, point], path.after_inner[rows])
        axis.set(title=f"{label}, decoder updates {first} to {path.iteration[rows[-1]]}", xlabel=MODEL)
    axes[0, 0].set_ylabel(INFERENCE)
    figure.legend(handles=_keys(), loc="outside lower center", ncols=3)
    return figure


def _moves(path: Trajectory, first: int, moves: int) -> np.ndarray:
    """Rows of a trajectory: where `first` updates were made, and the `moves` that follow."""
    start = int(np.flatnonzero((path.iteration == first) & ~path.after_inner)[0])
    return np.arange(start, min(start + moves + 1, len(path.iteration)))


def _numbered(axis: Axes, x: np.ndarray, y: np.ndarray, after_inner: np.ndarray) -> None:
    """An arrow per move, its number beside its middle; the start is a ring and the end a dot. Numbers of moves that are
    a small part of the panel would lie on each other: they have none, and a line of text says how long they are."""
    for line in ({"slope": 1}, {"xy2": (1, 0)}, {"xy2": (0, 1)}):
        axis.axline((0, 0), **line, color="0.7", linewidth=0.9, zorder=1)
    axis.plot(x[0], y[0], "o", color="black", markersize=9, fillstyle="none", zorder=4)
    axis.plot(x[-1], y[-1], "o", color="black", markersize=6, zorder=4)
    lengths, short = np.hypot(np.diff(x), np.diff(y)), SHORT * axis.get_xlim()[1]
    middles = np.stack([x[1:] + x[:-1], y[1:] + y[:-1]], axis=1) / 2
    for move in range(1, len(x)):
        tint, tail, tip = INNER if after_inner[move] else OUTER, (x[move - 1], y[move - 1]), (x[move], y[move])
        arrow = {"arrowstyle": "-|>", "color": tint, "linewidth": 2, "shrinkA": 0, "shrinkB": 0, "mutation_scale": 14}
        axis.annotate("", tip, tail, arrowprops=arrow, zorder=3)
        if lengths[move - 1] < short:
            continue
        across = int(not after_inner[move])  # the coordinate that the move leaves alone
        away = middles[after_inner[1:] == after_inner[move], across] - middles[move - 1, across]
        aside = [0, 0]
        aside[across] = -9 if away[np.abs(away) < short].sum() > 0 else 9  # away from a move that runs beside it
        axis.annotate(
            str(move),
            middles[move - 1],
            aside,
            textcoords="offset points",
            color=tint,
            fontweight="bold",
            ha="center",
            va="center",
            zorder=5,
        )
    if (lengths < short).all():
        axis.text(
            0.05, 0.95, f"{len(lengths)} moves, the longest {lengths.max():.2f}", transform=axis.transAxes, va="top"
        )


def _keys(extra: tuple[Line2D, ...] = ()) -> list[Line2D]:
    ring = Line2D([], [], color="black", marker="o", fillstyle="none", markersize=9, linestyle="")
    ring.set_label("start; its end is a dot")
    return [
        Line2D([], [], color=INNER, linewidth=2, label="inner loop (φ moves)"),
        Line2D([], [], color=OUTER, linewidth=2, label="decoder step (θ), or joint step (both)"),
        *(extra or (ring,)),
    ]


def figure_3(paths: dict[str, Trajectory], updates: int, points: int = 2) -> Figure:
    """The paths of a few points over the first `updates` decoder updates and the inner loop that follows them.

    One panel per method, with all points where they are at the end. Inner loops are vertical, decoder steps horizontal
    lines; joint steps have the decoder's colour. The points followed are spread over the network's means at the end
    of the last panel's stretch, the extreme ones included.
    """
    figure, axes = plt.subplots(
        1, len(paths), figsize=(WIDTH, WIDTH / 2 + 0.5), sharex=True, sharey=True, squeeze=False
    )
    *_, last = paths.values()
    order = last.inference_mean[np.flatnonzero(last.iteration <= updates)[-1]].argsort()
    chosen = order[np.linspace(0, len(order) - 1, points).round().astype(int)]
    for axis, (label, path) in zip(axes[0], paths.items(), strict=True):
        drawn = path.iteration <= updates
        x, y = (getattr(path, name)[drawn] for name in AXES)
        axis.axline((0, 0), slope=1, color="0.6", linewidth=1, zorder=1)
        axis.scatter(x[-1], y[-1], s=10, color="0.55", linewidths=0, zorder=2)
        for point in chosen:
            _path(axis, x[:, point], y[:, point], path.after_inner[drawn])
        axis.set(title=label, xlabel=MODEL)
    axes[0, 0].set_ylabel(INFERENCE)
    ends = Line2D([], [], color="black", marker="o", linestyle="", label="end of a path")
    rest = Line2D([], [], color="0.55", marker=".", linestyle="", label="the other points at that time")
    figure.legend(handles=_keys((ends, rest)), loc="outside lower center", ncols=2)
    return figure


def _path(axis: Axes, x: np.ndarray, y: np.ndarray, after_inner: np.ndarray) -> None:
    for step in range(1, len(x)):
        tint = INNER if after_inner[step] else OUTER
        axis.plot(x[step - 1 : step + 1], y[step - 1 : step + 1], color=tint, linewidth=1.1, alpha=0.85, zorder=3)
    axis.plot(x[-1], y[-1], "o", color="black", markersize=5, zorder=4)


# -- in motion ---------------------------------------------------------------------------------------------------------


def animation(runs: Runs, frames: int = 40) -> FuncAnimation:
    """The points of every method's first run over training, and below them the relative lag up to that measurement.

    Early measurements are all shown, later ones are further apart.
    """
    first = {label: of[0] for label, of in runs.items()}
    longest = max(len(run.points["iteration"]) for run in first.values())
    at = np.unique(np.round(np.geomspace(1, longest, frames)).astype(int) - 1)
    shown = [np.minimum(at, len(run.points["iteration"]) - 1) for run in first.values()]
    values = [
        np.abs(run.points[name][rows]).ravel() for run, rows in zip(first.values(), shown, strict=True) for name in AXES
    ]
    limit = 1.05 * max(float(np.quantile(of, 0.999)) for of in values) + 1e-3
    figure = plt.figure(figsize=(0.42 * WIDTH * len(first), 0.42 * WIDTH + 2.1))
    panels = figure.subplot_mosaic(
        [[f"space {i}" for i in range(len(first))], ["lag"] * len(first)], height_ratios=[3, 1]
    )

    def draw(row: int) -> list:
        for i, (label, run) in enumerate(first.items()):
            axis = panels[f"space {i}"]
            axis.clear()
            _space(axis, run, min(row, len(run.points["iteration"]) - 1), limit)
            axis.set(title=f"{label}, {axis.get_title()}", xlabel=MODEL, ylabel="" if i else INFERENCE)
        _lag_so_far(panels["lag"], first, row)
        return []

    draw(0)
    figure.draw_without_rendering()  # lets constrained layout settle, so that the first frame is whole
    figure.set_layout_engine("none")  # and keeps the panels where they are
    return FuncAnimation(figure, draw, frames=at, init_func=lambda: [])


def _lag_so_far(axis: Axes, runs: dict[str, Run], last: int) -> None:
    """The relative lag up to a measurement, with a dot at its end."""
    axis.clear()
    for label, run in runs.items():
        at, values = run.points["iteration"][: last + 1], lags(run)[: last + 1]
        axis.plot(at, values, color=shade(run), linewidth=1.4, label=label)
        axis.plot(at[-1:], values[-1:], "o", color=shade(run))
    updates_axis(axis, max(int(run.points["iteration"][-1]) for run in runs.values()))
    axis.set(ylim=(-0.1, 1.25), ylabel="relative lag")


def gif(of: FuncAnimation, per_second: int = 6) -> bytes:
    """The animation as the bytes of a GIF."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "animation.gif"
        of.save(path, PillowWriter(fps=per_second), dpi=GIF_DPI)
        return path.read_bytes()


def scrubber(of: FuncAnimation, per_second: int = 4) -> str:
    """The animation as HTML with a slider and buttons to play, pause and step: it needs no kernel and no network."""
    with plt.rc_context({"savefig.dpi": GIF_DPI}):
        html = of.to_jshtml(fps=per_second, default_mode="once")
    html = re.sub(r'<link rel="stylesheet"\s+href="[^"]*">', "", html)  # icons from another host
    return re.sub(r'<i class="fa fa-([\w-]+)[^"]*"></i>', lambda found: SYMBOLS[found[1]], html)
