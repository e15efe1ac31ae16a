"""The weight of the KL term, the one thing in which plain, annealed and beta training differ."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Objective:
    """-E_q log p(x|z) + weight * KL(q(z|x) || p(z)).

    kl_weight: the weight in the end; 1 is the ELBO, anything else a beta-VAE.
    start, anneal_epochs: the weight begins at `start` and reaches `kl_weight` linearly after that many epochs, one
    increment per outer iteration (the paper: from 0.1, over 10 epochs). 0 epochs: no annealing.
    """

    kl_weight: float = 1.0
    start: float = 1.0
    anneal_epochs: float = 0.0

    def weight(self, iteration: int, per_epoch: int) -> float:
        """The weight at outer iteration t = 1, 2, ... of a run with `per_epoch` iterations an epoch."""
        total = self.anneal_epochs * per_epoch
        if iteration >= total:
            return self.kl_weight
        return min(self.kl_weight, self.start + (self.kl_weight - self.start) * iteration / total)
