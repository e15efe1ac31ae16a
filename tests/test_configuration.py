"""Names, methods, profiles and the command line: values that are right, and errors that help."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from lagvae_lib import data
from lagvae_lib.__main__ import main
from lagvae_lib.config import profiles
from lagvae_lib.config.identity import as_json, same_configuration
from lagvae_lib.config.machine import choose_device
from lagvae_lib.config.methods import METHODS, find
from lagvae_lib.data import loading
from lagvae_lib.data.sources import MissingData
from lagvae_lib.inference.aggressive import Aggressive
from lagvae_lib.names import UnknownName, choose
from lagvae_lib.runs.record import auto_profile, folder_of, settled_precision
from lagvae_lib.runs.train import prepared


def test_unknown_names_list_the_valid_ones_and_the_nearest():
    with pytest.raises(UnknownName, match=r"unknown fruit 'aple'; did you mean 'apple'\? Valid: apple, pear"):
        choose("aple", ["apple", "pear"], "fruit")
    with pytest.raises(UnknownName, match=r"unknown fruit 'zzz'\. Valid: apple"):
        choose("zzz", ["apple"], "fruit")


def test_every_method_is_found_and_is_plain_data():
    for name, method in METHODS.items():
        assert find(name).name == name
        dataset = "yelp-small" if "text" in method.families else "omniglot-28"
        json.dumps(profiles.resolve(dataset, name, "scaled", 0).as_dict())


def test_knobs_in_a_name():
    method = find("aggressive-anneal+clip=separate+fixed_steps=30")
    assert (method.inference.clip, method.inference.fixed_steps) == ("separate", 30)
    assert method.objective == find("aggressive-anneal").objective
    assert method.name == "aggressive-anneal+clip=separate+fixed_steps=30"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("agressive", "did you mean 'aggressive'"),
        ("aggressive+cilp=joint", "did you mean 'clip'"),
        ("aggressive+clip=both", "joint, separate"),
        ("aggressive+window=ten", "'ten' is not a number"),
        ("vae+window=10", "knob of vae"),
    ],
)
def test_bad_method_names(name, message):
    with pytest.raises(ValueError, match=message):
        find(name)


def test_the_paper_profile_is_the_papers():
    text = profiles.resolve("yelp", "aggressive-anneal", "paper", 0)
    assert (text.model.nz, text.model.embedding, text.model.hidden, text.model.dropout) == (32, 512, 1024, 0.5)
    assert (text.data.batch_size, text.data.max_len, text.data.train) == (32, None, None)
    schedule = text.schedule
    assert (schedule.optimiser, schedule.lr, schedule.max_epochs, schedule.patience) == ("sgd", 1.0, 100, 2)
    assert (schedule.decay_from, schedule.decay, schedule.max_decays) == (15, 0.5, 5)
    assert (text.method.objective.start, text.method.objective.anneal_epochs) == (0.1, 10)
    expected = Aggressive(window=15, max_steps=99, clip="joint", max_norm=5.0, first_reference=0.0)
    assert text.method.inference == expected
    toy = profiles.resolve("synthetic", "vae", "paper", 0)
    assert (toy.model.nz, toy.model.embedding, toy.model.hidden) == (1, 50, 50)
    assert (toy.data.batch_size, toy.schedule.max_epochs, toy.schedule.decay_from) == (16, 50, 0)
    assert (toy.evaluation.iw_samples, toy.evaluation.observe_every, toy.evaluation.probe) == (500, 200, 500)


def test_the_paper_profile_of_images_is_the_papers():
    images = profiles.resolve("omniglot", "aggressive-anneal", "paper", 0)
    model, schedule = images.model, images.schedule
    assert (model.nz, model.encoder, model.last, model.channels, model.latent_maps) == (32, 64, 512, 64, 4)
    assert model.kernels == (7,) * 5 + (5,) * 4 + (3,) * 4
    assert (images.data.batch_size, images.data.train) == (50, None)
    assert (schedule.optimiser, schedule.lr, schedule.max_epochs, schedule.patience) == ("adam", 1e-3, 1000, 20)
    assert (schedule.decay_from, schedule.decay, schedule.max_decays) == (0, 0.5, 5)
    expected = Aggressive(window=10, stop_reference="best", stop_patience=5, first_reference=0.0)
    assert images.method.inference == expected and expected.batch_norm == "move"


def test_a_profile_sets_the_window_unless_the_name_does():
    assert profiles.resolve("yelp-small", "aggressive", "scaled", 0).method.inference.window == 10
    assert profiles.resolve("yelp-small", "aggressive+window=12", "scaled", 0).method.inference.window == 12


def test_a_profile_sets_only_what_a_method_uses():
    """Or a record would no longer be its own configuration's when a knob of another method changes."""
    plain, vamp = (profiles.resolve("omniglot-28", name, "scaled", 0).method for name in ("vae", "vampprior"))
    assert plain.variant == find("vae").variant and plain.objective == find("vae").objective
    assert vamp.variant.pseudo_inputs == 100 != find("vampprior").variant.pseudo_inputs
    assert profiles.resolve("omniglot-28", "vampprior+pseudo_inputs=7", "scaled", 0).method.variant.pseudo_inputs == 7
    assert profiles.resolve("yelp", "pretrain-free-bits", "smoke", 0).method.objective.pretrain_epochs == 1


def test_auto_profile(monkeypatch):
    monkeypatch.delenv("LAGVAE_PROFILE", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert auto_profile("synthetic", ["vae"], [0]) == "paper"
    assert auto_profile("yelp", ["vae"], [7]) == auto_profile("omniglot", ["vae"], [7]) == "quick"
    monkeypatch.setenv("LAGVAE_PROFILE", "smoke")
    assert auto_profile("yelp", ["vae"], [7]) == "smoke"
    monkeypatch.setenv("LAGVAE_PROFILE", "tiny")
    with pytest.raises(UnknownName, match="smoke, quick, scaled, paper"):
        auto_profile("yelp", ["vae"], [7])


def test_data_names():
    assert data.resolve_name("yelp", "quick") == "yelp-small"
    assert data.resolve_name("yelp", "paper") == "yelp"
    assert data.resolve_name("my/reviews.txt", "quick") == "my/reviews.txt"
    with pytest.raises(UnknownName, match="did you mean 'yelp'"):
        data.resolve_name("yelpp", "quick")


def test_the_stand_in_is_for_small_profiles_only_and_is_marked(monkeypatch):
    def missing(*args, **kwargs):
        raise MissingData("not to be had")

    monkeypatch.setattr(loading, "text_corpus", missing)
    settings = replace(profiles.TABLE["text"]["smoke"].data)
    stand_in = loading.load("yelp", settings, profile="smoke")
    assert stand_in.stand_in
    assert stand_in.name == "grammar"
    with pytest.raises(MissingData):
        loading.load("yelp", settings, profile="scaled")


def test_words_left_out_are_part_of_a_run(monkeypatch):
    asked = {
        (d, p): profiles.resolve(d, "vae", p, 0) for d in ("yahoo-small", "yelp-small") for p in ("smoke", "scaled")
    }
    assert {key for key, config in asked.items() if config.data.known_only} == {
        ("yahoo-small", "smoke"),
        ("yahoo-small", "scaled"),
    }
    assert not profiles.resolve("yahoo", "vae", "paper", 0).data.known_only
    older = as_json(asked["yahoo-small", "scaled"])
    del older["data"]["known_only"]  # a record of a time when these words were marked as unknown
    assert not same_configuration(older, asked["yahoo-small", "scaled"])
    older["dataset"] = "yelp-small"
    assert same_configuration(older, asked["yelp-small", "scaled"])

    taken = []
    corpus = loading.grammar_corpus(100, 20, 20)
    monkeypatch.setattr(loading, "text_corpus", lambda name, **options: taken.append((name, options)) or corpus)
    for dataset in ("yelp", "yahoo"):
        prepared(dataset, "vae", "smoke")
    assert [(name, options["known_only"]) for name, options in taken] == [("yelp-small", False), ("yahoo-small", True)]

    def missing(*args, **kwargs):
        raise MissingData("not to be had")

    monkeypatch.setattr(loading, "text_corpus", missing)
    config, data = prepared("yahoo", "vae", "smoke")
    assert data.stand_in and config == profiles.resolve("grammar", "vae", "smoke", 0)  # all its words are known


def test_devices(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == choose_device("cpu") == "cpu"
    with pytest.raises(ValueError, match="finds no GPU"):
        choose_device("cuda")
    with pytest.raises(UnknownName, match="auto, cpu, cuda"):
        choose_device("gpu")


def test_command_line(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("LAGVAE_RESULTS", str(tmp_path))
    assert main(["methods"]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in ("aggressive-anneal", "Algorithm 1"))
    assert main(["run", "grammar", "vea", "--profile", "smoke"]) == 2
    assert "did you mean 'vae'" in capsys.readouterr().err
    assert main(["run", "grammar", "autoregressive", "--profile", "smoke", "--seed", "3"]) == 0
    assert "nll" in capsys.readouterr().out
    assert (tmp_path / "runs/smoke/grammar/autoregressive/seed3/metrics.json").exists()


def test_module_runs_as_a_command():
    done = subprocess.run([sys.executable, "-m", "lagvae_lib", "methods"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == len(METHODS)


def test_auto_loads_what_is_on_record_and_trains_quick_otherwise_whatever_the_device(monkeypatch, tmp_path):
    monkeypatch.delenv("LAGVAE_PROFILE", raising=False)
    monkeypatch.setenv("LAGVAE_RESULTS", str(tmp_path))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert auto_profile("synthetic", ["vae"], [0]) == "paper"
    assert auto_profile("yelp", ["vae"], [0]) == "quick"
    for seed in (0, 1):
        config = profiles.resolve("yelp-small", "vae", "scaled", seed)
        folder = folder_of(config)
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(json.dumps(as_json(config)))
        (folder / "metrics.json").write_text("{}")
    assert auto_profile("yelp", ["vae"], [0, 1]) == "scaled"
    assert auto_profile("yelp", ["vae"], [0, 1, 2]) == "quick"
    assert auto_profile("yelp", ["vae"], [0, 1], "bfloat16") == "quick"  # nobody has hours of that on record
    assert auto_profile("yelp", ["vae", "aggressive"], [0]) == "quick"
    monkeypatch.setenv("LAGVAE_PROFILE", "smoke")
    assert auto_profile("yelp", ["vae"], [0]) == "smoke"


def test_auto_precision_is_that_of_the_runs_on_record(monkeypatch, tmp_path):
    """A run of `paper` made on a GPU, in tf32, is loaded on a processor and not trained again in float32."""
    monkeypatch.setenv("LAGVAE_RESULTS", str(tmp_path))
    monkeypatch.setattr("lagvae_lib.config.machine.bfloat16_here", lambda: True)
    config = profiles.resolve("yelp", "vae", "paper", 0, "tf32")
    folder = folder_of(config)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(as_json(config)))
    (folder / "metrics.json").write_text("{}")
    here = ("yelp", ["vae"], [0], "paper", "cpu")
    assert settled_precision("auto", *here) == "tf32"
    assert settled_precision("float32", *here) == "float32"
    assert settled_precision("auto", "yelp", ["vae"], [0, 1], "paper", "cpu") == "bfloat16"  # not all are on record
    assert settled_precision("auto", "yelp", ["vae"], [0], "scaled", "cpu") == "float32"
    monkeypatch.setenv("LAGVAE_PROFILE", "paper")
    assert settled_precision("auto", "yelp", ["vae"], [0], "auto", "cpu") == "tf32"
    with pytest.raises(UnknownName, match="auto, float32, tf32, bfloat16"):
        settled_precision("half", *here)
