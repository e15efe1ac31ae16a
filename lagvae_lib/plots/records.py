"""Figures from records of runs: training dynamics (Figure 5), what the bounds say, and how the code is used.

Each takes finished runs by name (a label to draw under), leaves out those without a latent variable where there is
nothing to draw, and returns a figure. Fed by records only.
"""

import math
from collections.abc import Iterable, Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

from lagvae_lib.config.methods import colour, label
from lagvae_lib.metrics import THRESHOLD
from lagvae_lib.metrics.inner_loop import counts_of_noise, mean_count
from lagvae_lib.plots import COLOURS, WIDTH, distinct
from lagvae_lib.runs.record import Run

CURVES = {  # title: colour, and the columns by the paper's estimator and by the large-sample one
    "KL term": (COLOURS[0], "kl", None),
    "MI": (COLOURS[1], "mi", "mi_large"),
    "KL(q(z) || p(z))": (COLOURS[2], "aggregate_kl", "aggregate_kl_large"),
}
FLOOR = 1e-7
COLUMNS = {0: 1, 1: 1, 2: 2, 4: 2}  # of a figure by its number of panels; 3 otherwise


def _colours(runs: Mapping[str, Run]) -> dict[str, str]:
    """Each run's colour."""
    return distinct({name: colour(run.metrics["method"]) for name, run in runs.items()})


def with_code(runs: Mapping[str, Run]) -> dict[str, Run]:
    """The runs of models with a latent variable."""
    return {name: run for name, run in runs.items() if "variance_of_means" in run.metrics}


def dynamics(runs: Mapping[str, Run], nats: float | None = None) -> Figure:
    """Figure 5: the KL term, the MI and KL(q(z) || p(z)) over training, one panel per run; nats per example.

    Solid: the paper's estimators (minibatches); dashed: MI over all examples of the probe, and what follows from it.
    Grey: the noise of the paper's MI at collapse, two sd on either side of 0. Dotted: log of the batch, which that MI
    cannot pass. Shaded: the aggressive stage. nats: the height of the panels, by default what the data need.
    """
    runs = {name: run for name, run in with_code(runs).items() if len(run.dynamics)}
    figure, axes = _panels(runs)
    for ax, (name, run) in zip(axes, runs.items(), strict=False):
        ax.set(title=name, xlabel="decoder updates")
        ax.xaxis.set_major_locator(MaxNLocator(4))
        _noise(ax, run)
        for title, (shade, paper, large) in CURVES.items():
            wide = {} if large else {"linewidth": 5, "alpha": 0.4}  # or the last curve covers the first at collapse
            ax.plot(run.dynamics["iteration"], run.dynamics[paper], color=shade, label=title, **wide)
            if large:
                ax.plot(
                    run.dynamics["iteration"], run.dynamics[large], "--", color=shade, label=f"{title}, all examples"
                )
        _aggressive_stage(ax, run)
    if runs:
        drawn = pd.concat([run.dynamics[[c for _, *cs in CURVES.values() for c in cs if c]] for run in runs.values()])
        top = nats or max(1.0, drawn.max().max() * 1.1)
        axes[0].set(ylim=(min(-0.3, drawn.min().min() * 1.1), top), ylabel="nats per example")
        _caps(axes, runs, top)
        _legend_below(figure, axes)
    return figure


def _caps(axes: list[Axes], runs: Mapping[str, Run], top: float) -> None:
    """log B in each panel, where it is in sight."""
    for ax, run in zip(axes, runs.values(), strict=False):
        batch = run.config["data"]["batch_size"]
        if math.log(batch) < top:
            ax.axhline(math.log(batch), color="black", linestyle=":", linewidth=1, label=f"log {batch}")


def _noise(ax: Axes, run: Run) -> None:
    """Two sd of the paper's estimator at collapse, sqrt(nz / 2N) for N examples in the probe."""
    # A record older than the number is of data that fill what the profile asks for
    asked = min(run.config["evaluation"]["probe"], run.config["data"]["valid"] or math.inf)
    examples = run.metrics.get("probe", asked)
    sd = math.sqrt(run.config["model"]["nz"] / (2 * examples))
    ax.axhspan(-2 * sd, 2 * sd, color="grey", alpha=0.2, linewidth=0, label="noise of MI at collapse")


def _aggressive_stage(ax: Axes, run: Run) -> None:
    stage = run.history.loc[run.history["aggressive"].astype(bool), "iteration"]
    if len(stage):
        ax.axvspan(0, stage.max(), color=COLOURS[3], alpha=0.08, linewidth=0, label="aggressive stage")


def nll_by_samples(runs: Mapping[str, Run]) -> Figure:
    """Importance-weighted bounds on -log p(x) by the number of samples, on the test set.

    A model without z, whose likelihood is exact, is a horizontal line.
    """
    figure, ax = plt.subplots(figsize=(7.5, 4))
    coded = with_code(runs)
    for name, run in runs.items():
        drawn_in = _colours(runs)[name]
        if name in coded:
            bounds = run.metrics["nll_by_samples"]
            ax.plot([int(k) for k in bounds], list(bounds.values()), "o-", color=drawn_in, label=name)
        else:
            ax.axhline(run.metrics["nll"], color=drawn_in, linestyle="--", label=f"{name} (exact)")
    ax.set(xscale="log", xlabel="samples of the bound", ylabel="NLL bound, nats per example")
    ticks = sorted({int(k) for run in coded.values() for k in run.metrics["nll_by_samples"]})
    ax.set_xticks(ticks, [str(k) for k in ticks])
    ax.xaxis.set_minor_locator(NullLocator())
    if runs:
        _legend_below(figure, [ax])
    return figure


COLOURED = ("vae", "vae-anneal", "sa-vae", "aggressive", "aggressive-anneal")  # in Figure 4; the rest is grey
MARKERS = dict(zip(COLOURED, "os^Dv", strict=True))


def nll_against_au(panels: Mapping[str, Mapping[str, list[Run]]]) -> Figure:
    """Figure 4: NLL against active units, one panel per data set, one point per run; a model without z is a dashed line
    at its exact NLL. Points far above the rest (`_edge`) stand at the upper edge, their NLL written below.

    panels: {title: {label: runs}}. The methods of `COLOURED` have their colours, all others are grey. The axis of
    active units is the same in all panels: linear up to 1, logarithmic beyond.
    """
    figure, axes = plt.subplots(1, max(1, len(panels)), figsize=(WIDTH, 5), sharex=True, squeeze=False)
    for ax, (title, rows) in zip(axes[0], panels.items(), strict=False):
        edge = _edge([run.metrics["nll"] for runs in rows.values() for run in runs])
        for name, runs in rows.items():
            _points(ax, name, runs, edge)
        if edge < math.inf:
            ax.set_ylim(top=edge)
        ax.set(title=title, xlabel="active units", ylabel="NLL, nats per example")
        ax.set_xscale("symlog", base=2, linthresh=1)
        ax.set_xticks([0, 1, 2, 4, 8, 16, 32], ["0", "1", "2", "4", "8", "16", "32"])
        ax.set_xlim(-0.3, 45)
    for ax in axes[0, 1:]:
        ax.set_ylabel("")
    if panels:
        _legend_below(figure, list(axes[0]))
    return figure


def _points(ax: Axes, label: str, runs: list[Run], edge: float) -> None:
    """The runs of one method in a panel of Figure 4."""
    method, nll = runs[0].metrics["method"].split("+")[0], [run.metrics["nll"] for run in runs]
    if runs[0].metrics["nll_is_exact"]:
        ax.axhline(sum(nll) / len(nll), color="black", linestyle="--", linewidth=1, label=f"{label} (no z)")
        return
    own = method in COLOURED
    looks = {"color": colour(method), "marker": MARKERS[method]} if own else {"color": "0.65", "marker": "."}
    au, shown = [run.metrics["au"] or 0 for run in runs], np.minimum(nll, edge)
    name = label if own else "other methods"
    ax.scatter(au, shown, 60, label=name, alpha=0.8, zorder=4 if own else 3, clip_on=False, linewidths=0, **looks)
    for x, y in zip(au, nll, strict=True):
        if y > edge:
            below = {"xytext": (0, -7), "textcoords": "offset points", "ha": "center", "va": "top"}
            ax.annotate(f"{y:.1f} →", (x, edge), rotation=90, fontsize="small", **below)


def nll_by_length(runs: Iterable[Run]) -> Figure:
    """NLL of each run against the decoder updates after which its schedule ended it, one colour per method."""
    figure, ax = plt.subplots(figsize=(0.8 * WIDTH, 4))
    for run in runs:
        method = run.metrics["method"]
        name, marker = label(method, run.family), MARKERS.get(method.split("+")[0], "P")
        ax.scatter(run.metrics["iterations"], run.metrics["nll"], 60, colour(method), marker=marker, label=name)
    ax.set(xlabel="decoder updates of the run", ylabel="NLL, nats per example")
    _legend_below(figure, [ax])
    return figure


def _edge(values: list[float]) -> float:
    """The upper end of an axis most of which a few values far above the rest would take, or infinity where there are
    none: far is above Tukey's outer fence, three interquartile ranges over the upper quartile."""
    lower, upper = np.quantile(values, [0.25, 0.75])
    rest = [value for value in values if value <= upper + 3 * (upper - lower)]
    return math.inf if len(rest) == len(values) else max(rest) + 0.4 * (max(rest) - min(rest))


PHASES = {  # of a record's processor seconds: what they were spent on
    "aggressive": "updates with an inner loop",
    "plain": "plain updates",
    "pretraining": "pretraining",
    "evaluation": "validation and measurements",
    "test": "test",
}


def seconds_by_phase(panels: Mapping[str, Mapping[str, Run]]) -> Figure:
    """Processor minutes of runs by what they were spent on, one panel per data set, one bar per run."""
    figure, axes = plt.subplots(max(1, len(panels)), 1, figsize=(WIDTH, 1.9 * max(1, len(panels)) + 0.8), squeeze=False)
    for ax, (title, runs) in zip(axes[:, 0], panels.items(), strict=False):
        start = np.zeros(len(runs))
        for at, (phase, meaning) in enumerate(PHASES.items()):
            minutes = np.array([run.metrics["cpu_seconds"].get(phase, 0.0) / 60 for run in runs.values()])
            if minutes.any():
                ax.barh(list(runs), minutes, left=start, color=COLOURS[at], label=meaning)
            start += minutes
        ax.set(title=title, xlabel="processor minutes")
        ax.invert_yaxis()
    if panels:
        _legend_below(figure, list(axes[:, 0]))
    return figure


def inner_counts(runs: Mapping[str, Run]) -> Figure:
    """How long inner loops were: the share of aggressive updates by inner steps, one panel per run that counts them.

    Dots: what the test of convergence would do on windows of nothing but noise (`metrics.inner_loop`).
    """
    runs = {name: run for name, run in runs.items() if "inner_counts" in run.metrics and _has_windows(run)}
    figure, axes = _panels(runs, "no run whose record counts its inner loops")
    for ax, (name, run) in zip(axes, runs.items(), strict=False):
        counts = {int(steps): times for steps, times in run.metrics["inner_counts"].items()}
        knobs, total = run.config["method"]["inference"], sum(counts.values())
        ax.bar(
            list(counts), [times / total for times in counts.values()], width=0.7 * knobs["window"], label="this run"
        )
        if run.ends_by_window:
            noise = counts_of_noise(knobs["window"], knobs["max_steps"])
            ax.plot(list(noise), list(noise.values()), "o--", color=COLOURS[1], label="windows of pure noise")
        ax.set(title=f"{name}\n{mean_count(counts):.1f} on average", xlabel="inner steps of an update")
    if runs:
        axes[0].set_ylabel("share of aggressive updates")
        _legend_below(figure, axes)
    return figure


def lengths_by_epoch(runs: Iterable[Run]) -> Figure:
    """Mean inner steps by epoch of the aggressive stage, in units of what windows of noise give; one line per run whose
    loops end by the paper's test of convergence, one colour per data set."""
    figure, ax = plt.subplots(figsize=(7.5, 3.8))
    datasets: dict[str, tuple] = {}
    for run in runs:
        knobs, stage = run.config["method"]["inference"], run.history[run.history["aggressive"].astype(bool)]
        if not len(stage) or not run.ends_by_window:
            continue
        name, noise = run.metrics["dataset"], mean_count(counts_of_noise(knobs["window"], knobs["max_steps"]))
        known = name in datasets
        shade = datasets.setdefault(name, COLOURS[len(datasets)])
        at = np.arange(1, len(stage) + 1)
        ax.plot(at, stage["inner_steps"] / noise, "o-", color=shade, alpha=0.7, label=None if known else name)
    ax.axhline(1, color="black", linestyle="--", linewidth=1, label="windows of pure noise")
    ax.set(xlabel="epoch of the aggressive stage", ylabel="mean inner steps, relative to noise", ylim=(0.7, None))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.legend(ncols=2)
    return figure


def _has_windows(run: Run) -> bool:
    """Whether a run's inner loops are Algorithm 1's and not, say, SA-VAE's refinement."""
    return "window" in run.config["method"]["inference"]


def code_usage(runs: Mapping[str, Run]) -> Figure:
    """Left: mean KL of each dimension, largest first; under a prior other than N(0, I) a dimension has none of its own.
    Right: active units by the threshold, the paper's marked."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4))
    for name, run in with_code(runs).items():
        drawn_in = _colours(runs)[name]
        if "kl_per_dim" in run.metrics:
            kl = np.sort(np.maximum(run.metrics["kl_per_dim"], FLOOR))[::-1]
            left.plot(np.arange(1, len(kl) + 1), kl, "o-", markersize=4, color=drawn_in, label=name)
        curve = run.metrics["au_by_threshold"]
        right.step(curve["thresholds"], curve["au"], where="post", color=drawn_in, label=name)
    left.set(yscale="log", xlabel="dimension, by rank", ylabel="KL, nats per example")
    left.xaxis.set_major_locator(MaxNLocator(integer=True))
    right.yaxis.set_major_locator(MaxNLocator(integer=True))
    right.set_ylim(-0.5, max([1, *(run.config["model"]["nz"] for run in runs.values())]) + 0.5)
    right.axvline(THRESHOLD, color="black", linestyle=":", linewidth=1, label=f"the paper's {THRESHOLD}")
    right.set(xscale="log", xlabel="threshold on the variance of the means", ylabel="active units")
    figure.legend(*right.get_legend_handles_labels(), loc="outside lower center", ncols=5)
    return figure


def information_by_batch(runs: Mapping[str, Run]) -> Figure:
    """I(x; z) on the test set, estimated from both sides, by the batch whose mixture is q(z); one panel per run.

    Circles: the same-sample estimate, low in expectation and never above log B (black). Triangles: leave one out, high
    in expectation (out of sight where it is far above the largest log B). Dotted: the paper's estimate, whose batches
    are those of training.
    """
    runs = with_code(runs)
    figure, axes = _panels(runs)
    for ax, (name, run) in zip(axes, runs.items(), strict=False):
        curve = pd.DataFrame(run.metrics["mi_by_batch"]).drop_duplicates("batch_size").sort_values("batch_size")
        sizes = curve["batch_size"].to_numpy()
        ax.plot(sizes, curve["cap"], color="black", linewidth=1, label="log B")
        ax.plot(sizes, curve["upper"], "^--", color=COLOURS[1], label="leave one out")
        ax.plot(sizes, curve["lower"], "o-", color=COLOURS[0], label="same sample")
        ax.axhline(run.metrics["mi"], color=COLOURS[2], linestyle=":", label="the paper's estimate")
        ax.set(title=name, xlabel="batch size B", xscale="log")
        ax.set_xticks(sizes, [str(size) for size in sizes])
        ax.xaxis.set_minor_locator(NullLocator())
    if runs:
        caps = [row["cap"] for run in runs.values() for row in run.metrics["mi_by_batch"]]
        lows = [row["lower"] for run in runs.values() for row in run.metrics["mi_by_batch"]]
        axes[0].set_ylim(min(0.0, *lows) - 0.03 * max(caps), min(axes[0].get_ylim()[1], 1.4 * max(caps)))
        for ax in axes[:: COLUMNS.get(len(runs), 3)]:
            ax.set_ylabel("MI, nats per example")
        _legend_below(figure, axes)
    return figure


def _panels(
    runs: Mapping[str, Run], nothing: str = "no run of a model with a latent variable"
) -> tuple[Figure, list[Axes]]:
    """Panels on one scale, one for each run, or one that says that there is nothing."""
    columns = COLUMNS.get(len(runs), 3)
    rows = max(1, -(-len(runs) // columns))
    size = WIDTH * (0.6 if columns == 1 else 1), 3.1 * rows + 1.0
    figure, axes = plt.subplots(rows, columns, figsize=size, sharey=True, squeeze=False)
    axes = list(axes.flat)
    if not runs:
        axes[0].set_axis_off()
        axes[0].text(0.5, 0.5, nothing, ha="center", va="center")
    for unused in axes[max(1, len(runs)) :]:
        unused.set_visible(False)
    return figure, axes


def _legend_below(figure: Figure, axes: list[Axes]) -> None:
    """One legend for all panels, each name once, in as many columns (four at most) as the figure is wide enough for."""
    names = {label: handle for ax in axes for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    for columns in (4, 3, 2, 1):
        legend = figure.legend(names.values(), names.keys(), loc="outside lower center", ncols=columns)
        if columns == 1 or legend.get_window_extent().width <= figure.bbox.width:
            return
        legend.remove()
