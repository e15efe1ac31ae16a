"""Every committed record against the rules that its own `config.json` states: they are replayed on its history."""

import json
import math

import numpy as np
import pandas as pd
import pytest

from lagvae_lib import paths
from lagvae_lib.config.identity import same_configuration
from lagvae_lib.config.profiles import resolve
from lagvae_lib.inference.aggressive import Aggressive
from lagvae_lib.objectives import Objective
from lagvae_lib.runs import trajectory
from lagvae_lib.runs.record import load
from lagvae_lib.schedule import Progress, Schedule

FOLDERS = sorted(path.parent for path in (paths.ROOT / "results" / "runs").glob("*/*/*/seed*/metrics.json"))


def name(folder) -> str:
    return "/".join(folder.parts[-4:])


@pytest.mark.parametrize("folder", FOLDERS, ids=name)
def test_the_rate_the_end_and_the_stage_of_a_record_are_those_of_its_configuration(folder):
    config, metrics = (json.loads((folder / f"{part}.json").read_text()) for part in ("config", "metrics"))
    objective, schedule = Objective(**config["method"]["objective"]), Schedule(**config["schedule"])
    history = pd.read_csv(folder / "history.csv").iloc[objective.pretrain_epochs :]
    progress, rates = Progress(schedule.lr), []
    for epoch, loss in enumerate(history["valid_loss"]):
        assert progress.ended is None
        rates.append(progress.lr)
        progress.after_epoch(schedule, loss, epoch, objective.settled_from)
    assert history["lr"].tolist() == pytest.approx(rates, abs=1e-6)
    assert progress.ended == load(folder).ended == metrics.get("ended", progress.ended) is not None
    if "stop_reference" in config["method"]["inference"]:
        assert history["aggressive"].tolist() == stage(config["method"]["inference"], history)


def stage(knobs: dict, history: pd.DataFrame) -> list[bool]:
    """Whether each epoch was aggressive."""
    algorithm = Aggressive(**knobs)
    state, epochs = algorithm.begin(), []
    latest = math.inf if algorithm.stage is None else algorithm.delay + algorithm.stage
    for update, mi, mi_large in history[["iteration", "valid_mi", "valid_mi_large"]].itertuples(index=False):
        epochs.append(state["aggressive"] and algorithm.delay < update <= latest)  # by its last update
        state["updates"] = update
        algorithm.epoch_end(state, mi, mi_large)
    return epochs


@pytest.mark.parametrize("path", sorted((paths.ROOT / "results" / "runs").glob("*/*/*/trajectory-seed*.npz")), ids=str)
def test_a_committed_trajectory_is_that_of_its_name(path):
    """The profile's rules for epochs do not touch it."""
    profile, dataset, method, file = path.parts[-4:]
    config = resolve(dataset, method, profile, int(file.removesuffix(".npz").partition("seed")[2]))
    with np.load(path, allow_pickle=False) as saved:
        parts = json.loads(str(saved["config"]))
    assert all(same_configuration(parts[part], value) for part, value in trajectory._deciding(config).items())
