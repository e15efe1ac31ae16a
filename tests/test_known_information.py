"""Nats of a known class in a code, where the truth is a formula, and the record of it over training."""

import math
from collections import Counter
from dataclasses import replace

import pandas as pd
import pytest
import torch

from lagvae_lib.config.methods import colour
from lagvae_lib.config.profiles import resolve
from lagvae_lib.data.grammar import review_grammar
from lagvae_lib.data.loading import load
from lagvae_lib.metrics.known_information import class_information
from lagvae_lib.models.gaussian import DiagonalGaussian
from lagvae_lib.plots.known import known_information
from lagvae_lib.runs import known


def coded(distance: float, n: int = 600) -> tuple[DiagonalGaussian, torch.Tensor]:
    """Two classes of n/2 examples, means `distance` apart, unit variance, and their one-hot posteriors."""
    classes = torch.arange(n) % 2
    mu = (classes[:, None] - 0.5).double() * distance
    return DiagonalGaussian(mu, torch.zeros_like(mu)), torch.nn.functional.one_hot(classes, 2)


def between(distance: float) -> float:
    """I(z; class) of two unit Gaussians by quadrature."""
    z = torch.linspace(-12, 12, 20_001).double()
    p = torch.stack([torch.exp(-0.5 * (z - c) ** 2) / math.sqrt(2 * math.pi) for c in (-distance / 2, distance / 2)])
    return float(torch.trapezoid(torch.xlogy(p, p / p.mean(0)).mean(0), z))


def test_an_example_is_not_read_from_its_own_posterior():
    """Codes that tell every example from every other, and classes at random: nothing is known of a new example."""
    generator = torch.Generator().manual_seed(0)
    mu = 100.0 * torch.arange(200)[:, None].double()
    classes = torch.nn.functional.one_hot(torch.randint(2, (200,), generator=generator), 2)
    assert class_information(DiagonalGaussian(mu, torch.zeros_like(mu)), classes, generator) < 0


@pytest.mark.parametrize("distance", [1.0, 3.0])
def test_it_is_the_information_of_two_gaussians(distance):
    found = class_information(*coded(distance), torch.Generator().manual_seed(0))
    assert found == pytest.approx(between(distance), abs=0.04)


def test_a_code_that_tells_the_class_has_its_entropy_and_one_that_tells_nothing_has_none():
    assert class_information(*coded(40.0), torch.Generator().manual_seed(0)) == pytest.approx(math.log(2), abs=1e-6)
    assert class_information(*coded(0.0), torch.Generator().manual_seed(0)) == pytest.approx(0, abs=0.01)


# -- the record --------------------------------------------------------------------------------------------------------

CLASSES = ["topic", "sentiment", "opening", "continuation"]


def test_the_classes_of_a_sentence():
    first = "at this diner , the food was so great and the menu looked good too ."
    second = "we visited this motel today . the maid seemed very rude while the porter was slow to us . avoid it !"
    third = "my boss took me to the garage . the engine was really okay . i avoid it ."
    found = known.classes([text.split() for text in (first, second, third)])
    assert list(found) == CLASSES
    assert found["opening"].argmax(1).tolist() == found["continuation"].argmax(1).tolist() == [0, 1, 2]
    assert found["topic"].argmax(1).tolist() == [0, 1, 2] and found["topic"].max() < 1
    assert found["sentiment"].argmax(1).tolist() == [1, 0, 0]


def test_the_ceilings_are_those_of_sentences_drawn_from_the_grammar():
    words, _ = review_grammar().sample(4000, seed=1)
    most, drawn = known.ceilings(words), known.classes(words)
    for about in ("opening", "continuation"):
        share = drawn[about].double().mean(0)
        assert most[about] == pytest.approx(float(-torch.xlogy(share, share).sum()), abs=0.01)
    for about in ("topic", "sentiment"):  # the same from the posteriors: H(class) - H(class|x)
        p = drawn[about]
        assert most[about] == pytest.approx(float(math.log(p.shape[1]) + torch.xlogy(p, p).sum(1).mean()), abs=1e-6)


def test_a_code_that_tells_the_opening_has_its_ceiling_and_nothing_of_the_topic():
    words, _ = review_grammar().sample(900, seed=2)
    found = known.classes(words)
    mu = 40.0 * found["opening"].double()
    q = DiagonalGaussian(mu, torch.zeros_like(mu))
    nats = {about: class_information(q, p, torch.Generator().manual_seed(0)) for about, p in found.items()}
    assert nats["opening"] == pytest.approx(known.ceilings(words)["opening"], abs=0.01)
    assert abs(nats["topic"]) < 0.02 and abs(nats["sentiment"]) < 0.02


def test_a_run_is_looked_at_from_its_start_and_its_stage_has_an_end():
    smoke = resolve("grammar", "aggressive", "smoke", 0)
    schedule = replace(smoke.schedule, max_epochs=2, epoch_updates=2, lr=5.0)  # looks are kept to four digits
    seen = known.train(replace(smoke, schedule=schedule), load("grammar", smoke.data, profile="smoke"))
    assert seen["iteration"].tolist() == [0, 2, 4] and set(CLASSES) <= set(seen.columns)
    assert seen["stage_end"].unique().tolist() in ([2], [4])
    assert seen["kl"].iloc[-1] > seen["kl"].iloc[0]


def test_every_run_is_on_record_from_its_first_to_its_last_update():
    rows, most = known.read()
    runs = [(method, seed) for method, seeds in known.SEEDS.items() for seed in seeds]
    assert list(map(tuple, rows[["method", "seed"]].drop_duplicates().values)) == runs and list(most) == CLASSES
    for (method, seed), seen in rows.groupby(["method", "seed"]):
        config = known.settings(method, seed)
        last = config.schedule.max_epochs * config.schedule.epoch_updates
        assert seen["iteration"].tolist() == list(range(0, last + 1, config.evaluation.observe_every))
        assert (seen["stage_end"] > 0).all() == method.startswith("aggressive")


def test_notebook_03_says_of_the_record_what_it_shows():
    rows, most = known.read()
    plain, kept = (rows[rows["method"].isin(names)] for names in (("vae", "vae-anneal"), ("aggressive-anneal",)))
    assert (plain[CLASSES] < 0.02).all(axis=None)
    trace = rows[rows["method"] == "aggressive"]
    assert 0.02 < trace[CLASSES].max(axis=None) < 0.15 and (trace[CLASSES].iloc[-1] < 0.02).all()
    assert (kept[["topic", "sentiment"]] < 0.05).all(axis=None)
    for _, seen in kept.groupby("seed"):
        stage, end = seen[seen["iteration"] <= seen["stage_end"] + 50], seen.iloc[-1]  # two looks after it at most
        assert all(stage[about].max() > 0.9 * most[about] for about in ("opening", "continuation"))
        assert end["opening"] + end["continuation"] > 0.8 * end["mi_large"] > 0.4


def test_the_record_is_drawn_with_a_line_per_run_and_a_ceiling_per_class():
    rows, most = known.read()
    axes = known_information(rows, most).axes
    assert [axis.get_title() for axis in axes] == [f"about the {about}" for about in CLASSES]
    for axis, value in zip(axes, most.values(), strict=True):
        drawn = Counter(line.get_color() for line in axis.lines if line.get_linestyle() == "-")
        assert drawn == {colour(method): len(seeds) for method, seeds in known.SEEDS.items()}
        (ceiling,) = [line for line in axis.lines if line.get_linestyle() == "--"]
        assert set(ceiling.get_ydata()) == {value}


def test_without_a_record_of_its_own_a_folder_of_results_shows_the_repositorys(tmp_path, monkeypatch):
    monkeypatch.setenv("LAGVAE_RESULTS", str(tmp_path))
    rows, _ = known.read()
    (tmp_path / "known").mkdir()
    rows.head(3).to_csv(tmp_path / "known" / "grammar.csv", index=False)
    pd.DataFrame([{"topic": 1.0}]).to_csv(tmp_path / "known" / "ceilings.csv", index=False)
    assert len(rows) > 3 and len(known.read()[0]) == 3
