"""Encoders that cannot collapse by construction: what they change is the family that q(z|x) is taken from.

Each wraps an encoder x -> `DiagonalGaussian` and is one itself.
"""

import math

from scipy.special import lambertw
from torch import Tensor, nn
from torch.nn import functional as F

from lagvae_lib.errors import BadValue
from lagvae_lib.models.gaussian import DiagonalGaussian


class BatchNormalisedMean(nn.Module):
    """BN-VAE (Zhu et al. 2020): BatchNorm on mu with a fixed scale and a learned shift.

    Over the data each mean then has variance scale^2, so the mean KL is at least nz / 2 * scale^2 (half the second
    moment of the means) and every unit counts as active, whatever z says of x. (Unless the encoder's own means are
    less than sqrt(eps) = .003 apart: then they come out smaller.)
    """

    def __init__(self, encoder: nn.Module, nz: int, scale: float):
        super().__init__()
        self.encoder = encoder
        self.norm = nn.BatchNorm1d(nz)
        nn.init.constant_(self.norm.weight, scale)
        self.norm.weight.requires_grad_(False)

    def forward(self, x: Tensor) -> DiagonalGaussian:
        q = self.encoder(x)
        return DiagonalGaussian(self._normalised(q.mu), q.logvar)

    def _normalised(self, mu: Tensor) -> Tensor:
        if len(mu) > 1 or not self.training:
            return self.norm(mu)
        # A batch of one sentence has no variance: the running statistics stand in
        norm = self.norm
        return F.batch_norm(mu, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps)


class RateFloor(nn.Module):
    """delta-VAE (Razavi et al. 2019) in its simplest family: the variance of each dimension is bounded away from the
    prior's, so that KL(q(z|x) || N(0, I)) >= delta for every x and every value of the parameters.

    sigma^2 = largest * sigmoid(the encoder's logvar), where a Gaussian of mean 0 and variance `largest` has KL
    delta / nz. delta: nats per example.
    """

    def __init__(self, encoder: nn.Module, nz: int, delta: float):
        super().__init__()
        self.encoder = encoder
        self.largest = math.log(largest_variance(delta / nz))

    def forward(self, x: Tensor) -> DiagonalGaussian:
        q = self.encoder(x)
        return DiagonalGaussian(q.mu, self.largest + F.logsigmoid(q.logvar))


def largest_variance(nats: float) -> float:
    """The variance v < 1 with KL(N(0, v) || N(0, 1)) = (v - 1 - log v) / 2 = nats; Lambert's W solves it."""
    if nats < 0:
        raise ValueError(f"a KL is 0 nats or more, not {nats}")
    variance = float(-lambertw(-math.exp(-1 - 2 * nats)).real)
    if variance == 0:
        raise BadValue(f"no variance that a float can hold has a KL of {nats:g} nats per dimension; give a lower delta")
    return variance


def wrapped(encoder: nn.Module, family: str, nz: int, scale: float, delta: float) -> nn.Module:
    """`encoder` with the posterior family of a `methods.Variant`."""
    if family == "batch-norm":
        return BatchNormalisedMean(encoder, nz, scale)
    return RateFloor(encoder, nz, delta) if family == "floor" else encoder
