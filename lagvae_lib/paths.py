"""Where data and results lie: the checkout's own folders, or the user's where the library is installed without one.

The environment moves them: LAGVAE_DATA, LAGVAE_RESULTS, LAGVAE_DATA_MIRROR. Every path is expanded and absolute.
"""

import os
from pathlib import Path

from platformdirs import user_data_path

from lagvae_lib.errors import BadValue

ROOT = Path(__file__).resolve().parent.parent
CHECKOUT = (ROOT / "pyproject.toml").is_file() and (ROOT / "notebooks").is_dir()


def absolute(path: str | Path) -> Path:
    """`path` with `~` expanded, made absolute: what every path from outside goes through. Raises BadValue."""
    try:
        return Path(path).expanduser().absolute()
    except (RuntimeError, ValueError) as error:  # the ~ of nobody; a NUL
        raise BadValue(f"{str(path)!r} is no path that can be used ({error})") from None


def _place(variable: str, name: str) -> Path:
    home = ROOT if CHECKOUT else user_data_path("lagvae")
    return absolute(os.environ.get(variable) or home / name)


def data_dir() -> Path:
    """The data cache: `data/`, or the folder in LAGVAE_DATA."""
    return _place("LAGVAE_DATA", "data")


def results_dir() -> Path:
    """The records of runs, tables and figures: `results/`, or the folder in LAGVAE_RESULTS."""
    return _place("LAGVAE_RESULTS", "results")


def recorded(*parts: str) -> Path:
    """A file of the records: that of `results_dir()`, or, where that has none of the name, the repository's own."""
    own = results_dir().joinpath(*parts)
    return own if own.exists() else (ROOT / "results").joinpath(*parts)


def mirror_dir() -> Path | None:
    """A folder with local copies of the data sets (LAGVAE_DATA_MIRROR), or None."""
    value = os.environ.get("LAGVAE_DATA_MIRROR")
    return absolute(value) if value else None


def files_below(folder: Path) -> list[Path]:
    """Everything in a folder and in the folders in it that is no folder itself, sorted; links to folders are followed,
    each folder being gone through once."""
    found, seen = [], set()
    for place, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        found += [Path(place, name) for name in names]
    return sorted(found)
