"""Images of one's own: what is said of them, what is refused, and every form in which they come."""

import gzip
import struct

import numpy as np
import pytest
import torch
from PIL import Image

from lagvae_lib import data
from lagvae_lib.config.profiles import resolve
from lagvae_lib.data.images import image_set
from lagvae_lib.data.loading import load
from lagvae_lib.data.sources import DataError
from lagvae_lib.runs.train import prepared
from tests.own import drawings, warnings


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


def test_linked_folders_are_read_and_no_circle_is_walked(tmp_path):
    pictures = drawings(60)
    for name, part in (("here/a", pictures[:30]), ("elsewhere", pictures[30:])):
        (tmp_path / name).mkdir(parents=True)
        for i, image in enumerate(part):
            Image.fromarray(image).save(tmp_path / name / f"{i}.png")
    (tmp_path / "here/b").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/up").symlink_to(tmp_path / "here")
    assert sum(len(part) for part in image_set(str(tmp_path / "here")).splits.values()) == 60


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


def test_an_array_whose_header_breaks_off_is_refused(tmp_path):
    np.save(tmp_path / "x.npy", drawings(60))
    content = (tmp_path / "x.npy").read_bytes()
    (tmp_path / "x.npy").write_bytes(content.replace(b")", b" ").replace(b"}", b" "))
    with pytest.raises(DataError, match="cannot be read as an array of numbers"):
        image_set(str(tmp_path / "x.npy"))


def test_a_label_column_is_none_of_images(tmp_path):
    np.save(tmp_path / "mine.npy", drawings(40))
    with pytest.raises(DataError, match=r"mine\.npy holds images, which have no label column"):
        prepared(f"{tmp_path / 'mine.npy'}+label_column=1", "vae", "smoke", 0)


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
