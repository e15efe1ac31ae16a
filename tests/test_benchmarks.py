"""The textbook implementation that speed is measured against computes the same, and the benchmark runs."""

import json
import os
import subprocess
import sys

import pytest
import torch

from benchmarks import equality, shapes, textbook_images
from lagvae_lib.metrics.grid import grid_posterior
from lagvae_lib.paths import ROOT


@pytest.mark.parametrize("scale", [1.0, 10.0])
@pytest.mark.parametrize("shape", [shapes.TINY, shapes.TINY_TOY], ids=lambda shape: shape.name)
def test_loss_and_gradients_are_equal_with_dropout_on(shape, scale):
    found = equality.check(equality.training(shape, scale))
    assert 0 < found["encoder, bfloat16"] < 0.01


@pytest.mark.parametrize("scale", [1.0, 10.0])
def test_importance_weighted_bounds_are_equal(scale):
    equality.check(equality.evaluation(shapes.TINY, scale=scale))


def test_images_are_the_same_at_a_tolerance_of_their_own():
    shape = shapes.TINY_IMAGES
    found = equality.training(shape) | equality.evaluation(shape) | equality.pixels(shape)
    equality.check(found, shape.tolerance)
    assert found["pixels"] == 0 and 0 < found["encoder, bfloat16"] < 0.1
    model = shapes.library(shape)
    twin = shapes.textbook(model, shape)
    values = model.decoder.state_dict()
    with pytest.raises(KeyError, match="logit"):
        textbook_images.load(twin.decoder, {name: values[name] for name in values if name != "logit.weight"})


@pytest.mark.parametrize("make", [shapes.library, shapes.informative])
def test_grid_posteriors_are_equal(make):
    model, shape = make(shapes.TINY_TOY).eval(), shapes.TINY_TOY
    narrowest = grid_posterior(model, shapes.inputs(shape, 16)).sd().min()
    assert (narrowest < 0.9) == (make is shapes.informative)
    equality.check(equality.grid(model, shape))


def test_a_difference_is_found():
    with torch.no_grad():
        assert equality.relative([torch.ones(3)], [torch.ones(3) * (1 + 1e-4)]) == pytest.approx(1e-4, rel=0.01)
    with pytest.raises(AssertionError, match="encoder"):
        equality.check({"loss": 0.0, "encoder": 1e-4})
    with pytest.raises(AssertionError, match="loss"):
        equality.check({"loss": float("nan")})


def test_the_benchmark_runs_at_tiny_sizes(tmp_path):
    environment = os.environ | {"LAGVAE_RESULTS": str(tmp_path), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "benchmarks", "--quick"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "bench" / "quick-1-threads.json").read_text())
    assert record["machine"]["threads"] == 1
    for case in record["cases"]:
        assert all(taken["seconds"] > 0 for taken in case["times"].values())
    assert [set(case["memory"]) for case in record["cases"] if case["memory"]] == [{"textbook", "joint"}]
    assert all(parts["looks"] > 0 for parts in record["toy_run"].values())


def test_a_part_of_the_benchmark_has_a_record_of_its_own(tmp_path):
    environment = os.environ | {"LAGVAE_RESULTS": str(tmp_path), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "benchmarks", "--quick", "--only", "images"]
    subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, check=True)
    record = json.loads((tmp_path / "bench" / "quick-1-threads-images.json").read_text())
    assert record["cases"] and "toy_run" not in record
    assert {case["shape"]["name"] for case in record["cases"]} == set(record["differences"]) == {"images, tiny"}
    assert all(len(case["times"]) >= 2 for case in record["cases"])


def test_the_papers_steps_can_be_tried_at_a_small_profile(tmp_path):
    """Three aggressive iterations with a resumption between, on whatever data is here (stand-ins included)."""
    environment = os.environ | {"LAGVAE_RESULTS": str(tmp_path)}
    command = [sys.executable, "-m", "benchmarks.paper_steps", "--profile", "smoke", "--threads", "1", "glyphs"]
    subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, check=True)
    [run] = json.loads((tmp_path / "bench" / "smoke-steps.json").read_text())["runs"]
    assert [row["iteration"] for row in run["iterations"]] == [1, 2, 3]
    assert all(row["inner_steps"] in (*range(20, 91, 10), 99) for row in run["iterations"])
