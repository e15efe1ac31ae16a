"""Standard VAE training: one gradient step on encoder and decoder together."""

from dataclasses import dataclass

from lagvae_lib.inference import MAX_NORM, Batch, Optimisers, Step, clip, means
from lagvae_lib.models.vae import Trainable


@dataclass(frozen=True)
class Amortised:
    """Both halves move by the same gradient, clipped jointly."""

    max_norm: float = MAX_NORM

    def begin(self) -> dict:
        return {}

    def step(self, model: Trainable, batch: Batch, optimisers: Optimisers, state: dict) -> Step:
        """One joint step on the outer batch."""
        parameters = [*model.encoder_parameters(), *model.decoder_parameters()]
        loss = model.loss(batch.x, batch.kl_weight)
        zero_grad(parameters)
        loss.loss.mean().backward()
        clipped = clip(parameters, self.max_norm)
        for optimiser in optimisers:
            if optimiser is not None:
                optimiser.step()
        return Step(means(loss), clipped=float(clipped))

    def epoch_end(self, state: dict, mi: float) -> dict:
        return state

    def evaluated(self, model: Trainable) -> Trainable:
        return model


def zero_grad(parameters) -> None:
    """Forget all gradients."""
    for parameter in parameters:
        parameter.grad = None
