"""A variational autoencoder from an encoder, a decoder and a prior, and an autoregressive model with the same face.

What Algorithm 1 asks of a model is `Trainable`: three methods. Anything that has them can be trained by
`lagvae_lib.inference.aggressive` in a loop of one's own. The library's outer loop (`lagvae_lib.training`) validates
too, for which it needs `encode`, `decoder` and `prior` besides, as `VAE` has them.
"""

from collections.abc import Iterable
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from lagvae_lib.models.gaussian import DiagonalGaussian
from lagvae_lib.models.priors import StandardNormal


class Loss(NamedTuple):
    """Per example, [B], nats: loss = reconstruction + kl_weight * kl, with the KL's hinge where there are free nats."""

    loss: Tensor
    reconstruction: Tensor
    kl: Tensor


class Trainable(Protocol):
    """All that Algorithm 1 and plain training ask of a model."""

    def loss(self, x: Tensor, kl_weight: float) -> Loss:
        """The objective to minimise, for each example of the batch x."""

    def encoder_parameters(self) -> Iterable[nn.Parameter]:
        """phi: what the inner loop moves; empty for a model without an inference network."""

    def decoder_parameters(self) -> Iterable[nn.Parameter]:
        """theta: everything else."""


class VAE(nn.Module):
    """p(x, z) = p(z) p(x|z) with an amortised q(z|x).

    encoder: x -> `DiagonalGaussian` over z, [B, nz]. decoder: has `log_prob(x, z)`, z [B, k, nz] -> [B, k].
    prior: one of `lagvae_lib.models.priors`, N(0, I) by default; its parameters are part of theta.
    free_nats: each dimension's KL counts as at least free_nats / nz in the loss (free bits: Kingma et al. 2016).
    Raises ValueError for free nats with a prior under which dimensions have no KL of their own.
    """

    def __init__(self, encoder: nn.Module, decoder: nn.Module, prior: nn.Module | None = None, free_nats: float = 0.0):
        super().__init__()
        self.encoder, self.decoder = encoder, decoder
        self.prior = StandardNormal() if prior is None else prior
        self.free_nats = free_nats
        if free_nats and not self.prior.closed_form:
            raise ValueError("free nats are shared out among the dimensions, which needs the prior N(0, I)")

    def encode(self, x: Tensor) -> DiagonalGaussian:
        """q(z|x)."""
        return self.encoder(x)

    def prior_log_prob(self, z: Tensor) -> Tensor:
        """log p(z) over the last dimension, nats."""
        return self.prior.log_prob(z)

    def loss(self, x: Tensor, kl_weight: float = 1.0) -> Loss:
        """The negative ELBO (equation 2) by one reparameterised sample."""
        return self.loss_at(x, self.encode(x), kl_weight)

    def loss_at(self, x: Tensor, q: DiagonalGaussian, kl_weight: float = 1.0, noise: Tensor | None = None) -> Loss:
        """The same at any q(z|x), by one sample, mu + sigma * noise; noise [B, 1, nz] instead of a fresh draw.

        The KL is the closed form where the prior has one, else log q(z|x) - log p(z) at the sample.
        """
        z = q.rsample(1, noise)
        reconstruction = -self.decoder.log_prob(x, z).squeeze(1)
        kl = self.prior.kl(q, z)
        counted = kl if not self.free_nats else _hinged(q, self.free_nats)
        return Loss(reconstruction + kl_weight * counted, reconstruction, kl)

    def encoder_parameters(self) -> Iterable[nn.Parameter]:
        return self.encoder.parameters()

    def decoder_parameters(self) -> Iterable[nn.Parameter]:
        yield from self.decoder.parameters()
        yield from self.prior.parameters()


def _hinged(q: DiagonalGaussian, free_nats: float) -> Tensor:
    """sum_j max(free_nats / nz, KL_j), [B]: per dimension and example, as in Li et al. (2019)."""
    kl = q.kl_per_dim()
    return kl.clamp_min(free_nats / kl.shape[1]).sum(1)


class Autoregressive(nn.Module):
    """The decoder alone, without z: the paper's LSTM-LM and PixelCNN, whose likelihood is exact."""

    def __init__(self, decoder: nn.Module):
        super().__init__()
        self.decoder = decoder

    def log_prob(self, x: Tensor) -> Tensor:
        """log p(x), [B] nats."""
        return self.decoder.log_prob(x, None).squeeze(1)

    def loss(self, x: Tensor, kl_weight: float = 1.0) -> Loss:
        """-log p(x); there is no KL, so its weight plays no part."""
        nll = -self.log_prob(x)
        return Loss(nll, nll, torch.zeros_like(nll))

    def encoder_parameters(self) -> Iterable[nn.Parameter]:
        return ()

    def decoder_parameters(self) -> Iterable[nn.Parameter]:
        return self.decoder.parameters()
