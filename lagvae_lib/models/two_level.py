"""Two levels of latent variables, as the published VampPrior has them (Tomczak & Welling 2018): z2 -> z1 -> x.

p(z2) p(z1|z2) p(x|z1, z2) with q(z2|x) q(z1|x, z2). To the outside it is a VAE over z2, whose decoder estimates
log p(x|z2) by one sample of z1: ELBO and importance-weighted bound are those of both levels together, while KL, MI and
AU are of z2 alone, and what z1 costs is part of the reconstruction.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from lagvae_lib.models.gaussian import DiagonalGaussian
from lagvae_lib.models.vae import VAE


def _gaussian(inputs: int, hidden: int, nz: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, hidden), nn.ELU(), nn.Linear(hidden, 2 * nz))


class TwoLevelDecoder(nn.Module):
    """log p(x|z2) estimated by one z1 ~ q(z1|x, z2): log p(x|z1, z2) + log p(z1|z2) - log q(z1|x, z2).

    features: x -> [B, hidden], the lower encoder's view of x. pixels: a decoder of [z1; z2], 2 nz dimensions.
    """

    def __init__(self, features: nn.Module, pixels: nn.Module, nz: int, hidden: int):
        super().__init__()
        self.nz = nz
        self.features, self.pixels = features, pixels
        self.inference = _gaussian(hidden + nz, hidden, nz)
        self.generative = _gaussian(nz, hidden, nz)

    def log_prob(self, x: Tensor, z: Tensor) -> Tensor:
        """[B, k] for x [B, 1, H, W] and z2 [B, k, nz]; a fresh sample of z1 for each."""
        samples, flat = z.shape[1], z.flatten(0, 1)
        seen = self.features(x).repeat_interleave(samples, dim=0)
        q = DiagonalGaussian(*self.inference(torch.cat([seen, flat], dim=1)).chunk(2, dim=1))
        p = DiagonalGaussian(*self.generative(flat).chunk(2, dim=1))
        z1 = q.rsample(1)
        own = (p.log_prob(z1) - q.log_prob(z1)).view(-1, samples)
        return own + self.pixels.log_prob(x, torch.cat([z1.view_as(z), z], dim=2))


class TwoLevelVAE(VAE):
    """A `VAE` with a `TwoLevelDecoder`, whose q(z1|x, z2) belongs to phi."""

    def _lower(self) -> list[nn.Module]:
        return [self.decoder.features, self.decoder.inference]

    def encoder_parameters(self) -> Iterable[nn.Parameter]:
        for module in (self.encoder, *self._lower()):
            yield from module.parameters()

    def decoder_parameters(self) -> Iterable[nn.Parameter]:
        for module in (self.decoder.generative, self.decoder.pixels, self.prior):
            yield from module.parameters()
