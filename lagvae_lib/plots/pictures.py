"""Images as images: rows of samples, reconstructions, interpolations and completions."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from torch import Tensor


def rows(images: Mapping[str, Tensor], cut: int | None = None) -> Figure:
    """A titled row of pictures for each entry, [n, 1, H, W] of ink in [0, 1]; ink is black.

    cut: draws a line above this row of pixels (what stands below it was completed). Raises ValueError for nothing.
    """
    if not images:
        raise ValueError("no images to draw")
    columns = max(len(row) for row in images.values())
    figure, axes = plt.subplots(
        len(images), columns, figsize=(0.95 * columns + 1.6, 1.0 * len(images) + 0.1), squeeze=False
    )
    for ax in axes.flat:
        ax.set(xticks=[], yticks=[])
        ax.grid(visible=False)
        ax.spines[:].set_visible(False)
        ax.set_visible(False)
    for line, (title, pictures) in zip(axes, images.items(), strict=True):
        for ax, picture in zip(line, pictures, strict=False):
            ax.set_visible(True)
            ax.imshow(picture[0].cpu().numpy(), cmap="gray_r", vmin=0, vmax=1, interpolation="nearest")
            if cut is not None:
                ax.axhline(cut - 0.5, color="tab:red", linewidth=1)
        line[0].set_ylabel(title, rotation=0, ha="right", va="center")
    return figure
