"""What a run does on a GPU, as far as a machine without one can tell (`tests.pretended`): nothing meets another device.

Not reached from here: cuDNN's own numbers, TF32, fused kernels of CUDA, memory, speed; `make gpu-check` is for those.
"""

from dataclasses import replace

import pytest
import torch

from lagvae_lib.config.machine import choose_device
from lagvae_lib.data import loading
from lagvae_lib.inference.semi_amortised import SemiAmortised
from lagvae_lib.runs import train, trajectory
from lagvae_lib.training import Trainer
from tests.pretended import Pretended, gpu
from tests.test_grid import toy_config, toy_data
from tests.test_images_runs import tiny as tiny_images
from tests.tiny import tiny_config, tiny_data

GPU = "cuda:0"
INNER = "aggressive+fixed_steps=2"
SHORT = ("sa-vae+steps=2", "sa-vae-anneal+steps=2+clip_order=before")


@pytest.fixture(autouse=True)
def results(tmp_path, monkeypatch):
    monkeypatch.setenv("LAGVAE_RESULTS", str(tmp_path / "results"))


def shorter(config):
    """Two epochs, and an epoch of pretraining where there is any."""
    return replace(config, schedule=replace(config.schedule, max_epochs=2))


def recorded(config, data):
    """The run's record, and what its trainer's model was on."""
    with gpu():
        run = train.run(config, data, GPU)
    assert run.metrics["provenance"]["device"] == "Pretended GPU"
    assert {"cuda", "cudnn", "driver", "tf32_matmul", "deterministic"} <= run.metrics["provenance"].keys()
    assert torch.isfinite(torch.tensor(run.metrics["nll"]))
    return run


def test_the_pretence_notices_what_a_gpu_would():
    with gpu():
        there, here = torch.ones(2, 3).to(GPU), torch.ones(2, 3)
        assert isinstance(there, Pretended) and there.device.type == "cuda"
        assert float(there.sum()) == 6 and not isinstance(there.cpu(), Pretended)
        with pytest.raises(RuntimeError, match="cuda:0 and on cpu"):
            there + here
        with pytest.raises((RuntimeError, TypeError), match="numpy"):
            there.numpy()


@pytest.mark.parametrize("method", ["autoregressive", "vae-anneal", INNER, "pretrain-free-bits", SHORT[0]])
def test_the_toy_with_its_grid_and_its_points(method):
    config = toy_config(method)
    data = toy_data()
    run = recorded(shorter(config), replace(data, fresh=data.test))
    assert (len(run.points) > 0) == (method != "autoregressive")


@pytest.mark.parametrize("method", ["cnn-vae", f"{INNER}+clip=separate", "bn-vae", "skip-vae", SHORT[1]])
def test_text(method):
    run = recorded(shorter(tiny_config(method)), tiny_data())
    assert len(run.dynamics) and {"seconds", "cpu_seconds"} <= run.metrics.keys()


@pytest.mark.parametrize("method", ["autoregressive", INNER, "vampprior-2level", "vlae", SHORT[0]])
def test_images(method):
    config = shorter(tiny_images(method))
    recorded(config, loading.load("glyphs", config.data, profile="smoke"))


def test_a_trajectory():
    with gpu():
        path = trajectory.trace(toy_config("aggressive+fixed_steps=2"), toy_data(), steps=2, device=GPU)
    assert path.updates == 2


@pytest.mark.parametrize("places", [("cpu", GPU), (GPU, "cpu"), (GPU, GPU)])
@pytest.mark.parametrize("method", ["vae+optimiser=adam", INNER])
def test_a_checkpoint_goes_on_on_the_other_device(places, method, tmp_path):
    """Also where the machine that made it has more GPUs: it holds the random state of its own device alone."""
    config, data, path = shorter(tiny_config(method)), tiny_data(), tmp_path / "checkpoint.pt"

    class Enough(Exception):
        pass

    def stop(trainer: Trainer):
        if trainer.state.iteration == 5:
            saved = trainer.state_dict()
            assert (saved["device_rng"] is None) == (places[0] == "cpu")
            train.save(path, torch.utils._pytree.tree_map(lambda v: v.cpu() if isinstance(v, Pretended) else v, saved))
            raise Enough

    with gpu(count=4), pytest.raises(Enough):
        train.trainer_of(config, data, places[0]).fit(stop)
    with gpu(count=1):
        second = train.trainer_of(config, data, places[1])
        train.resume(second, path)
        assert second.state.iteration == 5 and len(second.state.observations) == 3
        second.fit()
        assert second.state.epoch == 2 and second.device == torch.device(places[1])


def test_steps_on_a_gpu_are_read_together_and_a_bad_loss_still_ends_the_run(monkeypatch):
    config, data = shorter(tiny_config(f"{INNER}+first_reference=-9")), tiny_data()
    config = replace(config, evaluation=replace(config.evaluation, observe_every=0))
    settled = []
    honest = Trainer._settle
    monkeypatch.setattr(Trainer, "_settle", lambda self: (settled.append(len(self._pending)), honest(self))[1])
    with gpu():
        trainer = train.trainer_of(config, data, GPU)
        trainer.fit()
        assert [n for n in settled if n] == [len(data.train)] * 2  # epochs are shorter than PENDING
        assert trainer.state.history[0]["train_loss"] > 0
        with torch.no_grad():
            next(iter(trainer.model.decoder_parameters())).fill_(float("nan"))
        trainer.state.progress.ended = None
        with pytest.raises(FloatingPointError, match="the loss is nan on the outer batch"):
            trainer.fit()


def test_looks_fork_the_random_state_of_the_runs_own_device_alone(monkeypatch):
    forked = []
    honest = torch.random.fork_rng
    monkeypatch.setattr(torch.random, "fork_rng", lambda devices=None: (forked.append(devices), honest([]))[1])
    config, data = shorter(tiny_config("vae")), tiny_data()
    for device, expected in (("cpu", []), (GPU, [torch.device(GPU)])):
        forked.clear()
        with gpu(count=3):
            trainer = train.trainer_of(config, data, device)
            with trainer._aside(1, 0):
                pass
        assert forked == [expected]


def test_images_on_a_gpu_are_drawn_there_and_held_out_ones_are_the_same():
    config = tiny_images("vae")
    data = loading.load("glyphs", config.data, profile="smoke")
    with gpu():
        there = data.train.to(GPU)
        assert isinstance(there.grey, Pretended)
        x = there.draw(torch.Generator().manual_seed(0))
        again = there.draw(torch.Generator().manual_seed(0))
        assert isinstance(x, Pretended) and x.shape == (8, 1, 28, 28)
        assert torch.equal(x.cpu(), again.cpu())
        held_out = [batch.cpu() for batch in data.test.to(GPU)]
    assert all(torch.equal(*pair) for pair in zip(held_out, data.test, strict=True))


def test_devices_by_name():
    with gpu(count=2):
        assert choose_device("auto") == "cuda" and choose_device("auto", "yelp") == "cuda"
        assert choose_device("auto", "synthetic") == "cpu"  # launch-bound on any GPU
        assert choose_device("cuda:1") == "cuda:1"
        with pytest.raises(ValueError, match=r"'cuda:2' is asked for, but torch finds 2 GPUs here; valid.*cuda:1"):
            choose_device("cuda:2")
    with pytest.raises(ValueError, match="auto, cpu, cuda"):
        choose_device("mps")


def test_sa_vae_excludes_tf32_and_lower_precision_from_its_differences(monkeypatch):
    """They are divided by 1e-5; the pass that the model is trained on keeps the run's precision."""
    seen = []
    honest = SemiAmortised.refine, SemiAmortised.sweep_back

    def spied(which):
        def call(self, *args):
            seen.append((torch.backends.cudnn.conv.fp32_precision, made.model.decoder.precision))
            return honest[which](self, *args)

        return call

    monkeypatch.setattr(SemiAmortised, "refine", spied(0))
    monkeypatch.setattr(SemiAmortised, "sweep_back", spied(1))
    config = replace(tiny_config("sa-vae+steps=2"), precision="bfloat16")
    made = train.trainer_of(config, tiny_data(), "cpu")
    assert made.model.decoder.precision == torch.bfloat16
    made._iterate(0)
    assert seen == [("ieee", None)] * 2 and made.model.decoder.precision == torch.bfloat16
