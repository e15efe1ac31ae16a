"""Nats of a known class in a code: I(z; class) where p(class|x) is exact, as it is on the grammar.

By data processing I(z; class) <= I(x; class), which the grammar knows too (`data.grammar.Grammar.information`).
"""

import math

import torch
from torch import Tensor

from lagvae_lib.models.gaussian import DiagonalGaussian


@torch.no_grad()
def class_information(q: DiagonalGaussian, posterior: Tensor, generator: torch.Generator | None = None) -> float:
    """A lower bound (in expectation) on I(z; class) in nats.

    q: of N examples, [N, nz]. posterior: p(class|x) of the same examples, [N, K]. The class is read from a draw z of
    each example by Bayes' rule in the mixture of all *other* examples, r(c|z) ~ sum_j q(z|x_j) p(c|x_j), and the bound
    is H(class) + E log r: it is tight where that mixture is q's own, and a little negative where z says nothing.
    """
    z = q.rsample(1, generator=generator)[:, 0]
    weights = torch.stack([q.log_prob(row.expand(len(z), 1, -1))[:, 0] for row in z]).double()
    weights.fill_diagonal_(-math.inf)
    posterior = posterior.double()
    read = (weights.softmax(1) @ posterior).clamp_min(1e-12)
    marginal = posterior.mean(0)
    return float((posterior * read.log()).sum(1).mean() - torch.xlogy(marginal, marginal).sum())
