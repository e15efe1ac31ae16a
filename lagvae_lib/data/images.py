"""Image data sets: OMNIGLOT in its two forms, the user's own images, and the glyph stand-in; binarised batches.

Grey values in [0, 1] are probabilities of ink. Training images are drawn from them anew whenever they are used;
validation and test images are drawn once, with fixed seeds.
"""

import hashlib
import io
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from lagvae_lib.atomic import replace_with
from lagvae_lib.data.glyphs import ORIGINAL, glyph_drawings
from lagvae_lib.data.sources import DataError, MissingData, fetch
from lagvae_lib.paths import data_dir

SIZE = 28
SPLIT = {"train": 22_345, "valid": 2_000, "test": 8_070}  # Burda et al.'s sizes
SPLIT_SEED = 0  # of the permutation that splits drawings (numpy's RandomState, whose stream never changes)
BINARISE_SEED = {"train": 101, "valid": 102, "test": 103}  # train: only for looking at training images
DRAWINGS = 32_460
# Of the names and PNGs in order: the archives themselves are packed in more than one way
DRAWINGS_SHA256 = "1802059dcce2a73603a6a82130a127f2f15aa9877e835750537f3f6defd56070"
GREY_SHA256 = "8167dffec9d3ee72541f00f4f120b260f19aebf40a2a4c142dfc5a700a187882"
LEAST = 30  # images of the user's own


@dataclass(frozen=True)
class ImageSet:
    """splits: "train", "valid", "test" -> grey images [N, H, W] in [0, 1]. sha256: of all grey values used."""

    name: str
    splits: dict[str, Tensor] = field(repr=False)
    source: str
    notes: tuple[str, ...] = ()
    stand_in: bool = False

    @property
    def sha256(self) -> str:
        """What the numbers of a run depend on."""
        digest = hashlib.sha256()
        for name in SPLIT:
            digest.update(self.splits[name].numpy().tobytes())
        return digest.hexdigest()

    def first(self, sizes: tuple[int | None, ...]) -> "ImageSet":
        """The first images of each split, None for all. Raises DataError where there are not so many."""
        kept = {}
        for (name, images), size in zip(self.splits.items(), sizes, strict=True):
            if size is not None and size > len(images):
                raise DataError(
                    f"data set {self.name!r} has {len(images):,} images in its {name} split; {size:,} were asked for"
                )
            kept[name] = images[:size]
        return ImageSet(self.name, kept, self.source, self.notes, self.stand_in)


class ImageBatches:
    """A split as batches of black and white images, float [B, 1, H, W] of 0 and 1.

    A batch's handle is the list of its images' numbers. `get` and `draw` binarise anew with their generator unless
    `once` is set; iterating binarises with `seed`, always alike.
    """

    def __init__(self, grey: Tensor, batch_size: int, seed: int, once: bool, device: str = "cpu"):
        self.grey, self.batch_size, self.seed, self.once, self.device = grey, batch_size, seed, once, device
        self._fixed: Tensor | None = None

    @property
    def examples(self) -> int:
        return len(self.grey)

    @property
    def shape(self) -> tuple[int, ...]:
        """Height and width."""
        return tuple(self.grey.shape[1:])

    def __len__(self) -> int:
        return len(self._cut(list(range(len(self.grey)))))

    def _cut(self, numbers: list[int]) -> list[list[int]]:
        """Batches of `batch_size`; one image left over joins the batch before, for BatchNorm cannot do with one."""
        parts = [numbers[i : i + self.batch_size] for i in range(0, len(numbers), self.batch_size)]
        if len(parts) > 1 and len(parts[-1]) == 1:
            parts[-2:] = [parts[-2] + parts[-1]]
        return parts

    def __iter__(self) -> Iterator[Tensor]:
        for handle in self._cut(list(range(len(self.grey)))):
            yield self._as_input(self.fixed[handle])

    @property
    def fixed(self) -> Tensor:
        """All images binarised with `seed`, bool [N, H, W]."""
        if self._fixed is None:
            generator = torch.Generator().manual_seed(self.seed)
            self._fixed = torch.rand(self.grey.shape, generator=generator) < self.grey
        return self._fixed

    def order(self, generator: torch.Generator) -> list[list[int]]:
        """The batches of an epoch: all images, permuted."""
        return self._cut(torch.randperm(len(self.grey), generator=generator).tolist())

    def get(self, handle: list[int], generator: torch.Generator) -> Tensor:
        """The batch of those images, [B, 1, H, W]."""
        if self.once:
            return self._as_input(self.fixed[handle])
        grey = self.grey[handle]
        return self._as_input(torch.rand(grey.shape, generator=generator) < grey)

    def draw(self, generator: torch.Generator) -> Tensor:
        """An inner batch: `batch_size` images, none twice."""
        return self.get(torch.randperm(len(self.grey), generator=generator)[: self.batch_size].tolist(), generator)

    def _as_input(self, images: Tensor) -> Tensor:
        return images.unsqueeze(1).float().to(self.device)

    def to(self, device: str) -> "ImageBatches":
        return ImageBatches(self.grey, self.batch_size, self.seed, self.once, device)


def image_batches(images: ImageSet, split: str, batch_size: int) -> ImageBatches:
    """The batches of one split, training images binarised at every draw and the others once."""
    return ImageBatches(images.splits[split], batch_size, BINARISE_SEED[split], once=split != "train")


def image_set(name: str, sizes: tuple[int | None, ...] = (None, None, None)) -> ImageSet:
    """`omniglot`, `omniglot-28`, `glyphs`, or a path to a folder of PNGs or an array file; the first of each split.

    Raises MissingData where a published set cannot be had, DataError for content that cannot be used.
    """
    if name == "glyphs":
        return _glyphs(sizes)
    found = {"omniglot": _omniglot, "omniglot-28": _omniglot_28}.get(name, lambda: _users(Path(name)))()
    return found.first(sizes)


# -- OMNIGLOT ----------------------------------------------------------------------------------------------------------


def _omniglot() -> ImageSet:
    """The authors' file where it is at hand, else Burda's."""
    try:
        return _from_pt(fetch("omniglot-authors")["pt"])
    except MissingData:
        return _from_mat(fetch("omniglot")["mat"])


def _from_mat(path: Path) -> ImageSet:
    """`chardata.mat`: `data` and `testdata` [784, N], each column an image in Fortran order."""
    from scipy.io import loadmat

    try:
        content = loadmat(path, variable_names=("data", "testdata"))
        data, test = (_columns(content[key], path, key) for key in ("data", "testdata"))
    except KeyError as error:
        raise DataError(f"{path} has no array {error}; chardata.mat holds `data` and `testdata`") from None
    except (ValueError, NotImplementedError, OSError, TypeError) as error:
        raise DataError(f"{path} cannot be read as a .mat file ({error}); replace it by the right one") from None
    valid = min(SPLIT["valid"], len(data) // 10)
    order = np.random.RandomState(SPLIT_SEED).permutation(len(data))
    splits = {"train": data[order[valid:]], "valid": data[order[:valid]], "test": test}
    notes = (f"{valid:,} of the training images, chosen by a fixed permutation, are for validation",)
    return ImageSet("omniglot", splits, "chardata.mat of Burda et al., github yburda/iwae", notes)


def _columns(values: np.ndarray, path: Path, key: str) -> Tensor:
    if values.ndim != 2 or values.shape[0] != SIZE * SIZE:
        raise DataError(f"{path}: `{key}` has the shape {values.shape} where ({SIZE * SIZE}, N) is expected")
    images = values.T.reshape(-1, SIZE, SIZE).transpose(0, 2, 1)
    return checked(torch.from_numpy(np.ascontiguousarray(images, dtype=np.float32)), f"{path}: `{key}`")


def _from_pt(path: Path) -> ImageSet:
    """The authors' `omniglot.pt`: a list of three tensors N x 1 x 28 x 28."""
    parts = _torch_load(path)
    if not isinstance(parts, (list, tuple)) or len(parts) != 3 or not all(isinstance(p, Tensor) for p in parts):
        raise DataError(f"{path} does not hold a list of three tensors (train, validation, test)")
    splits = {
        name: checked(_square(part, f"{path}, {name}"), f"{path}, {name}")
        for name, part in zip(SPLIT, parts, strict=True)
    }
    return ImageSet("omniglot", splits, "omniglot.pt of the paper's authors")


def _torch_load(path: Path):
    try:
        return torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:  # torch raises half a dozen kinds for files that are not its own
        raise DataError(f"{path} cannot be read as tensors ({type(error).__name__}); nothing else is loaded") from None


def _omniglot_28() -> ImageSet:
    """The original drawings, 105x105, reduced by area and split by a fixed permutation."""
    grey = torch.from_numpy(_grey_drawings()).float() / 255
    notes = (
        "the original drawings reduced to 28x28 by area; not Burda's images, and another split",
        f"split by a fixed permutation; {DRAWINGS - sum(SPLIT.values())} drawings are over and unused",
    )
    return ImageSet("omniglot-28", _split(grey, SPLIT), "github brendenlake/omniglot, python/images_*.zip", notes)


def _split(grey: Tensor, sizes: dict[str, int]) -> dict[str, Tensor]:
    order = torch.from_numpy(np.random.RandomState(SPLIT_SEED).permutation(len(grey)))
    parts = order[: sum(sizes.values())].split(list(sizes.values()))
    return {name: grey[part] for name, part in zip(sizes, parts, strict=True)}


def _grey_drawings() -> np.ndarray:
    """uint8 [32460, 28, 28] from the cache, which is made from the archives the first time."""
    cache = data_dir() / "omniglot-28" / "grey.npz"
    if cache.exists():
        try:
            grey = np.load(cache, allow_pickle=False)["grey"]
        except (OSError, ValueError, KeyError, zipfile.BadZipFile, EOFError):
            grey = np.empty(0, np.uint8)
        if _sha256(grey) == GREY_SHA256:
            return grey
    paths = fetch("omniglot-28")
    drawings = _drawings([paths["background"], paths["evaluation"]])
    grey = np.concatenate([reduce_by_area(part) for part in np.array_split(drawings, 20)])
    with replace_with(cache) as temporary, open(temporary, "wb") as f:
        np.savez_compressed(f, grey=grey)
    return grey


def _drawings(archives: list[Path]) -> np.ndarray:
    """Ink of all drawings, uint8 [N, 105, 105] of 0 and 1, in the order of their names. Raises DataError."""
    content, digest = [], hashlib.sha256()
    for archive in archives:
        try:
            with zipfile.ZipFile(archive) as opened:
                names = sorted(name for name in opened.namelist() if name.endswith(".png"))
                for name in names:
                    png = opened.read(name)
                    digest.update("/".join(name.split("/")[-3:]).encode() + hashlib.sha256(png).digest())
                    content.append(png)
        except (zipfile.BadZipFile, OSError) as error:
            raise DataError(f"{archive} is no readable zip archive ({error}); replace it by the right one") from None
    if digest.hexdigest() != DRAWINGS_SHA256:
        raise DataError(
            f"{archives[0].parent} does not hold OMNIGLOT's {DRAWINGS:,} drawings as published ({len(content):,} "
            "found, or their bytes differ); replace images_background.zip and images_evaluation.zip by the right ones"
        )
    return np.stack([_ink(png) for png in content])


def _ink(png: bytes) -> np.ndarray:
    return (np.asarray(Image.open(io.BytesIO(png)).convert("L")) < 128).astype(np.uint8)


def reduce_by_area(ink: np.ndarray) -> np.ndarray:
    """uint8 [N, S, S] of 0 and 1, S >= 28 -> the share of ink on each of 28x28 equal areas, uint8 in [0, 255]."""
    side = ink.shape[1]
    # Both grids in units of 1/28 of an old pixel, where all overlaps are whole numbers and sums are exact
    old, new = np.arange(side + 1) * SIZE, np.arange(SIZE + 1) * side
    overlap = np.minimum(new[1:, None], old[None, 1:]) - np.maximum(new[:-1, None], old[None, :-1])
    weights = np.clip(overlap, 0, None).astype(np.float64)
    area = np.einsum("is,nst,jt->nij", weights, ink.astype(np.float64), weights, optimize=True)
    return np.floor(255 * area / side**2 + 0.5).astype(np.uint8)


def _sha256(values: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()


# -- the stand-in and the user's own -----------------------------------------------------------------------------------


def _glyphs(sizes: tuple[int | None, ...]) -> ImageSet:
    wanted = dict(
        zip(SPLIT, (size or default for size, default in zip(sizes, (3_000, 500, 500), strict=True)), strict=True)
    )
    drawings = glyph_drawings(sum(wanted.values()))
    grey = torch.from_numpy(reduce_by_area(drawings)).float() / 255
    source = f"letters of the DejaVu fonts, warped at random, drawn at {ORIGINAL}x{ORIGINAL}"
    return ImageSet("glyphs", _split(grey, wanted), source, stand_in=True)


def _users(path: Path) -> ImageSet:
    """The user's own images, split 80/10/10 by a fixed permutation."""
    if not path.exists():
        raise DataError(f"{path} does not exist: give a folder of PNGs, or a .npy, .npz or .pt file of grey images")
    grey = _folder(path) if path.is_dir() else checked(_square(_array(path), str(path)), str(path))
    if len(grey) < LEAST:
        raise DataError(f"{path} holds {len(grey)} images; at least {LEAST} are needed for three splits")
    held_out = len(grey) // 10
    sizes = {"train": len(grey) - 2 * held_out, "valid": held_out, "test": held_out}
    return ImageSet(path.name, _split(grey, sizes), f"the file {path.name}", ("split 80/10/10 by a fixed permutation",))


def _folder(path: Path) -> Tensor:
    files = sorted(path.glob("*.png"))
    if not files:
        raise DataError(f"{path} holds no PNG files: put the images there as *.png, all of one size")
    images = []
    for file in files:
        try:
            with Image.open(file) as opened:
                images.append(np.asarray(opened.convert("L"), dtype=np.float64) / 255)
        except (UnidentifiedImageError, OSError, SyntaxError) as error:
            raise DataError(f"{file} is no readable PNG ({error}); remove or replace it") from None
    shapes = sorted({image.shape for image in images})
    if len(shapes) > 1:
        raise DataError(f"{path} holds images of several sizes ({', '.join(map(str, shapes))}); give all the same one")
    height, width = shapes[0]
    if height != width or height < SIZE:
        raise DataError(f"{path}: images are {height}x{width}; they must be square, and {SIZE}x{SIZE} or larger")
    stacked = np.stack(images)
    if height > SIZE:
        return torch.from_numpy(reduce_by_area(stacked)).float() / 255
    return torch.from_numpy(stacked).float()


def _array(path: Path) -> Tensor:
    if path.suffix == ".pt":
        loaded = _torch_load(path)
        if not isinstance(loaded, Tensor):
            raise DataError(f"{path} holds a {type(loaded).__name__} where one tensor of images is expected")
        return loaded
    try:
        loaded = np.load(path, allow_pickle=False)
        if not isinstance(loaded, np.ndarray):
            if len(loaded.files) != 1:
                raise DataError(f"{path} holds {len(loaded.files)} arrays ({', '.join(loaded.files)}); one is expected")
            loaded = loaded[loaded.files[0]]
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} cannot be read as an array without pickles ({error})") from None
    if loaded.dtype.kind not in "buif":
        raise DataError(f"{path} holds values of type {loaded.dtype}; grey values are numbers")
    return torch.from_numpy(loaded)


def _square(images: Tensor, what: str) -> Tensor:
    """[N, 28, 28] float from [N, 28, 28] or [N, 1, 28, 28], bytes divided by 255."""
    if images.ndim == 4 and images.shape[1] == 1:
        images = images[:, 0]
    if images.ndim != 3 or tuple(images.shape[1:]) != (SIZE, SIZE):
        raise DataError(f"{what}: images have the shape {tuple(images.shape)}; [N, {SIZE}, {SIZE}] is expected")
    return images.float() / 255 if images.dtype == torch.uint8 else images.float()


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
