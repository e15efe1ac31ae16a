"""Active units (Burda et al. 2016): dimensions whose posterior mean moves when x does."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from lagvae_lib.metrics import THRESHOLD


def variance_of_means(batches: Iterable[Tensor]) -> Tensor:
    """Var_x E_q[z_j|x] of every dimension j, unbiased, [nz] in float64, from batches of posterior means [B, nz].

    Raises ValueError below two examples.
    """
    mu = torch.cat(list(batches)).detach().double()
    if len(mu) < 2:
        raise ValueError(f"a variance needs at least 2 examples, not {len(mu)}")
    return mu.var(0)


def active_units(variance: Tensor, threshold: float = THRESHOLD) -> int:
    """How many dimensions reach the threshold (the paper's is 0.01); variance [nz]."""
    return int((variance >= threshold).sum())


def threshold_curve(variance: Tensor, thresholds: Sequence[float]) -> list[int]:
    """Active units at each threshold: where this count depends on the threshold, it counts nothing."""
    return [active_units(variance, threshold) for threshold in thresholds]
