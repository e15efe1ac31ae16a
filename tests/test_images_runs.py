"""Images go through the same training loop, runs and metrics as text."""

from dataclasses import replace

import pytest
import torch

from lagvae_lib.config.profiles import resolve
from lagvae_lib.config.settings import DataSettings, Evaluation, ImageModelSettings
from lagvae_lib.data import loading
from lagvae_lib.paper import tables
from lagvae_lib.runs import train


@pytest.fixture(autouse=True)
def results(tmp_path, monkeypatch):
    monkeypatch.setenv("LAGVAE_RESULTS", str(tmp_path / "results"))


def tiny(method: str):
    config = resolve("glyphs", method, "smoke", 0)
    return replace(
        config,
        data=DataSettings(batch_size=8, train=32, valid=16, test=16),
        model=ImageModelSettings(nz=3, encoder=4, last=8, kernels=(3, 3, 3, 3), channels=4, latent_maps=2),
        evaluation=Evaluation(iw_samples=5, iw_examples=8, observe_every=2, probe=16),
    )


def test_a_finished_image_run_gives_its_model_back():
    """BatchNorm's statistics are among the weights: without them evaluation would be another model's."""
    config = tiny("vae")
    images = loading.load("glyphs", config.data, profile="smoke")
    recorded = train.run(config, images).metrics["kl"]
    model = train.trained_model(config, images)
    with torch.no_grad():
        kl = torch.cat([model.encode(x).kl() for x in images.test]).mean()
    assert float(kl) == pytest.approx(recorded, rel=2e-2)  # weights are stored in half precision


def test_tables_call_the_decoder_after_its_network():
    """Also on images of the user's own, whose names do not tell what they are."""
    config = tiny("autoregressive")
    images = loading.load("glyphs", config.data, profile="smoke")
    run = train.run(replace(config, dataset="mine-0123abcd"), images)
    assert tables.beside_paper([run]).index.tolist() == ["PixelCNN"]
