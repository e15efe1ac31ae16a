"""The phase plane of `models.two_optima`: which of two equally good optima a start ends in, by the inner steps."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from lagvae_lib.models.two_optima import TwoOptima
from lagvae_lib.plots import COLOURS, WIDTH

STARTS = ((0.95, 0.0), (0.8, 0.0), (0.6, 0.0), (0.9, 0.4), (0.35, 0.8))  # share of z, encoder's gain
LIMITS = (-0.02, 1.05), (-0.05, 1.05)


def basin(model: TwoOptima, inner: int, points: int = 45) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A grid of shares and gains in [0, 1], and the share that gradient ascent from each ends at, [points, points]."""
    t, a = np.meshgrid(np.linspace(0.01, 1, points), np.linspace(0, 1, points))
    return t, a, model.climb(t, a, inner).share[-1]


def phase_plane(model: TwoOptima, inner: tuple[int, ...] = (1, 5, 30), starts=STARTS) -> Figure:
    """One panel per number of inner steps: the way from each start, and the starts that collapse (shaded).

    Black: the encoder's best gain at each share, where there is no lag. Arrows: the gradient of the ELBO.
    """
    figure, axes = plt.subplots(1, len(inner), figsize=(WIDTH, 4.3), sharex=True, sharey=True)
    for axis, steps in zip(axes, inner, strict=True):
        t, a, end = basin(model, steps)
        axis.contourf(t, a, end < 0.5, levels=[0.5, 1.5], colors=[COLOURS[0]], alpha=0.2)
        _field(axis, model)
        for start in starts:
            way = model.climb(*start, steps)
            tint = COLOURS[0] if way.share[-1] < 0.5 else COLOURS[3]
            axis.plot(way.share, way.gain, color=tint, linewidth=1.6)
            axis.plot(*start, "o", color=tint, markersize=5)
        axis.set(title=f"{steps} inner step{'s' * (steps > 1)}", xlabel="share of z the decoder uses", xlim=LIMITS[0])
    axes[0].set(ylabel="encoder's gain", ylim=LIMITS[1])
    figure.legend(handles=_keys(), loc="outside lower center", ncols=3)
    return figure


def _field(axis: Axes, model: TwoOptima) -> None:
    """The gradient's direction, the line without lag, and the two optima."""
    axis.grid(visible=False)
    t, a = np.meshgrid(np.linspace(0.05, 0.98, 9), np.linspace(0.02, 0.98, 9))
    d_t, d_a = model.gradient(t, a)
    length = np.hypot(d_t, d_a)
    axis.quiver(t, a, d_t / length, d_a / length, color="0.6", scale=22, width=0.004, zorder=1)
    along = np.linspace(0, 1, 100)
    axis.plot(along, model.posterior(along)[0], color="black", linewidth=1.2, zorder=2)
    axis.plot([0, 1], [0, model.posterior(1.0)[0]], "*", color="black", markersize=13, zorder=4, clip_on=False)


def _keys() -> list:
    return [
        Line2D([], [], color=COLOURS[3], marker="o", label="ends with a code"),
        Line2D([], [], color=COLOURS[0], marker="o", label="ends collapsed"),
        Patch(color=COLOURS[0], alpha=0.2, label="all starts that collapse"),
        Line2D([], [], color="black", marker="*", markersize=11, label="no lag; the two optima"),
        Line2D([], [], color="0.6", marker=">", linestyle="", label="gradient of the ELBO"),
    ]
