"""Known information: what a code is about while a model trains on the grammar."""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from lagvae_lib.config.methods import colour, find
from lagvae_lib.plots import WIDTH


def known_information(rows: pd.DataFrame, ceilings: dict[str, float]) -> Figure:
    """One panel per class, one line per run in its method's colour; dashed is what a sentence tells of the class,
    dotted where an aggressive stage ends.

    rows: the measurements of `runs.known.read`; ceilings: I(x; class) in nats.
    """
    figure, axes = plt.subplots(2, (len(ceilings) + 1) // 2, figsize=(WIDTH, 6.6), sharex=True, sharey=True)
    for axis, (about, most) in zip(axes.flat, ceilings.items(), strict=False):
        axis.axhline(most, color="black", linestyle="--", linewidth=1, label="in the sentence")
        for (method, _), seen in rows.groupby(["method", "seed"], sort=False):
            name = find(method).label
            first = name not in axis.get_legend_handles_labels()[1]
            axis.plot(seen["iteration"], seen[about], color=colour(method), label=name if first else None)
            end = seen["stage_end"].iloc[0]
            if 0 < end < seen["iteration"].max():
                axis.axvline(end, color=colour(method), linestyle=":", linewidth=1)
        axis.set(title=f"about the {about}", ylim=(-0.08, 1.08 * max(ceilings.values())))
    for axis in axes[-1]:
        axis.set_xlabel("decoder updates")
    figure.supylabel("nats per sentence in z", fontsize=plt.rcParams["axes.labelsize"])
    figure.legend(*axes.flat[0].get_legend_handles_labels(), loc="outside lower center", ncols=5)
    return figure
