"""Every notebook's check of its parameters under Python 3.14, which needs node and the npm package pyodide."""

import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
VERSION = "314.0.7"  # of pyodide: CPython 3.14.2


@pytest.fixture(scope="module")
def pyodide(tmp_path_factory) -> Path:
    """The unpacked package: the folder that LAGVAE_PYODIDE names, or fetched by npm."""
    if not shutil.which("node"):
        pytest.skip("no node here")
    if "LAGVAE_PYODIDE" in os.environ:
        return Path(os.environ["LAGVAE_PYODIDE"])
    folder = tmp_path_factory.mktemp("pyodide")
    try:
        subprocess.run(["npm", "pack", f"pyodide@{VERSION}"], cwd=folder, capture_output=True, timeout=120, check=True)
    except (OSError, subprocess.SubprocessError):
        pytest.skip("npm has no package index here")
    with tarfile.open(folder / f"pyodide-{VERSION}.tgz") as archive:
        archive.extractall(folder, filter="data")
    return folder / "package"


def test_every_notebook_settles_its_parameters_and_refuses_a_misspelt_one(pyodide):
    command = ["node", ROOT / "tests" / "python314.mjs", pyodide, ROOT]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    version, *refusals = done.stdout.split()
    assert version.startswith("3.14.")
    assert refusals == ["BadParameter"] * len(list((ROOT / "notebooks").glob("*.ipynb")))


def test_this_python_is_one_that_is_supported():
    assert (3, 11) <= sys.version_info[:2] <= (3, 14)
