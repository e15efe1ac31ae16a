"""Image data sets: OMNIGLOT in its two forms, the user's own images, and the glyph stand-in; binarised batches.

Grey values in [0, 1] are probabilities of ink. Training images are drawn from them anew whenever they are used;
validation and test images are drawn once, with fixed seeds.
"""

import hashlib
import io
import warnings
import zipfile
from collections.abc import Iterator
from copy import copy
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from lagvae_lib.atomic import replace_with
from lagvae_lib.data.glyphs import ORIGINAL, glyph_drawings
from lagvae_lib.data.image_files import DAMAGE, columns, reduce_by_area, square, tensors
from lagvae_lib.data.sources import DataError, MissingData, fetch
from lagvae_lib.paths import data_dir

SPLIT = {"train": 22_345, "valid": 2_000, "test": 8_070}  # Burda et al.'s sizes
BURDA = {"data": 24_345, "testdata": 8_070}  # arrays of chardata.mat and the images in each
SPLIT_SEED = 0  # of the permutation that splits drawings (numpy's RandomState, whose stream never changes)
BINARISE_SEED = {"train": 101, "valid": 102, "test": 103}  # train: only for looking at training images
DRAWINGS = 32_460
# Of the names and PNGs in order: the archives themselves are packed in more than one way
DRAWINGS_SHA256 = "1802059dcce2a73603a6a82130a127f2f15aa9877e835750537f3f6defd56070"
GREY_SHA256 = "8167dffec9d3ee72541f00f4f120b260f19aebf40a2a4c142dfc5a700a187882"


@dataclass(frozen=True)
class ImageSet:
    """splits: "train", "valid", "test" -> grey images [N, H, W] in [0, 1]. sha256: of all grey values used.

    labels: the classes of a user's images, by split and in their order.
    """

    name: str
    splits: dict[str, Tensor] = field(repr=False)
    source: str
    notes: tuple[str, ...] = ()
    stand_in: bool = False
    labels: dict[str, list[str]] | None = None

    @property
    def sha256(self) -> str:
        """What the numbers of a run depend on."""
        digest = hashlib.sha256()
        for name in SPLIT:
            digest.update(self.splits[name].numpy().tobytes())
        return digest.hexdigest()

    def first(self, sizes: tuple[int | None, ...]) -> "ImageSet":
        """The first images of each split, None for all. Raises DataError where there are fewer."""
        for (name, images), size in zip(self.splits.items(), sizes, strict=True):
            if size is not None and size > len(images):
                raise DataError(
                    f"data set {self.name!r} has {len(images):,} images in its {name} split; {size:,} were asked for"
                )
        return self.at_most(sizes)

    def at_most(self, sizes: tuple[int | None, ...]) -> "ImageSet":
        """The same, or all images where there are fewer; a note says which splits are smaller than was asked for."""
        given = list(zip(self.splits, sizes, strict=True))
        kept = {name: self.splits[name][:size] for name, size in given}
        fewer = [
            f"{name} {len(kept[name]):,} of {size:,} images"
            for name, size in given
            if size is not None and size > len(kept[name])
        ]
        notes = (*self.notes, f"fewer than the profile takes, so all there are: {', '.join(fewer)}") if fewer else ()
        labels = self.labels and {name: self.labels[name][:size] for name, size in given}
        return ImageSet(self.name, kept, self.source, notes or self.notes, self.stand_in, labels)


class ImageBatches:
    """A split as batches of black and white images, float [B, 1, H, W] of 0 and 1.

    A batch's handle is the list of its images' numbers. `get` and `draw` binarise anew with their generator unless
    `once` is set; iterating binarises with `seed`, always alike.
    """

    def __init__(self, grey: Tensor, batch_size: int, seed: int, once: bool):
        if batch_size < 1 or not len(grey):
            raise ValueError(f"batches of {batch_size} out of {len(grey)} images: both must be at least 1")
        self.grey, self.batch_size, self.seed, self.once = grey, batch_size, seed, once
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
        """Batches of `batch_size`; one image left over joins the batch before, since BatchNorm needs at least two."""
        parts = [numbers[i : i + self.batch_size] for i in range(0, len(numbers), self.batch_size)]
        if len(parts) > 1 and len(parts[-1]) == 1:
            parts[-2:] = [parts[-2] + parts[-1]]
        return parts

    def __iter__(self) -> Iterator[Tensor]:
        for handle in self._cut(list(range(len(self.grey)))):
            yield self._as_input(self.fixed[self._index(handle)])

    @property
    def fixed(self) -> Tensor:
        """All images binarised with `seed`, bool [N, H, W]."""
        if self._fixed is None:
            generator = torch.Generator().manual_seed(self.seed)
            self._fixed = torch.rand(self.grey.shape, generator=generator).to(self.grey.device) < self.grey
        return self._fixed

    def order(self, generator: torch.Generator) -> list[list[int]]:
        """The batches of an epoch: all images, permuted."""
        return self._cut(torch.randperm(len(self.grey), generator=generator).tolist())

    def get(self, handle: list[int], generator: torch.Generator) -> Tensor:
        """The batch of those images, [B, 1, H, W]."""
        return self._as_input(self._binarised(self._index(handle), self._own(generator)))

    def draw(self, generator: torch.Generator) -> Tensor:
        """An inner batch: `batch_size` images, none twice."""
        own = self._own(generator)
        chosen = torch.randperm(len(self.grey), generator=own, device=self.grey.device)[: self.batch_size]
        return self._as_input(self._binarised(chosen, own))

    def _index(self, handle: list[int]) -> Tensor:
        return torch.tensor(handle).to(self.grey.device)

    def _binarised(self, chosen: Tensor, own: torch.Generator) -> Tensor:
        if self.once:
            return self.fixed[chosen]
        grey = self.grey[chosen]
        return torch.rand(grey.shape, generator=own, device=self.grey.device) < grey

    def _own(self, generator: torch.Generator) -> torch.Generator:
        """`generator` itself on a processor; on a GPU one there, seeded by it, so that no image has to be copied."""
        if self.grey.device.type == "cpu":
            return generator
        seed = int(torch.randint(2**62, (), generator=generator))
        return torch.Generator(self.grey.device).manual_seed(seed)

    def _as_input(self, images: Tensor) -> Tensor:
        return images.unsqueeze(1).float()

    def to(self, device: str) -> "ImageBatches":
        """The same images on another device; held-out ones are binarised alike everywhere, training ones per device."""
        moved = copy(self)
        moved._fixed = self.fixed.to(device) if self.once else None
        moved.grey = self.grey.to(device)
        return moved


def image_batches(images: ImageSet, split: str, batch_size: int) -> ImageBatches:
    """The batches of one split, training images binarised at every draw and the others once."""
    return ImageBatches(images.splits[split], batch_size, BINARISE_SEED[split], once=split != "train")


def image_set(name: str, sizes: tuple[int | None, ...] = (None, None, None)) -> ImageSet:
    """`omniglot`, `omniglot-28`, `glyphs`, or a path to a folder of PNGs or an array file; the first of each split.

    Raises MissingData where a published set is not available, DataError for content that cannot be used.
    """
    if name == "glyphs":
        return _glyphs(sizes)
    from lagvae_lib.data.own_images import users_images  # which makes an `ImageSet` itself

    if name in ("omniglot", "omniglot-28"):
        return (_omniglot if name == "omniglot" else _omniglot_28)().first(sizes)
    return users_images(name).at_most(sizes)


# -- OMNIGLOT ----------------------------------------------------------------------------------------------------------


def _omniglot() -> ImageSet:
    """The authors' file where it is at hand, else Burda's."""
    try:
        return _from_pt(fetch("omniglot-authors")["pt"])
    except MissingData:
        return _from_mat(fetch("omniglot")["mat"])


def _from_mat(path: Path) -> ImageSet:
    """`chardata.mat`, whose training images are permuted and cut into train and valid."""
    data, test = columns(path, BURDA).values()
    valid = SPLIT["valid"]
    order = np.random.RandomState(SPLIT_SEED).permutation(len(data))
    splits = {"train": data[order[valid:]], "valid": data[order[:valid]], "test": test}
    notes = (f"{valid:,} of the training images, chosen by a fixed permutation, are for validation",)
    return ImageSet("omniglot", splits, "chardata.mat of Burda et al., github yburda/iwae", notes)


def _from_pt(path: Path) -> ImageSet:
    """The authors' `omniglot.pt`: a list of three tensors N x 1 x 28 x 28."""
    parts = tensors(path)
    if not isinstance(parts, (list, tuple)) or len(parts) != 3 or not all(isinstance(p, Tensor) for p in parts):
        raise DataError(f"{path} does not hold a list of three tensors (train, validation, test)")
    splits = {name: square(part, f"{path}, {name}") for name, part in zip(SPLIT, parts, strict=True)}
    return ImageSet("omniglot", splits, "omniglot.pt of the paper's authors")


def _omniglot_28() -> ImageSet:
    """The original drawings, 105x105, reduced by area and split by a fixed permutation."""
    grey = torch.from_numpy(_grey_drawings()).float() / 255
    notes = (
        "the original drawings reduced to 28x28 by area; not Burda's images, and another split",
        f"split by a fixed permutation; {DRAWINGS - sum(SPLIT.values())} drawings are left over and not used",
    )
    return ImageSet("omniglot-28", _split(grey, SPLIT), "github brendenlake/omniglot, python/images_*.zip", notes)


def _split(grey: Tensor, sizes: dict[str, int]) -> dict[str, Tensor]:
    order = torch.from_numpy(np.random.RandomState(SPLIT_SEED).permutation(len(grey)))
    parts = order[: sum(sizes.values())].split(list(sizes.values()))
    return {name: grey[part] for name, part in zip(sizes, parts, strict=True)}


def _grey_drawings() -> np.ndarray:
    """uint8 [32460, 28, 28] from the cache, which is made from the archives the first time."""
    cache = data_dir() / "omniglot-28" / "grey.npz"
    if (grey := _cached(cache)) is not None:
        return grey
    paths = fetch("omniglot-28")
    drawings = _drawings([paths["background"], paths["evaluation"]])
    parts = (drawings[i : i + 500] for i in range(0, len(drawings), 500))  # all at once would take a gigabyte
    grey = np.concatenate([reduce_by_area(np.stack([_ink(png) for png in part])) for part in parts])
    try:
        with replace_with(cache) as temporary, open(temporary, "wb") as f:
            np.savez_compressed(f, grey=grey)
    except OSError as error:  # a read-only or a full disk; the archives serve as well, only slower
        warnings.warn(f"{cache} cannot be written ({error}): the drawings are reduced anew each time", stacklevel=2)
    return grey


def _cached(cache: Path) -> np.ndarray | None:
    """The array in the cache, or None where it is not there, damaged or another."""
    try:
        with zipfile.ZipFile(cache) as opened, opened.open("grey.npy") as f:
            grey = np.lib.format.read_array(f, allow_pickle=False)
    except DAMAGE:
        return None
    return grey if _sha256(grey) == GREY_SHA256 else None


def _drawings(archives: list[Path]) -> list[bytes]:
    """The PNGs of all drawings in the order of their names, as published. Raises DataError."""
    content, digest = [], hashlib.sha256()
    for archive in archives:
        try:
            with zipfile.ZipFile(archive) as opened:
                for name, member in sorted(_png_names(opened)):
                    content.append(opened.read(member))
                    digest.update(name.encode() + hashlib.sha256(content[-1]).digest())
        except DAMAGE as error:
            raise DataError(
                f"{archive} is not a readable zip archive ({error}); replace it with the right one"
            ) from None
    if digest.hexdigest() != DRAWINGS_SHA256:
        raise DataError(
            f"{archives[0].parent} does not hold OMNIGLOT's {DRAWINGS:,} drawings as published ({len(content):,} "
            "found, or their bytes differ); replace images_background.zip and images_evaluation.zip by the right ones"
        )
    return content


def _png_names(archive: zipfile.ZipFile) -> list[tuple[str, str]]:
    """`alphabet/character/drawing.png` and the member's full name, whatever folder an archive puts in front."""
    names = (name for name in archive.namelist() if name.endswith(".png"))
    named = (("/".join(name.split("/")[-3:]), name) for name in names)
    return [pair for pair in named if not pair[0].split("/")[-1].startswith("._")]  # a Mac's own files beside each


def _ink(png: bytes) -> np.ndarray:
    return (np.asarray(Image.open(io.BytesIO(png)).convert("L")) < 128).astype(np.uint8)


def _sha256(values: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()


# -- the stand-in -----------------------------------------------------------------------------------


def _glyphs(sizes: tuple[int | None, ...]) -> ImageSet:
    wanted = dict(
        zip(SPLIT, (size or default for size, default in zip(sizes, (3_000, 500, 500), strict=True)), strict=True)
    )
    drawings = glyph_drawings(sum(wanted.values()))
    grey = torch.from_numpy(reduce_by_area(drawings)).float() / 255
    source = f"letters of the DejaVu fonts, warped at random, drawn at {ORIGINAL}x{ORIGINAL}"
    return ImageSet("glyphs", _split(grey, wanted), source, stand_in=True)
