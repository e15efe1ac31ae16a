"""The text data sets by name, and any text file of the user's own, as encoded corpora in three splits.

The paper's full sets keep the authors' splits. The small public sets and a user's own file are split here:
documents that repeat an earlier one are left out, the rest is put in a fixed permutation, and cut.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from lagvae_lib.data import columns
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
from lagvae_lib.paths import absolute

SPLITS = ("train", "valid", "test")
SPLIT_SEED = 20190506
MIN_DOCUMENTS = 30  # of a user's own file: 3 documents in each held-out split
MAX_HELD_OUT = 10_000  # the paper's; what is evaluated, and every estimate that is quadratic in it, is as large
MAX_VOCABULARY = 20_000  # about the paper's
RARE = 0.2  # the largest share of train's words that may become <unk> for the sake of being trained
ENOUGH = 200  # training documents from which on that is done; of a smaller text every word is wanted
SPARSE = 0.2  # from this share of unknown words in test on, a warning
HOPELESS = 0.9  # from this share of unknown words in test on, a model of words says nothing

Splits = dict[str, list[Document]]


@dataclass(frozen=True)
class Corpus:
    """Encoded text in three splits. `labels[split][i]` belongs to `splits[split][i]`; None without labels.

    splits: sentences as ids `<s> ... </s>`, under "train", "valid", "test".
    sha256: hash of vocabulary and sentences, that is, of the data as the options left them.
    source: where the text came from, in words. notes: what was done to it, one sentence each. label_names: of a user's
    labels, each at the place that `labels` gives.
    """

    name: str
    vocab: Vocab
    splits: dict[str, list[list[int]]]
    labels: dict[str, list[int]] | None
    sha256: str
    stand_in: bool
    source: str
    notes: tuple[str, ...] = ()
    label_names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Options:
    """How much of a corpus is used; None means all of it.

    max_len: documents are cut to this many words. vocab_size: entries of the vocabulary, the four special ones
    included. sizes: at most this many documents of train, valid and test. known_only: words that a cut vocabulary does
    not have are left out, before anything else, instead of becoming `<unk>`.
    """

    max_len: int | None = None
    vocab_size: int | None = None
    sizes: tuple[int | None, ...] | None = None
    known_only: bool = False

    def __post_init__(self):
        if self.max_len is not None and self.max_len < 1:
            raise ValueError(f"max_len is {self.max_len}; it must be at least 1 word, or None")
        if self.sizes is not None and (len(self.sizes) != 3 or any(n is not None and n < 1 for n in self.sizes)):
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
    sizes: tuple[int | None, ...] | None = None,
    known_only: bool = False,
) -> Corpus:
    """The named text data set; options as in `Options`.

    Raises UnknownName, MissingData where it is not available, DataError for bad content, ValueError for bad
    options.
    """
    text_set = TEXT_SETS[choose(name, TEXT_SETS, "text data set")]
    options = Options(max_len, vocab_size, sizes, known_only)
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
    sizes: tuple[int | None, ...] | None = None,
    label_column: str | None = None,
) -> Corpus:
    """A corpus from the user's own UTF-8 text file, one document per line, split 80/10/10.

    Validation and test have at most `MAX_HELD_OUT` documents each, the vocabulary at most `MAX_VOCABULARY` words; notes
    say so. label_column: see `columns.labelled`. Its name is the file's, made fit for a folder, and the first 8 hex
    digits of its sha256 (and of the label column's), so that a changed file is another data set. Raises DataError for a
    file that will not do, ValueError for bad options.
    """
    path, options = absolute(path), Options(max_len, min(vocab_size or MAX_VOCABULARY, MAX_VOCABULARY), sizes)
    documents, names, warnings = columns.documents(path, label_column)
    distinct = len({d.words for d in documents})
    if distinct < MIN_DOCUMENTS:
        raise DataError(f"{path} holds {distinct} different documents; give at least {MIN_DOCUMENTS}, one on each line")
    splits, notes = split_documents(documents, min(distinct // 10, MAX_HELD_OUT))
    del documents  # of a large corpus, the memory of the half that is cut away
    if distinct // 10 > MAX_HELD_OUT:
        notes.append(f"validation and test are capped at {MAX_HELD_OUT:,} documents each")
    sha256 = _file_sha256(path, label_column)
    name = f"{re.sub(r'[^A-Za-z0-9_]+', '-', path.stem).strip('-')[:60] or 'text'}-{sha256[:8]}"
    source = f"the user's own file {path.name}, sha256 {sha256}"
    corpus = build_corpus(name, splits, options, source=source, notes=[*notes, *warnings], train_unknown=True)
    return replace(corpus, label_names=names)


def _file_sha256(path: Path, label_column: str | None) -> str:
    with open(path, "rb") as f:
        digest = hashlib.file_digest(f, "sha256")
    if label_column is not None:
        digest.update(f"label_column={label_column}".encode())
    return digest.hexdigest()


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
    name: str,
    splits: Splits,
    options: Options,
    *,
    source: str,
    notes: Sequence[str],
    stand_in: bool = False,
    train_unknown: bool = False,
) -> Corpus:
    """Apply the options to documents in splits, make the vocabulary from train, and encode.

    train_unknown: see `_vocabulary`. Raises DataError where a split has less than two documents, or where test has no
    known words.
    """
    splits, cut_notes = _cut(splits, options)
    for split in SPLITS:
        if len(splits[split]) < 2:  # of one example there is no estimate of the MI
            cut = f" once documents are cut to {options.max_len} words" if options.max_len else ""
            left = "one document" if splits[split] else "nothing"
            raise DataError(
                f"data set {name!r}: {left} is left in {split}{cut}; take a profile that cuts later (scaled, paper), "
                "or give more documents that differ in their first words"
            )
    vocab, rare = _vocabulary(splits, options.vocab_size, train_unknown)
    encoded = {split: [vocab.encode(d.words) for d in splits[split]] for split in SPLITS}
    labelled = all(d.label is not None for split in SPLITS for d in splits[split])
    labels = {split: [d.label for d in splits[split]] for split in SPLITS} if labelled else None
    unknown = np.concatenate([s[1:-1] for s in encoded["test"]]) == UNKNOWN
    notes = (
        *notes,
        *cut_notes,
        *rare,
        *_said_of_unknown(name, float(unknown.mean()), len(vocab) == options.vocab_size),
    )
    return Corpus(name, vocab, encoded, labels, content_hash(vocab, encoded), stand_in, source, notes)


def _vocabulary(splits: Splits, size: int | None, train_unknown: bool) -> tuple[Vocab, list[str]]:
    """The vocabulary of train, and notes about `<unk>`.

    Where no word of train is cut off, `<unk>` occurs in validation and test alone, as a word that no model has ever
    seen; with `train_unknown` words that train has once become `<unk>` there, if that leaves most of the text.
    """
    counts = Counter(w for d in splits["train"] for w in d.words)
    vocab = Vocab.from_counts(counts, size)
    known = vocab.ids
    if not train_unknown or any(w not in known for w in counts):
        cut = size == MAX_VOCABULARY and len(counts) > len(known)
        return vocab, [f"the vocabulary is capped at {MAX_VOCABULARY:,} words"] if cut else []
    new = sum(w not in known for split in SPLITS[1:] for d in splits[split] for w in d.words)
    once = sum(count == 1 for count in counts.values())
    if new and len(splits["train"]) >= ENOUGH and 0 < once <= RARE * counts.total():
        note = f"{once:,} words that train has once are <unk>, which no training document would have otherwise"
        return Vocab.from_counts(counts, size, min_count=2), [note]
    said = f"warning: <unk> is {new:,} times in validation and test and never in train; a larger text would mend that"
    return vocab, [said] if new else []


def _said_of_unknown(name: str, share: float, capped: bool) -> list[str]:
    """What is said of the share of test's words that are `<unk>`. capped: the vocabulary is as large as it may be."""
    said = f"{share:.1%} of the words of test are unknown"
    if share >= HOPELESS:
        raise DataError(
            f"data set {name!r}: {said}, so a model of its words would learn nothing; words stand between spaces: put "
            "some between the words (or the characters) of a language that is written without, or give more text"
        )
    coded = "a code tells how many a document has, and a profile with a larger vocabulary would mend that"
    return [said if share < SPARSE else f"warning: {said}; {coded if capped else 'more text would mend that'}"]


def _cut(splits: Splits, options: Options) -> tuple[Splits, list[str]]:
    """Shorten documents, then splits. Texts that cutting made equal stay in one split only, test first."""
    notes = []
    if options.known_only and options.vocab_size is not None:
        splits, notes = _known_only(splits, options.vocab_size)
    if options.max_len is not None:
        splits = {k: [Document(d.words[: options.max_len], d.label) for d in v] for k, v in splits.items()}
        splits, dropped = _separate(splits)
        notes.append(f"documents cut to {options.max_len} words; {dropped:,} of them left out to keep splits apart")
    for split, size in zip(SPLITS, options.sizes or (), strict=False):
        if size is not None:
            notes.append(f"{split}: the first {min(size, len(splits[split])):,} of {len(splits[split]):,} documents")
            splits = {**splits, split: splits[split][:size]}
    return splits, notes


def _known_only(splits: Splits, vocab_size: int) -> tuple[Splits, list[str]]:
    """Leave out the words that are not among the most frequent of train, and documents of which nothing is left."""
    known = Vocab.build((d.words for d in splits["train"]), vocab_size).ids
    kept = {k: [Document(tuple(w for w in d.words if w in known), d.label) for d in v] for k, v in splits.items()}
    before, after = (sum(len(d.words) for v in parts.values() for d in v) for parts in (splits, kept))
    note = f"{1 - after / before:.1%} of the words are not among the {vocab_size:,} of the vocabulary and are left out"
    return {k: [d for d in v if d.words] for k, v in kept.items()}, [note]


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
        for k in range(0, len(splits[name]), 100_000):  # all at once would double the memory of a large corpus
            digest.update(np.array([i for s in splits[name][k : k + 100_000] for i in s], dtype="<i4").tobytes())
    return digest.hexdigest()
