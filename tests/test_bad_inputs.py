"""500 generated bad inputs: each is used or refused by one of the library's own errors, and nothing half-written stays.

The seeds are fixed (conftest's profile derandomises), so that a red run is red again.
"""

import json
import string
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from lagvae_lib import notebook
from lagvae_lib.config.methods import METHODS, find
from lagvae_lib.config.profiles import resolve
from lagvae_lib.errors import UserError
from lagvae_lib.runs import record
from lagvae_lib.runs.train import prepared, resume, save, trainer_of
from tests.own import drawings, lines
from tests.test_notebook_parameters import CELL, kernel
from tests.tiny import tiny_config, tiny_data

many = settings(max_examples=84, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("bad")


def used_or_refused(place, do, *arguments):
    """Call; an error must be the library's own, must say something, and must leave nothing half-written."""
    try:
        do(*arguments)
    except UserError as error:
        message = str(error)
        assert message.strip() and len(message) < 2000
        assert error._render_traceback_() == [f"{type(error).__name__}: {message}"]
    assert not list(place.rglob("*.tmp"))


GOOD = "\n".join(lines(60)).encode()
raw = st.one_of(
    st.binary(max_size=400),
    st.tuples(st.integers(0, len(GOOD)), st.binary(max_size=6)).map(lambda at: GOOD[: at[0]] + at[1] + GOOD[at[0] :]),
    st.integers(0, len(GOOD)).map(lambda cut: GOOD[:cut]),
    st.lists(st.text(max_size=12), max_size=60).map(lambda rows: "\n".join(rows).encode("utf-8", "surrogatepass")),
    st.sampled_from(["utf-16", "latin-1", "utf-8-sig"]).map(lambda code: GOOD.decode().encode(code)),
)


@many
@given(raw, st.sampled_from(["", "+label_column=1", "+label_column=label", "+label_column=", "+label_column=999"]))
def test_text_files(place, content, column):
    path = place / "own.txt"
    path.write_bytes(content)
    used_or_refused(place, prepared, f"{path}{column}", "vae", "smoke", 0)


shapes = st.lists(st.sampled_from([0, 1, 3, 20, 28, 29, 30, 40]), max_size=4).map(tuple)
kinds = st.sampled_from(["u1", "i2", "<i8", ">i4", "f4", ">f8", "f2", "?", "c8", "U3", "M8[D]"])


@many
@given(shapes, kinds, st.sampled_from([0, 1, 2, 255, 300, -1]), st.sampled_from([".npy", ".npz", ".pt", ".NPY", ".gz"]))
def test_arrays(place, shape, kind, value, suffix):
    path = place / f"own{suffix}"
    if kind == "u1" and len(shape) == 3 and suffix == ".npy":
        np.save(path, drawings(40)[:, : shape[1] + 1])
    else:
        with open(path, "wb") as f:
            np.save(f, np.full(shape, value, dtype="f8").astype(kind))
    used_or_refused(place, prepared, str(path), "vae", "smoke", 0)


words = st.one_of(
    st.sampled_from([*METHODS, "aggressive", "aggressiv", ""]),
    st.tuples(
        st.sampled_from(["window", "lr", "clip", "levels", "steps", "scale", "kl_weight", "max_epochs", "prior", "x"]),
        st.sampled_from(["1", "0", "-1", "1e9", "nan", "inf", "ten", "", "vamp", "joint", "9" * 400, "1_0"]),
    ).map("=".join),
    st.text(string.printable, max_size=8),
)


@many
@given(st.lists(words, min_size=1, max_size=4).map("+".join), st.sampled_from(["yelp", "omniglot", "synthetic"]))
def test_method_names(place, name, dataset):
    used_or_refused(place, find, name)
    used_or_refused(place, resolve, dataset, name, "smoke", 0)


values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=10),
    st.lists(st.one_of(st.integers(), st.text(max_size=5), st.none()), max_size=3),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)
names = st.sampled_from(["dataset", "methods", "seed", "profile", "device", "seeds", "sead", "Dataset", "x"])


@many
@given(st.dictionaries(names, values, min_size=1, max_size=3))
def test_parameters(place, given_values):
    injected = "\n".join(["# Parameters", *(f"{name} = given[{name!r}]" for name in given_values)])
    used = kernel(CELL) | given_values
    used["In"].append(injected)
    try:
        assert notebook.settings(used).methods
    except notebook.BadParameter as error:
        assert "\n" not in str(error) or "dataset" in given_values


@pytest.fixture(scope="module")
def trainer():
    return trainer_of(tiny_config("vae"), tiny_data(), "cpu")


@many
@given(st.one_of(st.binary(max_size=300), st.integers(0, 10_000)), st.integers(0, 255))
@example(4097, 1)  # torch looks before the file's beginning, which the system refuses as if it were at fault
def test_checkpoints(place, trainer, damage, byte):
    path = place / "checkpoint.pt"
    if isinstance(damage, bytes):
        path.write_bytes(damage)
    else:
        save(path, trainer.state_dict() if byte % 2 else {"state": damage, "model": torch.zeros(2)})
        content = bytearray(path.read_bytes())
        path.write_bytes(content[: damage % len(content)] if byte % 3 else content)
    used_or_refused(place, resume, trainer, path)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["dataset", "model", "nll"]), inner),
    max_leaves=6,
)


@many
@given(
    st.one_of(st.binary(max_size=60), json_values.map(lambda value: json.dumps(value).encode())),
    st.sampled_from(["metrics.json", "config.json", "history.csv", "dynamics.csv", "points.npz"]),
)
def test_records(place, content, name):
    folder = place / "seed0"
    folder.mkdir(exist_ok=True)
    complete = dict.fromkeys(record.NEEDED, 0)
    (folder / "metrics.json").write_text(json.dumps(complete))
    (folder / "config.json").write_text(json.dumps({"dataset": "yelp", "method": {}, "model": {}}))
    (folder / "history.csv").write_text("epoch,loss\n1,2\n")
    for other in ("dynamics.csv", "points.npz"):
        (folder / other).unlink(missing_ok=True)
    (folder / name).write_bytes(content)
    used_or_refused(place, record.load, folder)
    used_or_refused(place, record.read_config, folder)
