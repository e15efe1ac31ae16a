"""Algorithm 1 of the paper: update the inference network until it has caught up, then the decoder once.

Usable from any training loop with any model that has `loss`, `encoder_parameters` and `decoder_parameters`
(`lagvae_lib.models.vae.Trainable`):

    algorithm, draw = Aggressive(), minibatches(loader)
    state = algorithm.begin()
    for x in loader:
        algorithm.step(model, Batch(x, draw), Optimisers(encoder_sgd, decoder_sgd), state)
    algorithm.epoch_end(state, mutual_information(model, validation))

A model, an optimiser or a batch with which the halves would not stand still raises `checks.BadModel` at the first step.
"""

from __future__ import annotations

import math
import statistics
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from lagvae_lib.errors import BadValue, Diverged
from lagvae_lib.inference import MAX_NORM, Batch, Optimisers, Step, checks
from lagvae_lib.inference.amortised import joint_step
from lagvae_lib.inference.gradients import clip, means, share, zero_grad
from lagvae_lib.lazy import torch
from lagvae_lib.models.holding import for_norm_alone, without_gradient, without_statistics
from lagvae_lib.names import choose, require

if TYPE_CHECKING:
    from lagvae_lib.models.vae import Trainable

CLIPS = ("joint", "separate")
BATCH_NORMS = ("move", "hold")
REFERENCES = ("previous", "best")
INNER_TESTS = ("window", "gain")
STOP_METRICS = ("mi", "mi_large")
HALVES = ("encoder", "decoder")


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

    Three interventions that the paper does not make, to ask whether it is the lag that decides:
    delay: this many plain updates come before the stage. stage: the stage ends after this many decoder updates at the
        latest; None: by the MI alone. moves: the half that the inner loop moves; with "decoder" the encoder makes the
        one step afterwards, and the lag is given more to lag behind.
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
    delay: int = 0
    stage: int | None = None
    moves: str = "encoder"

    def __post_init__(self):
        choose(self.clip, CLIPS, "clip")
        choose(self.stop_reference, REFERENCES, "stop_reference")
        choose(self.batch_norm, BATCH_NORMS, "batch_norm")
        choose(self.inner_test, INNER_TESTS, "inner_test")
        choose(self.stop_metric, STOP_METRICS, "stop_metric")
        choose(self.moves, HALVES, "moves")
        require(self, "window max_steps fixed_steps stop_patience stage", least=1, whole=True)
        require(self, "delay", least=0, whole=True)
        require(self, "max_norm", above=0)
        if self.inner_test == "gain" and self.window == 1:
            raise BadValue("a gain has a standard error only within windows of at least 2 steps")
        if self.max_steps < self.window:
            raise BadValue(f"max_steps must be at least the window of {self.window}, not {self.max_steps}")

    def begin(self) -> dict:
        """The state before the first iteration: aggressive, and no mutual information seen yet."""
        return {
            "aggressive": True,
            "reference_mi": -math.inf if self.first_reference is None else self.first_reference,
            "epochs_below": 0,
            "updates": 0,
        }

    def step(self, model: Trainable, batch: Batch, optimisers: Optimisers, state: dict) -> Step:
        """One outer iteration: lines 4-13 of Algorithm 1 while aggressive, a joint step (line 15) afterwards."""
        checks.pair(optimisers)
        checks.begun(state)
        state["updates"] = update = state.get("updates", 0) + 1
        if not state["aggressive"] or update <= self.delay:
            return joint_step(model, batch, optimisers, self.max_norm, _finite_if_at_hand)
        state["aggressive"] = self.stage is None or update < self.delay + self.stage
        many, one = optimisers if self.moves == "encoder" else reversed(optimisers)
        inner = self.inner_loop(model, batch, many)
        outer = self.decoder_step(model, batch, one)
        gradients = inner.steps + 1
        clipped = (inner.clipped * inner.steps + outer.clipped) / gradients
        return Step(outer.loss, "aggressive", inner.steps, clipped)

    def inner_loop(self, model: Trainable, batch: Batch, optimiser: torch.optim.Optimizer) -> InnerLoop:
        """Encoder steps until convergence, the first on the outer batch; theta stays as it is, bit for bit."""
        moving, still = self._halves(model)
        checks.serves(optimiser, moving, self.moves, model)
        hold = without_gradient if self.clip == "separate" else for_norm_alone
        window, previous = _Window(), None
        x, clipped = batch.x, 0
        with hold(still), self._statistics(model, still):
            for step in range(1, (self.fixed_steps or self.max_steps) + 1):
                loss = checks.loss_of(model, x, batch.kl_weight).loss
                if step == 1:  # before anything has moved; later losses are looked at once a window
                    checks.finite(loss, "on the outer batch")
                zero_grad([*moving, *still])
                loss.mean().backward()
                if step == 1:
                    checks.reached(moving, self.moves)
                clipped = clipped + clip([*moving, *still], self.max_norm)
                optimiser.step()
                window.add(loss.detach().sum(), checks.counted(batch.units, x, loss.numel()))
                if self.fixed_steps is None and step % self.window == 0:
                    current = window.close(spread=self.inner_test == "gain")
                    checks.finite(current.mean, f"in inner step {step}")
                    if previous is not None and self._caught_up(previous, current):
                        break
                    previous = current
                x = checks.drawn(batch.draw)
        zero_grad([*moving, *still])
        return InnerLoop(step, share(clipped, step))

    def _halves(self, model: Trainable) -> tuple[list, list]:
        """phi and theta: the half that the inner loop moves, and the other."""
        encoder, decoder = checks.halves(model)
        return (encoder, decoder) if self.moves == "encoder" else (decoder, encoder)

    def _caught_up(self, previous: WindowMean, current: WindowMean) -> bool:
        """Whether the encoder has caught up, by the mean losses of two windows in a row."""
        if self.inner_test == "window":
            return current.mean > previous.mean
        return previous.mean - current.mean <= math.sqrt(previous.variance + current.variance)

    def decoder_step(self, model: Trainable, batch: Batch, optimiser: torch.optim.Optimizer) -> Step:
        """One decoder step on the outer batch; phi stays as it is, bit for bit."""
        still, moving = self._halves(model)
        checks.serves(optimiser, moving, "decoder" if self.moves == "encoder" else "encoder", model)
        frozen = still if self.clip == "separate" else []
        zero_grad([*still, *moving])
        with without_gradient(frozen), self._statistics(model, still):
            loss = checks.loss_of(model, batch.x, batch.kl_weight)
            checks.finite(loss.loss, "after the inner loop")
            loss.loss.mean().backward()
        clipped = clip([*still, *moving], self.max_norm)
        optimiser.step()
        return Step(means(loss), clipped=share(clipped))

    def _statistics(self, model: Trainable, still: list[torch.nn.Parameter]) -> AbstractContextManager:
        """What `batch_norm` asks for while the parameters `still` stand still."""
        return without_statistics(model, still) if self.batch_norm == "hold" else nullcontext()

    def epoch_end(self, state: dict, mi: float, mi_large: float | None = None) -> dict:
        """Section 4.2 of the paper: the stage ends for good when the mutual information stops climbing.

        mi: within minibatches, nats; mi_large: over all validation examples, for `stop_metric` alone.
        """
        if self.stop_metric == "mi_large" and state["aggressive"]:
            if mi_large is None:
                raise BadValue("stop_metric mi_large needs the MI over all validation examples")
            mi = mi_large
        mi = _number(mi)
        if not state["aggressive"] or 0 < self.delay >= state.get("updates", 0):
            return state
        reference, below = state["reference_mi"], state["epochs_below"]
        below += mi < reference
        if self.stop_reference == "previous" or mi > reference:
            reference = mi
        state.update(aggressive=below < self.stop_patience, reference_mi=reference, epochs_below=below)
        return state

    def evaluated(self, model: Trainable) -> Trainable:
        """The model itself: q is its encoder's."""
        return model


def _number(mi: object) -> float:
    """The mutual information as a number: with a nan no comparison would be true, and the stage would never end."""
    try:
        value = float(mi)
    except (TypeError, ValueError, RuntimeError):
        raise checks.BadModel(f"mi is {mi!r:.40}; give one number, lagvae_lib.mutual_information(...)") from None
    if math.isnan(value):
        raise Diverged("the mutual information is nan, and decides when the aggressive stage ends")
    return value


def _finite_if_at_hand(loss: torch.Tensor) -> None:
    """A plain step's loss, checked unless a GPU would have to be waited for; there `epoch_end` sees it."""
    if loss.device.type == "cpu":
        checks.finite(loss, "in a step after the aggressive stage")


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
            losses = torch.stack(self.losses).tolist()
            variance = statistics.variance(x / u for x, u in zip(losses, self.units, strict=True)) / n
        self.losses, self.units = [], []
        return WindowMean(mean, variance)
