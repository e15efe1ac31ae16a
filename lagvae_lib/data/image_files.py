"""Grey images from files: PNGs, numpy arrays, torch tensors and .mat columns, each checked, with one error a fault.

Grey values are ink: 0 is paper, 1 is ink. Nothing that is read here may run code (no pickles).
"""

import gzip
import io
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from tokenize import TokenError

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from lagvae_lib.data import IDX
from lagvae_lib.data.sources import DataError
from lagvae_lib.paths import files_below

SIZE = 28
PICTURES = (".png", ".jpg", ".jpeg")
SPLIT_NAMES = ("train", "training", "valid", "validation", "val", "test", "testing")
# What damaged archives, arrays and PNGs raise; RuntimeError is zipfile's for a member that claims to be encrypted,
# TokenError numpy's for a header that breaks off
DAMAGE = (
    OSError,
    ValueError,
    KeyError,
    EOFError,
    SyntaxError,
    TokenError,
    RuntimeError,
    zipfile.BadZipFile,
    zlib.error,
)


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
        raise DataError(
            f"{what} holds values from {low:g} to {high:g}; grey values lie between 0 (paper) and 1 (ink), or are "
            "whole numbers up to 255: subtract the lowest, and divide by the highest"
        )
    return grey


def square(images: Tensor, what: str) -> Tensor:
    """Checked float [N, 28, 28] from [N, S, S], [N, 1, S, S], [N, S, S, 1] or [N, 784], S >= 28. Raises DataError.

    Whole numbers are grey values up to 255, unless they are 0 and 1 alone; larger images are reduced by area.
    """
    if images.layout != torch.strided or images.is_quantized or images.is_complex():
        raise DataError(f"{what}: a dense tensor of real numbers is expected, not {images.dtype}, {images.layout}")
    images, shape = images.detach(), tuple(images.shape)
    if images.ndim == 4 and 1 in (shape[1], shape[3]):
        images = images.squeeze(1 if shape[1] == 1 else 3)
    if images.ndim == 2 and shape[1] == SIZE * SIZE:
        images = images.reshape(-1, SIZE, SIZE)
    if images.ndim != 3 or images.shape[1] != images.shape[2] or images.shape[1] < SIZE:
        raise DataError(f"{what}: images have the shape {shape}; {SHAPES}")
    return _reduced_to_size(checked(_grey(images), what))


SHAPES = (
    f"[N, S, S] is expected, grey and square, S at least {SIZE}; take the mean of colours, cut to a square, enlarge "
    "smaller ones"
)


def _grey(images: Tensor) -> Tensor:
    """Floats, those of whole numbers between 0 and 255 divided by 255."""
    whole = not images.is_floating_point() and images.dtype != torch.bool
    bytes_ = whole and images.numel() and 1 < int(images.max()) <= 255
    return images.float() / 255 if bytes_ else images.float()


def _reduced_to_size(images: Tensor) -> Tensor:
    """[N, S, S] reduced by area to [N, 28, 28], some at a time."""
    if images.shape[1] == SIZE:
        return images
    parts = [reduce_by_area(part.numpy()) for part in images.split(500)]
    return torch.from_numpy(np.concatenate(parts)).float() / 255


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
    """Float [N, 28, 28] of a .npy, .pt or .pth file, a .npz file with one array, or MNIST's own format.

    Raises DataError.
    """
    if path.suffix.lower() in PICTURES or _begins_as(path, b"\x89PNG") or _begins_as(path, b"\xff\xd8\xff"):
        raise DataError(f"{path} is one image; give the folder in which all of them lie")
    if path.suffix.lower() in (".pt", ".pth"):
        return square(_only_tensor(path), str(path))
    values = _idx(path) if _begins_as(path, IDX) else _array(path)
    if values.dtype.kind not in "buif":
        raise DataError(f"{path} holds values of type {values.dtype}; grey values are numbers")
    if values.dtype != np.uint8:
        with np.errstate(over="ignore"):  # what is too large becomes infinite, and is refused as such
            values = values.astype(
                np.int64 if values.dtype.kind in "iu" else np.float32
            )  # torch knows neither other byte orders nor long doubles
    return square(torch.from_numpy(values), str(path))


def _only_tensor(path: Path) -> Tensor:
    """The tensor in a file, or the first of a pair of images and their labels, as torchvision keeps them."""
    loaded = tensors(path)
    if isinstance(loaded, (tuple, list)) and len(loaded) == 2 and all(isinstance(part, Tensor) for part in loaded):
        images, labels = loaded
        if labels.ndim == 1 and len(images) == len(labels):
            return images
    if not isinstance(loaded, Tensor):
        raise DataError(
            f"{path} holds a {type(loaded).__name__} where one tensor of images is expected; "
            "save that alone: torch.save(images, path)"
        )
    return loaded


def _opened(path: Path):
    """The file, unpacked where it is packed by gzip."""
    return gzip.open(path) if path.suffix.lower() == ".gz" else open(path, "rb")


def _begins_as(path: Path, beginning: bytes) -> bool:
    try:
        with _opened(path) as f:
            return f.read(len(beginning)) == beginning
    except DAMAGE as error:
        raise DataError(f"{path} cannot be read: {error}") from None


def _idx(path: Path) -> np.ndarray:
    """uint8 [N, H, W] of a file of images in MNIST's own format, packed or not."""
    try:
        with _opened(path) as f:
            count, height, width = np.frombuffer(f.read(16)[4:], dtype=">u4").tolist()
            return np.frombuffer(f.read(), dtype=np.uint8).reshape(count, height, width).copy()
    except DAMAGE as error:
        raise DataError(f"{path} is cut short or damaged ({error}); replace it by the right one") from None


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
        why = "it holds Python objects, or is none" if "pickle" in str(error) else str(error)
        raise DataError(
            f"{path} cannot be read as an array of numbers ({why}); save one by numpy.save(path, images)"
        ) from None
    raise DataError(
        f"{path} holds {names.count(',') + 1 if names else 0} arrays ({names}); one is expected: "
        "save the images alone, numpy.savez(path, images)"
    )


def from_folder(folder: Path) -> tuple[Tensor, list[str], list[str]]:
    """Float [N, 28, 28] of the PNGs and JPEGs in a folder and in the folders in it, in the order of their names.

    Larger ones are reduced. Also the folder of each, which is its class in a tree of classes, and warnings that name
    what is ignored. Raises DataError.
    """
    found = [file for file in files_below(folder) if file.is_file()]
    files = [f for f in found if f.suffix.lower() in PICTURES and not _hidden(f.relative_to(folder))]
    ignored = Counter(f.suffix.lower() or f.name for f in set(found).difference(files))
    said = ", ".join(f"{count:,} {suffix}" for suffix, count in ignored.most_common(5))
    if not files:
        there = f" (there are: {said})" if said else ""
        raise DataError(
            f"{folder} holds no PNG files and no JPEGs{there}: put the images there as *.png, all of one size; a text "
            "is one file, named by its own path"
        )
    warnings = [f"warning: files that are no pictures, or are hidden, are ignored: {said}"] if ignored else []
    splits = sorted({part for f in files for part in f.relative_to(folder).parts[:-1] if part.lower() in SPLIT_NAMES})
    if splits:
        warnings.append(
            f"warning: the folders {', '.join(splits)} are no splits here: all images are pooled and split anew; to "
            "keep some apart, give one of these folders alone"
        )
    images = torch.from_numpy(np.concatenate(list(_reduced(folder, files))))
    return images, [file.parent.relative_to(folder).as_posix() for file in files], warnings


def _hidden(path: Path) -> bool:
    """Whether a file, or a folder that it is in, is another program's own: `.ipynb_checkpoints`, `._1.png`."""
    return any(part.startswith(".") or part == "__MACOSX" for part in path.parts)


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
    """Grey values [H, W] in [0, 1] of a PNG or JPEG. Raises DataError for one that is damaged or not opaque."""
    try:
        with Image.open(io.BytesIO(file.read_bytes()), formats=("PNG", "JPEG")) as image:
            image.load()
            if image.mode.startswith("I"):  # 16 bits: Pillow's own conversion to 8 would cut them off at 255
                return np.asarray(image, dtype=np.float64) / 65535
            if image.has_transparency_data and image.convert("RGBA").getchannel("A").getextrema()[0] < 255:
                raise DataError(
                    f"{file} has transparent parts, which have no grey value; save it on an opaque background"
                )
            return np.asarray(image.convert("L"), dtype=np.float64) / 255
    except (*DAMAGE, Image.DecompressionBombError) as error:
        why = "" if "BytesIO" in str(error) else f" ({error})"
        raise DataError(f"{file} is not a readable PNG or JPEG{why}; remove or replace it") from None
