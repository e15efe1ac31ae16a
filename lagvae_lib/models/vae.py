"""A variational autoencoder from an encoder and a decoder, and an autoregressive model with the same face.

What training asks of a model is `Trainable`: three methods. Anything that has them can be trained here, aggressively
too (`lagvae_lib.inference.aggressive`).
"""

from collections.abc import Iterable
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from lagvae_lib.models.gaussian import DiagonalGaussian, standard_log_prob


class Loss(NamedTuple):
    """Per example, [B], nats: loss = reconstruction + kl_weight * kl."""

    loss: Tensor
    reconstruction: Tensor
    kl: Tensor


class Trainable(Protocol):
    """All that the training loop and Algorithm 1 ask of a model."""

    def loss(self, x: Tensor, kl_weight: float) -> Loss:
        """The objective to minimise, for each example of the batch x."""

    def encoder_parameters(self) -> Iterable[nn.Parameter]:
        """phi: what the inner loop moves; empty for a model without an inference network."""

    def decoder_parameters(self) -> Iterable[nn.Parameter]:
        """theta: everything else."""


class VAE(nn.Module):
    """p(x, z) = N(z; 0, I) p(x|z) with an amortised q(z|x).

    encoder: x -> `DiagonalGaussian` over z, [B, nz]. decoder: has `log_prob(x, z)`, z [B, k, nz] -> [B, k].
    """

    def __init__(self, encoder: nn.Module, decoder: nn.Module):
        super().__init__()
        self.encoder, self.decoder = encoder, decoder

    def encode(self, x: Tensor) -> DiagonalGaussian:
        """q(z|x)."""
        return self.encoder(x)

    def prior_log_prob(self, z: Tensor) -> Tensor:
        """log N(z; 0, I) over the last dimension, nats."""
        return standard_log_prob(z)

    def loss(self, x: Tensor, kl_weight: float = 1.0) -> Loss:
        """The negative ELBO (equation 2) by one reparameterised sample, its KL in closed form and weighted."""
        q = self.encode(x)
        reconstruction = -self.decoder.log_prob(x, q.rsample(1)).squeeze(1)
        kl = q.kl()
        return Loss(reconstruction + kl_weight * kl, reconstruction, kl)

    def encoder_parameters(self) -> Iterable[nn.Parameter]:
        return self.encoder.parameters()

    def decoder_parameters(self) -> Iterable[nn.Parameter]:
        return self.decoder.parameters()


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
