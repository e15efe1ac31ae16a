"""One function per figure, fed by records of runs; they return the figure and share one style."""

import io
from collections.abc import Mapping
from pathlib import Path

import matplotlib.pyplot as plt
import seaborn as sns
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

STYLE = Path(__file__).with_name("lagvae.mplstyle")
COLOURS = sns.color_palette("colorblind")
WIDTH = 9.0  # inches, at 100 dots per inch: the column of 900 pixels in which a notebook is read


def style() -> None:
    """The project's look: sizes legible in a column 900 pixels wide, colours for colour-blind readers too."""
    sns.set_theme(style="whitegrid", palette="colorblind")
    plt.style.use(STYLE)


def distinct(wanted: Mapping[str, str]) -> dict[str, str]:
    """Each label's colour: the one it wants or, where another label has that already, one that no label wants."""
    chosen, spare = {}, iter([tint for tint in map(to_hex, COLOURS) if tint not in wanted.values()])
    for label, own in wanted.items():
        chosen[label] = own if own not in chosen.values() else next(spare, own)
    return chosen


def show(figure: Figure, alt: str) -> None:
    """Display a figure in a notebook with its alternative text (for readers who cannot see it), and close it."""
    from IPython.display import display  # part of the notebook tools, which the library does without

    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=figure.dpi, metadata={"Software": None})
    plt.close(figure)
    data = {"image/png": png.getvalue(), "text/plain": f"<Figure: {alt}>"}
    display(data, raw=True, metadata={"image/png": {"alt": alt}})
