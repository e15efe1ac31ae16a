"""Diagonal Gaussians: the approximate posterior q(z|x) and everything about it that has a closed form."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lagvae_lib.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

LOG_2PI = math.log(2 * math.pi)


def standard_noise(shape: tuple[int, ...], like: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Standard normal noise of `shape` with the dtype and device of `like`.

    It is drawn on the generator's own device and moved, so that one seed on the CPU serves a model anywhere.
    Without a generator it comes from the global random state of `like`'s device.
    """
    device = like.device if generator is None else generator.device
    return torch.randn(shape, generator=generator, dtype=like.dtype, device=device).to(like.device)


def standard_log_prob(z: Tensor) -> Tensor:
    """log N(z; 0, I) in nats: z [..., nz] -> [...]."""
    return -0.5 * (z.square() + LOG_2PI).sum(-1)


@dataclass(frozen=True)
class DiagonalGaussian:
    """q(z|x) = N(mu, diag(exp(logvar))), one row per example. All quantities are nats per example.

    mu, logvar: [B, nz]. Raises ValueError where they are not two matrices of one shape.
    """

    mu: Tensor
    logvar: Tensor

    def __post_init__(self):
        if self.mu.shape != self.logvar.shape or self.mu.ndim != 2:
            shapes = f"{tuple(self.mu.shape)} and {tuple(self.logvar.shape)}"
            raise ValueError(f"mu and logvar must both be [B, nz], not {shapes}")

    def rsample(self, k: int = 1, noise: Tensor | None = None, generator: torch.Generator | None = None) -> Tensor:
        """k reparameterised samples per row, [B, k, nz].

        noise: [B, k, nz] standard normal, instead of drawing it from `generator` or the global random state.
        """
        if noise is None:
            noise = standard_noise((len(self.mu), k, self.mu.shape[1]), self.mu, generator)
        return self.mu[:, None] + torch.exp(0.5 * self.logvar)[:, None] * noise

    def kl_per_dim(self) -> Tensor:
        """KL(q_j || N(0, 1)) of every dimension j, [B, nz]."""
        # expm1 keeps the digits of a KL near zero, which is where a collapsed dimension lives
        return 0.5 * (self.mu.square() + torch.expm1(self.logvar) - self.logvar)

    def kl(self) -> Tensor:
        """KL(q || N(0, I)), [B]: the regulariser of the ELBO."""
        return self.kl_per_dim().sum(-1)

    def entropy(self) -> Tensor:
        """Differential entropy, [B]."""
        return 0.5 * (1 + LOG_2PI + self.logvar).sum(-1)

    def log_prob(self, z: Tensor) -> Tensor:
        """log q(z|x) of samples that belong to their row's x: z [B, k, nz] -> [B, k]."""
        mu, logvar = self.mu[:, None], self.logvar[:, None]
        return -0.5 * ((z - mu).square() * torch.exp(-logvar) + logvar + LOG_2PI).sum(-1)


def pairwise_log_prob(z: Tensor, mu: Tensor, logvar: Tensor) -> Tensor:
    """log N(z_i; mu_j, diag(exp(logvar_j))) of every sample under every posterior.

    z: [n, nz]; mu, logvar: [m, nz]. Returns [n, m], in nats. The square is expanded so that one matrix
    product does the work; it cancels badly in single precision, so callers pass float64.
    """
    precision = torch.exp(-logvar)
    left = torch.cat([z.square(), z], dim=1)
    right = torch.cat([precision, -2 * mu * precision], dim=1)
    constant = (mu.square() * precision + logvar + LOG_2PI).sum(-1)
    return -0.5 * (left @ right.T + constant)
