"""Algorithm 1 of the paper: update the inference network until it has caught up, then the decoder once.

Usable from any training loop with any model that has `loss`, `encoder_parameters` and `decoder_parameters`
(`lagvae_lib.models.vae.Trainable`):

    algorithm = Aggressive()
    state = algorithm.begin()
    for x in loader:
        algorithm.step(model, Batch(x, draw=random_minibatch), Optimisers(encoder_sgd, decoder_sgd), state)
    algorithm.epoch_end(state, mi)     # mutual information on validation data
"""

from __future__ import annotations

import math
import statistics
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from lagvae_lib.errors import BadValue
from lagvae_lib.inference import MAX_NORM, Batch, Optimisers, Step
from lagvae_lib.inference.amortised import Amortised
from lagvae_lib.inference.gradients import clip, means, share, zero_grad
from lagvae_lib.models.holding import without_gradient, without_statistics
from lagvae_lib.names import choose, require

if TYPE_CHECKING:
    import torch

    from lagvae_lib.models.vae import Trainable

CLIPS = ("joint", "separate")
BATCH_NORMS = ("move", "hold")
REFERENCES = ("previous", "best")
INNER_TESTS = ("window", "gain")
STOP_METRICS = ("mi", "mi_large")


@dataclass(frozen=True)
class Aggressive:
    """The knobs of Algorithm 1; the defaults are the released code's for text.

    window: inner steps whose mean loss is compared with that of the window before; the inner loop ends when it rose.
    max_steps: the inner loop's last step in any case.
    inner_test: "window" ends the inner loop as said, by the sign of a difference that is noise once the encoder has
        caught up. "gain" (not the paper's) ends it when the fall of the mean is at most its standard error, from the
        spread of the losses of single steps within both windows.
    fixed_steps: exactly this many inner steps instead of a test of convergence (Table 4).
    clip: "joint" clips the gradient of encoder and decoder together, as released: the decoder's gradient is computed in
        every inner step for its norm alone. "separate" clips each half by its own norm, as Algorithm 1 is printed, and
        computes no gradient that is thrown away. Where the joint norm passes `max_norm` these are different algorithms.
    stop_reference, stop_patience: the aggressive stage ends with the epoch that brings the number of epochs whose
        validation MI lay below the previous one's ("previous"; text, patience 1) or below the best one's ("best";
        images, patience 5) to the patience.
    stop_metric: which MI decides that: "mi", the estimate within minibatches, or "mi_large" (not the paper's), over all
        validation examples, which has less noise.
    first_reference: the MI that the first epoch is compared with; None: any (released: 0, and -1 for the toy).
    batch_norm: what the running statistics of BatchNorm do while their half of the model stands still. "move": every
        pass in training mode moves them, the decoder's in the inner loop and the encoder's in the decoder step, as
        released. "hold": they stand still as the parameters do. Training itself normalises by the batch in both cases.
    """

    window: int = 15
    max_steps: int = 99
    inner_test: str = "window"
    fixed_steps: int | None = None
    clip: str = "joint"
    max_norm: float = MAX_NORM
    stop_reference: str = "previous"
    stop_patience: int = 1
    stop_metric: str = "mi"
    first_reference: float | None = None
    batch_norm: str = "move"

    def __post_init__(self):
        choose(self.clip, CLIPS, "clip")
        choose(self.stop_reference, REFERENCES, "stop_reference")
        choose(self.batch_norm, BATCH_NORMS, "batch_norm")
        choose(self.inner_test, INNER_TESTS, "inner_test")
        choose(self.stop_metric, STOP_METRICS, "stop_metric")
        if self.inner_test == "gain" and self.window == 1:
            raise ValueError("a gain has a standard error only within windows of at least 2 steps")
        require(self, "window max_steps fixed_steps stop_patience", least=1)
        require(self, "max_norm", above=0)
        if self.max_steps < self.window:
            raise BadValue(f"max_steps must be at least the window of {self.window}, not {self.max_steps}")

    def begin(self) -> dict:
        """The state before the first iteration: aggressive, and no mutual information seen yet."""
        return {
            "aggressive": True,
            "reference_mi": -math.inf if self.first_reference is None else self.first_reference,
            "epochs_below": 0,
        }

    def step(self, model: Trainable, batch: Batch, optimisers: Optimisers, state: dict) -> Step:
        """One outer iteration: lines 4-13 of Algorithm 1 while aggressive, a joint step (line 15) afterwards."""
        if not state["aggressive"]:
            return Amortised(self.max_norm).step(model, batch, optimisers, state)
        inner = self.inner_loop(model, batch, optimisers.encoder)
        outer = self.decoder_step(model, batch, optimisers.decoder)
        gradients = inner.steps + 1
        clipped = (inner.clipped * inner.steps + outer.clipped) / gradients
        return Step(outer.loss, "aggressive", inner.steps, clipped)

    def inner_loop(self, model: Trainable, batch: Batch, optimiser: torch.optim.Optimizer) -> InnerLoop:
        """Encoder steps until convergence, the first on the outer batch; theta stays as it is, bit for bit."""
        encoder, decoder = list(model.encoder_parameters()), list(model.decoder_parameters())
        frozen = decoder if self.clip == "separate" else []
        window, previous = _Window(), None
        x, clipped = batch.x, 0
        with without_gradient(frozen), self._statistics(model, decoder):
            for step in range(1, (self.fixed_steps or self.max_steps) + 1):
                loss = model.loss(x, batch.kl_weight).loss
                zero_grad([*encoder, *decoder])
                loss.mean().backward()
                clipped = clipped + clip([*encoder, *decoder], self.max_norm)
                optimiser.step()
                window.add(loss.detach().sum(), batch.units(x))
                if self.fixed_steps is None and step % self.window == 0:
                    current = window.close(spread=self.inner_test == "gain")
                    if previous is not None and self._caught_up(previous, current):
                        break
                    previous = current
                x = batch.draw()
        zero_grad([*encoder, *decoder])
        return InnerLoop(step, share(clipped, step))

    def _caught_up(self, previous: WindowMean, current: WindowMean) -> bool:
        """Whether the encoder has caught up, by the mean losses of two windows in a row."""
        if self.inner_test == "window":
            return current.mean > previous.mean
        return previous.mean - current.mean <= math.sqrt(previous.variance + current.variance)

    def decoder_step(self, model: Trainable, batch: Batch, optimiser: torch.optim.Optimizer) -> Step:
        """One decoder step on the outer batch; phi stays as it is, bit for bit."""
        encoder, decoder = list(model.encoder_parameters()), list(model.decoder_parameters())
        frozen = encoder if self.clip == "separate" else []
        zero_grad([*encoder, *decoder])
        with without_gradient(frozen), self._statistics(model, encoder):
            loss = model.loss(batch.x, batch.kl_weight)
            loss.loss.mean().backward()
        clipped = clip([*encoder, *decoder], self.max_norm)
        optimiser.step()
        return Step(means(loss), clipped=share(clipped))

    def _statistics(self, model: Trainable, still: list[torch.nn.Parameter]) -> AbstractContextManager:
        """What `batch_norm` asks for while the parameters `still` stand still."""
        return without_statistics(model, still) if self.batch_norm == "hold" else nullcontext()

    def epoch_end(self, state: dict, mi: float, mi_large: float | None = None) -> dict:
        """Section 4.2 of the paper: the stage ends for good when the mutual information stops climbing.

        mi: within minibatches, nats; mi_large: over all validation examples, for `stop_metric` alone.
        """
        if not state["aggressive"]:
            return state
        if self.stop_metric == "mi_large":
            if mi_large is None:
                raise ValueError("stop_metric mi_large needs the MI over all validation examples")
            mi = mi_large
        reference, below = state["reference_mi"], state["epochs_below"]
        below += mi < reference
        if self.stop_reference == "previous" or mi > reference:
            reference = mi
        state.update(aggressive=below < self.stop_patience, reference_mi=reference, epochs_below=below)
        return state

    def evaluated(self, model: Trainable) -> Trainable:
        """The model itself: q is its encoder's."""
        return model


class InnerLoop(NamedTuple):
    """How many steps an inner loop made, and in what share of them the gradient was clipped."""

    steps: int
    clipped: float | torch.Tensor


class WindowMean(NamedTuple):
    """The mean loss per unit of a window, and the variance of that mean (nan where it was not asked for)."""

    mean: float
    variance: float


class _Window:
    """The losses since the last `close`, which leave the device once in a window and not after every step."""

    def __init__(self):
        self.losses, self.units = [], []

    def add(self, loss: torch.Tensor, units: int) -> None:
        self.losses.append(loss)
        self.units.append(units)

    def close(self, spread: bool) -> WindowMean:
        n, mean, variance = len(self.losses), float(sum(self.losses)) / sum(self.units), math.nan
        if spread:
            variance = statistics.variance(float(x) / u for x, u in zip(self.losses, self.units, strict=True)) / n
        self.losses, self.units = [], []
        return WindowMean(mean, variance)
