"""How the inference network is fitted: jointly with the generator, or aggressively (Algorithm 1 of the paper).

A strategy is a frozen value with four methods, which is all that the training loop knows of it:
`begin()` gives its state (plain numbers, kept in checkpoints), `step(...)` makes one outer iteration,
`epoch_end(state, mi)` lets it change its mind, and `evaluated(model)` is the model as it is to be evaluated.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

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
    """What one outer iteration did; loss is that of the outer batch (means over its examples, detached)."""

    loss: Loss
    inner_steps: int = 0
    clipped: float = 0.0  # share of this iteration's gradients whose norm passed the limit


class Inference(Protocol):
    """A strategy for fitting q(z|x)."""

    def begin(self) -> dict: ...

    def step(self, model: Trainable, batch: Batch, optimisers: Optimisers, state: dict) -> Step: ...

    def epoch_end(self, state: dict, mi: float) -> dict: ...

    def evaluated(self, model: Trainable) -> Trainable: ...


def clip(parameters: list[torch.nn.Parameter], max_norm: float) -> Tensor:
    """Scale the gradients of `parameters` to a joint norm of at most `max_norm`; returns whether they passed it."""
    return torch.nn.utils.clip_grad_norm_(parameters, max_norm) > max_norm


def means(loss: Loss) -> Loss:
    """A batch's mean loss, cut from its graph."""
    return Loss(*(term.detach().mean() for term in loss))
