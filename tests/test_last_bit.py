"""The last-bit trial: it is the run itself, and moves what it says by what it says."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from lagvae_lib import paths
from lagvae_lib.config.profiles import resolve
from lagvae_lib.data.loading import load
from lagvae_lib.plots.last_bit import information_by_last_bit
from lagvae_lib.runs import last_bit
from lagvae_lib.runs.last_bit import AS_IT_IS, KEPT, METHOD, SEEDS, UPDATES, WEIGHTS, move, settings, train
from lagvae_lib.runs.train import trainer_of
from tests.made_up import made_up


def test_one_weight_moves_and_by_its_last_bit():
    weights = torch.randn(3, 4)
    moved = weights.clone()
    move(moved, 5)
    bits = [of.view(-1).view(torch.int32).long() for of in (weights, moved)]
    assert (bits[1] - bits[0]).abs().tolist() == [0] * 5 + [1] + [0] * 6
    assert moved[1, 1] > weights[1, 1]


def test_unmoved_it_is_the_run_of_that_seed_up_to_there():
    config = resolve("synthetic", METHOD, "smoke", 1)
    config = replace(config, evaluation=replace(config.evaluation, observe_every=5))
    data = load("synthetic", config.data, profile="smoke")
    trainer = trainer_of(config, data, "cpu")
    trainer.fit()
    seen = next(row for row in trainer.state.observations if row["iteration"] == 5)
    row = train(settings(1, 5, "smoke"), data, AS_IT_IS)
    assert [row[key] for key in KEPT] == [pytest.approx(float(seen[key]), abs=1e-6) for key in KEPT]
    assert (row["seed"], row["weight"], row["iteration"]) == (1, AS_IT_IS, 5)


def test_a_moved_weight_is_another_run_and_the_record_is_made_of_what_it_lacks(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("LAGVAE_RESULTS", str(tmp_path))
    monkeypatch.setattr(last_bit, "SEEDS", (0,))
    monkeypatch.setattr(last_bit, "WEIGHTS", (AS_IT_IS, 50))
    monkeypatch.setattr(last_bit, "settings", lambda seed: settings(seed, 3, "smoke"))
    monkeypatch.setattr(last_bit, "PROFILE", "smoke")
    last_bit.main()
    record = last_bit.read()
    assert list(record["weight"]) == [AS_IT_IS, 50] and paths.recorded(*last_bit.PLACE).is_relative_to(tmp_path)
    capsys.readouterr()
    last_bit.main()
    assert capsys.readouterr().out == ""


def test_the_committed_record_has_every_run_of_its_plan(monkeypatch):
    monkeypatch.setenv("LAGVAE_RESULTS", str(paths.ROOT / "results"))
    record = last_bit.read()
    assert [tuple(row) for row in record[["seed", "weight"]].to_numpy()] == [(s, w) for s in SEEDS for w in WEIGHTS]
    assert (record["iteration"] == UPDATES).all() and np.isfinite(record[list(KEPT)]).all(axis=None)


def test_the_figure_has_a_row_for_the_records_and_one_for_each_seed_with_its_own_run_ringed():
    def seen(seed, mi):
        run = made_up("aggressive", seed)
        return replace(run, dynamics=pd.DataFrame({"iteration": [0, 200], "mi_large": [0.0, mi]}))

    trial = pd.DataFrame(
        {"seed": [0, 0, 2, 2, 2], "weight": [-1, 0, -1, 0, 17], "iteration": 200, "mi_large": [1.0, 0.9, 0.1, 0.7, 0.3]}
    )
    ax = information_by_last_bit(trial, [seen(0, 1.1), seen(2, 1.2)]).axes[0]
    drawn = [points.get_offsets().tolist() for points in ax.collections]
    assert drawn == [[[1.1, 0], [1.2, 0]], [[0.9, 1]], [[1.0, 1]], [[0.7, 2], [0.3, 2]], [[0.1, 2]]]
    assert [label.get_text() for label in ax.get_yticklabels()] == [
        "seeds 0 to 2, on record",
        "seed 0, last bit moved",
        "seed 2, last bit moved",
    ]
