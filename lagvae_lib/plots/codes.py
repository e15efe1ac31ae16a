"""What the code says about labels that the model never saw: posterior means, coloured by a review's stars."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from lagvae_lib.metrics.probe import TooFewLabels, draw, linear_probe
from lagvae_lib.runs.record import Run


def codes_by_label(runs: Mapping[str, Run], what: str = "stars") -> Figure:
    """Posterior means of the test set, coloured by label, one panel per run that recorded them.

    Drawn are the two dimensions of z whose means vary most. The title says what a linear probe reads of the label from
    draws of all dimensions, in nats, and how many nats there are to read. what: what the labels are.
    """
    runs = {name: run for name, run in runs.items() if "labels" in run.codes}
    figure, axes = plt.subplots(1, max(1, len(runs)), figsize=(9, 4.4), sharex=True, sharey=True, squeeze=False)
    for axis, (name, run) in zip(axes[0], runs.items(), strict=False):
        means, labels = run.codes["means"].astype(np.float64), run.codes["labels"]
        kinds, numbers = np.unique(labels, return_inverse=True)
        first, second = np.argsort(means.var(0))[::-1][:2]
        drawn = axis.scatter(means[:, first], means[:, second], 9, numbers, cmap="viridis", alpha=0.8, linewidths=0)
        axis.set(xlabel=f"mean of z, dimension {first + 1}", title=f"{name}: {_read(draw(run.codes), labels)}")
        if axis is axes[0, -1]:
            bar = figure.colorbar(drawn, ax=list(axes[0]), ticks=range(len(kinds)), pad=0.01)
            bar.ax.set_yticklabels([str(kind) for kind in kinds])
            bar.set_label(what)
    if runs:
        axes[0, 0].set_ylabel("the dimension that varies next")
    else:
        axes[0, 0].set_axis_off()
        axes[0, 0].text(0.5, 0.5, "no run on labelled data", ha="center", va="center")
    return figure


def _read(z: np.ndarray, labels: np.ndarray) -> str:
    try:
        read = linear_probe(z, labels)
    except TooFewLabels:
        return "too few labels to probe"
    return f"{read.nats:+.2f} of {read.entropy:.2f} nats"
