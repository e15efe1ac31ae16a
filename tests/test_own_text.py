"""Texts of one's own: what is said of them, what is refused, and that they go everywhere where named data go."""

import gzip
import random
import struct

import numpy as np
import pytest

from lagvae_lib import data
from lagvae_lib.config.profiles import resolve
from lagvae_lib.data.corpora import MAX_HELD_OUT, user_corpus
from lagvae_lib.data.loading import load
from lagvae_lib.data.sources import DataError
from lagvae_lib.errors import BadValue, UserError
from lagvae_lib.paper import plan
from lagvae_lib.runs.train import prepared
from tests.own import drawings, lines, warnings, write


def test_plain_text_has_no_warning(tmp_path):
    assert warnings(user_corpus(write(tmp_path / "a.txt", lines(200))).notes) == []


def test_text_without_spaces_is_refused(tmp_path):
    rng = random.Random(0)
    rows = [
        "".join(rng.choice("我你他她们很不好吃喝茶咖啡米饭") for _ in range(rng.randint(5, 14))) for _ in range(120)
    ]
    for of in (rows, [f"{rng.getrandbits(60):x}" for _ in range(100)]):  # a language without spaces; one word a line
        with pytest.raises(DataError, match=r"100\.0% of the words of test are unknown.*put some between the words"):
            user_corpus(write(tmp_path / "zh.txt", of))


def test_a_word_that_every_document_has_for_itself_is_trained_as_unknown(tmp_path):
    """Else `<unk>` stands in test for a word that the model has never seen."""
    rng = random.Random(3)
    rows = [f"ticket b{10000 + i} the {rng.choice(['door', 'lamp'])} does not start today" for i in range(400)]
    corpus = user_corpus(write(tmp_path / "tickets.txt", rows), vocab_size=1000)
    counts = {split: sum(3 in sentence for sentence in corpus.splits[split]) for split in data_splits()}
    assert counts == {"train": 320, "valid": 40, "test": 40}
    assert any("320 words that train has once are <unk>" in note for note in corpus.notes)
    assert not any(word.startswith("b1") for word in corpus.vocab.words)


def data_splits():
    return ("train", "valid", "test")


def test_unknown_words_that_no_training_can_mend_are_a_warning(tmp_path):
    rows = [f"{row} {' '.join(f'w{i}x{k}' for k in range(3))}" for i, row in enumerate(lines(100))]
    said = warnings(user_corpus(write(tmp_path / "a.txt", rows)).notes)
    assert any("<unk> is 60 times in validation and test and never in train" in note for note in said)
    assert any("of the words of test are unknown; more text" in note for note in said)


def test_batches_too_small_for_their_mi_are_a_warning(tmp_path):
    """A batch of one document has no MI, one of two at most log 2."""
    settings = resolve("yelp-small", "vae", "quick", 0).data
    rng = random.Random(1)
    for lengths, expected in ((range(4, 24), True), ((6, 7), False)):
        rows = [
            " ".join(rng.choices(["a", "b", "c", "d", "e", "f", "g", "h"], k=rng.choice(lengths))) for _ in range(400)
        ]
        found = load(str(write(tmp_path / "a.txt", rows)), settings, profile="quick")
        sizes = [len(x) for x in found.valid]
        said = [note for note in warnings(found.notes) if "stop_metric=mi_large" in note]
        assert bool(said) == expected and len(said) <= 1
        if said:
            cap = np.average(np.log(sizes), weights=sizes)
            assert f"{sum(sizes)} validation documents make {len(sizes)} batches" in said[0]
            assert f"at most {cap:.1f} nats" in said[0]


@pytest.mark.parametrize(
    ("name", "first", "form", "says"),
    [
        ("tab.txt", None, "{label}\t{text}", ["columns between TABs", "--label-column 1"]),
        ("c.csv", "label,text", '{label},"{text}, really"', ["as in CSV", "a header", "--label-column label"]),
        ("ft.txt", None, "__label__{label} {text}", ["looks like a label (__label__0, __label__1)"]),
        ("stars.txt", None, "{label} {text}", ["looks like a label (0, 1)"]),
    ],
)
def test_what_looks_like_labels_is_said_and_read_as_such_when_asked(tmp_path, name, first, form, says):
    texts = lines(120)
    rows = [form.format(label=i % 2, text=text) for i, text in enumerate(texts)]
    path = write(tmp_path / name, ([first] if first else []) + rows)
    said = " ".join(warnings(user_corpus(path).notes))
    assert all(part in said for part in says)
    column = "label" if first else "1"
    found = load(f"{path}+label_column={column}", resolve("yelp-small", "vae", "paper", 0).data, profile="paper")
    assert warnings(found.notes) == []
    assert "label" not in found.vocab.ids and "0" not in found.labels["train"]
    assert {split: len(found.labels[split]) for split in data_splits()} == {
        split: getattr(found, split).examples for split in data_splits()
    }
    of_text = {text: i % 2 for i, text in reversed(list(enumerate(texts)))}  # of two that are alike the first is kept
    for sentence, label in zip(found.test.sentences, found.labels["test"], strict=True):
        text = " ".join(found.vocab.decode(sentence)).removesuffix(", really")
        assert of_text[text] == label


def test_json_lines_and_unknown_columns_are_refused(tmp_path):
    path = write(tmp_path / "docs.jsonl", [f'{{"text": "{row}"}}' for row in lines(60)])
    with pytest.raises(DataError, match="holds JSON"):
        user_corpus(path)
    path = write(tmp_path / "t.tsv", [f"a{i % 2}\t{row}" for i, row in enumerate(lines(60))])
    with pytest.raises(DataError, match="no column 'star'; valid are 1 to 2"):
        user_corpus(path, label_column="star")
    with pytest.raises(BadValue, match="whose labels are known"):
        data.with_label_column("yelp", "1")
    for column in ("topic/class", "a+b", "1"):
        named = data.with_label_column("reviews.csv", column)
        assert data.split_label_column(named) == ("reviews.csv", column) and data.is_file(named)


def test_large_corpora_are_capped_and_say_so(tmp_path, monkeypatch):
    monkeypatch.setattr("lagvae_lib.data.corpora.MAX_HELD_OUT", 10)
    monkeypatch.setattr("lagvae_lib.data.corpora.MAX_VOCABULARY", 12)
    corpus = user_corpus(write(tmp_path / "a.txt", lines(300)))
    assert [len(corpus.splits[split]) for split in ("valid", "test")] == [10, 10]
    assert len(corpus.vocab) == 12
    said = " ".join(corpus.notes)
    assert "capped at 10 documents each" in said and "the vocabulary is capped at 12 words" in said
    assert MAX_HELD_OUT == 10_000


def test_own_data_are_loaded_once_for_all_methods_and_again_when_they_change(tmp_path):
    path = write(tmp_path / "a.txt", lines(100))
    first = prepared(path, "vae", "smoke", 0)[1]
    assert prepared(path, "aggressive", "smoke", 0)[1] is first
    write(tmp_path / "a.txt", lines(101))
    assert prepared(path, "vae", "smoke", 0)[1] is not first


def test_repeated_and_cut_documents_are_counted(tmp_path):
    corpus = user_corpus(write(tmp_path / "a.txt", lines(60) + lines(5)))
    assert corpus.notes[0].startswith("5 of 65 documents repeat")


def test_a_sweep_takes_own_data_by_their_path(tmp_path, own_folders, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "my notes.txt", lines(60))
    np.save(tmp_path / "mine.npy", drawings(60))
    runs, _ = plan.configured({"profile": "smoke", "datasets": "my notes.txt,mine.npy", "seeds": "0,1"})
    assert len(runs) == 20 and {run.notebook for run in runs} == {"03_yelp.ipynb", "04_omniglot.ipynb"}
    assert f"{tmp_path / 'mine.npy'}" in plan.parameters(runs[-1]) and runs[-1].tables == ()
    assert runs[0].record.parts[-4].startswith("my-notes-")
    with pytest.raises(UserError, match="is for images"):
        plan.plan("smoke", ["my notes.txt"], ["vampprior"])


def test_paths_are_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path / "a.txt", lines(60))
    assert prepared("~/a.txt", "vae", "smoke", 0)[1].train.examples == 48
    assert plan.absolute_dataset("~/a.txt") == str(tmp_path / "a.txt")
    monkeypatch.setenv("LAGVAE_RESULTS", "~/res")
    from lagvae_lib import paths

    assert paths.results_dir() == tmp_path / "res"
    with pytest.raises(BadValue, match="no path that can be used"):
        paths.absolute("~nobody-of-this-name/a")


def of_two(form, first=None):
    """A file of 120 lines with two classes."""
    rows = [form.format(i=i, two=i % 2, name=["neg", "pos"][i % 2], text=text) for i, text in enumerate(lines(120))]
    return ([first] if first else []) + rows


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        (of_two("{two},{text}", "label,text"), "--label-column label"),  # CSV without a quote
        (of_two('"{text}, yes",{name}', "text,label"), "--label-column label"),
        (of_two("{text}\t{name}"), "--label-column 2"),
        (of_two('{two};"{text}"', "label;text"), "--label-column label"),
        (of_two("{two}|{text}"), "between bars"),
        (of_two("{i}\t{two}\t{text}", "id\tlabel\ttext"), "--label-column label"),
        (of_two("-{two} {text}"), "what looks like a label (-0, -1)"),
        (of_two("{two}.0 {text}"), "(0.0, 1.0)"),
        (of_two("{name} {text}"), "(neg, pos)"),
        (of_two("{name}: {text}"), "(neg:, pos:)"),
        (of_two("<p>{text}</p>"), "HTML or XML"),
        (of_two("<s> {text} </s>"), "120 of the first 120 lines hold <s>, </s> or <pad>"),
    ],
)
def test_further_labels_and_marks_are_said(tmp_path, rows, says):
    assert says in " ".join(warnings(user_corpus(write(tmp_path / "a.txt", rows)).notes))


@pytest.mark.parametrize("rows", [of_two("{text}"), of_two("  {text}, it is said  "), of_two("{text} <unk> N")])
def test_plain_texts_have_no_such_warning(tmp_path, rows):
    assert not [said for said in warnings(user_corpus(write(tmp_path / "a.txt", rows)).notes) if "label" in said]


@pytest.mark.parametrize(
    ("rows", "column"),
    [
        (of_two("{two},{text}", "label,text"), "label"),
        (of_two('{two};"{text}"', "label;text"), "label"),
        (of_two("{two}|{text}"), "1"),
        (of_two("{text}\t{two}"), "2"),
        (of_two('{two},"{text}\nand a second line"', "label,text"), "label"),
    ],
)
def test_labels_are_read_from_each_of_these_forms(tmp_path, rows, column):
    corpus = user_corpus(write(tmp_path / "a.txt", rows), label_column=column)
    assert corpus.label_names == ("0", "1")
    assert {"label", "text", "0,", ";"}.isdisjoint(corpus.vocab.words)
    longest = max(len(sentence) for split in corpus.splits.values() for sentence in split)
    assert longest == 12 + 4 * ("second" in corpus.vocab.ids)  # a quoted line end stands between two words


def test_a_column_of_many_values_and_a_header_that_is_read_as_one_are_said(tmp_path):
    rows = of_two("{i}\t{two}\t{text}", "id\tlabel\ttext")
    said = " ".join(warnings(user_corpus(write(tmp_path / "a.tsv", rows), label_column="2").notes))
    assert "line 1 looks like a header" in said and "--label-column label" in said
    said = " ".join(warnings(user_corpus(write(tmp_path / "a.tsv", rows), label_column="id").notes))
    assert "120 different values in 120 documents: no class" in said
    rows = [*of_two('{two},"{text}"'), '1,"a quote that stays open', *of_two("{two},{text}")]
    with pytest.raises(DataError, match="never closed"):
        user_corpus(write(tmp_path / "a.csv", rows), label_column="1")


def test_empty_lines_are_left_out_and_counted(tmp_path):
    plain = user_corpus(write(tmp_path / "a.txt", lines(100)))
    spaced = user_corpus(write(tmp_path / "b.txt", lines(100), end="\n\n  \n"))
    assert spaced.splits == plain.splits
    assert "200 empty lines are left out" in spaced.notes


@pytest.mark.parametrize(
    "content",
    [
        "[\n" + ",\n".join(f'"{row}"' for row in lines(60)) + "\n]",
        "[\n" + ",\n".join(f'  {{\n    "text": "{row}",\n    "stars": 3\n  }}' for row in lines(60)) + "\n]",
    ],
)
def test_json_over_several_lines_is_refused(tmp_path, content):
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(DataError, match="holds JSON"):
        user_corpus(tmp_path / "a.json")


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.docx", b"PK\x03\x04" + bytes(200), "a ZIP archive or an office document; unpack or export it first"),
        ("a.txt.gz", gzip.compress("\n".join(lines(60)).encode()), "packed by gzip"),
        ("a.pdf", b"%PDF-1.5\n\xe2\xe3", "is a PDF"),
        ("a.rtf", b"{\\rtf1\\ansi\nx\n", "in RTF"),
        ("a.h5", b"\x89HDF\r\n\x1a\n", "HDF5"),
        ("train-labels-idx1-ubyte", struct.pack(">II", 2049, 60) + bytes(60), "file of labels"),
    ],
)
def test_files_that_are_no_text_are_called_what_they_are(tmp_path, name, content, says):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=says):
        prepared(str(tmp_path / name), "vae", "smoke", 0)


def test_what_can_be_read_only_once_is_refused_before_anything_is_read(tmp_path):
    import os
    import threading

    os.mkfifo(tmp_path / "pipe.txt")
    keeper = threading.Thread(target=lambda: os.close(os.open(tmp_path / "pipe.txt", os.O_RDWR | os.O_NONBLOCK)))
    keeper.start()
    for path in (tmp_path / "pipe.txt", "/dev/null"):
        with pytest.raises(DataError, match="is a pipe or a device"):
            prepared(str(path), "vae", "smoke", 0)
    keeper.join()
    with pytest.raises(DataError, match=r"https://example\.org/a\.txt is an address"):
        prepared("https://example.org/a.txt", "vae", "smoke", 0)


def test_unknown_words_that_the_profile_makes_are_said_to_be_the_profile_s(tmp_path):
    rows = [f"{row} {' '.join(f'w{i % 40}x{k}' for k in range(9))}" for i, row in enumerate(lines(200))]
    said = " ".join(warnings(user_corpus(write(tmp_path / "a.txt", rows), vocab_size=40).notes))
    assert "a code tells how many a document has, and a profile with a larger vocabulary would mend that" in said
