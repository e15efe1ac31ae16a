"""Text as numbers: checked lines, documents, the vocabulary, and batches of equal-length sentences.

A document is one line; its words are what stands between spaces.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path
from sys import intern

import torch
from torch import Tensor

from lagvae_lib.data.sources import DataError

PAD, START, END, UNKNOWN = range(4)
SPECIAL = ("<pad>", "<s>", "</s>", "<unk>")
UNKNOWN_SPELLINGS = frozenset({"<unk>", "_UNK"})  # what the published files write for a rare word

# How files begin that are no text, and what they are
OTHER_KINDS = {
    b"PK\x03\x04": "a ZIP archive or an office document",
    b"\x1f\x8b": "packed by gzip",
    b"BZh9": "packed by bzip2",
    b"\xfd7zXZ": "packed by xz",
    b"%PDF": "a PDF",
    b"{\\rtf": "a document in RTF",
    b"\xd0\xcf\x11\xe0": "an office document",
    b"\x89HDF": "an HDF5 file",
    b"MATLAB": "a MATLAB file",
    b"SQLite": "a data base",
    b"PAR1": "a Parquet file",
    b"\0\0\x08\x01": "MNIST's file of labels, not of images",
    b"GIF8": "an image",
    b"II*\0": "an image",
    b"RIFF": "an image or a sound",
}

MAX_LINE = 100_000  # bytes; the longest document of any of the sets has under 10,000


def read_lines(path: Path, *, drop_empty: bool = False) -> list[str]:
    """The lines of a UTF-8 text file, without their ends; a byte-order mark is ignored.

    Raises DataError for a file that is missing, a folder, unreadable, empty, not UTF-8, or has a line over
    `MAX_LINE` bytes or (unless `drop_empty`) an empty one. Reads no more than one line past a fault.
    """
    lines = all_lines(path)
    empty = [i for i, line in enumerate(lines, 1) if not line.strip()]
    if empty and not drop_empty:
        raise DataError(f"{path} has {len(empty):,} empty lines, the first is line {empty[0]:,}; remove them")
    return [line for line in lines if line.strip()] if empty else lines


def all_lines(path: Path) -> list[str]:
    """As `read_lines`, with the empty lines where they are."""
    path = Path(path)
    if not path.exists():
        raise DataError(f"{path}: no such file; give the path of a UTF-8 text file, one document per line")
    if path.is_dir():
        raise DataError(f"{path} is a folder; give the path of a text file in it, one document per line")
    try:
        with open(path, "rb") as f:
            _must_be_text(path, f.read(8))
            f.seek(0)
            lines = [_decode(path, i, raw) for i, raw in enumerate(iter(lambda: f.readline(MAX_LINE + 1), b""), 1)]
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    if not any(map(str.strip, lines)):
        raise DataError(f"{path} is empty; it should hold one document per line")
    return lines


def _must_be_text(path: Path, head: bytes) -> None:
    for beginning, kind in OTHER_KINDS.items():
        if head.startswith(beginning):
            raise DataError(
                f"{path} is {kind}; unpack or export it first: a text as a plain UTF-8 file, one document on each "
                "line, images as PNGs in a folder or as .npy"
            )


def _decode(path: Path, number: int, raw: bytes) -> str:
    if len(raw) > MAX_LINE:
        raise DataError(
            f"{path}, line {number:,} is longer than {MAX_LINE:,} bytes; "
            "put one document on each line, and cut or remove longer ones"
        )
    try:
        line = raw.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}, line {number:,} is not UTF-8 (byte 0x{raw[error.start]:02x}); save the file as UTF-8"
        ) from None
    if "\0" in line:
        raise DataError(f"{path}, line {number:,} holds a NUL character: not a UTF-8 text file; save it as one")
    return line


@dataclass(frozen=True, slots=True)
class Document:
    """The words of one line, unknown words written `<unk>`, and its label where the set has one."""

    words: tuple[str, ...]
    label: int | None = None


def plain_document(line: str) -> Document:
    """A line that is all text."""
    # `intern`: a word is in memory once, however often it is in a corpus
    return Document(tuple(SPECIAL[UNKNOWN] if w in UNKNOWN_SPELLINGS else intern(w) for w in line.split()))


def star_document(line: str) -> Document:
    """A line whose first word is the star digit 0-4: the label, not text."""
    star, _, text = line.strip().partition(" ")
    if star not in {"0", "1", "2", "3", "4"}:
        raise ValueError(f"{line[:40]!r} does not start with a star digit 0-4 and a space")
    return Document(plain_document(text).words, int(star))


def tabbed_document(line: str) -> Document:
    """A line `label<TAB>text`."""
    label, tab, text = line.partition("\t")
    if not tab or not label.strip().isdecimal():
        raise ValueError(f"{line[:40]!r} is not of the form label<TAB>text, the label a whole number")
    return Document(plain_document(text).words, int(label))


def labelled_or_plain_document(line: str) -> Document:
    """A line `label<TAB>text`, or all text where it has no TAB."""
    return tabbed_document(line) if "\t" in line else plain_document(line)


@dataclass(frozen=True)
class Vocab:
    """The words of a corpus; a word's place in `words` is its id. Ids 0-3 are <pad>, <s>, </s>, <unk>."""

    words: tuple[str, ...]

    def __post_init__(self):
        if self.words[: len(SPECIAL)] != SPECIAL or len(set(self.words)) < len(self.words):
            raise ValueError(f"a vocabulary starts with {SPECIAL} and names no word twice")

    @classmethod
    def build(cls, documents: Iterable[Sequence[str]], max_size: int | None = None, min_count: int = 1) -> "Vocab":
        """Words by descending frequency, ties alphabetical; `max_size` counts the special four."""
        return cls.from_counts(Counter(w for words in documents for w in words), max_size, min_count)

    @classmethod
    def from_counts(cls, counts: dict[str, int], max_size: int | None = None, min_count: int = 1) -> "Vocab":
        """As `build`, from counted words; with `min_count` 0 words that were never seen have a place too."""
        if max_size is not None and max_size <= len(SPECIAL):
            raise ValueError(
                f"a vocabulary of {max_size} has no room beside {SPECIAL}; give {len(SPECIAL) + 1} or more"
            )
        words = sorted(
            (w for w, n in counts.items() if n >= min_count and w not in SPECIAL),
            key=lambda w: (-counts[w], w),
        )
        return cls((SPECIAL + tuple(words))[:max_size])

    def __len__(self) -> int:
        return len(self.words)

    @cached_property
    def ids(self) -> dict[str, int]:
        """Id of every ordinary word. A `</s>` inside a text is unknown: it must not end the sentence."""
        return {w: i for i, w in enumerate(self.words) if i > UNKNOWN}

    def encode(self, words: Sequence[str]) -> list[int]:
        """Ids of `<s> words </s>`; a word that is not in the vocabulary becomes <unk>."""
        return [START, *(self.ids.get(w, UNKNOWN) for w in words), END]

    def decode(self, ids: Iterable[int]) -> list[str]:
        """Words of `ids` (a list or a 1-D tensor) up to the first </s>, without <s> and <pad>."""
        words = []
        for i in map(int, ids):
            if i == END:
                break
            if i not in (PAD, START):
                words.append(self.words[i])
        return words

    def to_json(self) -> str:
        return json.dumps({"words": self.words}, ensure_ascii=False)


class TextBatches:
    """Fixed batches of equal-length sentences, so that nothing is padded (as in the released code).

    Sentences are sorted by length, order kept within a length, and cut into groups of `batch_size`; the last
    group of a length may be smaller. Only the order in which batches are visited is random.
    `sentences`: ids `<s> ... </s>`; `members[i]` says which of them batch i holds, row by row.
    """

    def __init__(self, sentences: Sequence[Sequence[int]], batch_size: int, device: torch.device | str = "cpu"):
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}; it must be at least 1")
        if not sentences or min(map(len, sentences)) < 2:
            raise ValueError("batches need at least one sentence, each with <s> and </s>")
        self.sentences, self.batch_size = sentences, batch_size
        by_length = sorted(range(len(sentences)), key=lambda i: len(sentences[i]))
        groups = (list(g) for _, g in groupby(by_length, key=lambda i: len(sentences[i])))
        self.members = [g[k : k + batch_size] for g in groups for k in range(0, len(g), batch_size)]
        self._batches = [torch.tensor([sentences[i] for i in m], device=device) for m in self.members]

    def __len__(self) -> int:
        """Number of batches."""
        return len(self._batches)

    def __iter__(self) -> Iterator[Tensor]:
        """The batches, long [B, T], in their fixed order (shortest first): for evaluation."""
        return iter(self._batches)

    @property
    def examples(self) -> int:
        """Number of sentences."""
        return len(self.sentences)

    @property
    def predicted_tokens(self) -> int:
        """Number of tokens a model predicts: every one but <s>."""
        return sum(len(s) - 1 for s in self.sentences)

    def order(self, generator: torch.Generator) -> list[int]:
        """A random permutation of the batches: one epoch. `generator` is a CPU generator, here and below."""
        return torch.randperm(len(self), generator=generator).tolist()

    def get(self, i: int, generator: torch.Generator | None = None) -> Tensor:
        """Batch i, long [B, T]; `generator` is not needed, since text has nothing to draw afresh."""
        return self._batches[i]

    def draw(self, generator: torch.Generator) -> Tensor:
        """A batch chosen uniformly, with replacement: the inner loop's minibatch (Algorithm 1)."""
        return self._batches[int(torch.randint(len(self), (), generator=generator))]

    def to(self, device: torch.device | str) -> "TextBatches":
        """The same batches on another device."""
        moved = copy(self)
        moved._batches = [b.to(device) for b in self._batches]
        return moved
