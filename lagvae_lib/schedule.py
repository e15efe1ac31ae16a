"""How long training lasts, and what happens when the validation loss stops falling."""

import math
from dataclasses import dataclass

from lagvae_lib.names import choose, require

OPTIMISERS = ("sgd", "adam")
REFERENCES = ("best", "decay")


@dataclass(frozen=True)
class Schedule:
    """Optimiser, length of training, and what happens when the validation loss (ELBO at weight 1) stops falling.

    After `patience` epochs in a row whose loss is not below the reference, and not before epoch `decay_from`, the
    learning rate is multiplied by `decay` and the best parameters are loaded again; training ends with the
    `max_decays`-th time. Epochs of pretraining come before all this and count for none of it.
    epoch_updates: an epoch is this many batches of a new permutation of the training set; None: all of them, once.
    reference: "best" compares with the best loss of the run; "decay" as the released code does, with the best loss
        since the last decay, beginning with the loss that caused it.
    decay_in_ramp: whether the rate may fall while the KL weight still moves, as in the released code.
    """

    optimiser: str = "sgd"
    lr: float = 1.0
    max_epochs: int = 100
    patience: int = 2
    decay_from: int = 0
    decay: float = 0.5
    max_decays: int = 5
    epoch_updates: int | None = None
    reference: str = "best"
    decay_in_ramp: bool = False

    def __post_init__(self):
        choose(self.optimiser, OPTIMISERS, "optimiser")
        choose(self.reference, REFERENCES, "reference")
        require(self, "max_epochs patience max_decays epoch_updates", least=1)
        require(self, "decay_from", least=0)
        require(self, "lr", above=0)
        require(self, "decay", above=0, below=1)

    def epoch_length(self, batches: int) -> int:
        """Updates in an epoch on a training set of this many batches."""
        return min(self.epoch_updates or batches, batches)

    def ramp_epoch_length(self, examples: int, batch_size: int) -> float:
        """Updates that count as an epoch of annealing where an objective's ramp goes by examples; see `Objective`."""
        return min(self.epoch_updates or math.inf, examples / batch_size)


@dataclass
class Progress:
    """Where a run stands in its schedule. best_loss: of the whole run; reference_loss: what the next is compared with.

    ended: None while training goes on, then "schedule" (the rule of `Schedule`) or "cap" (`max_epochs`).
    """

    lr: float
    bad_epochs: int = 0
    decays: int = 0
    best_loss: float = math.inf
    reference_loss: float = math.inf
    ended: str | None = None

    def after_epoch(self, schedule: Schedule, loss: float, epoch: int, ramp_epochs: float) -> tuple[bool, bool]:
        """Take the validation loss of epoch 0, 1, ... into account: (is it the best so far?, does the rate fall now?).

        ramp_epochs: epochs after which the KL weight no longer moves.
        """
        best, falls = loss < self.best_loss, False
        self.best_loss = min(self.best_loss, loss)
        if loss <= self.reference_loss:  # a tie is no bad epoch, as released
            self.reference_loss, self.bad_epochs = loss, 0
        else:
            self.bad_epochs += 1
            earliest = schedule.decay_from if schedule.decay_in_ramp else max(schedule.decay_from, ramp_epochs)
            falls = self.bad_epochs >= schedule.patience and epoch >= earliest
        if falls:
            self.lr, self.decays, self.bad_epochs = self.lr * schedule.decay, self.decays + 1, 0
            if schedule.reference == "decay":
                self.reference_loss = loss
        if self.decays >= schedule.max_decays:
            self.ended = "schedule"
        elif epoch + 1 >= schedule.max_epochs:
            self.ended = "cap"
        return best, falls
