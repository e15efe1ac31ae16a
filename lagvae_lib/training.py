"""The outer loop, once for every model, objective and inference strategy.

It knows no data set and no method by name. All it changes is in its `state`, so that a training that was killed goes on
from its last checkpoint and ends with the same numbers, bit for bit.
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from lagvae_lib.inference import Batch, Inference, Optimisers, Step
from lagvae_lib.inference.amortised import Amortised
from lagvae_lib.metrics.evaluate import validate
from lagvae_lib.names import choose
from lagvae_lib.objectives import Objective

OPTIMISERS = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}
VALIDATION = 1  # streams of evaluation noise, see `noise`
FINAL = 2
OBSERVED = 3
ASIDE = 5  # added to a stream: what a look draws globally is independent of what it draws by its generator


@dataclass(frozen=True)
class Schedule:
    """Optimiser, length of training, and what happens when the validation loss (ELBO at weight 1) stops falling.

    After `patience` epochs in a row without a new best, and not before epoch `decay_from` or while the KL weight still
    moves, the learning rate is multiplied by `decay` and the best parameters are loaded again; training ends with the
    `max_decays`-th time. Epochs of pretraining come before all this and count for none of it.
    epoch_updates: an epoch is so many batches of a new permutation of the training set; None: all of them, once.
    """

    optimiser: str = "sgd"
    lr: float = 1.0
    max_epochs: int = 100
    patience: int = 2
    decay_from: int = 0
    decay: float = 0.5
    max_decays: int = 5
    epoch_updates: int | None = None

    def __post_init__(self):
        choose(self.optimiser, OPTIMISERS, "optimiser")
        if self.epoch_updates is not None and self.epoch_updates < 1:
            raise ValueError(f"epoch_updates must be None or at least 1, not {self.epoch_updates}")
        if self.lr <= 0 or self.max_epochs < 1:
            raise ValueError(f"lr must be positive and max_epochs at least 1, not {self.lr} and {self.max_epochs}")

    def epoch_length(self, batches: int) -> int:
        """Updates of an epoch on a training set of so many batches."""
        return min(self.epoch_updates or batches, batches)


def noise(seed: int, stream: int, position: int) -> torch.Generator:
    """A generator of its own for every evaluation, so that looking at a model never changes its training."""
    return torch.Generator().manual_seed((seed * 1_000_003 + position) * 10 + stream)


class Trainer:
    """Trains `model` on `train`; see `fit`.

    train: `lagvae_lib.data.Batches`. valid: batches to select on. units: a batch's size in the units that inner windows
    are compared in. observe: called after the initialisation and after every `observe_every` generator updates with
    (model, iteration); what it returns is a row of `state["observations"]`. mi_draws: see `metrics.evaluate`.
    `state["inner_counts"]` counts the generator updates by the length of their inner loop.
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
        self.evaluated = inference.evaluated(model)
        self.first_epoch = objective.pretrain_epochs  # of training proper, counted from 0
        self.epoch_length = schedule.epoch_length(len(train))
        self.order_generator = torch.Generator().manual_seed(seed)
        self.state = {
            "epoch": 0,
            "position": 0,
            "iteration": 0,
            "order": [],
            "lr": schedule.lr,
            "bad_epochs": 0,
            "decays": 0,
            "best_loss": math.inf,
            "best": _copy(model.state_dict()),
            "inference": inference.begin(),
            "history": [],
            "observations": [],
            "inner_counts": {},
            "sums": dict.fromkeys(SUMS, 0.0),
            "seconds": {},
            "cpu_seconds": {},
            "done": False,
        }
        self._new_optimisers()
        self._clock = (time.perf_counter(), time.process_time())

    # -- the loop ------------------------------------------------------------------------------------------------

    def fit(self, after_iteration: Callable[["Trainer"], None] = lambda trainer: None) -> None:
        """Train to the end, from wherever the state stands; `after_iteration` may write checkpoints or stop it."""
        self._observe_at(0)
        while not self.state["done"]:
            for index in self._rest_of_epoch():
                self._iterate(index)
                self._observe_at(self.state["iteration"])
                after_iteration(self)
            self._end_epoch()
            after_iteration(self)

    def _rest_of_epoch(self) -> Iterator[int]:
        """Indices of this epoch's batches that have not been used, in the order drawn when the epoch began."""
        if not self.state["order"]:
            self.state["order"] = self.train.order(self.order_generator)[: self.epoch_length]
        yield from self.state["order"][self.state["position"] :]

    def _iterate(self, index: int) -> None:
        state = self.state
        self.model.train()
        self._lap("other")
        pretraining = state["epoch"] < self.first_epoch
        inference = PRETRAINING if pretraining else self.inference
        phase = "pretraining" if pretraining else "aggressive" if state["inference"].get("aggressive") else "plain"
        kl_weight = self._kl_weight(state["iteration"] + 1)
        x = self.train.get(index, self.order_generator)
        batch = Batch(x, lambda: self.train.draw(self.order_generator), kl_weight, self.units)
        step = inference.step(self.model, batch, self.optimisers, state["inference"])
        self._add(step, len(x))
        self._lap(phase)
        state["iteration"] += 1
        state["position"] += 1

    def _kl_weight(self, iteration: int) -> float:
        return self.objective.weight(iteration, self.epoch_length, self.schedule.max_epochs)

    def _add(self, step: Step, examples: int) -> None:
        values = {name: float(term) * examples for name, term in step.loss._asdict().items()}
        if not math.isfinite(values["loss"]):
            raise FloatingPointError(f"the loss is {values['loss']} at iteration {self.state['iteration'] + 1}")
        values |= {"examples": examples, "inner_steps": step.inner_steps, "clipped": step.clipped, "iterations": 1}
        for name, value in values.items():
            self.state["sums"][name] += value
        if step.inner_steps:
            counts = self.state["inner_counts"]
            counts[step.inner_steps] = counts.get(step.inner_steps, 0) + 1

    def _observe_at(self, iteration: int) -> None:
        if not self.observe_every or iteration % self.observe_every:
            return
        looks = iteration // self.observe_every
        if looks > self.observe_dense and looks % 5:
            return
        seen = self.state["observations"]
        if seen and seen[-1]["iteration"] >= iteration:
            return
        self._lap("other")
        self.model.eval()
        with torch.no_grad(), self._aside(OBSERVED, iteration):
            seen.append({"iteration": iteration} | self.observe(self.evaluated, iteration))
        self._lap("evaluation")

    # -- the end of an epoch -------------------------------------------------------------------------------------

    def _end_epoch(self) -> None:
        state = self.state
        self._lap("other")
        self.model.eval()
        with self._aside(VALIDATION, state["epoch"]):
            generator = noise(self.seed, VALIDATION, state["epoch"])
            values = validate(self.evaluated, self.valid, generator, self.mi_draws)
        self._lap("evaluation")
        state["history"].append(self._history_row(values))
        if state["epoch"] >= self.first_epoch:
            state["inference"] = self.inference.epoch_end(state["inference"], values["mi"])
            self._schedule(values["loss"])
        elif state["epoch"] + 1 == self.first_epoch:
            self._end_pretraining()
        state |= {"epoch": state["epoch"] + 1, "position": 0, "order": [], "sums": dict.fromkeys(SUMS, 0.0)}
        state["done"] |= state["epoch"] >= self.first_epoch + self.schedule.max_epochs

    def _end_pretraining(self) -> None:
        """Keep the encoder and begin the rest anew; nothing was selected yet, so `best` is still the initial model."""
        kept = {name: value for name, value in self.model.state_dict().items() if name.startswith("encoder.")}
        self.state["best"] = _copy(self.state["best"] | kept)
        self.model.load_state_dict(self.state["best"])
        self._new_optimisers()

    @contextmanager
    def _aside(self, stream: int, position: int) -> Iterator[None]:
        """Inside the block torch's global randomness is the look's own; afterwards it is the training's again."""
        with torch.random.fork_rng():
            torch.manual_seed(noise(self.seed, stream + ASIDE, position).initial_seed())
            yield

    def _history_row(self, values: dict) -> dict:
        state, sums = self.state, self.state["sums"]
        means = {f"train_{name}": sums[name] / sums["examples"] for name in ("loss", "reconstruction", "kl")}
        return {
            "epoch": state["epoch"] + 1,
            "iteration": state["iteration"],
            "lr": state["lr"],
            "kl_weight": self._kl_weight(state["iteration"]),
            "aggressive": bool(state["inference"].get("aggressive")),
            "inner_steps": sums["inner_steps"] / sums["iterations"],
            "clipped": sums["clipped"] / sums["iterations"],
            **{name: state["inference"][name] for name in LOGGED if name in state["inference"]},
            **means,
            **{f"valid_{name}": value for name, value in values.items()},
            "seconds": sum(state["seconds"].values()),
        }

    def _schedule(self, loss: float) -> None:
        """Select, halve the learning rate or stop, by the rule that `Schedule` states."""
        state, schedule = self.state, self.schedule
        if loss < state["best_loss"]:
            state |= {"best_loss": loss, "bad_epochs": 0, "best": _copy(self.model.state_dict())}
            return
        state["bad_epochs"] += 1
        epoch, settled = state["epoch"] - self.first_epoch, self.objective.settled_from(schedule.max_epochs)
        if state["bad_epochs"] < schedule.patience or epoch < max(schedule.decay_from, settled):
            return
        state |= {"lr": state["lr"] * schedule.decay, "decays": state["decays"] + 1, "bad_epochs": 0}
        state["done"] = state["decays"] >= schedule.max_decays
        self.model.load_state_dict(state["best"])
        self._new_optimisers()

    def load_best(self) -> None:
        """Put the selected parameters into the model, in evaluation mode."""
        self.model.load_state_dict(self.state["best"])
        self.model.eval()

    # -- state ---------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict:
        """All that the rest of the training depends on: tensors and plain values, for `torch.save`."""
        self._lap("other")
        return {
            "state": self.state,
            "model": self.model.state_dict(),
            "optimisers": [o.state_dict() if o is not None else None for o in self.optimisers],
            "order_generator": self.order_generator.get_state(),
            "rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        }

    def load_state_dict(self, saved: dict) -> None:
        """Go on from what `state_dict` gave."""
        self.state |= saved["state"]
        self.model.load_state_dict(saved["model"])
        self._new_optimisers()
        for optimiser, values in zip(self.optimisers, saved["optimisers"], strict=True):
            if optimiser is not None:
                optimiser.load_state_dict(values)
        self.order_generator.set_state(saved["order_generator"])
        torch.set_rng_state(saved["rng"])
        if saved["cuda_rng"]:
            torch.cuda.set_rng_state_all(saved["cuda_rng"])
        self._clock = (time.perf_counter(), time.process_time())

    def _new_optimisers(self) -> None:
        make = OPTIMISERS[self.schedule.optimiser]
        encoder, decoder = list(self.model.encoder_parameters()), list(self.model.decoder_parameters())
        lr = self.state["lr"]
        self.optimisers = Optimisers(make(encoder, lr=lr) if encoder else None, make(decoder, lr=lr))

    def _lap(self, phase: str) -> None:
        """Book the time since the last lap, wall and processor, on `phase`."""
        now = (time.perf_counter(), time.process_time())
        for name, start, end in zip(("seconds", "cpu_seconds"), self._clock, now, strict=True):
            self.state[name][phase] = self.state[name].get(phase, 0.0) + end - start
        self._clock = now


PRETRAINING = Amortised()
LOGGED = ("perturbed_norm", "perturbed_clipped")  # of an inference strategy's state, a column of the history each
SUMS = ("loss", "reconstruction", "kl", "examples", "inner_steps", "clipped", "iterations")


def _copy(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in state.items()}
