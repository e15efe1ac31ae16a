"""Every method of the registry, on text and on images: it trains, goes on when stopped, is evaluated and tabulated."""

import math

import pytest

from lagvae_lib.config import methods
from lagvae_lib.config.methods import for_family
from lagvae_lib.data import loading
from lagvae_lib.paper import tables
from lagvae_lib.runs import train
from tests.test_images_runs import tiny as tiny_images
from tests.test_runs import numbers
from tests.tiny import tiny_config, tiny_data


class Stopped(Exception):
    pass


CASES = [(family, method) for family in ("text", "images") for method in for_family(family)]


def prepared(family: str, method: str):
    if family == "text":
        return tiny_config(method, epochs=2), tiny_data()
    fewer = {"sa": "+steps=2", "aggressive": "+fixed_steps=3"}.get(
        method.split("-")[0], ""
    )  # the same code, less often
    config = tiny_images(method + fewer)
    return config, loading.load("glyphs", config.data, profile="smoke")


def epochs(config) -> int:
    return config.schedule.max_epochs + config.method.objective.pretrain_epochs


def stop_in_the_second_epoch(line: str):
    raise Stopped


@pytest.mark.parametrize(("family", "method"), CASES)
def test_a_method_trains_resumes_and_stands_in_a_table(family, method, monkeypatch, tmp_path):
    config, loaded = prepared(family, method)
    monkeypatch.setenv("LAGVAE_RESULTS", str(tmp_path / "whole"))
    whole = train.run(config, loaded)
    assert len(whole.history) == epochs(config)
    assert all(math.isfinite(whole.metrics[name]) for name in ("nll", "elbo", "kl", "mi", "au"))
    row = tables.beside_paper([whole]).iloc[0]
    name = methods.label(config.method.name, family)
    assert row.name.removesuffix("‡") == name and row["NLL", "here"]  # images' are smaller than any profile's
    assert row["KL", "here"].startswith("~") == (config.method.variant.prior != "normal")
    monkeypatch.setenv("LAGVAE_RESULTS", str(tmp_path / "stopped"))
    with pytest.raises(Stopped):
        train.run(config, loaded, report=stop_in_the_second_epoch, checkpoint_seconds=0)
    assert numbers(train.run(config, loaded)) == numbers(whole)
