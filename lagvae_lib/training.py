"""The outer loop, once for every model, objective and inference strategy.

It knows no data set, no method, and nothing of a strategy but what its `step` returns. All it changes is in its
`state`, so that a training that was killed goes on from its last checkpoint and ends with the same numbers: bit for bit
on a processor, and on CUDA where `numerics` was asked to be deterministic. On a GPU nothing waits for its results but
what has to: the losses before and after an inner loop, its windows, SA-VAE's norms, measurements, and every
`PENDING`-th step.
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from lagvae_lib.inference import MAX_NORM, Batch, Inference, Optimisers, Step
from lagvae_lib.inference.amortised import Amortised
from lagvae_lib.inference.semi_amortised import seeded
from lagvae_lib.metrics.evaluate import validate
from lagvae_lib.models.holding import names_of
from lagvae_lib.objectives import Objective
from lagvae_lib.schedule import Progress, Schedule

OPTIMISERS = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}
VALIDATION = 1  # streams of evaluation noise, see `noise`
FINAL = 2
OBSERVED = 3
MOVED = 4  # of a training that goes on on a GPU it did not begin on
PENDING = 64  # steps on a GPU whose losses are read at once
ASIDE = 5  # added to a stream: global draws of an evaluation are independent of those from its generator


@dataclass
class State:
    """All that a training changes; a checkpoint holds it as plain values and tensors.

    epoch, iteration: finished so far, pretraining included. position, order: how far the current epoch has come, and
    the batches that it goes through. best: the selected parameters. inference: the strategy's own. sums: of the current
    epoch. inner_counts: how many decoder updates had an inner loop of each length. phase: of the last update.
    """

    progress: Progress
    best: dict[str, Tensor]
    inference: dict
    epoch: int = 0
    position: int = 0
    iteration: int = 0
    order: list = field(default_factory=list)
    history: list[dict] = field(default_factory=list)
    observations: list[dict] = field(default_factory=list)
    inner_counts: dict[int, int] = field(default_factory=dict)
    sums: dict[str, float] = field(default_factory=dict)
    phase: str = "plain"
    seconds: dict[str, float] = field(default_factory=dict)
    cpu_seconds: dict[str, float] = field(default_factory=dict)

    def as_dict(self) -> dict:
        """Plain values and tensors, for `torch.save`."""
        return vars(self) | {"progress": vars(self.progress)}

    @classmethod
    def from_dict(cls, saved: dict) -> "State":
        """Inverse of `as_dict`."""
        return cls(**saved | {"progress": Progress(**saved["progress"])})


def noise(seed: int, stream: int, position: int) -> torch.Generator:
    """A generator of its own for every evaluation, so that evaluating a model never changes its training."""
    return torch.Generator().manual_seed((seed * 1_000_003 + position) * 10 + stream)


class Trainer:
    """Trains `model` on `train`; see `fit`.

    train: `data.loading.Batches`. valid: batches to select on. units: a batch's size in the units that inner windows
    are compared in. observe: called after the initialisation and after every `observe_every` decoder updates with
    (model, iteration); what it returns is a row of `state.observations`. mi_draws: see `metrics.evaluate`.
    """

    def __init__(
        self,
        model,
        train,
        valid,
        *,
        objective: Objective,
        inference: Inference,
        schedule: Schedule,
        seed: int,
        units: Callable[[Tensor], int] = len,
        observe: Callable[[torch.nn.Module, int], dict] | None = None,
        observe_every: int = 0,
        observe_dense: int = 50,
        mi_draws: int = 1,
    ):
        self.model, self.train, self.valid = model, train, valid
        self.objective, self.inference, self.schedule = objective, inference, schedule
        self.seed, self.units, self.observe, self.observe_every = seed, units, observe, observe_every if observe else 0
        self.observe_dense, self.mi_draws = observe_dense, mi_draws
        self.pretraining = Amortised(getattr(inference, "max_norm", MAX_NORM))
        self.evaluated = inference.evaluated(model)
        self.device = next(iter(model.parameters())).device
        self.first_epoch = objective.pretrain_epochs  # of training proper, counted from 0
        self.epoch_length = schedule.epoch_length(len(train))
        by_examples = objective.ramp == "examples"
        self.ramp_epoch = schedule.ramp_epoch_length(train.examples, train.batch_size) if by_examples else None
        self.order_generator = torch.Generator().manual_seed(seed)
        self.state = State(Progress(schedule.lr), _copy(model.state_dict()), inference.begin())
        self._new_optimisers()
        self._pending: list[tuple[Step, int, int]] = []
        self._clock = (time.perf_counter(), time.process_time())

    # -- the loop ------------------------------------------------------------------------------------------------

    def fit(self, after_iteration: Callable[["Trainer"], None] = lambda trainer: None) -> None:
        """Train to the end, from the current state; `after_iteration` may write checkpoints or stop it."""
        self._observe_at(0)
        while not self.state.progress.ended:
            for index in self._rest_of_epoch():
                self._iterate(index)
                self._observe_at(self.state.iteration)
                after_iteration(self)
            self._end_epoch()
            after_iteration(self)

    def _rest_of_epoch(self) -> Iterator[int]:
        """Indices of this epoch's batches that have not been used, in the order drawn when the epoch began."""
        if not self.state.order:
            self.state.order = self.train.order(self.order_generator)[: self.epoch_length]
        yield from self.state.order[self.state.position :]

    def _iterate(self, index: int) -> None:
        state = self.state
        self.model.train()
        self._lap("other")
        pretraining = state.epoch < self.first_epoch
        inference = self.pretraining if pretraining else self.inference
        kl_weight = self._kl_weight(state.iteration + 1)
        x = self.train.get(index, self.order_generator)
        batch = Batch(x, lambda: self.train.draw(self.order_generator), kl_weight, self.units)
        step = inference.step(self.model, batch, self.optimisers, state.inference)
        state.phase = "pretraining" if pretraining else step.phase
        self._add(step, len(x))
        self._lap(state.phase)
        state.iteration += 1
        state.position += 1

    def _kl_weight(self, iteration: int) -> float:
        return self.objective.weight(iteration, self.epoch_length, self.ramp_epoch)

    def _add(self, step: Step, examples: int) -> None:
        """Keep what the step reports for the epoch's sums; on a GPU it is not waited for."""
        self._pending.append((step, examples, self.state.iteration + 1))
        if step.inner_steps:
            counts = self.state.inner_counts
            counts[step.inner_steps] = counts.get(step.inner_steps, 0) + 1
        if self.device.type == "cpu" or len(self._pending) >= PENDING:
            self._settle()

    def _settle(self) -> None:
        """Add up the pending steps, in their order. Raises FloatingPointError where a loss is not finite."""
        steps, self._pending = self._pending, []
        read = _read([[*step.loss, step.clipped] for step, _, _ in steps])
        for (step, examples, iteration), numbers in zip(steps, read, strict=True):
            values = {name: number * examples for name, number in zip(step.loss._fields, numbers, strict=False)}
            if not math.isfinite(values["loss"]):
                raise FloatingPointError(f"the loss is {values['loss']} at iteration {iteration}")
            values |= {"examples": examples, "inner_steps": step.inner_steps, "clipped": numbers[-1], "iterations": 1}
            values |= {f"logged_{name}": value for name, value in step.logged.items()}
            for name, value in values.items():
                self.state.sums[name] = self.state.sums.get(name, 0.0) + value

    def _observe_at(self, iteration: int) -> None:
        if not self.observe_every or iteration % self.observe_every:
            return
        count = iteration // self.observe_every
        if count > self.observe_dense and count % 5:
            return
        seen = self.state.observations
        if seen and seen[-1]["iteration"] >= iteration:
            return
        self._pause()
        self.model.eval()
        with torch.no_grad(), self._aside(OBSERVED, iteration):
            seen.append({"iteration": iteration} | self.observe(self.evaluated, iteration))
        self._lap("evaluation")

    # -- the end of an epoch -------------------------------------------------------------------------------------

    def _end_epoch(self) -> None:
        state = self.state
        self._pause()
        self.model.eval()
        with self._aside(VALIDATION, state.epoch):
            generator = noise(self.seed, VALIDATION, state.epoch)
            values = validate(self.evaluated, self.valid, generator, self.mi_draws)
        self._lap("evaluation")
        if not math.isfinite(values["loss"]):
            raise FloatingPointError(f"the validation loss is {values['loss']} after epoch {state.epoch + 1}")
        state.history.append(self._history_row(values))
        if state.epoch >= self.first_epoch:
            self.inference.epoch_end(state.inference, values["mi"], values["mi_large"])
            self._follow_schedule(values["loss"])
        elif state.epoch + 1 == self.first_epoch:
            self._end_pretraining()
        state.epoch, state.position, state.order, state.sums = state.epoch + 1, 0, [], {}

    def _end_pretraining(self) -> None:
        """Keep phi and begin theta anew; nothing was selected yet, so `best` is still the initial model."""
        kept = names_of(self.model, self.model.encoder_parameters())
        initial = {name: value for name, value in self.state.best.items() if name not in kept}
        self.model.load_state_dict(self.model.state_dict() | initial)
        self.state.best = _copy(self.model.state_dict())
        self._new_optimisers()

    @contextmanager
    def _aside(self, stream: int, position: int) -> Iterator[None]:
        """Inside the block torch's global random state is the evaluation's own; afterwards it is the training's."""
        with seeded(noise(self.seed, stream + ASIDE, position).initial_seed(), self.device):
            yield

    def _history_row(self, values: dict) -> dict:
        state, sums = self.state, self.state.sums
        means = {f"train_{name}": sums[name] / sums["examples"] for name in ("loss", "reconstruction", "kl")}
        logged = {
            name.removeprefix("logged_"): total / sums["iterations"]
            for name, total in sums.items()
            if name.startswith("logged_")
        }
        return {
            "epoch": state.epoch + 1,
            "iteration": state.iteration,
            "lr": state.progress.lr,
            "kl_weight": self._kl_weight(state.iteration),
            "aggressive": state.phase == "aggressive",
            "inner_steps": sums["inner_steps"] / sums["iterations"],
            "clipped": sums["clipped"] / sums["iterations"],
            **logged,
            **means,
            **{f"valid_{name}": value for name, value in values.items()},
            "seconds": sum(state.seconds.values()),
        }

    def _follow_schedule(self, loss: float) -> None:
        """Select, lower the learning rate or stop, by the rule that `Schedule` states."""
        state, ramp = self.state, self.objective.settled_from
        best, falls = state.progress.after_epoch(self.schedule, loss, state.epoch - self.first_epoch, ramp)
        if best:
            state.best = _copy(self.model.state_dict())
        if falls:
            self.model.load_state_dict(state.best)
            self._new_optimisers()

    def load_best(self) -> None:
        """Put the selected parameters into the model, in evaluation mode."""
        self.model.load_state_dict(self.state.best)
        self.model.eval()

    # -- state ---------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict:
        """All that the rest of the training depends on: tensors and plain values, for `torch.save`."""
        self._pause()
        return {
            "state": self.state.as_dict(),
            "model": self.model.state_dict(),
            "optimisers": [o.state_dict() if o is not None else None for o in self.optimisers],
            "order_generator": self.order_generator.get_state(),
            "rng": torch.get_rng_state(),
            "device_rng": torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None,
        }

    def load_state_dict(self, saved: dict) -> None:
        """Go on from what `state_dict` gave."""
        self.state = State.from_dict(saved["state"])
        self.model.load_state_dict(saved["model"])
        self._new_optimisers()
        for optimiser, values in zip(self.optimisers, saved["optimisers"], strict=True):
            if optimiser is not None:
                for group in values["param_groups"]:  # the checkpoint may be another device's
                    group["fused"] = self._fused()
                optimiser.load_state_dict(values)
        self.order_generator.set_state(saved["order_generator"])
        torch.set_rng_state(saved["rng"])
        self._set_device_rng(saved.get("device_rng"))
        self._clock = (time.perf_counter(), time.process_time())

    def _set_device_rng(self, state: Tensor | None) -> None:
        """The GPU's random state; where the checkpoint was made without one, a state that the training has not seen."""
        if self.device.type == "cuda":
            with torch.cuda.device(self.device):
                torch.cuda.manual_seed(noise(self.seed, MOVED, self.state.iteration).initial_seed())
            if state is not None:
                torch.cuda.set_rng_state(state, self.device)

    def _new_optimisers(self) -> None:
        # Fused: one kernel for all parameters; on a processor the numbers would not be those of the records
        make = partial(OPTIMISERS[self.schedule.optimiser], lr=self.state.progress.lr, fused=self._fused())
        encoder, decoder = list(self.model.encoder_parameters()), list(self.model.decoder_parameters())
        self.optimisers = Optimisers(make(encoder) if encoder else None, make(decoder))

    def _fused(self) -> bool | None:
        return True if self.device.type == "cuda" else None

    def _pause(self) -> None:
        """Before something else than training: what a GPU still had to do for a phase is booked on that phase."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            self._lap(self.state.phase)
        self._settle()
        self._lap("other")

    def _lap(self, phase: str) -> None:
        """Add the time since the last lap, wall and processor, to `phase`."""
        now = (time.perf_counter(), time.process_time())
        for name, start, end in zip(("seconds", "cpu_seconds"), self._clock, now, strict=True):
            spent = getattr(self.state, name)
            spent[phase] = spent.get(phase, 0.0) + end - start
        self._clock = now


def _read(rows: list[list[Tensor | float]]) -> list[list[float]]:
    """The numbers of `rows`, by one transfer from a GPU for all of them."""
    tensors = [value.detach() for row in rows for value in row if isinstance(value, Tensor)]
    if tensors and tensors[0].device.type != "cpu":
        read = iter(torch.stack([tensor.double() for tensor in tensors]).tolist())
        return [[next(read) if isinstance(value, Tensor) else value for value in row] for row in rows]
    return [[float(value) for value in row] for row in rows]


def _copy(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in state.items()}
