"""The text data sets by name, and any text file of the user's own, as encoded corpora in three splits.

The paper's full sets keep the authors' splits. The small public sets and a user's own file are split here:
documents that repeat an earlier one are left out, the rest is put in a fixed permutation, and cut.
"""

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lagvae_lib.data.sources import SOURCES, DataError, fetch
from lagvae_lib.data.text import (
    UNKNOWN,
    Document,
    Vocab,
    labelled_or_plain_document,
    plain_document,
    read_lines,
    star_document,
    tabbed_document,
)
from lagvae_lib.names import choose

SPLITS = ("train", "valid", "test")
SPLIT_SEED = 20190506
MIN_DOCUMENTS = 30  # of a user's own file: 3 documents in each held-out split

Splits = dict[str, list[Document]]


@dataclass(frozen=True)
class Corpus:
    """Encoded text in three splits. `labels[split][i]` belongs to `splits[split][i]`; None without labels.

    splits: sentences as ids `<s> ... </s>`, under "train", "valid", "test".
    sha256: hash of vocabulary and sentences, that is, of the data as the options left them.
    source: where the text came from, in words. notes: what was done to it, one sentence each.
    """

    name: str
    vocab: Vocab
    splits: dict[str, list[list[int]]]
    labels: dict[str, list[int]] | None
    sha256: str
    stand_in: bool
    source: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Options:
    """How much of a corpus is used; None means all of it.

    max_len: documents are cut to so many words. vocab_size: entries of the vocabulary, the four special ones
    included. sizes: at most so many documents of train, valid and test.
    """

    max_len: int | None = None
    vocab_size: int | None = None
    sizes: tuple[int, int, int] | None = None

    def __post_init__(self):
        if self.max_len is not None and self.max_len < 1:
            raise ValueError(f"max_len is {self.max_len}; it must be at least 1 word, or None")
        if self.sizes is not None and (len(self.sizes) != 3 or min(self.sizes) < 1):
            raise ValueError(f"sizes is {self.sizes}; it must be three numbers (train, valid, test) of at least 1")


@dataclass(frozen=True)
class TextSet:
    """A named text data set: what its lines look like, and how large its held-out splits are.

    held_out: documents in each of valid and test if it is split here; None keeps the publisher's splits.
    """

    name: str
    parse: Callable[[str], Document]
    held_out: int | None
    note: str


TEXT_SETS: dict[str, TextSet] = {
    text_set.name: text_set
    for text_set in (
        TextSet("yelp", tabbed_document, None, "the paper's Yelp15 set, the authors' splits"),
        TextSet("yahoo", labelled_or_plain_document, None, "the paper's Yahoo set, the authors' splits"),
        TextSet(
            "yelp-small",
            star_document,
            2000,
            "not the paper's Yelp15: 16,444 other reviews (Yelp'13), cut at 50 words by their publisher",
        ),
        TextSet(
            "yahoo-small",
            plain_document,
            2000,
            "the literature's validation and test sets of Yahoo Answers (20,000 documents), split anew",
        ),
    )
}


def text_corpus(
    name: str,
    *,
    max_len: int | None = None,
    vocab_size: int | None = None,
    sizes: tuple[int, int, int] | None = None,
) -> Corpus:
    """The named text data set; options as in `Options`.

    Raises UnknownName, MissingData where it is not to be had, DataError for bad content, ValueError for bad
    options.
    """
    options = Options(max_len, vocab_size, sizes)
    text_set = TEXT_SETS[choose(name, TEXT_SETS, "text data set")]
    paths = fetch(name)
    published = text_set.held_out is None
    # The content of the full sets is not known by a hash, so an empty line there is possible and no fault.
    files = {key: parse_lines(path, text_set.parse, drop_empty=published) for key, path in paths.items()}
    if published:
        splits, notes = _published_splits(files, options)
    else:
        pooled = [d for documents in files.values() for d in documents]
        splits, notes = split_documents(pooled, text_set.held_out)
    notes = [text_set.note, *notes]
    return build_corpus(name, splits, options, source=SOURCES[name].origin, notes=notes)


def user_corpus(
    path: str | Path,
    *,
    max_len: int | None = None,
    vocab_size: int | None = None,
    sizes: tuple[int, int, int] | None = None,
) -> Corpus:
    """A corpus from the user's own UTF-8 text file, one document a line, split 80/10/10.

    Its name is the file's, made fit for a folder, and the first 8 hex digits of its sha256, so that a changed
    file is another data set. Raises DataError for a file that will not do, ValueError for bad options.
    """
    path, options = Path(path), Options(max_len, vocab_size, sizes)
    documents = parse_lines(path, plain_document, drop_empty=False)
    distinct = len({d.words for d in documents})
    if distinct < MIN_DOCUMENTS:
        raise DataError(f"{path} holds {distinct} different documents; give at least {MIN_DOCUMENTS}, one on each line")
    splits, notes = split_documents(documents, distinct // 10)
    with open(path, "rb") as f:
        sha256 = hashlib.file_digest(f, "sha256").hexdigest()
    name = f"{re.sub(r'[^A-Za-z0-9_]+', '-', path.stem).strip('-') or 'text'}-{sha256[:8]}"
    source = f"the user's own file {path.name}, sha256 {sha256}"
    return build_corpus(name, splits, options, source=source, notes=notes)


def parse_lines(path: Path, parse: Callable[[str], Document], *, drop_empty: bool) -> list[Document]:
    """The documents of a file; a fault that `parse` finds is reported with its line."""
    documents = []
    for number, line in enumerate(read_lines(path, drop_empty=drop_empty), 1):
        try:
            document = parse(line)
        except ValueError as error:
            raise DataError(f"{path}, non-empty line {number:,}: {error}") from None
        if document.words:
            documents.append(document)
    return documents


def fixed_permutation(n: int) -> np.ndarray:
    """A permutation of 0..n-1 that no version of numpy changes.

    numpy keeps the raw stream of its bit generators for ever, but not what `permutation` makes of it: so the
    raw 64-bit numbers are sorted here.
    """
    return np.argsort(np.random.PCG64(SPLIT_SEED).random_raw(n), kind="stable")


def split_documents(documents: Sequence[Document], held_out: int) -> tuple[Splits, list[str]]:
    """Leave out repeated texts, permute, cut: test is the first `held_out`, valid the next, train the rest.

    Returns the splits and notes on what was done.
    """
    first: dict[tuple[str, ...], Document] = {}
    for document in documents:
        first.setdefault(document.words, document)
    different = list(first.values())
    order = [different[i] for i in fixed_permutation(len(different))]
    cut = {"train": order[2 * held_out :], "valid": order[held_out : 2 * held_out], "test": order[:held_out]}
    repeated = len(documents) - len(different)
    return cut, [
        f"{repeated:,} of {len(documents):,} documents repeat an earlier one and are left out",
        f"split by a fixed permutation (PCG64, seed {SPLIT_SEED})",
    ]


def _published_splits(files: Splits, options: Options) -> tuple[Splits, list[str]]:
    """The publisher's splits in the publisher's order, unless a part is wanted: a file may be sorted."""
    notes = [f"{split}: {len(files[split]):,} documents that are not empty" for split in SPLITS]
    if options.sizes is None:
        return files, notes
    permuted = {split: [files[split][i] for i in fixed_permutation(len(files[split]))] for split in SPLITS}
    return permuted, [*notes, f"each split in a fixed permutation (PCG64, seed {SPLIT_SEED})"]


def build_corpus(
    name: str, splits: Splits, options: Options, *, source: str, notes: Sequence[str], stand_in: bool = False
) -> Corpus:
    """Apply the options to documents in splits, make the vocabulary from train, and encode."""
    splits, cut_notes = _cut(splits, options)
    for split in SPLITS:
        if not splits[split]:
            raise DataError(f"data set {name!r}: nothing is left in {split}; give a larger max_len or a larger file")
    vocab = Vocab.build((d.words for d in splits["train"]), options.vocab_size)
    encoded = {split: [vocab.encode(d.words) for d in splits[split]] for split in SPLITS}
    labelled = all(d.label is not None for split in SPLITS for d in splits[split])
    labels = {split: [d.label for d in splits[split]] for split in SPLITS} if labelled else None
    unknown = np.concatenate([s[1:-1] for s in encoded["test"]]) == UNKNOWN
    notes = (*notes, *cut_notes, f"{unknown.mean():.1%} of the words of test are unknown")
    return Corpus(name, vocab, encoded, labels, content_hash(vocab, encoded), stand_in, source, notes)


def _cut(splits: Splits, options: Options) -> tuple[Splits, list[str]]:
    """Shorten documents, then splits. Texts that cutting made equal stay in one split only, test first."""
    notes = []
    if options.max_len is not None:
        splits = {k: [Document(d.words[: options.max_len], d.label) for d in v] for k, v in splits.items()}
        splits, dropped = _separate(splits)
        notes.append(f"documents cut to {options.max_len} words; {dropped:,} of them left out to keep splits apart")
    for split, size in zip(SPLITS, options.sizes or (), strict=False):
        notes.append(f"{split}: the first {min(size, len(splits[split])):,} of {len(splits[split]):,} documents")
        splits = {**splits, split: splits[split][:size]}
    return splits, notes


def _separate(splits: Splits) -> tuple[Splits, int]:
    """Remove from valid what is in test, and from train what is in either; also how many were removed."""
    seen: set[tuple[str, ...]] = set()
    kept: Splits = {}
    for split in reversed(SPLITS):
        kept[split] = [d for d in splits[split] if d.words not in seen]
        seen.update(d.words for d in splits[split])
    return kept, sum(len(splits[s]) - len(kept[s]) for s in SPLITS)


def content_hash(vocab: Vocab, splits: dict[str, list[list[int]]]) -> str:
    """sha256 of a vocabulary and its encoded splits."""
    digest = hashlib.sha256(vocab.to_json().encode())
    for name in SPLITS:
        digest.update(f"\n{name} {[len(s) for s in splits[name]]}\n".encode())
        digest.update(np.array([i for s in splits[name] for i in s], dtype="<i4").tobytes())
    return digest.hexdigest()
