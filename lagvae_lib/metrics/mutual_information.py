"""The mutual information I_q(x; z) of data and code under the encoder, by several estimators.

None is exact: q(z) = E_x q(z|x) is a mixture with one component per data point. All take the encoded data,
`mu` and `logvar` [N, nz], compute in float64 and return nats per example.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lagvae_lib.models.gaussian import (
    LOG_2PI,
    DiagonalGaussian,
    pairwise_log_prob,
    standard_log_prob,
)

BATCH_SIZES = (32, 50, 500)
CHUNK_ELEMENTS = 4_000_000


@dataclass(frozen=True)
class Bounds:
    """Two estimates from the same samples in batches of `batch_size` examples, in nats.

    lower: same-sample estimate, at most `cap` = log(batch_size); in expectation below the truth.
    upper: leave-one-out estimate; in expectation above the truth, and without a cap.
    """

    batch_size: int
    lower: float
    upper: float
    cap: float


@dataclass(frozen=True)
class Decomposition:
    """E_x KL(q(z|x) || p(z)) = I_q(x; z) + KL(q(z) || p(z)), all three from the same samples, in nats."""

    kl: float
    mi: float
    aggregate_kl: float


@torch.no_grad()
def paper_estimate(
    mu: Tensor, logvar: Tensor, batch_sizes: Sequence[int], generator: torch.Generator | None = None
) -> float:
    """The paper's MI (section 4.2): within each minibatch, one sample per example, averaged by batch size.

    E log q(z|x) is the analytic negative entropy; log q(z) comes from one sample per example, under the
    mixture of the posteriors of its own minibatch. The two terms do not share their noise: at collapse the
    estimate has sd of about sqrt(nz / 2N) and is negative half of the time. Up to that noise it cannot pass
    log B.

    batch_sizes: the partition of the N rows into minibatches, in order.
    Raises ValueError where the sizes do not add up to N or one is not positive.
    """
    q, z = _prepare(mu, logvar, generator)
    if sum(batch_sizes) != len(z) or min(batch_sizes, default=0) < 1:
        raise ValueError(f"batch sizes must be positive and sum to {len(z)} rows, not {sum(batch_sizes)}")
    sizes, total = list(batch_sizes), 0.0
    for z_b, mu_b, logvar_b in zip(z.split(sizes), q.mu.split(sizes), q.logvar.split(sizes), strict=True):
        negative_entropy = -0.5 * (1 + LOG_2PI + logvar_b).sum()
        total = total + (negative_entropy - _log_mixture(z_b, mu_b, logvar_b).sum())
    return float(total) / len(z)  # one transfer from a GPU, not one a minibatch


@torch.no_grad()
def same_sample(
    mu: Tensor, logvar: Tensor, batch_size: int | None = None, generator: torch.Generator | None = None
) -> Bounds:
    """Bounds from log q(z_i|x_i) - log q(z_i), the same sample in both terms.

    batch_size: examples in a mixture; None, or anything from N on, means all N. The rows are assigned to batches at
    random (sentences of one length lie side by side) and an incomplete last batch is left out, since its cap is
    lower.
    Raises ValueError where the batch size is below 2 or there are fewer than 2 rows.
    """
    return same_sample_curve(mu, logvar, (len(mu) if batch_size is None else batch_size,), generator)[0]


@torch.no_grad()
def same_sample_curve(
    mu: Tensor,
    logvar: Tensor,
    batch_sizes: Sequence[int] = BATCH_SIZES,
    generator: torch.Generator | None = None,
) -> list[Bounds]:
    """`same_sample` for several batch sizes, on one set of samples and one random order of the rows."""
    q, z = _prepare(mu, logvar, generator)
    order = torch.randperm(len(z), generator=generator, device=generator.device if generator else "cpu")
    order = order.to(z.device)
    q, z = DiagonalGaussian(q.mu[order], q.logvar[order]), z[order]
    return [_bounds(q, z, min(size, len(z))) for size in batch_sizes]


@torch.no_grad()
def pointwise(mu: Tensor, logvar: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
    """Per-example lower and upper terms of one batch: mu, logvar, z [B, nz] -> two [B], float64.

    lower: log q(z_i|x_i) - log 1/B sum_j q(z_i|x_j), at most log B.
    upper: the same with the sum over j != i and B - 1 (leave one out).
    """
    mu, logvar, z = mu.double(), logvar.double(), z.double()
    own, others = [], []
    for rows in torch.arange(len(z), device=z.device).split(_rows(len(z))):
        log_q = pairwise_log_prob(z[rows], mu, logvar)
        # the term of x_i is read off the same matrix, so that rounding cannot lift the estimate over log B
        index = torch.arange(len(rows), device=z.device)
        own.append(log_q[index, rows])
        log_q[index, rows] = -math.inf
        others.append(log_q.logsumexp(1))
    own, others = torch.cat(own), torch.cat(others)
    lower = own - torch.logaddexp(own, others) + math.log(len(z))
    return lower, own - others + math.log(max(len(z) - 1, 1))


@torch.no_grad()
def decompose(mu: Tensor, logvar: Tensor, generator: torch.Generator | None = None) -> Decomposition:
    """The three terms of Hoffman & Johnson (2016) on one sample per example; q(z) is the mixture of all N."""
    q, z = _prepare(mu, logvar, generator)
    log_q, log_prior = q.log_prob(z[:, None])[:, 0], standard_log_prob(z)
    log_aggregate = _log_mixture(z, q.mu, q.logvar)
    return Decomposition(
        kl=float((log_q - log_prior).mean()),
        mi=float((log_q - log_aggregate).mean()),
        aggregate_kl=float((log_aggregate - log_prior).mean()),
    )


def aggregate_kl(kl: float, mi: float) -> float:
    """KL(q(z) || p(z)) as the paper's Figure 5 has it: mean KL - MI, floored at 0, in nats.

    It inherits the error of `mi` with the opposite sign: with the minibatch estimate it is too large wherever
    that one is capped. Pass the estimate over all N points beside it.
    """
    return max(kl - mi, 0.0)


def _prepare(mu: Tensor, logvar: Tensor, generator: torch.Generator | None) -> tuple[DiagonalGaussian, Tensor]:
    """The posteriors in float64 and one sample of each, [N, nz]."""
    q = DiagonalGaussian(mu.double(), logvar.double())
    return q, q.rsample(1, generator=generator)[:, 0]


def _rows(columns: int) -> int:
    """How many rows of a [rows, columns] block keep it within `CHUNK_ELEMENTS`."""
    return max(1, CHUNK_ELEMENTS // max(columns, 1))


def _log_mixture(z: Tensor, mu: Tensor, logvar: Tensor) -> Tensor:
    """log 1/M sum_j q(z_i|x_j): z [n, nz], mu and logvar [M, nz] -> [n]."""
    parts = [pairwise_log_prob(rows, mu, logvar).logsumexp(1) for rows in z.split(_rows(len(mu)))]
    return torch.cat(parts) - math.log(len(mu))


def _bounds(q: DiagonalGaussian, z: Tensor, size: int) -> Bounds:
    if size < 2:
        raise ValueError(f"the mutual information needs batches of at least 2 examples, not {size}")
    used = len(z) - len(z) % size
    parts = zip(*(t[:used].split(size) for t in (q.mu, q.logvar, z)), strict=True)
    lower, upper = (torch.cat(terms) for terms in zip(*(pointwise(*part) for part in parts), strict=True))
    return Bounds(size, float(lower.mean()), float(upper.mean()), math.log(size))
