"""Notebooks on a user's own data, as few as the library takes."""

import numpy as np
import pytest

from tests.essays import execute
from tests.own import drawings, lines, write

pytestmark = pytest.mark.usefixtures("own_folders")


def test_notebooks_of_text_on_forty_notes(tmp_path):
    path = write(
        tmp_path / "notes.txt", [" ".join(row.split() * 9)[:-1].rsplit(" ", i)[0] for i, row in enumerate(lines(40))]
    )
    names = execute("03_yelp.ipynb", dataset=path, methods="vae", profile="smoke", device="cpu")
    assert len(names["x"]) == len(names["mu"]) == 4
    names = execute("07_after_the_paper.ipynb", dataset=path, methods="bn-vae", profile="smoke", device="cpu")
    assert names["results"]["bn-vae"].metrics["dataset"].startswith("notes-")


def test_notebooks_of_images_on_thirty_images(tmp_path):
    np.save(tmp_path / "few.npy", drawings(30))
    given = {"dataset": str(tmp_path / "few.npy"), "profile": "smoke", "device": "cpu"}
    names = execute("04_omniglot.ipynb", methods="vae", **given)
    assert names["voice"].data.family == "images" and len(names["between"]) == 1
    assert "worth" in execute("07_after_the_paper.ipynb", methods="vae", **given)


@pytest.mark.parametrize("dataset", ["omniglot", "few.npy"])
def test_the_notebook_of_text_refuses_images_before_it_trains(tmp_path, monkeypatch, dataset):
    monkeypatch.chdir(tmp_path)
    np.save("few.npy", drawings(30))
    with pytest.raises(Exception, match=f"dataset '{dataset}' holds no text; valid here: yelp"):
        execute("03_yelp.ipynb", dataset=dataset, methods="vae", profile="smoke", device="cpu")
