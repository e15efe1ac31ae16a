"""Negative log-likelihood: the importance-weighted bound of Burda et al. (2016) and the ELBO.

A model here is anything with `encode(x) -> DiagonalGaussian`, `decoder.log_prob(x, z [B, k, nz]) -> [B, k]`
and `prior_log_prob(z) -> [B, k]`. It should be in evaluation mode: dropout would score another model.
Values are log-likelihoods in nats per example; an NLL is their negative.
"""

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from lagvae_lib.models.gaussian import DiagonalGaussian, standard_noise

SAMPLES = 500
CHUNK = 50
CURVE = (1, 10, 100, 500)


@torch.no_grad()
def log_weights(
    model,
    x: Tensor,
    k: int,
    generator: torch.Generator | None = None,
    q: DiagonalGaussian | None = None,
    noise: Tensor | None = None,
) -> Tensor:
    """log p(x, z_i) - log q(z_i|x) of k samples z_i ~ q, [B, k].

    q: the proposal, `model.encode(x)` by default. noise: [B, k, nz] standard normal in place of `generator`.
    """
    q = model.encode(x) if q is None else q
    z = q.rsample(k, noise, generator)
    return model.decoder.log_prob(x, z) + model.prior_log_prob(z) - q.log_prob(z)


@torch.no_grad()
def importance_weighted(
    model,
    x: Tensor,
    k: int = SAMPLES,
    generator: torch.Generator | None = None,
    chunk: int = CHUNK,
    q: DiagonalGaussian | None = None,
) -> Tensor:
    """log 1/k sum_i p(x, z_i) / q(z_i|x), [B] in float64: the paper's NLL is minus its mean at k = 500.

    chunk: how many samples the decoder sees at once, which bounds the memory and does not change the samples.
    Its expectation never exceeds log p(x) and grows with k.
    """
    return importance_weighted_curve(model, x, (k,), generator, chunk, q)[:, 0]


@torch.no_grad()
def importance_weighted_curve(
    model,
    x: Tensor,
    ks: Sequence[int] = CURVE,
    generator: torch.Generator | None = None,
    chunk: int = CHUNK,
    q: DiagonalGaussian | None = None,
) -> Tensor:
    """The bound at every k of `ks` from one stream of samples, each using the first k: [B, len(ks)], float64.

    Raises ValueError unless `ks` is increasing and positive and `chunk` positive.
    """
    ks = list(ks)
    if not ks or ks[0] < 1 or ks != sorted(set(ks)) or chunk < 1:
        raise ValueError(f"ks must be increasing and positive and chunk at least 1, not {ks} and {chunk}")
    q = model.encode(x) if q is None else q
    noise = standard_noise((len(q.mu), ks[-1], q.mu.shape[1]), q.mu, generator)
    total = torch.full((len(q.mu),), -math.inf, dtype=torch.float64, device=q.mu.device)
    bounds = []
    for start, stop in _pieces(ks, chunk):
        weights = log_weights(model, x, stop - start, q=q, noise=noise[:, start:stop])
        total = torch.logaddexp(total, weights.double().logsumexp(1))
        if stop in ks:
            bounds.append(total - math.log(stop))
    return torch.stack(bounds, dim=1)


def _pieces(ks: Sequence[int], chunk: int) -> Iterator[tuple[int, int]]:
    """Intervals of at most `chunk` samples, cut at every k as well, so that each bound is met on the way."""
    start = 0
    for k in ks:
        while start < k:
            stop = min(start + chunk, k)
            yield start, stop
            start = stop
