"""Grey images from files: PNGs, numpy arrays, torch tensors and .mat columns, each checked, with one error a fault.

Grey values are ink: 0 is paper, 1 is ink. Nothing that is read here may run code (no pickles).
"""

import io
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from lagvae_lib.data.sources import DataError

SIZE = 28
# What damaged archives, arrays and PNGs raise; RuntimeError is zipfile's for a member that claims to be encrypted
DAMAGE = (OSError, ValueError, KeyError, EOFError, SyntaxError, RuntimeError, zipfile.BadZipFile, zlib.error)


def reduce_by_area(ink: np.ndarray) -> np.ndarray:
    """[N, S, S] in [0, 1], S >= 28 -> the share of ink on each of 28x28 equal areas, uint8 in [0, 255]."""
    side = ink.shape[1]
    # Both grids in units of 1/28 of an old pixel, where all overlaps are whole numbers and sums are exact
    old, new = np.arange(side + 1) * SIZE, np.arange(SIZE + 1) * side
    overlap = np.minimum(new[1:, None], old[None, 1:]) - np.maximum(new[:-1, None], old[None, :-1])
    weights = np.clip(overlap, 0, None).astype(np.float64)
    area = np.einsum("is,nst,jt->nij", weights, ink.astype(np.float64), weights, optimize=True)
    return np.floor(255 * area / side**2 + 0.5).astype(np.uint8)


def checked(grey: Tensor, what: str) -> Tensor:
    """`grey` itself. Raises DataError for NaN or values outside [0, 1]."""
    if not len(grey):
        raise DataError(f"{what} holds no images")
    if grey.isnan().any():
        raise DataError(f"{what} holds NaN; grey values lie between 0 and 1")
    low, high = float(grey.min()), float(grey.max())
    if low < 0 or high > 1:
        raise DataError(f"{what} holds values from {low:g} to {high:g}; grey values lie between 0 (paper) and 1 (ink)")
    return grey


def square(images: Tensor, what: str) -> Tensor:
    """Checked float [N, 28, 28] from [N, 28, 28] or [N, 1, 28, 28], bytes divided by 255. Raises DataError."""
    if images.layout != torch.strided or images.is_quantized or images.is_complex():
        raise DataError(f"{what}: a dense tensor of real numbers is expected, not {images.dtype}, {images.layout}")
    if images.ndim == 4 and images.shape[1] == 1:
        images = images[:, 0]
    if images.ndim != 3 or tuple(images.shape[1:]) != (SIZE, SIZE):
        raise DataError(f"{what}: images have the shape {tuple(images.shape)}; [N, {SIZE}, {SIZE}] is expected")
    images = images.detach()
    return checked(images.float() / 255 if images.dtype == torch.uint8 else images.float(), what)


def columns(path: Path, counts: dict[str, int]) -> dict[str, Tensor]:
    """Arrays of a .mat file, each [784, count] with an image in Fortran order in each column, as [count, 28, 28].

    Raises DataError for a file that cannot be read, or whose arrays are missing or of another shape.
    """
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    try:
        content = loadmat(path, variable_names=tuple(counts))
    except (*DAMAGE, TypeError, MatReadError) as error:
        raise DataError(f"{path} cannot be read as a .mat file ({error}); replace it by the right one") from None
    found = {}
    for key, count in counts.items():
        if key not in content:
            raise DataError(f"{path} has no array {key!r}; it should hold {' and '.join(map(repr, counts))}")
        values, expected = content[key], (SIZE * SIZE, count)
        if values.shape != expected or values.dtype.kind not in "buif" or not isinstance(values, np.ndarray):
            raise DataError(f"{path}: `{key}` is {values.dtype} {values.shape} where numbers {expected} are expected")
        images = values.T.reshape(-1, SIZE, SIZE).transpose(0, 2, 1)
        found[key] = checked(torch.from_numpy(np.ascontiguousarray(images, dtype=np.float32)), f"{path}: `{key}`")
    return found


def tensors(path: Path):
    """What a .pt file holds, if that is tensors, lists and numbers alone. Raises DataError."""
    try:
        return torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:  # torch raises half a dozen kinds for files that are not its own
        raise DataError(f"{path} cannot be read as tensors ({type(error).__name__}); nothing else is loaded") from None


def from_array(path: Path) -> Tensor:
    """Float [N, 28, 28] of a .npy or .pt file, or of a .npz file with one array. Raises DataError."""
    if path.suffix == ".pt":
        loaded = tensors(path)
        if not isinstance(loaded, Tensor):
            raise DataError(f"{path} holds a {type(loaded).__name__} where one tensor of images is expected")
        return square(loaded, str(path))
    values = _array(path)
    if values.dtype.kind not in "buif":
        raise DataError(f"{path} holds values of type {values.dtype}; grey values are numbers")
    if values.dtype != np.uint8:
        with np.errstate(over="ignore"):  # what is too large becomes infinite, and is refused as such
            values = values.astype(np.float32)  # torch knows neither other byte orders nor long doubles
    return square(torch.from_numpy(values), str(path))


def _array(path: Path) -> np.ndarray:
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return loaded
        with loaded:
            if len(loaded.files) == 1:
                return loaded[loaded.files[0]]
            names = ", ".join(loaded.files)
    except DAMAGE as error:
        raise DataError(f"{path} cannot be read as an array without pickles ({error})") from None
    raise DataError(f"{path} holds {names.count(',') + 1 if names else 0} arrays ({names}); one is expected")


def from_folder(folder: Path) -> Tensor:
    """Float [N, 28, 28] of the PNGs in a folder, in the order of their names, larger ones reduced. Raises DataError."""
    files = sorted(file for file in folder.iterdir() if file.suffix.lower() == ".png")
    if not files:
        raise DataError(f"{folder} holds no PNG files: put the images there as *.png, all of one size")
    return torch.from_numpy(np.concatenate(list(_reduced(folder, files))))


def _reduced(folder: Path, files: list[Path]) -> Iterable[np.ndarray]:
    """One [1, 28, 28] after the other, so that large drawings are never in memory together."""
    first = None
    for file in files:
        image = png(file)
        first = first or image.shape
        height, width = image.shape
        if image.shape != first:
            raise DataError(f"{folder} holds images of several sizes ({first}, {image.shape}); give all the same one")
        if height != width or height < SIZE:
            raise DataError(f"{folder}: images are {height}x{width}; they must be square, and {SIZE}x{SIZE} or larger")
        part = image[None]
        yield (reduce_by_area(part) / np.float32(255) if height > SIZE else part).astype(np.float32)


def png(file: Path) -> np.ndarray:
    """Grey values [H, W] in [0, 1] of a PNG. Raises DataError for one that is damaged or not opaque."""
    try:
        with Image.open(io.BytesIO(file.read_bytes()), formats=("PNG",)) as image:
            image.load()
            if image.mode.startswith("I"):  # 16 bits: Pillow's own conversion to 8 would cut them off at 255
                return np.asarray(image, dtype=np.float64) / 65535
            if image.has_transparency_data and image.convert("RGBA").getchannel("A").getextrema()[0] < 255:
                raise DataError(f"{file} is transparent in places, which is no grey; save it on an opaque ground")
            return np.asarray(image.convert("L"), dtype=np.float64) / 255
    except (*DAMAGE, Image.DecompressionBombError) as error:
        raise DataError(f"{file} is no readable PNG ({error}); remove or replace it") from None
