"""Standard VAE training: one gradient step on encoder and decoder together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lagvae_lib.inference import MAX_NORM, Batch, Optimisers, Step
from lagvae_lib.inference.gradients import clip, means, share, zero_grad
from lagvae_lib.names import require

if TYPE_CHECKING:
    from torch import Tensor

    from lagvae_lib.models.vae import Trainable


@dataclass(frozen=True)
class Amortised:
    """Both halves move by the same gradient, clipped jointly."""

    max_norm: float = MAX_NORM

    def __post_init__(self):
        require(self, "max_norm", above=0)

    def begin(self) -> dict:
        """No state."""
        return {}

    def step(self, model: Trainable, batch: Batch, optimisers: Optimisers, state: dict) -> Step:
        """One joint step on the outer batch."""
        return joint_step(model, batch, optimisers, self.max_norm)

    def epoch_end(self, state: dict, mi: float, mi_large: float | None = None) -> dict:
        """Nothing changes."""
        return state

    def evaluated(self, model: Trainable) -> Trainable:
        """The model itself: q is its encoder's."""
        return model


def joint_step(
    model: Trainable,
    batch: Batch,
    optimisers: Optimisers,
    max_norm: float,
    look: Callable[[Tensor], None] = lambda loss: None,
) -> Step:
    """Both halves by one gradient. look: called with the losses [batch] before anything moves; may raise."""
    parameters = [*model.encoder_parameters(), *model.decoder_parameters()]
    loss = model.loss(batch.x, batch.kl_weight)
    look(loss.loss)
    zero_grad(parameters)
    loss.loss.mean().backward()
    clipped = clip(parameters, max_norm)
    for optimiser in optimisers:
        if optimiser is not None:
            optimiser.step()
    return Step(means(loss), clipped=share(clipped))
