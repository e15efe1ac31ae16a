"""How the inference network is fitted: jointly with the decoder, or aggressively (Algorithm 1 of the paper).

A strategy is a frozen value with four methods, which is all that the training loop knows of it:
`begin()` gives its state (plain numbers, kept in checkpoints), `step(...)` makes one outer iteration and reports what
it did, `epoch_end(state, mi, mi_large)` lets it change its mind, and `evaluated(model)` is the model as it is to be
evaluated. Its state is changed in place, by `step` and `epoch_end` and by nobody else; `epoch_end` returns it for
convenience.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from lagvae_lib.models.vae import Loss, Trainable

MAX_NORM = 5.0


class Optimisers(NamedTuple):
    """One for phi and one for theta; `encoder` is None where a model has no inference network."""

    encoder: torch.optim.Optimizer | None
    decoder: torch.optim.Optimizer


class Batch(NamedTuple):
    """What an outer iteration works on: the batch x, a way to draw further ones, the KL weight, and x's size in units.

    units: what a loss is divided by when inner windows are compared; predicted words for text, images for images.
    """

    x: Tensor
    draw: Callable[[], Tensor]
    kl_weight: float = 1.0
    units: Callable[[Tensor], int] = len


@dataclass
class Step:
    """What one outer iteration did.

    loss: of the outer batch, means over its examples, detached. phase: "aggressive" or "plain". inner_steps: the length
    of Algorithm 1's inner loop, 0 where there was none. clipped: the share of this iteration's gradients whose norm
    passed the limit; on a GPU a tensor that has not been waited for. logged: what else belongs in the training history;
    its epoch means become columns of those names.
    """

    loss: Loss
    phase: str = "plain"
    inner_steps: int = 0
    clipped: float | Tensor = 0.0
    logged: dict[str, float] = field(default_factory=dict)


class Inference(Protocol):
    """A strategy for fitting q(z|x)."""

    def begin(self) -> dict: ...

    def step(self, model: Trainable, batch: Batch, optimisers: Optimisers, state: dict) -> Step: ...

    def epoch_end(self, state: dict, mi: float, mi_large: float | None = None) -> dict: ...

    def evaluated(self, model: Trainable) -> Trainable: ...
