"""Shared by all tests: one thread, a fixed seed, no window, and folders of one's own for whoever asks."""

import matplotlib
import pytest
import torch
from hypothesis import settings

from lagvae_lib.runs.record import Records

# The machine may be busy, so no deadline; the same examples every time, so that a red run is red again.
settings.register_profile("lagvae", deadline=None, derandomize=True, max_examples=25, print_blob=True)
settings.load_profile("lagvae")

# Not through MPLBACKEND: the kernels that nbval starts would inherit it and show no figure.
matplotlib.use("Agg")


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """pytest-xdist brings the processes; a second thread in each would only make them wait for each other."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def fixed_seed() -> None:
    """A test that draws from torch's global generator draws the same numbers alone and among the others."""
    torch.manual_seed(0)


@pytest.fixture
def own_folders(tmp_path, monkeypatch):
    """Empty data and results folders for this test alone, and no mirror; returns their parent.

    `data/` and `results/` are named by LAGVAE_DATA and LAGVAE_RESULTS, so processes that the test starts
    use them too.
    """
    for variable, name in (("LAGVAE_DATA", "data"), ("LAGVAE_RESULTS", "results")):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(variable, str(tmp_path / name))
    monkeypatch.delenv("LAGVAE_DATA_MIRROR", raising=False)
    return tmp_path


@pytest.fixture
def records(monkeypatch):
    """Made-up runs in place of the recorded ones."""
    runs = []
    monkeypatch.setattr(Records, "of", lambda self, dataset, *_: [r for r in runs if r.metrics["dataset"] == dataset])
    return runs
