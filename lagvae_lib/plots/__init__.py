"""One function per figure, fed by records of runs; they return the figure and share one style."""

from pathlib import Path

import matplotlib.pyplot as plt
import seaborn as sns

STYLE = Path(__file__).with_name("lagvae.mplstyle")
COLOURS = sns.color_palette("colorblind")


def style() -> None:
    """The project's look: sizes legible in a column 900 pixels wide, colours for colour-blind readers too."""
    sns.set_theme(style="whitegrid", palette="colorblind")
    plt.style.use(STYLE)
