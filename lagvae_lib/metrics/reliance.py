"""What a code is worth to its decoder: the likelihood under an example's own code and under another example's."""

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor


class Reliance(NamedTuple):
    """Mean log p(x|z), nats per example, with z the mean of q for x itself and for another example of its batch."""

    own: float
    other: float

    @property
    def worth(self) -> float:
        """By how much the own code is the better one; 0 where the decoder does not read it."""
        return self.own - self.other


@torch.no_grad()
def reliance(model, batches: Iterable[Tensor], examples: int = 64) -> Reliance:
    """Of the first `examples` or so in batches of two and more. model: `encode(x)` and `decoder.log_prob(x, z)`."""
    rows = []
    for x in batches:
        if len(x) > 1 and sum(map(len, rows)) < examples:
            mu = model.encode(x).mu
            pair = (model.decoder.log_prob(x, code[:, None])[:, 0] for code in (mu, mu.roll(1, 0)))
            rows.append(torch.stack(list(pair), 1))
    if not rows:
        raise ValueError("no batch holds two examples, so that no code can be exchanged")
    return Reliance(*torch.cat(rows).mean(0).tolist())
