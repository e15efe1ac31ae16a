"""Where data and results lie: the repository's own folders, unless the environment moves them."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def data_dir() -> Path:
    """The data cache: `data/`, or the folder in LAGVAE_DATA."""
    return Path(os.environ.get("LAGVAE_DATA") or ROOT / "data")


def results_dir() -> Path:
    """The records of runs, tables and figures: `results/`, or the folder in LAGVAE_RESULTS."""
    return Path(os.environ.get("LAGVAE_RESULTS") or ROOT / "results")


def mirror_dir() -> Path | None:
    """A folder with local copies of the data sets (LAGVAE_DATA_MIRROR), or None."""
    value = os.environ.get("LAGVAE_DATA_MIRROR")
    return Path(value).expanduser().resolve() if value else None
