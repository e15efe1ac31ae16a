"""Known information: nats of topic and of sentiment in a code while a model trains on the grammar."""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from lagvae_lib.config.methods import colour, find
from lagvae_lib.plots import WIDTH


def known_information(rows: pd.DataFrame, ceilings: dict[str, float]) -> Figure:
    """One panel per class (topic, sentiment), one line per method; dashed is what a sentence itself tells of the class,
    dotted where an aggressive stage ends.

    rows: the looks of `runs.known.read`; ceilings: I(x; class) in nats.
    """
    figure, axes = plt.subplots(1, len(ceilings), figsize=(WIDTH, 3.9), sharex=True)
    for axis, (about, most) in zip(axes, ceilings.items(), strict=True):
        axis.axhline(most, color="black", linestyle="--", linewidth=1, label="in the sentence")
        for method, seen in rows.groupby("method", sort=False):
            axis.plot(seen["iteration"], seen[about], color=colour(method), label=find(method).label)
            end = seen["stage_end"].iloc[0]
            if 0 < end < seen["iteration"].max():
                axis.axvline(end, color=colour(method), linestyle=":", linewidth=1)
        axis.set(title=f"nats of {about} in z", xlabel="decoder updates", ylim=(-0.05, 1.08 * most))
    axes[0].set_ylabel("nats per sentence")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=5)
    return figure
