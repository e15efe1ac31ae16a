"""Image data: reading, reducing, splitting and binarising; every way in which a file can be wrong."""

import io
import os
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat

from lagvae_lib import data
from lagvae_lib.config.profiles import TABLE
from lagvae_lib.data import images, loading
from lagvae_lib.data.glyphs import glyph_drawings
from lagvae_lib.data.image_files import SIZE, png, reduce_by_area
from lagvae_lib.data.images import ImageBatches, ImageSet, image_batches, image_set
from lagvae_lib.data.sources import DataError, MissingData
from lagvae_lib.paths import mirror_dir


def grey(n: int = 50, seed: int = 0) -> torch.Tensor:
    return torch.rand(n, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# -- batches -----------------------------------------------------------------------------------------------------------


def test_training_images_are_drawn_anew_from_their_grey_values():
    values = grey(20)
    batches, source = ImageBatches(values, 20, seed=1, once=False), generator()
    handle = list(range(20))
    draws = torch.stack([batches.get(handle, source)[:, 0] for _ in range(400)])
    assert set(draws.unique().tolist()) == {0.0, 1.0} and not torch.equal(draws[0], draws[1])
    standard_error = (values * (1 - values) / 400).sqrt().clamp_min(0.01)
    assert (((draws.mean(0) - values) / standard_error).abs() < 5).all()


def test_held_out_images_are_binarised_once():
    images_of = ImageSet("x", dict.fromkeys(("train", "valid", "test"), grey()), "made up")
    valid, test = (image_batches(images_of, split, 16) for split in ("valid", "test"))
    first = torch.cat(list(valid))
    assert torch.equal(first, torch.cat(list(image_batches(images_of, "valid", 16))))
    assert torch.equal(first[:5], valid.get([0, 1, 2, 3, 4], generator()))
    assert not torch.equal(first, torch.cat(list(test)))
    assert first.shape == (50, 1, SIZE, SIZE)


def test_an_epoch_is_all_images_in_plain_handles():
    batches = ImageBatches(grey(41), 8, seed=1, once=False)
    order = batches.order(generator())
    assert len(order) == len(batches) == 5  # one image left over joins the batch before
    assert sorted(number for handle in order for number in handle) == list(range(41))
    assert all(type(handle) is list and type(handle[0]) is int for handle in order)
    assert order != batches.order(generator(1))


def test_an_inner_batch_holds_no_image_twice():
    marked = torch.zeros(30, SIZE, SIZE)
    for i in range(30):
        marked[i].view(-1)[i] = 1.0  # grey 0 and 1: binarising changes nothing
    x = ImageBatches(marked, 30, seed=0, once=False).draw(generator())
    assert torch.equal(x.flatten(1).sum(0)[:30], torch.ones(30))


# -- OMNIGLOT ---------------------------------------------------------------------------------------------------------


def test_area_reduction_is_the_mean_over_each_area():
    ink = (np.random.RandomState(0).rand(2, 105, 105) < 0.3).astype(np.uint8)
    fine = ink.repeat(4, 1).repeat(4, 2)  # 420 = 28 x 15
    expected = fine.reshape(2, SIZE, 15, SIZE, 15).mean((2, 4)) * 255
    assert np.abs(reduce_by_area(ink) - expected).max() <= 0.5 + 1e-9


def test_burdas_file(tmp_path, monkeypatch):
    """Columns are images in Fortran order: an image with one dark pixel off the diagonal tells."""
    stored = np.zeros((784, 60))
    for column in range(60):
        image = np.zeros((SIZE, SIZE))
        image[3, column % SIZE] = (column + 1) / 64
        stored[:, column] = image.flatten(order="F")
    path = tmp_path / "chardata.mat"
    monkeypatch.setattr(images, "BURDA", {"data": 60, "testdata": 20})
    monkeypatch.setitem(images.SPLIT, "valid", 6)
    savemat(path, {"data": stored, "testdata": stored[:, :20], "target": np.zeros((50, 60))})
    monkeypatch.setattr(images, "fetch", lambda name: {"mat": path} if name == "omniglot" else _missing())
    found = image_set("omniglot")
    assert [len(part) for part in found.splits.values()] == [54, 6, 20]
    value = {name: (64 * part.sum((1, 2))).tolist() for name, part in found.splits.items()}
    assert sorted(value["train"] + value["valid"]) == list(range(1, 61))  # each in one of the two
    assert value["test"] == list(range(1, 21))
    for part in found.splits.values():
        assert torch.equal(part[:, 3].sum(1), part.sum((1, 2)))
    assert torch.equal(found.splits["test"][5, 3].nonzero(), torch.tensor([[5]]))


def cut(path):
    path.write_bytes(path.read_bytes()[:-200])


def flip(path, position=4000):
    content = bytearray(path.read_bytes())
    content[position] ^= 0xFF
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("content", "damage", "message"),
    [
        ({"data": (784, 60), "testdata": (784, 20)}, lambda path: path.write_bytes(b""), "cannot be read"),
        ({"data": (784, 60), "testdata": (784, 20)}, cut, "cannot be read"),
        ({"data": (784, 60), "testdata": (784, 20)}, flip, "cannot be read"),
        ({"data": (784, 60)}, None, "no array 'testdata'"),
        ({"data": (784, 59), "testdata": (784, 20)}, None, r"\(784, 59\) where numbers \(784, 60\)"),
        ({"data": (60, 784), "testdata": (784, 20)}, None, "where numbers"),
    ],
)
def test_a_mat_file_that_is_not_burdas(tmp_path, monkeypatch, content, damage, message):
    path = tmp_path / "chardata.mat"
    savemat(path, {k: np.random.RandomState(0).rand(*shape) for k, shape in content.items()}, do_compression=True)
    if damage:
        damage(path)
    monkeypatch.setattr(images, "BURDA", {"data": 60, "testdata": 20})
    monkeypatch.setattr(images, "fetch", lambda name: {"mat": path} if name == "omniglot" else _missing())
    with pytest.raises(DataError, match=message):
        image_set("omniglot")


def test_burdas_sizes_are_the_papers():
    assert images.BURDA["data"] == images.SPLIT["train"] + images.SPLIT["valid"]
    assert images.BURDA["testdata"] == images.SPLIT["test"]


def test_the_authors_file(tmp_path, monkeypatch):
    path = tmp_path / "omniglot.pt"
    parts = [grey(n, seed=n).unsqueeze(1) for n in (40, 10, 20)]
    torch.save(parts, path)
    monkeypatch.setattr(images, "fetch", lambda name: {"pt": path} if name == "omniglot-authors" else _missing())
    found = image_set("omniglot", (30, None, 20))
    assert torch.equal(found.splits["train"], parts[0][:30, 0]) and torch.equal(found.splits["test"], parts[2][:, 0])
    with pytest.raises(DataError, match="41 were asked for"):
        image_set("omniglot", (41, None, None))
    torch.save({"train": parts[0]}, path)
    with pytest.raises(DataError, match="list of three tensors"):
        image_set("omniglot")


def _missing():
    raise MissingData("not here")


@pytest.mark.skipif(mirror_dir() is None, reason="LAGVAE_DATA_MIRROR is not set")
def test_the_original_drawings(tmp_path, monkeypatch):
    monkeypatch.setenv("LAGVAE_DATA", str(tmp_path))
    if not (mirror_dir() / "omniglot" / "images_background.zip").exists():
        pytest.skip("this mirror has no omniglot")
    found = image_set("omniglot-28")
    assert [len(part) for part in found.splits.values()] == [22_345, 2_000, 8_070]
    assert "45 drawings" in " ".join(found.notes)
    assert images._sha256(images._grey_drawings()) == images.GREY_SHA256
    monkeypatch.setattr(images, "fetch", _missing)  # from here on the cache alone will do
    assert image_set("omniglot-28").sha256 == found.sha256


def packed(path, front="", junk=False):
    """Six drawings in an archive, below `front`; `junk`: from the last to the first, and with what a Mac adds."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as opened:
        for i in reversed(range(6)) if junk else range(6):
            drawing = io.BytesIO()
            Image.fromarray(np.random.RandomState(i).rand(105, 105) < 0.9).save(drawing, "PNG")
            opened.writestr(f"{front}Greek/character{i // 2}/{i}.png", drawing.getvalue())
            if junk:
                opened.writestr(f"__MACOSX/{front}Greek/character{i // 2}/._{i}.png", b"a Mac's")
        opened.writestr("images_background/", b"")
    return path


def hash_refused(archives, monkeypatch):
    """The hash that `_drawings` makes of archives, and their PNGs."""
    made = []
    original = images.hashlib.sha256

    def remember(*content):
        made.append(original(*content))
        return made[-1]

    monkeypatch.setattr(images.hashlib, "sha256", remember)
    with pytest.raises(DataError, match="as published"):
        images._drawings(archives)
    monkeypatch.undo()
    return made[0].hexdigest()


def test_how_an_archive_is_packed_does_not_matter(tmp_path, monkeypatch):
    plain = hash_refused([packed(tmp_path / "a.zip")], monkeypatch)
    assert hash_refused([packed(tmp_path / "b.zip", "images_background/", junk=True)], monkeypatch) == plain
    assert hash_refused([tmp_path / "a.zip", tmp_path / "b.zip"], monkeypatch) != plain


@pytest.mark.parametrize("position", range(60, 400, 20))
def test_a_damaged_archive_is_one_clear_error(tmp_path, position):
    archive = packed(tmp_path / "a.zip")
    flip(archive, position)
    with pytest.raises(DataError):
        images._drawings([archive])


@pytest.mark.parametrize("position", [None, 0, *range(50, 700, 50)])
def test_a_damaged_cache_is_made_again(tmp_path, monkeypatch, position):
    cache, kept = tmp_path / "grey.npz", np.random.RandomState(0).randint(0, 9, (20, SIZE, SIZE)).astype(np.uint8)
    monkeypatch.setattr(images, "GREY_SHA256", images._sha256(kept))
    assert images._cached(cache) is None
    np.savez_compressed(cache, grey=kept)
    assert np.array_equal(images._cached(cache), kept)
    if position is None:
        cache.write_bytes(b"cut short")
    elif position == 0:
        np.savez_compressed(cache, grey=kept[::-1])  # sound, but of other images
        assert images._cached(cache) is None
    else:
        flip(cache, position)
    found = images._cached(cache)
    assert found is None or np.array_equal(found, kept)  # zip's own time stamps may change


def test_a_split_is_disjoint_and_complete():
    marked = torch.arange(100.0).view(100, 1, 1).expand(100, SIZE, SIZE)
    parts = images._split(marked, {"train": 60, "valid": 15, "test": 20})
    numbers = torch.cat([part[:, 0, 0] for part in parts.values()]).tolist()
    assert len(numbers) == len(set(numbers)) == 95 and numbers != sorted(numbers)


def test_other_drawings_are_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("LAGVAE_DATA", str(tmp_path))
    archive = tmp_path / "images.zip"
    with zipfile.ZipFile(archive, "w") as opened:
        opened.writestr("images_background/A/character01/0001_01.png", b"x")
    paths = {"background": archive, "evaluation": archive}
    monkeypatch.setattr(images, "fetch", lambda name: paths)
    with pytest.raises(DataError, match=r"does not hold OMNIGLOT's 32,460 drawings"):
        image_set("omniglot-28")
    archive.write_bytes(b"no archive")
    with pytest.raises(DataError, match="not a readable zip"):
        image_set("omniglot-28")
    assert not (tmp_path / "omniglot-28").exists()


# -- the stand-in and the user's own ---------------------------------------------------------------------------------


def test_glyphs_are_alike_for_a_seed_and_differ_within():
    drawings = glyph_drawings(12)
    assert np.array_equal(drawings, glyph_drawings(12)) and len({d.tobytes() for d in drawings}) == 12
    assert 0.01 < drawings.mean() < 0.3
    found = image_set("glyphs", (20, 5, 5))
    assert found.stand_in and [len(part) for part in found.splits.values()] == [20, 5, 5]


def test_small_profiles_take_the_stand_in_where_there_are_no_drawings(monkeypatch):
    monkeypatch.setattr(images, "_grey_drawings", _missing)
    settings = TABLE["images"]["smoke"].data
    loaded = loading.load("omniglot", settings, profile="smoke")
    assert loaded.stand_in and loaded.name == "glyphs" and loaded.vocab is None
    with pytest.raises(MissingData):
        loading.load("omniglot-28", settings, profile="scaled")


def write_pngs(folder, count, size=SIZE):
    folder.mkdir()
    for i in range(count):
        Image.fromarray((np.random.RandomState(i).rand(size, size) * 255).astype(np.uint8)).save(folder / f"{i:03}.png")
    return folder


@pytest.mark.parametrize("size", [SIZE, 105])
def test_a_folder_of_pngs(tmp_path, size):
    found = image_set(str(write_pngs(tmp_path / "mine", 40, size)))
    assert [len(part) for part in found.splits.values()] == [32, 4, 4]
    together = torch.cat(list(found.splits.values()))
    assert together.shape == (40, SIZE, SIZE) and 0.4 < together.mean() < 0.6
    assert len({image.numpy().tobytes() for image in together}) == 40


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".pt"])
def test_an_array_file(tmp_path, suffix):
    path, values = tmp_path / f"mine{suffix}", grey(40)
    if suffix == ".pt":
        torch.save(values.unsqueeze(1), path)
    elif suffix == ".npy":
        np.save(path, (values * 255).round().to(torch.uint8).numpy())
    else:
        np.savez(path, images=values.numpy())
    together = torch.cat(list(image_set(str(path)).splits.values()))
    assert (together.sum() - values.sum()).abs() / values.sum() < 1e-3
    assert (data.family(str(path)), data.family("mine.txt")) == ("images", "text")


def test_a_changed_file_is_another_data_set(tmp_path):
    """Runs are looked up by the data set's name, so another content, or a published name, must not share it."""
    folder = write_pngs(tmp_path / "omniglot", 30)
    first = image_set(str(folder)).name
    assert first.startswith("omniglot-") and first == image_set(os.path.relpath(folder)).name
    (folder / "029.png").write_bytes((folder / "028.png").read_bytes())
    assert image_set(str(folder)).name != first


def test_one_cannot_be_named_after_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(write_pngs(tmp_path / "mine", 30))
    assert image_set(".").name.startswith("mine-")


@pytest.mark.parametrize("bits", [1, 8, 16])
def test_a_png_of_any_depth_keeps_its_grey_values(tmp_path, bits):
    values = np.random.RandomState(0).rand(SIZE, SIZE)
    stored = values < 0.5 if bits == 1 else (values * (2**bits - 1)).astype(f"u{bits // 8}")
    Image.fromarray(stored).save(tmp_path / "x.PNG")
    expected = stored.astype(np.float64) / (1 if bits == 1 else 2**bits - 1)
    assert np.array_equal(png(tmp_path / "x.PNG"), expected)


def test_a_transparent_png_is_refused(tmp_path):
    drawing = np.zeros((SIZE, SIZE, 4), np.uint8)
    drawing[5:9, 5:9, 3] = 255  # black ink on nothing: all black if the transparency were dropped
    Image.fromarray(drawing).save(tmp_path / "x.png")
    with pytest.raises(DataError, match="transparent"):
        png(tmp_path / "x.png")
    drawing[..., 3] = 255
    Image.fromarray(drawing).save(tmp_path / "x.png")
    assert png(tmp_path / "x.png").max() == 0


@pytest.mark.parametrize("dtype", [">f4", np.longdouble, np.float64, np.float16])
def test_any_kind_of_float_is_read(tmp_path, dtype):
    np.save(tmp_path / "mine.npy", grey(30).numpy().astype(dtype))
    found = torch.cat(list(image_set(str(tmp_path / "mine.npy")).splits.values()))
    assert abs(float(found.sum() - grey(30).sum())) < 2


def test_a_tensor_with_a_gradient_is_read_and_a_sparse_or_complex_one_refused(tmp_path):
    path = tmp_path / "mine.pt"
    torch.save(torch.nn.Parameter(grey(30)), path)
    assert not image_set(str(path)).splits["train"].requires_grad
    for tensor in (grey(30).to_sparse(), grey(30).to(torch.complex64)):
        torch.save(tensor, path)
        with pytest.raises(DataError, match="dense tensor of real numbers"):
            image_set(str(path))


@pytest.mark.parametrize("position", range(40, 4000, 400))
def test_a_damaged_npz_is_one_clear_error_or_unharmed(tmp_path, position):
    path = tmp_path / "mine.npz"
    np.savez_compressed(path, (grey(30) > 0.5).numpy())
    flip(path, position % path.stat().st_size)
    try:
        assert set(image_set(str(path)).splits["train"].unique().tolist()) == {0.0, 1.0}
    except DataError as error:
        assert "cannot be read" in str(error)


@pytest.mark.parametrize(("count", "batch_size"), [(5, 0), (5, -1), (0, 5)])
def test_batches_of_nothing_are_refused(count, batch_size):
    with pytest.raises(ValueError, match="at least 1"):
        ImageBatches(grey(count), batch_size, seed=1, once=False)


def test_looking_at_training_images_shows_the_same_ones_on_every_pass():
    batches = ImageBatches(grey(), 16, seed=1, once=False)
    first = torch.cat(list(batches))
    batches.draw(generator())
    assert torch.equal(first, torch.cat(list(batches.to("cpu"))))


def bad_folder(kind):
    def make(tmp_path):
        folder = write_pngs(tmp_path / "bad", 0 if kind == "empty" else 10 if kind == "few" else 31)
        if kind == "corrupt":
            (folder / "003.png").write_bytes((folder / "003.png").read_bytes()[:60])
        if kind == "mixed":
            Image.new("L", (30, 30)).save(folder / "x.png")
        if kind == "oblong":
            for file in folder.glob("*.png"):
                Image.new("L", (40, 30)).save(file)
        return folder

    return make


def bad_array(values, name="bad.npy"):
    def make(tmp_path):
        np.save(tmp_path / name, values, allow_pickle=True)
        return tmp_path / name

    return make


def nan_array():
    values = grey(40).numpy()
    values[3, 4, 5] = np.nan
    return values


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (bad_folder("empty"), "holds no PNG files"),
        (bad_folder("few"), "at least 30"),
        (bad_folder("corrupt"), r"003\.png is not a readable PNG"),
        (bad_folder("mixed"), "several sizes"),
        (bad_folder("oblong"), "must be square"),
        (bad_array(nan_array()), "NaN"),
        (bad_array(grey(40).numpy() * 2), "values from .* to 1.99"),
        (bad_array(np.zeros((40, 27, 28))), "shape"),
        (bad_array(np.array([{"a": 1}], dtype=object)), "holds Python objects"),
        (bad_array(np.array(["a"] * 40)), "numbers"),
        (lambda tmp_path: tmp_path / "absent.npy", "does not exist"),
    ],
)
def test_bad_images_are_one_clear_error(tmp_path, make, message):
    with pytest.raises(DataError, match=message):
        image_set(str(make(tmp_path)))
