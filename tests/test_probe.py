"""The linear probe against cases whose information is known, and what a run on labelled data records for it."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from lagvae_lib.metrics.probe import linear_probe
from lagvae_lib.paper.tables import probes
from lagvae_lib.plots.codes import codes_by_label
from lagvae_lib.runs import train
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


def known(labels):
    """Codes that spell out their labels."""
    return {"means": 20.0 * np.eye(labels.max() + 1)[labels], "labels": labels}


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
    assert "nats" in codes_by_label({"VAE": run}).axes[0].get_title()
    few = replace(run, codes={"means": run.codes["means"][:5], "labels": np.arange(5)})
    assert codes_by_label({"VAE": few}).axes[0].get_title() == "VAE: too few labels to probe"
    read = probes([run, replace(run, metrics=run.metrics | {"seed": 3}, codes=known(labels := np.arange(90) % 3)), few])
    assert read.index.tolist() == ["VAE"] and read.columns.tolist() == ["seed 0", "seed 3", "mean", "H(label)"]
    assert read.loc["VAE", "seed 0"] == f"{linear_probe(run.codes['means'], run.codes['labels']).nats:+.3f}"
    assert (
        read.loc["VAE", "seed 3"] == f"{linear_probe(**known(labels)).nats:+.3f}"
        and float(read.loc["VAE", "seed 3"]) > 1
    )
    assert read.loc["VAE", "H(label)"] == "1.10" and " ± " in read.loc["VAE", "mean"] and probes([few]).empty
    assert not codes_by_label({}).axes[0].get_title()
