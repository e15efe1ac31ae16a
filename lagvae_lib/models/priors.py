"""Priors p(z): the standard normal of the paper, the VampPrior's mixture, and the autoregressive flow of the VLAE.

Each has `log_prob(z)`, z [..., nz] -> [...] nats, `kl(q, z)` [B] for samples z [B, k, nz] of q, `sample`, and says by
`closed_form` whether that KL is exact or a Monte Carlo estimate by the samples.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lagvae_lib.models.gaussian import DiagonalGaussian, pairwise_log_prob, standard_log_prob, standard_noise
from lagvae_lib.models.holding import evaluating


class StandardNormal(nn.Module):
    """N(0, I)."""

    closed_form = True

    def log_prob(self, z: Tensor) -> Tensor:
        return standard_log_prob(z)

    def kl(self, q: DiagonalGaussian, z: Tensor) -> Tensor:
        """KL(q || N(0, I)) in closed form; the sample plays no part."""
        return q.kl()

    def sample(self, shape: tuple[int, ...], like: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Draws of `shape` [..., nz]."""
        return standard_noise(shape, like, generator)


class SampledKL(nn.Module):
    """A prior under which KL(q || p) has no closed form: log q(z|x) - log p(z) at a sample stands for it."""

    closed_form = False

    def log_prob(self, z: Tensor) -> Tensor:
        raise NotImplementedError

    def kl(self, q: DiagonalGaussian, z: Tensor) -> Tensor:
        """An unbiased estimate by z [B, k, nz], averaged over k: [B]; single ones can be negative."""
        return (q.log_prob(z) - self.log_prob(z)).mean(1)


class VampPrior(SampledKL):
    """p(z) = 1/K sum_k q(z|u_k): the encoder's posteriors at K trained pseudo-inputs (Tomczak & Welling 2018).

    encoder: the model's own; its parameters are not repeated among the prior's. pseudo_inputs: [K, ...] of values in
    (0, 1) to begin with, kept there by a logistic function. BatchNorm inside the encoder uses its running statistics
    for pseudo-inputs, as it does when the model is evaluated, and those are not moved by them.
    """

    def __init__(self, encoder: nn.Module, pseudo_inputs: Tensor):
        super().__init__()
        self._encoder = (encoder,)  # in a tuple, or its parameters would belong to theta too
        self.logits = nn.Parameter(torch.logit(pseudo_inputs, eps=0.01))

    def components(self) -> DiagonalGaussian:
        """q(z|u_k), [K, nz]."""
        encoder = self._encoder[0]
        with evaluating(encoder):
            return encoder(torch.sigmoid(self.logits))

    def log_prob(self, z: Tensor) -> Tensor:
        parts = self.components()
        mu, logvar = parts.mu, parts.logvar
        terms = pairwise_log_prob(z.flatten(0, -2).double(), mu.double(), logvar.double())
        return (terms.logsumexp(1) - math.log(len(mu))).to(z.dtype).view(z.shape[:-1])

    def sample(self, shape: tuple[int, ...], like: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Draws of `shape` [..., nz]: a component, then a point of it."""
        parts = self.components()
        count, device = math.prod(shape[:-1]), generator.device if generator else like.device
        chosen = torch.randint(len(parts.mu), (count,), generator=generator, device=device).to(like.device)
        noise = standard_noise((count, shape[-1]), like, generator)
        return (parts.mu[chosen] + (0.5 * parts.logvar[chosen]).exp() * noise).view(shape)


class MaskedLinear(nn.Linear):
    """A linear layer whose output j depends on the inputs i with mask[j, i] only."""

    def __init__(self, mask: Tensor):
        super().__init__(mask.shape[1], mask.shape[0])
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight * self.mask, self.bias)


class Made(nn.Module):
    """Shift and log scale of each dimension from those before it (Germain et al. 2015), by one hidden layer."""

    def __init__(self, nz: int, hidden: int):
        super().__init__()
        inputs = torch.arange(nz)
        units = torch.arange(hidden) % max(nz - 1, 1)  # a unit sees the inputs up to its own number
        self.hidden = MaskedLinear((units[:, None] >= inputs).float())
        self.out = MaskedLinear((inputs[:, None] > units).float().repeat(2, 1))
        nn.init.zeros_(self.out.weight)  # the flow begins as the identity, the prior as N(0, I)
        nn.init.zeros_(self.out.bias)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """z [..., nz] -> shift and log scale, each [..., nz]."""
        shift, log_scale = self.out(F.elu(self.hidden(z))).chunk(2, dim=-1)
        return shift, log_scale


class FlowPrior(SampledKL):
    """The autoregressive flow prior of the VLAE (Chen et al. 2017): blocks of MADE, the order reversed between them.

    In the direction z -> noise every block is one pass: noise_j = (z_j - shift(z_<j)) exp(-log_scale(z_<j)).
    """

    def __init__(self, nz: int, blocks: int = 4, hidden: int = 64):
        super().__init__()
        self.blocks = nn.ModuleList(Made(nz, hidden) for _ in range(blocks))

    def to_noise(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """z [..., nz] -> noise [..., nz] and log |det d noise / d z| [...]."""
        log_det = z.new_zeros(z.shape[:-1])
        for block in self.blocks:
            shift, log_scale = block(z)
            z = ((z - shift) * torch.exp(-log_scale)).flip(-1)
            log_det = log_det - log_scale.sum(-1)
        return z, log_det

    def from_noise(self, noise: Tensor) -> Tensor:
        """The inverse, a dimension after the other."""
        z = noise
        for block in reversed(self.blocks):
            target, z = z.flip(-1), torch.zeros_like(z)
            for j in range(z.shape[-1]):
                shift, log_scale = block(z)
                z = torch.cat(
                    [z[..., :j], (target * torch.exp(log_scale) + shift)[..., j : j + 1], z[..., j + 1 :]], dim=-1
                )
        return z

    def log_prob(self, z: Tensor) -> Tensor:
        noise, log_det = self.to_noise(z)
        return standard_log_prob(noise) + log_det

    def sample(self, shape: tuple[int, ...], like: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Draws of `shape` [..., nz]."""
        return self.from_noise(standard_noise(shape, like, generator))
