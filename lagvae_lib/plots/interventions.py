"""Does the lag decide? The two optima of `models.two_optima` under interventions that the paper does not make."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from lagvae_lib.models.two_optima import TwoOptima
from lagvae_lib.plots import COLOURS, WIDTH

INNER = 30  # encoder steps to a decoder step in the stage; outside it, one
STEPS = 2000  # decoder updates, after which every start has arrived
TIMES = (0, 1, 2, 3, 5, 10, 20, 50, 100, 200)  # decoder updates at which a stage begins or ends
STARTS = np.linspace(0.02, 0.98, 49)  # shares of z that the decoder uses to begin with, the encoder knowing nothing


def keeping(model: TwoOptima, inner: int | np.ndarray, outer: int = 1) -> float:
    """The share of the `STARTS` from which gradient ascent ends with a code."""
    steps = STEPS // outer
    return float((model.climb(STARTS, np.zeros_like(STARTS), inner, steps, outer=outer).share[-1] > 0.5).mean())


def staged(model: TwoOptima, begins: int = 0, ends: int = STEPS) -> float:
    """`keeping` where the updates from `begins` on and before `ends` are aggressive, and the others plain."""
    update = np.arange(STEPS)
    return keeping(model, np.where((update >= begins) & (update < ends), INNER, 1))


def interventions(model: TwoOptima, times: tuple[int, ...] = TIMES) -> Figure:
    """Left: the stage begins late. Right: it ends early. Lines: never, always, and steps given to the decoder."""
    figure, axes = plt.subplots(1, 2, figsize=(WIDTH, 3.8), sharey=True, layout="constrained")
    panels = {"the stage begins late": "begins", "the stage ends early": "ends"}
    for axis, (title, knob) in zip(axes, panels.items(), strict=True):
        shares = [staged(model, **{knob: time}) for time in times]
        axis.axhline(keeping(model, INNER), color=COLOURS[3], linestyle="--", label="aggressive throughout")
        axis.axhline(keeping(model, 1), color=COLOURS[0], linestyle="--", label="plain throughout")
        axis.axhline(
            keeping(model, 1, INNER), color="black", linestyle=":", label=f"{INNER} steps of the decoder instead"
        )
        axis.plot(times, shares, "o-", color=COLOURS[2], label="a stage")
        axis.set_xscale("symlog", linthresh=1)
        axis.set(title=title, xlabel=f"decoder update at which it {knob}", ylim=(-0.03, 0.6))
        axis.set_xticks([0, 1, 10, 100], ["0", "1", "10", "100"])
    axes[0].set_ylabel("share of starts that keep a code")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure
