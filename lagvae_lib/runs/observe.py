"""What is measured while a model trains: the curves of Figure 5 for every data set, Figure 2's points for the toy."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from lagvae_lib.config.profiles import Config
from lagvae_lib.data.loading import Data
from lagvae_lib.metrics import lag, mutual_information
from lagvae_lib.metrics.evaluate import encode, information, spread_examples
from lagvae_lib.models.gaussian import DiagonalGaussian
from lagvae_lib.training import OBSERVED, noise

Observer = Callable[[nn.Module, int], dict]


def observer(config: Config, data: Data, device: str) -> Observer | None:
    """What `Trainer` calls for this run; None for a model without a latent variable."""
    if config.method.model == "autoregressive" or not config.evaluation.observe_every:
        return None
    probe = spread_examples(data.valid.to(device), config.evaluation.probe)
    if data.family == "toy":
        return _Grid(config.seed, probe)
    return _Dynamics(config.seed, probe)


class _Dynamics:
    """KL, MI by both estimators, KL(q(z) || p(z)) from each, and AU on the probe: Figure 5."""

    def __init__(self, seed: int, probe: list[Tensor]):
        self.seed, self.probe = seed, probe

    def __call__(self, model: nn.Module, iteration: int) -> dict:
        q, sizes = encode(model, self.probe)
        return _curves(model, q, sizes, noise(self.seed, OBSERVED, iteration))


def _curves(model: nn.Module, q: DiagonalGaussian, sizes: list[int], generator: torch.Generator) -> dict:
    values = information(model, q, sizes, generator)
    return values | {
        "aggregate_kl": mutual_information.aggregate_kl(values["kl"], values["mi"]),
        "aggregate_kl_large": mutual_information.aggregate_kl(values["kl"], values["mi_large"]),
    }


class _Grid:
    """The probe in the posterior mean space, and how far q(z|x) lags behind p(z|x) there.

    It is encoded in batches like those of training: SA-VAE's steps follow a batch's mean, so they are shorter in a
    larger batch.
    """

    def __init__(self, seed: int, probe: list[Tensor]):
        self.seed, self.probe = seed, probe

    def __call__(self, model: nn.Module, iteration: int) -> dict:
        q, _ = encode(model, self.probe)
        measured = lag.measure(model, torch.cat(self.probe), q)
        return _curves(model, q, [len(q.mu)], noise(self.seed, OBSERVED, iteration)) | measured
