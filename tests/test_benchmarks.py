"""The textbook implementation that speed is measured against computes the same, and the benchmark runs."""

import json
import os
import subprocess
import sys

import pytest
import torch

from benchmarks import cases, equality, released, shapes, textbook_images
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


def test_the_gpu_check_runs_at_tiny_sizes_and_says_that_no_released_code_is_named(tmp_path):
    environment = os.environ | {"LAGVAE_RESULTS": str(tmp_path), "OMP_NUM_THREADS": "1"}
    environment.pop("LAGVAE_RELEASED", None)
    command = [sys.executable, "-m", "benchmarks.gpu_check", "--device", "cpu", "--quick", "--plain", "1"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr
    assert released.ASK in done.stdout
    record = json.loads((tmp_path / "bench" / "gpu-check.json").read_text())
    assert 0 <= record["recurrence"] < 1e-5
    for kind in ("text", "images"):
        assert list(record[kind]) == ["float32", "tf32", "bfloat16"]
        assert 0 < record[kind]["bfloat16"]["encoder gradient moved"] < 0.1


def test_the_released_code_is_measured_where_a_checkout_is_named_and_refused_where_it_is_none(tmp_path, monkeypatch):
    case = cases.quick()[0]
    monkeypatch.delenv("LAGVAE_RELEASED", raising=False)
    assert cases.with_released(case) == case
    monkeypatch.setenv("LAGVAE_RELEASED", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"no modules/vae\.py"):
        cases.with_released(case)
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "vae.py").touch()
    assert cases.with_released(case).variants == (cases.TEXTBOOK, cases.RELEASED, *case.variants[1:])
    assert cases.with_released(cases.quick()[3]).variants == cases.ALL  # its image models have the paper's shape only
    assert all(cases.RELEASED not in cases.with_released(c).variants for c in cases.quick() if "look" in c.name)
