"""The linear probe against cases whose information is known, and what a run on labelled data records for it."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from lagvae_lib.data.text import UNKNOWN, TextBatches
from lagvae_lib.metrics.probe import draw, linear_probe, pooled, ranges
from lagvae_lib.paper.about import about, words_of
from lagvae_lib.paper.tables import outside_table_4
from lagvae_lib.plots.codes import codes_by_label
from lagvae_lib.runs import train
from lagvae_lib.runs.codes import codes_of, words_of_units
from lagvae_lib.runs.record import Records
from tests.made_up import made_up
from tests.tiny import tiny_config, tiny_data


def test_labels_that_the_means_do_not_know_are_not_read():
    draws = np.random.default_rng(0)
    found = linear_probe(draws.normal(size=(2000, 4)), draws.integers(0, 5, 2000))
    assert abs(found.nats) < 0.01 and found.entropy == pytest.approx(np.log(5), abs=0.01)
    assert abs(found.accuracy - 0.2) < 0.05


def test_labels_that_the_means_spell_out_are_read_whole():
    labels = np.arange(600) % 3
    means = 20.0 * np.eye(3)[labels] + np.random.default_rng(1).normal(size=(600, 3))
    found = linear_probe(means, labels)
    assert found.accuracy == 1.0 and found.majority == pytest.approx(1 / 3)
    assert np.log(3) - 0.05 < found.nats <= np.log(3)


def test_two_gaussians_give_the_information_between_them():
    """x ~ N(+-d, 1): I(x; label) = log 2 - E log(1 + exp(-2 d x)), x ~ N(d, 1), by numerical integration."""
    draws, d = np.random.default_rng(2), 1.0
    labels = draws.integers(0, 2, 20_000)
    means = (2 * labels[:, None] - 1) * d + draws.normal(size=(20_000, 1))
    grid = np.linspace(-9, 11, 20_001)
    density = np.exp(-0.5 * (grid - d) ** 2) / np.sqrt(2 * np.pi)
    exact = np.log(2) - np.trapezoid(density * np.logaddexp(0, -2 * d * grid), grid)
    assert linear_probe(means, labels).nats == pytest.approx(exact, abs=0.015)


@pytest.mark.parametrize("labels", [np.zeros(50), np.r_[np.zeros(47), np.ones(3)]])
def test_too_few_labels_are_refused(labels):
    with pytest.raises(ValueError, match="two labels with at least 5 examples each"):
        linear_probe(np.zeros((50, 2)), labels)


def test_a_run_on_labelled_data_records_its_codes_in_the_labels_order(tmp_path, monkeypatch):
    monkeypatch.setenv("LAGVAE_RESULTS", str(tmp_path))
    data = tiny_data()
    labels = {split: [i % 2 for i in range(getattr(data, split).examples)] for split in ("train", "valid", "test")}
    data, config = replace(data, labels=labels), tiny_config("vae")
    run = train.run(config, data)
    assert run.codes["labels"].tolist() == [i % 2 for batch in data.test.members for i in batch]
    model = train.trained_model(config, data)
    means = torch.cat([model.encode(x).mu for x in data.test]).detach()
    np.testing.assert_allclose(run.codes["means"], means, atol=2e-3)  # both in half precision
    assert not train.run(tiny_config("autoregressive"), data).codes
    documents = [row.tolist() for x in data.test for row in x]
    assert run.codes["opening"].tolist() == [row[1] for row in documents]
    assert run.codes["words"].tolist() == [len(row) - 2 for row in documents]
    assert "unknown" not in run.codes
    assert list(pd.read_csv(run.folder / "words.csv").columns) == ["unit", "word", "correlation"]
    row = data.test.sentences[0]
    row[1:3] = [UNKNOWN, UNKNOWN]
    marked = replace(data, labels=None, test=TextBatches(data.test.sentences, 4))
    found = codes_of(model, marked)
    assert found["unknown"].sum() == 2 == found["unknown"][[i for b in marked.test.members for i in b].index(0)]
    assert "nats" in codes_by_label({"VAE": run}).axes[0].get_title()
    few = replace(run, codes={"means": means[:5].numpy(), "logvar": np.zeros((5, 2)), "labels": np.arange(5)})
    assert codes_by_label({"VAE": few}).axes[0].get_title() == "VAE: too few labels to probe"
    assert not codes_by_label({}).axes[0].get_title()


def test_what_a_mean_knows_is_not_what_the_code_says():
    """Means that spell the label out, a thousand times closer than q is wide: a probe of them reads it whole."""
    labels, draws = np.arange(600) % 3, np.random.default_rng(0)
    codes = {"means": 1e-3 * np.eye(3)[labels] + 1e-5 * draws.normal(size=(600, 3)), "logvar": np.zeros((600, 3))}
    assert linear_probe(codes["means"], labels).nats > 1
    assert abs(linear_probe(draw(codes), labels).nats) < 0.03
    np.testing.assert_allclose(
        draw({"means": codes["means"], "logvar": np.full((600, 3), -40.0)}), codes["means"], atol=1e-7
    )


def test_rare_values_are_one_class_and_ranges_are_equally_frequent():
    assert pooled(np.array([7] * 60 + [3] * 39 + [1]), 0.02).tolist() == [2] * 60 + [1] * 39 + [-1]
    assert np.bincount(ranges(np.arange(100))).tolist() == [10] * 10
    assert len(set(ranges(np.array([50] * 80 + [10] * 20)))) == 2  # a value that most have is one range


def test_what_codes_are_about_by_run():
    labels = np.arange(300) % 3
    spelt = {"means": 20.0 * np.eye(3)[labels], "logvar": np.full((300, 3), -4.0), "labels": labels}
    runs = [
        replace(made_up("vae"), codes=spelt | {"means": np.zeros((300, 3)), "logvar": np.zeros((300, 3))}),
        replace(made_up("vae", 2), codes=spelt | {"words": np.full(300, 6), "unknown": 2 * labels}),
        replace(made_up("aggressive", 1), codes=spelt | {"opening": labels, "words": 6 + np.arange(300)}),
        made_up("autoregressive", exact=True),
    ]
    found = about(runs)
    assert found.index.tolist() == ["VAE, seed 0", "VAE, seed 2", "Aggressive, seed 1", "the most there is"]
    for title, row in (("label, linear probe", 2), ("label", 2), ("first word", 2), ("unknown words", 1)):
        assert found[title].iloc[row] == pytest.approx(np.log(3), abs=0.03)
        assert found[title].iloc[-1] == pytest.approx(np.log(3))
    assert abs(found["label"].iloc[0]) < 0.02 and np.isnan(found["first word"].iloc[0])
    assert abs(found["length"].iloc[2]) < 0.1 and found["length"].iloc[-1] == pytest.approx(np.log(10))
    assert about([]).empty


def test_the_words_of_a_unit_are_those_whose_share_it_follows(tmp_path):
    draws = np.random.default_rng(0)
    documents = [draws.integers(3, 40, 30) for _ in range(400)]
    documents[0][:4] = 41  # in one document alone: not common
    words = tuple(f"w{i}" for i in range(42))
    share = np.stack([np.bincount(d, minlength=42) / len(d) for d in documents])
    means = np.stack([3 * share[:, 7] - 3 * share[:, 9], np.zeros(400), -share[:, 5] * 9], axis=1)
    found = words_of_units(means, documents, words)
    assert found.groupby("unit").size().to_dict() == {0: 16, 2: 16}  # the unit that does not vary has none
    _, last = found[found["unit"] == 2].iloc[[0, -1]].itertuples()
    assert (last.word, last.correlation) == ("w5", -1.0) and "w41" not in set(found["word"])
    both = found[found["unit"] == 0]
    assert (both["word"].iloc[0], both["word"].iloc[-1]) == ("w7", "w9")
    expected = np.corrcoef(share[:, 7], means[:, 0])[0, 1]
    assert both["correlation"].iloc[0] == pytest.approx(expected, abs=6e-4)
    run = replace(made_up("aggressive", kl_per_dim=[0.2, 0.0, 0.5]), folder=tmp_path)
    assert words_of(run).empty
    found.to_csv(tmp_path / "words.csv", index=False)
    shown = words_of(run)
    assert shown.index.tolist() == [2, 0] and shown["low"].iloc[0].startswith("w5 ")
    assert shown["high"].iloc[1].startswith("w7 ") and shown["low"].iloc[1].startswith("w9 ")


def test_notebook_03_says_of_the_recorded_codes_what_they_say(monkeypatch):
    monkeypatch.delenv("LAGVAE_RESULTS", raising=False)
    rows = about(outside_table_4(Records("scaled").of("yelp-small"))).iloc[:-1]
    assert len(rows) and (rows[["label", "label, linear probe"]] < 0.02).all(axis=None)
    kept = rows[rows.index.str.startswith("Aggressive + anneal")]
    assert len(kept) and (kept["first word"] > kept["unknown words"]).all()
    assert (kept["unknown words"] > kept["length"] - 0.01).all() and (kept["length"] > 0.02).all()
    rest = rows[rows.index.str.startswith("Aggressive,")]  # what is left without annealing
    assert (len(rest), (rest["unknown words"] > 0).sum()) == (5, 4) and (rest[["first word", "length"]] < 0).all(
        axis=None
    )
