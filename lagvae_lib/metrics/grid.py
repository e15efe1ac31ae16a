"""The true posterior of a one-dimensional z on a grid: the posterior mean space of Figures 2 and 3, and the lag itself.

The paper's grid runs from -20 to 20 in steps of 0.1; p(z|x) is the softmax over it of log p(z) + log p(x|z). For a
Gaussian posterior of sd s and a step h the mean's error is (4 pi s^2 / h) exp(-2 pi^2 s^2 / h^2): 3e-9 at s = .1,
2e-3 at s = .05.
"""

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from scipy.interpolate import CubicSpline
from torch import Tensor

from lagvae_lib.models.gaussian import DiagonalGaussian, standard_log_prob

LIMIT, STEP = 20.0, 0.1
ROWS = 4096  # (example, z) pairs that the decoder sees at once
NEGLIGIBLE = 30.0  # nats below a point already seen: 1e-13 of the mass
COARSE = 5  # every fifth point of the grid is evaluated for every example
DEPTH = 20.0  # nats below an example's highest coarse point: what lies deeper does not count
SMOOTH = 3e-5  # nats by which a spline through every second coarse point may miss the points between


def paper_grid(dtype: torch.dtype = torch.float32) -> Tensor:
    """-20, -19.9, ..., 20, [401, 1]."""
    steps = round(LIMIT / STEP)
    return (torch.arange(-steps, steps + 1, dtype=torch.float64) * STEP).to(dtype).unsqueeze(1)


@dataclass(frozen=True)
class GridPosterior:
    """p(z|x) of N examples on G points: grid [G], log_weights [N, G] normalised, log_evidence [N] = log p(x), nats."""

    grid: Tensor
    log_weights: Tensor
    log_evidence: Tensor

    def seen(self) -> "GridPosterior":
        """The same without the points at which no example has any weight."""
        kept = self.log_weights.isfinite().any(0)
        return GridPosterior(self.grid[kept], self.log_weights[:, kept], self.log_evidence)

    def mean(self) -> Tensor:
        """E[z|x], [N]: the horizontal axis of Figure 2."""
        return self.log_weights.exp() @ self.grid

    def sd(self) -> Tensor:
        """The posterior's standard deviation, [N]."""
        return (self.log_weights.exp() @ self.grid.square() - self.mean().square()).clamp_min(0).sqrt()


@torch.no_grad()
def grid_posterior(model, x: Tensor, q: DiagonalGaussian | None = None) -> GridPosterior:
    """p(z|x) of a batch x [N, ...] of discrete data under a model with one-dimensional z, on the paper's grid.

    Not every point is evaluated. Where the prior alone puts z `NEGLIGIBLE` nats below a point already seen, the
    weight is known to vanish, since log p(x|z) <= 0 for discrete data. Elsewhere every `COARSE`-th point is
    evaluated (every second of those, for examples where that is enough), and log p(x|z) between them is a cubic
    spline. Where a spline through every second of them misses the others by more than `SMOOTH` (its own error is about
    16 times smaller), all points are evaluated, if they count: within `DEPTH` nats of the example's highest, or within
    four standard deviations of its q, if given (for the KL between them). The tests compare the result with
    `full_grid_posterior`. Raises ValueError in training mode.
    """
    grid = _checked_grid(model, x)
    log_prior = standard_log_prob(grid)  # [G]
    centre = len(grid) // 2
    at_centre = log_prior[centre] + _log_likelihood(model, x, grid[centre : centre + 1])[:, 0]
    reach = int((log_prior > at_centre.min() - NEGLIGIBLE).sum()) // 2 // COARSE + 1
    reach += reach % 2  # so that the spline through every second node, and through every fourth, ends where they do
    nodes = centre + COARSE * torch.arange(-reach, reach + 1, device=x.device)
    nodes = nodes[(nodes >= 0) & (nodes < len(grid))]
    inside = slice(int(nodes[0]), int(nodes[-1]) + 1)
    coarse = _at_nodes(model, x, grid[nodes])
    log_lik = coarse @ _spline(len(nodes), COARSE).to(x.device)
    wanted = _wanted(coarse, log_prior[nodes], grid[inside, 0], q)
    examples, points = wanted.nonzero().unbind(1)
    for start in range(0, len(examples), ROWS):
        rows, at = examples[start : start + ROWS], points[start : start + ROWS]
        log_lik[rows, at] = model.decoder.log_prob(x[rows], grid[inside][at].unsqueeze(1))[:, 0].double()
    log_joint = torch.full((len(x), len(grid)), -torch.inf, dtype=torch.float64, device=x.device)
    log_joint[:, inside] = log_lik + log_prior[inside].double()
    return _normalised(grid, log_joint)


def _at_nodes(model, x: Tensor, nodes: Tensor) -> Tensor:
    """log p(x|z) [N, nodes]: evaluated at every second node, and at the others where a spline does not give it."""
    every_second = _log_likelihood(model, x, nodes[::2]).double()
    values = every_second @ _spline(every_second.shape[1], 2).to(x.device)
    rough = (_missed(every_second) > SMOOTH).any(1)
    if rough.any():
        values[rough, 1::2] = _log_likelihood(model, x[rough], nodes[1::2]).double()
    return values


def _missed(values: Tensor) -> Tensor:
    """By how much a spline through every second of an odd number of values misses each, [N, values]."""
    half = values[:, ::2]
    return (half @ _spline(half.shape[1], 2).to(half.device) - values).abs()


@cache
def _spline(nodes: int, every: int) -> Tensor:
    """Values at `nodes` equidistant nodes times this are the cubic spline at all points, [nodes, points]."""
    places = every * np.arange(nodes)
    return torch.from_numpy(CubicSpline(places, np.eye(nodes))(np.arange(places[-1] + 1))).T.contiguous()


def _wanted(log_lik: Tensor, log_prior: Tensor, points: Tensor, q: DiagonalGaussian | None) -> Tensor:
    """Which points each example needs exactly, [N, points], from log p(x|z) and log p(z) at the nodes, [N, nodes]."""
    missed = _missed(log_lik)
    rough = (missed[:, 1:] > SMOOTH) | (missed[:, :-1] > SMOOTH)
    log_joint = log_lik + log_prior
    near = log_joint > log_joint.amax(1, keepdim=True) - DEPTH
    counts = (near[:, 1:] | near[:, :-1]).repeat_interleave(COARSE, dim=1)
    if q is not None:
        counts |= (points[:-1] - q.mu).abs() < 4 * (0.5 * q.logvar).exp() + STEP
    wanted = torch.zeros(len(log_lik), len(points), dtype=torch.bool, device=points.device)
    wanted[:, :-1] = rough.repeat_interleave(COARSE, dim=1) & counts
    wanted[:, ::COARSE] = False  # these are known
    return wanted


@torch.no_grad()
def full_grid_posterior(model, x: Tensor) -> GridPosterior:
    """The same by evaluating every point for every example: what `grid_posterior` is tested and measured against."""
    grid = _checked_grid(model, x)
    return _normalised(grid, (_log_likelihood(model, x, grid) + standard_log_prob(grid)).double())


def _checked_grid(model, x: Tensor) -> Tensor:
    if model.training:
        raise ValueError("a posterior on the grid needs a model in evaluation mode (dropout off): call model.eval()")
    return paper_grid().to(x.device)


def _normalised(grid: Tensor, log_joint: Tensor) -> GridPosterior:
    total = log_joint.logsumexp(1, keepdim=True)
    return GridPosterior(grid[:, 0].double(), log_joint - total, total[:, 0] + math.log(STEP))


def _log_likelihood(model, x: Tensor, z: Tensor) -> Tensor:
    """log p(x_n|z_g), [N, G]: every example under every point z [G, 1], a bounded number of pairs at a time."""
    parts = z.split(max(1, ROWS // len(x)))
    return torch.cat([model.decoder.log_prob(x, part.expand(len(x), *part.shape)) for part in parts], dim=1)
