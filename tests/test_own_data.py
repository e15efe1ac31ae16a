"""Data of one's own: what is said of them, what is refused, and that they go everywhere where named data go."""

import gzip
import random
import struct

import numpy as np
import pytest
import torch
from PIL import Image

from lagvae_lib import data
from lagvae_lib.config.profiles import resolve
from lagvae_lib.data.corpora import MAX_HELD_OUT, user_corpus
from lagvae_lib.data.images import image_set
from lagvae_lib.data.loading import load
from lagvae_lib.data.sources import DataError
from lagvae_lib.errors import BadValue, UserError
from lagvae_lib.paper import plan
from lagvae_lib.runs.train import prepared


def lines(n, seed=0):
    rng = random.Random(seed)
    words = [["a guest", "my sister", "the cook"], ["liked", "forgot", "ordered"], ["the soup", "a chair", "some tea"]]
    return [" ".join(rng.choice(part) for part in words) + f" {i % 7} times in week {i // 7 % 9}" for i in range(n)]


def write(path, rows, end="\n"):
    path.write_text("".join(row + end for row in rows), encoding="utf-8")
    return str(path)


def warnings(notes):
    return [note for note in notes if note.startswith("warning: ")]


def drawings(n, size=28, seed=0):
    """Lines on paper, uint8 [n, size, size], all different."""
    rng = np.random.default_rng(seed)
    images = np.zeros((n, size, size), np.uint8)
    for i, image in enumerate(images):
        image[rng.integers(2, size - 2), 2 : 4 + i % (size - 6)] = 255
        image[3 : 5 + i // 5 % (size - 8), rng.integers(2, size - 2)] = 200
        image[i % size, i // size] = 90
    return images


# -- text: what is said -----------------------------------------------------------------------------------------------


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


# -- images -----------------------------------------------------------------------------------------------------------


def test_few_images_are_all_used_and_it_is_said(tmp_path):
    """The default profile wants 2,000 images: nobody asked for them."""
    np.save(tmp_path / "mine.npy", drawings(200))
    config, found = prepared(str(tmp_path / "mine.npy"), "vae", "quick", 0)
    assert (found.train.examples, found.valid.examples, found.test.examples) == (160, 20, 20)
    assert any("train 160 of 2,000 images" in note for note in found.notes)
    assert (found.family, config.family, data.family(found.name)) == ("images", "images", "text")
    assert len(prepared(str(tmp_path / "mine.npy"), "vampprior", "smoke", 0)[1].train)


def test_thirty_images_are_enough(tmp_path):
    np.save(tmp_path / "few.npy", drawings(30))
    assert image_set(str(tmp_path / "few.npy"), (2000, 300, 300)).splits["test"].shape == (3, 28, 28)
    np.save(tmp_path / "few.npy", drawings(29))
    with pytest.raises(DataError, match="holds 29 images; at least 30"):
        image_set(str(tmp_path / "few.npy"))


def test_images_that_repeat_are_left_out(tmp_path):
    np.save(tmp_path / "twice.npy", np.concatenate([drawings(60), drawings(60)]))
    found = image_set(str(tmp_path / "twice.npy"))
    assert sum(len(part) for part in found.splits.values()) == 60
    assert "60 of 120 images repeat" in " ".join(found.notes)


def test_inverted_and_empty_images_are_said_or_refused(tmp_path):
    images = drawings(60)
    np.save(tmp_path / "inverted.npy", 255 - images)
    assert "invert dark drawings" in " ".join(warnings(image_set(str(tmp_path / "inverted.npy")).notes))
    some = images.copy()
    some[3] = 0
    np.save(tmp_path / "some.npy", some)
    assert "1 images are empty" in " ".join(warnings(image_set(str(tmp_path / "some.npy")).notes))
    dim = (images > 0).astype(np.float32) / 255  # bytes divided twice
    np.save(tmp_path / "dim.npy", dim / 255)
    with pytest.raises(DataError, match="nearly every pixel is paper"):
        image_set(str(tmp_path / "dim.npy"))


def test_a_tree_of_classes_is_read_and_its_classes_are_labels(tmp_path):
    for i, image in enumerate(drawings(80, size=40)):
        folder = tmp_path / "tree" / "ab"[i % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{i:03d}.png")
    (tmp_path / "tree" / "a" / "._000.png").write_bytes(b"\0\5\26\7Mac OS X")
    (tmp_path / "tree" / "read me.txt").write_text("x")
    found = load(str(tmp_path / "tree"), resolve("glyphs", "vae", "paper", 0).data, profile="paper")
    assert (found.train.examples, found.test.examples) == (64, 8)
    assert set(found.labels["train"]) == {"a", "b"} and len(found.labels["test"]) == 8
    assert "ignored: 1 .png, 1 .txt" in " ".join(warnings(found.notes)) or "1 .txt" in " ".join(found.notes)


def test_jpegs_beside_pngs_are_read_too(tmp_path):
    for i, image in enumerate(drawings(60)):
        Image.fromarray(image).save(tmp_path / f"{i:03d}.{'png' if i % 2 else 'jpg'}")
    assert sum(len(part) for part in image_set(str(tmp_path)).splits.values()) == 60


FORMS = {
    "u8.npy": lambda x: x,
    "i64.npy": lambda x: x.astype(np.int64),
    "flat.npy": lambda x: (x / 255).reshape(-1, 784).astype(np.float32),
    "hwc.npy": lambda x: x[..., None],
    "chw.npy": lambda x: x[:, None],
}


@pytest.mark.parametrize("name", FORMS)
def test_usual_forms_of_arrays_are_the_same_images(tmp_path, name):
    np.save(tmp_path / name, FORMS[name](drawings(60)))
    np.save(tmp_path / "plain.npy", drawings(60))
    a, b = (image_set(str(tmp_path / n)).splits["train"] for n in (name, "plain.npy"))
    assert torch.allclose(a, b, atol=1e-6)


def test_usual_files_of_images_are_read(tmp_path):
    images = drawings(60)
    header = struct.pack(">IIII", 2051, 60, 28, 28)
    (tmp_path / "train-images-idx3-ubyte").write_bytes(header + images.tobytes())
    with gzip.open(tmp_path / "t10k-images-idx3-ubyte.gz", "wb") as f:
        f.write(header + images.tobytes())
    np.savez(tmp_path / "one.npz", images)
    (tmp_path / "one.npz").rename(tmp_path / "UP.NPZ")
    torch.save(torch.tensor(images), tmp_path / "t.pth")
    torch.save((torch.tensor(images), torch.zeros(60)), tmp_path / "pair.pt")
    np.save(tmp_path / "large.npy", drawings(60, size=64))
    for name in ("train-images-idx3-ubyte", "t10k-images-idx3-ubyte.gz", "UP.NPZ", "t.pth", "pair.pt", "large.npy"):
        assert data.family(str(tmp_path / name)) == "images"
        assert image_set(str(tmp_path / name)).splits["train"].shape == (48, 28, 28)
    (tmp_path / "cut-idx3-ubyte").write_bytes((header + images.tobytes())[:-5])
    for name, says in (("cut-idx3-ubyte", "cut short or damaged"),):
        with pytest.raises(DataError, match=says):
            image_set(str(tmp_path / name))


@pytest.mark.parametrize(
    ("array", "says"),
    [
        (np.zeros((60, 28, 28, 3), np.uint8), "take the mean of colours"),
        (np.zeros((60, 20, 20), np.uint8), "enlarge smaller ones"),
        (np.full((60, 28, 28), 300), "from 300 to 300"),
        (np.full((60, 28, 28), np.nan), "holds NaN"),
    ],
)
def test_other_arrays_are_refused_with_the_way_out(tmp_path, array, says):
    np.save(tmp_path / "x.npy", array)
    with pytest.raises(DataError, match=says):
        image_set(str(tmp_path / "x.npy"))


# -- everywhere -------------------------------------------------------------------------------------------------------


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


# -- further forms of what people have --------------------------------------------------------------------------------


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


def test_a_label_column_is_none_of_images(tmp_path):
    np.save(tmp_path / "mine.npy", drawings(40))
    with pytest.raises(DataError, match=r"mine\.npy holds images, which have no label column"):
        prepared(f"{tmp_path / 'mine.npy'}+label_column=1", "vae", "smoke", 0)


def test_unknown_words_that_the_profile_makes_are_said_to_be_the_profile_s(tmp_path):
    rows = [f"{row} {' '.join(f'w{i % 40}x{k}' for k in range(9))}" for i, row in enumerate(lines(200))]
    said = " ".join(warnings(user_corpus(write(tmp_path / "a.txt", rows), vocab_size=40).notes))
    assert "a code tells how many a document has, and a profile with a larger vocabulary would mend that" in said


def test_zero_and_one_in_bytes_are_paper_and_ink(tmp_path):
    ones = (drawings(60) > 0).astype(np.uint8)
    for name, images in (("u8.npy", ones), ("i32.npy", ones.astype(np.int32)), ("b.npy", ones > 0)):
        np.save(tmp_path / name, images)
    a, b, c = (image_set(str(tmp_path / name)).splits["train"] for name in ("u8.npy", "i32.npy", "b.npy"))
    assert torch.equal(a, b) and torch.equal(a, c) and float(a.max()) == 1


def test_faint_images_are_said(tmp_path):
    """Scikit-learn's digits go from 0 to 16: as bytes they look like grey values up to 255."""
    np.save(tmp_path / "faint.npy", np.repeat(drawings(60) // 16, 1, axis=0) + np.uint8(2))
    assert "images are faint" in " ".join(warnings(image_set(str(tmp_path / "faint.npy")).notes))


def folder_of(path, names, images):
    for name, image in zip(names, images, strict=True):
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path / name)
    return str(path)


def test_folders_of_splits_hidden_copies_and_repeated_classes(tmp_path):
    images = drawings(80)
    splits = folder_of(tmp_path / "a", [f"{'test' if i % 5 == 0 else 'train'}/{i}.png" for i in range(80)], images)
    assert "the folders test, train are no splits here" in " ".join(warnings(image_set(splits).notes))
    hidden = [f"{'.ipynb_checkpoints/' if i < 40 else ''}{i}.png" for i in range(80)]
    found = image_set(folder_of(tmp_path / "b", hidden, images))
    assert sum(map(len, found.splits.values())) == 40 and found.labels is None
    assert "are ignored: 40 .png" in " ".join(warnings(found.notes))
    twice = folder_of(tmp_path / "c", [f"{name}/{i}.png" for name in "xy" for i in range(40)], [*images[:40]] * 2)
    assert image_set(twice).labels is None  # each image is in both classes, and the first alone is kept
    (tmp_path / "b" / "broken.png").symlink_to(tmp_path / "nowhere.png")
    assert prepared(str(tmp_path / "b"), "vae", "smoke", 0)


@pytest.mark.parametrize(
    ("name", "make", "says"),
    [
        ("one.png", lambda p: Image.fromarray(drawings(1)[0]).save(p), "is one image; give the folder"),
        ("text.npy", lambda p: p.write_text("hello\n" * 50), "it holds Python objects, or is none"),
        ("bmp", lambda p: folder_of(p, ["1.bmp", "2.bmp"], drawings(2)), r"there are: 2 \.bmp"),
        (
            "cut",
            lambda p: (p.mkdir(), (p / "1.png").write_bytes(b"\x89PNG\r\n\x1a\n")),
            r"1\.png is not a readable PNG",
        ),
        ("float.npy", lambda p: np.save(p, drawings(40).astype(float)), "divide by the highest"),
    ],
)
def test_images_that_cannot_be_read_are_refused_in_plain_words(tmp_path, name, make, says):
    make(tmp_path / name)
    with pytest.raises(DataError, match=says) as error:
        image_set(str(tmp_path / name))
    assert "allow_pickle" not in str(error.value) and " object at " not in str(error.value)
