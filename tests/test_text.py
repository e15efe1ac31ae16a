"""Lines, vocabulary, batches, splits and corpora."""

import hashlib
from collections import Counter
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lagvae_lib.config.profiles import resolve
from lagvae_lib.data import corpora
from lagvae_lib.data.corpora import (
    SPLITS,
    TEXT_SETS,
    Options,
    build_corpus,
    split_documents,
    text_corpus,
    user_corpus,
)
from lagvae_lib.data.loading import load
from lagvae_lib.data.sources import SOURCES, DataError, Source, SourceFile, fetch
from lagvae_lib.data.text import (
    MAX_LINE,
    SPECIAL,
    UNKNOWN,
    Document,
    TextBatches,
    Vocab,
    labelled_or_plain_document,
    plain_document,
    read_lines,
    star_document,
    tabbed_document,
)
from lagvae_lib.names import UnknownName
from lagvae_lib.paths import mirror_dir

WORD = st.text("abcde<>/s", min_size=1, max_size=4)
DOCUMENTS = st.lists(st.lists(WORD, min_size=1, max_size=8), min_size=1, max_size=20)


def write(folder, content, name="text.txt"):
    path = folder / name
    path.write_bytes(content)
    return path


def user_lines(n=100):
    return "".join(f"document {i} says {'very ' * (i % 7)}much\n" for i in range(n)).encode()


# Reading


def test_lines_lose_their_ends_and_the_byte_order_mark(tmp_path):
    assert read_lines(write(tmp_path, "\ufeffcafé one\r\ntwo\nthree\u2028still".encode())) == [
        "café one",
        "two",
        "three\u2028still",
    ]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty"),
        (b"\n \n", "is empty"),
        (b"one\n\ntwo\n  \n", "2 empty lines, the first is line 2"),
        (b"one\ncaf\xe9\n", "line 2 is not UTF-8 .byte 0xe9"),
        ("one\ntwo\n".encode("utf-16"), "line 1 is not UTF-8"),
        (b"o\0n\0e\0\n", "NUL"),
        (b"short\n" + b"x" * 10_000_000 + b"\n", "line 2 is longer than"),
    ],
)
def test_bad_content_is_one_clear_error(tmp_path, content, says):
    path = write(tmp_path, content)
    with pytest.raises(DataError, match=says) as error:
        read_lines(path)
    assert str(path) in str(error.value) and len(str(error.value)) < 400 + len(str(path))


def test_longest_line_that_is_allowed(tmp_path):
    assert read_lines(write(tmp_path, b"x" * (MAX_LINE - 1) + b"\n")) == ["x" * (MAX_LINE - 1)]


def test_empty_lines_are_dropped_only_on_request(tmp_path):
    assert read_lines(write(tmp_path, b"one\n\ntwo\n"), drop_empty=True) == ["one", "two"]


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        read_lines(tmp_path / "none.txt")
    with pytest.raises(DataError, match="is a folder"):
        read_lines(tmp_path)


def test_line_forms():
    assert plain_document(" a _UNK  b <unk> ") == Document(("a", "<unk>", "b", "<unk>"))
    assert star_document("4 so good") == Document(("so", "good"), 4)
    assert tabbed_document("1\tso _UNK") == labelled_or_plain_document("1\tso _UNK") == Document(("so", "<unk>"), 1)
    assert labelled_or_plain_document("1 so") == Document(("1", "so"))
    with pytest.raises(ValueError, match="star digit"):
        star_document("5 stars")
    with pytest.raises(ValueError, match="TAB"):
        tabbed_document("1 so good")


# Vocabulary


def test_ids_by_frequency_then_alphabet():
    vocab = Vocab.build([["b", "a", "c", "c"], ["<unk>", "d", "d", "<unk>", "</s>"]])
    assert vocab.words == (*SPECIAL, "c", "d", "a", "b")
    assert Vocab.build([["b", "a", "c", "c"]], max_size=6).words == (*SPECIAL, "c", "a")
    assert Vocab.build([["b", "a", "c", "c"]], min_count=2).words == (*SPECIAL, "c")
    assert Vocab.from_counts({"z": 0, "y": 1}, min_count=0).words == (*SPECIAL, "y", "z")


def test_special_words_inside_a_text_are_unknown():
    vocab = Vocab.build([["a", "</s>", "<s>", "<pad>"]])
    assert vocab.encode(["a", "</s>", "<s>", "<pad>", "<unk>", "new"]) == [1, 4, 3, 3, 3, 3, 3, 2]


def test_decode_takes_tensors_and_stops_at_the_end():
    vocab = Vocab.build([["a", "b"]])
    assert vocab.decode(torch.tensor([1, 4, 3, 5, 2, 4, 0])) == ["a", "<unk>", "b"]


@given(DOCUMENTS, st.none() | st.integers(5, 12))
def test_round_trips(documents, max_size):
    vocab = Vocab.build(documents, max_size)
    assert len(vocab) <= (max_size or len(vocab))
    for words in documents:
        ids = vocab.encode(words)
        assert ids[0] == 1 and ids[-1] == 2 and not {0, 1, 2} & set(ids[1:-1])
        kept = [w if w in vocab.words[len(SPECIAL) :] else "<unk>" for w in words]
        assert vocab.decode(ids) == kept and vocab.encode(kept) == ids


def test_bad_vocabularies():
    with pytest.raises(ValueError, match="no room"):
        Vocab.build([["a"]], max_size=4)
    with pytest.raises(ValueError, match="twice"):
        Vocab((*SPECIAL, "a", "a"))
    with pytest.raises(ValueError):
        Vocab(("a",))


# Batches

SENTENCES = st.lists(st.lists(st.integers(3, 9), max_size=5).map(lambda s: [1, *s, 2]), min_size=1, max_size=40)


@given(SENTENCES, st.integers(1, 7))
def test_every_sentence_is_in_one_batch_of_equal_lengths(sentences, batch_size):
    batches = TextBatches(sentences, batch_size)
    rows = [tuple(row) for x in batches for row in x.tolist()]
    assert Counter(rows) == Counter(map(tuple, sentences))
    assert sorted(i for m in batches.members for i in m) == list(range(len(sentences)))
    lengths = Counter(len(s) for s in sentences)
    assert len(batches) == sum(-(-n // batch_size) for n in lengths.values())  # no batch is smaller than it must
    for i, members in enumerate(batches.members):
        assert batches.get(i).tolist() == [sentences[k] for k in members] and members == sorted(members)
        assert batches.get(i).dtype == torch.long and len(members) <= batch_size
    assert batches.examples == len(sentences) and batches.predicted_tokens == sum(len(s) - 1 for s in sentences)


@given(SENTENCES, st.integers(0, 1000))
@settings(max_examples=20)
def test_order_is_a_permutation_that_the_generator_decides(sentences, seed):
    batches = TextBatches(sentences, 3)
    orders = [batches.order(torch.Generator().manual_seed(seed)) for _ in range(2)]
    assert orders[0] == orders[1] and sorted(orders[0]) == list(range(len(batches)))


def test_draws_are_uniform_over_batches():
    batches = TextBatches([[1, *[5] * n, 2] for n in range(4)], 2)
    generator = torch.Generator().manual_seed(0)
    counts = Counter(batches.draw(generator).shape[1] for _ in range(4000))
    assert set(counts) == {2, 3, 4, 5} and all(abs(n - 1000) < 120 for n in counts.values())  # 4.4 sd


def test_device():
    batches = TextBatches([[1, *[5] * n, 2] for n in (3, 1, 2)], 2)
    moved = batches.to("meta")
    assert {x.device.type for x in moved} == {"meta"} and {x.device.type for x in batches} == {"cpu"}
    assert moved.examples == 3 and [x.shape for x in moved] == [x.shape for x in batches]


@pytest.mark.parametrize(("sentences", "size"), [([], 2), ([[1]], 2), ([[1, 2]], 0)])
def test_bad_batches(sentences, size):
    with pytest.raises(ValueError):
        TextBatches(sentences, size)


# Splits and corpora


@given(st.lists(WORD, min_size=10, max_size=60))
def test_no_text_is_in_two_splits(texts):
    splits, notes = split_documents([Document((t,), i) for i, t in enumerate(texts)], 2)
    words = [d.words[0] for split in SPLITS for d in splits[split]]
    assert sorted(words) == sorted(set(texts))
    assert all(d.label == texts.index(d.words[0]) for split in SPLITS for d in splits[split])  # first is kept
    assert f"{len(texts) - len(set(texts)):,} of {len(texts)}" in notes[0]


def test_the_permutation_never_changes():
    assert corpora.fixed_permutation(10).tolist() == [8, 0, 6, 5, 7, 4, 3, 2, 1, 9]


def test_user_corpus(tmp_path):
    path = write(tmp_path, user_lines(100) + b"document 7 says much\n" * 2, "my notes.v2.txt")
    corpus = user_corpus(path)
    assert corpus.name == f"my-notes-v2-{hashlib.sha256(path.read_bytes()).hexdigest()[:8]}"
    assert {k: len(v) for k, v in corpus.splits.items()} == {"train": 80, "valid": 10, "test": 10}
    assert corpus.labels is None and not corpus.stand_in and str(tmp_path) not in corpus.source
    assert "2 of 102 documents repeat" in corpus.notes[0]
    assert corpus == user_corpus(path)
    assert user_corpus(write(tmp_path, user_lines(101))).name != corpus.name


def test_options_shrink_a_corpus(tmp_path):
    path = write(tmp_path, user_lines())
    whole, part = user_corpus(path), user_corpus(path, max_len=4, vocab_size=9, sizes=(50, 5, 500))
    assert {k: len(v) for k, v in part.splits.items()} == {"train": 50, "valid": 5, "test": 10}
    assert len(part.vocab) == 9 and max(len(s) for v in part.splits.values() for s in v) == 6
    assert part.sha256 != whole.sha256
    for split in SPLITS:  # the front of each split
        cut = [whole.vocab.decode(s)[:4] for s in whole.splits[split]][: len(part.splits[split])]
        kept = [[w if w in part.vocab.ids else "<unk>" for w in words] for words in cut]
        assert [part.vocab.decode(s) for s in part.splits[split]] == kept


def test_a_size_of_one_split_alone_leaves_the_others_whole(tmp_path):
    path, given_sizes = str(write(tmp_path, user_lines())), resolve("yelp-small", "vae", "paper", 0).data
    whole, part = (load(path, of, profile="paper") for of in (given_sizes, replace(given_sizes, train=50)))
    assert [s.examples for s in (part.train, part.valid, part.test)] == [50, whole.valid.examples, whole.test.examples]
    with pytest.raises(ValueError, match="three numbers"):
        user_corpus(path, sizes=(50, None, 0))


def test_cutting_keeps_splits_apart(tmp_path):
    path = write(tmp_path, b"".join(b"same start %d\n" % (i // 2) + b"other %d\n" % i for i in range(60)))
    corpus = user_corpus(path, max_len=2)
    texts = [{tuple(corpus.vocab.decode(s)) for s in corpus.splits[k] if UNKNOWN not in s} for k in SPLITS]
    assert not texts[0] & texts[1] and not texts[0] & texts[2] and not texts[1] & texts[2]
    with pytest.raises(DataError, match="nothing is left"):
        user_corpus(write(tmp_path, user_lines()), max_len=1)


def test_words_beyond_a_cut_vocabulary_can_be_left_out():
    lines = {"train": ["a b a b c a", "b a d", "e"], "valid": ["d a a b", "x <unk>", "b b"], "test": ["b x b a", "a a"]}
    splits = {split: [plain_document(line) for line in texts] for split, texts in lines.items()}
    options = Options(max_len=3, vocab_size=len(SPECIAL) + 2, known_only=True)
    corpus = build_corpus("made-up", splits, options, source="", notes=())
    read = {split: [" ".join(corpus.vocab.decode(s)) for s in corpus.splits[split]] for split in SPLITS}
    assert read == {
        "train": ["a b a", "b a"],
        "valid": ["a a b", "b b"],
        "test": ["b b a", "a a"],
    }  # left out first, then cut
    assert any("29.2% of the words are not among the 6" in note for note in corpus.notes)
    whole = build_corpus("made-up", splits, Options(known_only=True), source="", notes=())
    assert whole.vocab.decode(whole.splits["test"][0]) == ["b", "<unk>", "b", "a"]  # nothing was cut off


@pytest.mark.parametrize(("valid", "says"), [(["c"], "one document is left"), ([], "nothing is left")])
def test_a_split_of_which_too_little_is_left_is_refused(valid, says):
    splits = {"train": ["a b", "b a"], "valid": valid, "test": ["a", "b"]}
    splits = {split: [plain_document(line) for line in lines] for split, lines in splits.items()}
    with pytest.raises(DataError, match=f"{says} in valid once documents are cut to 2 words"):
        build_corpus("made-up", splits, Options(max_len=2), source="", notes=())


@pytest.mark.parametrize("options", [{"max_len": 0}, {"vocab_size": 4}, {"sizes": (1, 0, 1)}, {"sizes": (5, 5)}])
def test_bad_options(tmp_path, options):
    with pytest.raises(ValueError):
        user_corpus(write(tmp_path, user_lines()), **options)


def test_too_few_lines(tmp_path):
    with pytest.raises(DataError, match="29 different documents; give at least 30"):
        user_corpus(write(tmp_path, user_lines(29) * 2))
    assert user_corpus(write(tmp_path, user_lines(30)))


def test_unknown_text_set():
    with pytest.raises(UnknownName, match="yelp-small"):
        text_corpus("yelp-smal")


def test_published_splits_are_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("LAGVAE_DATA", str(tmp_path))
    monkeypatch.delenv("LAGVAE_DATA_MIRROR", raising=False)
    files = tuple(SourceFile(k, f"{k}.txt", lines=40) for k in SPLITS)
    monkeypatch.setitem(SOURCES, "yelp", Source("yelp", files, "a test", "ask", "none"))
    (tmp_path / "yelp").mkdir()
    for split in SPLITS:
        lines = b"".join(b"%d\t%s text %d\n" % (i % 2, split.encode(), i) for i in range(39)) + b"1\t\n"
        (tmp_path / "yelp" / f"{split}.txt").write_bytes(lines)
    corpus = text_corpus("yelp")
    assert corpus.labels["test"] == [i % 2 for i in range(39)]
    assert corpus.vocab.decode(corpus.splits["train"][7]) == ["train", "text", "7"]
    part = text_corpus("yelp", sizes=(20, 5, 5))
    assert [len(part.splits[k]) for k in SPLITS] == [20, 5, 5]
    taken = [int(part.vocab.decode(s)[2]) for s in part.splits["train"]]
    assert taken != sorted(taken) and part.labels["train"] == [i % 2 for i in taken]
    (tmp_path / "yelp" / "test.txt").write_bytes(b"1\tgood\n" * 20 + b"no label\n" * 20)
    with pytest.raises(DataError, match=r"test.txt, non-empty line 21.*TAB"):
        text_corpus("yelp")


@pytest.mark.skipif(mirror_dir() is None, reason="LAGVAE_DATA_MIRROR is not set")
@pytest.mark.parametrize(
    ("name", "train", "vocabulary", "sha256"),
    [("yelp-small", 12_440, 12_338, "e393f5cc7510"), ("yahoo-small", 16_000, 18_485, "aaebb5574455")],
)
def test_small_sets_are_disjoint_and_stable(name, train, vocabulary, sha256):
    corpus = text_corpus(name)
    assert [len(corpus.splits[k]) for k in SPLITS] == [train, 2000, 2000]
    assert len(corpus.vocab) == vocabulary and corpus.sha256.startswith(sha256)
    documents = {}
    for path in fetch(name).values():
        for d in map(TEXT_SETS[name].parse, read_lines(path)):
            documents.setdefault(d.words, d.label)
    splits, _ = split_documents([Document(w, label) for w, label in documents.items()], 2000)
    texts = {k: {d.words for d in splits[k]} for k in SPLITS}
    assert sum(map(len, texts.values())) == len(set.union(*texts.values())) == train + 4000
    for split in SPLITS:
        assert corpus.splits[split] == [corpus.vocab.encode(d.words) for d in splits[split]]
    if name == "yelp-small":
        assert set(corpus.labels["test"]) == {0, 1, 2, 3, 4}
        assert corpus.labels["valid"] == [documents[d.words] for d in splits["valid"]]
