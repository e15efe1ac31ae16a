"""How far q(z|x) lags behind the true posterior of a one-dimensional z, measured on the grid.

KL(q(z|x) || p(z|x)) = amortisation gap + approximation gap: the first is what the best Gaussian for each x alone would
save (q's network has not caught up, or cannot), the second what no Gaussian can. All in nats per example, between the
grid's discrete distributions, which is the continuous KL as long as the standard deviations exceed the step (0.1).
`comparison.relative_lag` compares the two means alone, as a share of the spread of the model's own (Figure 2 as one
number).
"""

from typing import NamedTuple

import torch
from torch import Tensor

from lagvae_lib.metrics.comparison import relative_lag
from lagvae_lib.metrics.grid import GridPosterior, grid_posterior
from lagvae_lib.models.gaussian import DiagonalGaussian

__all__ = ["Gaps", "best_gaussian", "gaps", "kl_on_grid", "measure", "relative_lag"]

FLOOR = -1e4  # stands for log 0 at points whose weight vanishes, so that 0 * log 0 is 0
ITERATIONS = 15
LONGEST = 0.7  # the longest step, in z and in log sd


class Gaps(NamedTuple):
    """Per example, [N], nats: lag = amortisation + approximation."""

    lag: Tensor
    amortisation: Tensor
    approximation: Tensor


def kl_on_grid(posterior: GridPosterior, mean: Tensor, sd: Tensor) -> Tensor:
    """KL(N(mean, sd^2) || p(z|x)) of N Gaussians, [N]; mean and sd [N]."""
    return _kl_and_gradient(posterior.grid, posterior.log_weights.clamp_min(FLOOR), mean, sd)[0]


def _kl_and_gradient(grid: Tensor, log_p: Tensor, mean: Tensor, sd: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """KL on the grid and its natural gradient (that over the Fisher information of the Gaussian) in mean and log sd."""
    standardised = (grid - mean.unsqueeze(1)) / sd.unsqueeze(1)
    log_q = torch.log_softmax(-0.5 * standardised.square(), dim=1)
    q, excess = log_q.exp(), log_q - log_p
    kl = (q * excess).sum(1)
    centred = q * (excess - kl.unsqueeze(1))
    return kl, sd * (centred * standardised).sum(1), 0.5 * (centred * standardised.square()).sum(1)


def best_gaussian(posterior: GridPosterior, starts: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, sd and KL of the Gaussian nearest to each posterior, [N] each, by natural gradient steps from each start.

    One step is exact where the posterior is Gaussian; a step that would raise the KL is undone and shortened:
    the result is never worse than any start. Two starts can still miss the best of several local minima.
    """
    log_p = posterior.log_weights.clamp_min(FLOOR)
    ends = torch.stack([_descend(posterior.grid, log_p, mean, sd) for mean, sd in starts])  # [starts, 3, N]
    chosen = ends[:, 0].argmin(0)
    kl, mean, sd = ends[chosen, :, torch.arange(len(chosen), device=chosen.device)].unbind(1)
    return mean, sd, kl


def _descend(grid: Tensor, log_p: Tensor, mean: Tensor, sd: Tensor) -> Tensor:
    """KL, mean and sd, [3, N], after `ITERATIONS` steps from one start."""
    kl, d_mean, d_log_sd = _kl_and_gradient(grid, log_p, mean, sd)
    rate = torch.ones_like(kl)
    for _ in range(ITERATIONS):
        new_mean = mean - rate * d_mean.clamp(-LONGEST, LONGEST)
        new_sd = sd * torch.exp(-rate * d_log_sd.clamp(-LONGEST, LONGEST))
        new = _kl_and_gradient(grid, log_p, new_mean, new_sd)
        better = new[0] < kl
        mean, sd = torch.where(better, new_mean, mean), torch.where(better, new_sd, sd)
        kl, d_mean, d_log_sd = (torch.where(better, *pair) for pair in zip(new, (kl, d_mean, d_log_sd), strict=True))
        rate = torch.where(better, (2 * rate).clamp_max(1), rate / 4)
    return torch.stack([kl, mean, sd])


def gaps(posterior: GridPosterior, q: DiagonalGaussian) -> Gaps:
    """The lag of each q(z|x), [N, 1], split as above."""
    mean, sd = q.mu[:, 0].double(), (0.5 * q.logvar[:, 0].double()).exp()
    moments = (posterior.mean(), posterior.sd())
    total = kl_on_grid(posterior, mean, sd)
    _, _, least = best_gaussian(posterior, [(mean, sd), moments])
    return Gaps(total, total - least, least)


def measure(model, x: Tensor, q: DiagonalGaussian) -> dict:
    """One measurement of the posterior mean space: the points of Figure 2, and means of the gaps and of log p(x).

    x: [N, T], one batch. Returns numbers and two tensors [N] on the processor: `model_mean`, horizontal,
    `inference_mean`, vertical.
    """
    posterior = grid_posterior(model, x, q).seen()
    split = gaps(posterior, q)
    return {
        **{name: float(value.mean()) for name, value in split._asdict().items()},
        "log_evidence": float(posterior.log_evidence.mean()),
        "posterior_sd": float(posterior.sd().mean()),
        "model_mean": posterior.mean().float().cpu(),
        "inference_mean": q.mu[:, 0].float().cpu(),
    }
