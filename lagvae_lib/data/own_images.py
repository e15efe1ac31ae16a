"""A user's own images: read from a folder, a tree of folders or an array file, checked for what would spoil a run."""

import hashlib
import re
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lagvae_lib.data.image_files import from_array, from_folder
from lagvae_lib.data.images import SPLIT_SEED, ImageSet
from lagvae_lib.data.sources import DataError
from lagvae_lib.paths import absolute

LEAST, LEAST_DIFFERENT = 30, 20  # images, for at least two in each held-out split
MAX_HELD_OUT = 10_000  # images in each of validation and test; estimates that are quadratic in them are as large
FAINT = 0.6  # largest grey value of a set that was probably divided by too much
EMPTY = 0.005  # mean ink below which a set is nearly nothing but paper


def users_images(dataset: str) -> ImageSet:
    """The user's own images, split 80/10/10 by a fixed permutation; images that repeat an earlier one are left out.

    The name is the file's, made fit for a folder, and the first 8 hex digits of the grey values' sha256, so that a
    changed file is another data set and none is taken for a published one. Raises DataError.
    """
    path = absolute(dataset)
    if not path.exists():
        raise DataError(f"{path} does not exist: give a folder of PNGs, or a .npy, .npz or .pt file of grey images")
    grey, classes, warnings = from_folder(path) if path.is_dir() else (from_array(path), [], [])
    kept = _first_of_each(grey)
    if len(grey) < LEAST or len(kept) < LEAST_DIFFERENT:
        different = "" if len(kept) == len(grey) else f", {len(kept)} of them different"
        raise DataError(f"{path} holds {len(grey)} images{different}; at least {LEAST} are needed for three splits")
    notes = ["split 80/10/10 by a fixed permutation", *_repeated(len(grey), len(kept)), *warnings]
    sha256 = hashlib.sha256(grey.numpy().tobytes()).hexdigest()
    grey, classes = grey[kept], [classes[i] for i in kept] if classes else []
    classes = classes if len(set(classes)) > 1 else []
    notes += _ink_warnings(grey, path)
    held_out = min(len(grey) // 10, MAX_HELD_OUT)
    if held_out < len(grey) // 10:
        notes.append(f"validation and test are capped at {MAX_HELD_OUT:,} images each")
    order = torch.from_numpy(np.random.RandomState(SPLIT_SEED).permutation(len(grey)))
    parts = dict(
        zip(("train", "valid", "test"), order.split([len(grey) - 2 * held_out, held_out, held_out]), strict=True)
    )
    labels = {name: [classes[i] for i in part.tolist()] for name, part in parts.items()} if classes else None
    whole = path.resolve()
    stem = re.sub(r"[^A-Za-z0-9_]+", "-", whole.name if path.is_dir() else whole.stem).strip("-")[:60] or "images"
    source = f"the user's own {'folder' if path.is_dir() else 'file'} {whole.name}, grey values sha256 {sha256}"
    splits = {name: grey[part] for name, part in parts.items()}
    return ImageSet(f"{stem}-{sha256[:8]}", splits, source, tuple(notes), labels=labels)


def _first_of_each(grey: Tensor) -> list[int]:
    """Places of the images [N, H, W] that repeat no earlier one."""
    first: dict[bytes, int] = {}
    for i, image in enumerate(grey.numpy()):
        first.setdefault(hashlib.sha256(image.tobytes()).digest(), i)
    return list(first.values())


def _repeated(found: int, kept: int) -> list[str]:
    if found == kept:
        return []
    return [f"{found - kept:,} of {found:,} images repeat an earlier one and are left out"]


def _ink_warnings(grey: Tensor, path: Path) -> list[str]:
    """Warnings about images that look inverted or empty. Raises DataError where all are (nearly) empty."""
    mean, empty = float(grey.mean()), int((grey.flatten(1).amax(1) == 0).sum())
    if mean < EMPTY or mean > 1 - EMPTY:
        raise DataError(
            f"{path}: nearly every pixel is {'paper (0)' if mean < 0.5 else 'ink (1)'}, mean {mean:.4f}, which leaves "
            "nothing to learn; grey values run from 0 (paper) to 1 (ink), or to 255 in whole numbers"
        )
    found, highest = [f"warning: {empty} images are empty"] if empty else [], float(grey.max())
    if highest < FAINT:
        found.append(
            f"warning: the largest grey value is {highest:.2f}, and 1 is ink: the images are faint; divide them by "
            "their largest value first"
        )
    if mean > 0.5:
        found.append(
            f"warning: the mean grey value is {mean:.2f}, and 1 is ink: invert dark drawings on light paper first "
            "(1 - x, or 255 - x)"
        )
    return found
