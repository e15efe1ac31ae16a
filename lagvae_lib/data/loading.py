"""Data sets ready to train on: `load` gives the three splits as batches, and says where they came from."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Protocol

import torch
from torch import Tensor

from lagvae_lib.data import family, is_file, resolve_name, split_label_column
from lagvae_lib.data.corpora import Corpus, text_corpus, user_corpus
from lagvae_lib.data.grammar import grammar_corpus
from lagvae_lib.data.images import ImageSet, image_batches, image_set
from lagvae_lib.data.sources import DataError, MissingData
from lagvae_lib.data.synthetic import FRESH_LINES, fresh_lines, synthetic_corpus
from lagvae_lib.data.text import TextBatches, Vocab
from lagvae_lib.paths import absolute, files_below


class Batches(Protocol):
    """A split as batches. `order` gives an epoch's, as handles (plain values) for `get`. Generators are CPU generators,
    so that one seed serves every device; a split on a GPU may draw there, by a generator that they seed."""

    batch_size: int

    @property
    def examples(self) -> int: ...
    def __len__(self) -> int: ...
    def __iter__(self): ...
    def order(self, generator: torch.Generator) -> list: ...
    def get(self, handle, generator: torch.Generator) -> Tensor: ...
    def draw(self, generator: torch.Generator) -> Tensor: ...
    def to(self, device: str) -> "Batches": ...


@dataclass(frozen=True)
class Data:
    """A data set as a run uses it. `fresh`: further examples that nothing is fitted to or selected on (the toy).

    units: a batch's size as the inner loop counts it, predicted words for text, images for images.
    vocab: of text; None for images. labels: of a labelled file's or folder's examples, by split and in the order in
    which `TextBatches.sentences` or `ImageBatches.grey` has them.
    """

    name: str
    train: Batches
    valid: Batches
    test: Batches
    sha256: str
    stand_in: bool
    source: str
    notes: tuple[str, ...]
    vocab: Vocab | None
    units: Callable[[Tensor], int]
    fresh: Batches | None = None
    labels: dict[str, list] | None = None

    @property
    def test_labels(self) -> list | None:
        """The labels of the test examples, in the order in which the test batches have them; None without labels."""
        if self.labels is None:
            return None
        members = getattr(self.test, "members", None)  # text is batched by length, images are in their own order
        labels = self.labels["test"]
        return list(labels) if members is None else [labels[i] for batch in members for i in batch]

    @property
    def family(self) -> str:
        """Which kind of data this is, one of `data.FAMILIES`; a name such as `mine-0123abcd` does not tell."""
        return "images" if self.vocab is None else "text" if self.fresh is None else "toy"


def predicted_words(x: Tensor) -> int:
    """How many words of the batch x [B, T] a model predicts: all but <s>."""
    return x.shape[0] * (x.shape[1] - 1)


ENOUGH_NATS = 1.0  # that the MI within batches can show; the codes of `quick` and `scaled` text hold about as much


def load(dataset: str, settings, *, profile: str) -> Data:
    """The data set that `dataset` means at `profile`, shrunk to `settings` (a `DataSettings`).

    Where it is not available, `smoke` and `quick` take a stand-in, `grammar` or `glyphs` (`Data.stand_in` says so);
    the other profiles raise `MissingData`, which names the ways to get it. Raises `UnknownName` and `DataError` too.
    """
    name = resolve_name(dataset, profile)
    if name == "synthetic":
        return _synthetic(settings)
    if is_file(name):
        return _own(name, settings, _state_of(name))
    of_kind, stand_in = (_images, "glyphs") if family(name) == "images" else (_text, "grammar")
    try:
        return of_kind(name, settings)
    except MissingData:
        if profile not in ("smoke", "quick"):
            raise
        return of_kind(stand_in, settings)


def _state_of(name: str) -> tuple:
    """What tells whether a user's file, or a file in a user's folder, has changed since it was loaded."""
    path, column = split_label_column(name)
    if "://" in path:
        raise DataError(f"{path} is an address and no path: download it, and give the file's path")
    path = absolute(path)
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise DataError(f"{path} is a pipe or a device, which can be read once only: save it as a file")
    if column is not None and family(name) == "images":
        raise DataError(f"{path} holds images, which have no label column; their classes are a folder for each")
    try:
        files = [file for file in files_below(path) if file.exists()] if path.is_dir() else [path]
        return tuple((str(file), (s := file.stat()).st_size, s.st_mtime_ns, s.st_ino) for file in files)
    except OSError as error:
        if path.exists():
            raise DataError(f"{path} cannot be read: {error}") from None
        return ()


@lru_cache(maxsize=1)
def _own(name: str, settings, state: tuple) -> Data:
    """The user's own data, kept in memory for the next method on them."""
    return (_images if family(name) == "images" else _text)(name, settings)


def _images(name: str, settings) -> Data:
    found = image_set(name, (settings.train, settings.valid, settings.test))
    splits = [image_batches(found, split, settings.batch_size) for split in ("train", "valid", "test")]
    return _as_data(found, splits, None, len)


def _text(name: str, settings) -> Data:
    sizes = (settings.train, settings.valid, settings.test)
    options = {"max_len": settings.max_len, "vocab_size": settings.vocab_size}
    if name == "grammar":
        corpus = grammar_corpus(*(size or default for size, default in zip(sizes, (10_000, 1_000, 1_000), strict=True)))
    else:
        options["sizes"] = sizes if any(sizes) else None
        corpus = (
            _users_corpus(name, options)
            if is_file(name)
            else text_corpus(name, **options, known_only=settings.known_only)
        )
    splits = [TextBatches(corpus.splits[split], settings.batch_size) for split in ("train", "valid", "test")]
    if is_file(name):
        corpus = replace(corpus, notes=(*corpus.notes, *_small_batches([len(x) for x in splits[1]])))
    return _as_data(corpus, splits, corpus.vocab, predicted_words)


def _small_batches(sizes: list[int]) -> list[str]:
    """What validation batches of these sizes do to the MI within them, which decides when the aggressive stage ends:
    the estimate of a batch of B documents is at most log B."""
    cap = sum(size * math.log(size) for size in sizes) / sum(sizes)
    if cap >= ENOUGH_NATS:
        return []
    return [
        f"warning: the {sum(sizes):,} validation documents make {len(sizes):,} batches, each of one length, and the MI "
        f"within them is at most {cap:.1f} nats: it may not tell when the aggressive stage should end; "
        "`+stop_metric=mi_large` in the method's name takes the MI over all of them instead"
    ]


def _users_corpus(name: str, options: dict) -> Corpus:
    path, column = split_label_column(name)
    return user_corpus(path, label_column=column, **options)


def _as_data(found: Corpus | ImageSet, splits: list[Batches], vocab: Vocab | None, units: Callable) -> Data:
    train, valid, test = splits
    return Data(
        name=found.name,
        train=train,
        valid=valid,
        test=test,
        sha256=found.sha256,
        stand_in=found.stand_in,
        source=found.source,
        notes=tuple(found.notes),
        vocab=vocab,
        units=units,
        labels=found.labels,
    )


def _synthetic(settings) -> Data:
    """The toy. As in the paper the test file is the validation set; `fresh` lines are neither."""
    corpus = synthetic_corpus()
    vocab = Vocab.from_counts({str(word): 1 for word in range(1000)}, min_count=0)

    def batches(lines, size):
        return TextBatches([vocab.encode([str(int(w)) for w in line]) for line in lines[:size]], settings.batch_size)

    test = batches(corpus.test, settings.test)
    return Data(
        name="synthetic",
        train=batches(corpus.train, settings.train),
        valid=batches(corpus.test, settings.valid),
        test=test,
        sha256=corpus.sha256,
        stand_in=False,
        source="regenerated by the recipe",
        notes=("the validation and the test set are the same file, as in the paper",),
        vocab=vocab,
        units=predicted_words,
        fresh=batches(fresh_lines(FRESH_LINES), settings.test),
    )
