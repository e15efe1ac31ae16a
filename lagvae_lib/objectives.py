"""The weight of the KL term over a run and the free nats: plain, annealed, beta, cyclical and free-bits training differ
in these alone."""

from dataclasses import dataclass

from lagvae_lib.errors import BadValue
from lagvae_lib.names import choose, require

RAMPS = ("batches", "examples")
RAMP = 0.5  # the share of a cycle in which the weight climbs (Fu et al. 2019)


@dataclass(frozen=True)
class Objective:
    """-E_q log p(x|z) + weight * KL(q(z|x) || p(z)).

    kl_weight: the weight in the end; 1 is the ELBO, anything else a beta-VAE.
    start, anneal_epochs: the weight begins at `start` and reaches `kl_weight` linearly after that many epochs, one
        increment per outer iteration (the paper: from 0.1, over 10 epochs). 0 epochs: no annealing.
    ramp: what an epoch of that is. "batches": as many iterations as there are batches. "examples": the number of
        examples over the batch size, as in the released code for text, where batches of equally long sentences are more
        than that and the ramp ends before the epoch does.
    cycles: those epochs are cut into this many cycles of equal length, in each of which the weight climbs from `start`
        to `kl_weight` during the first half and stays there (cyclical annealing, Fu et al. 2019, whose runs end with
        the last cycle; here the schedule ends them). 0: one ramp of `anneal_epochs`, without a stay.
    free_nats: nats of the KL that are not penalised, the same share for each dimension (free bits, Kingma et al. 2016).
    pretrain_epochs: epochs before the run in which the weight is 0, an autoencoder's; the encoder is kept, the decoder
        begins the run anew (Li et al. 2019).
    Raises ValueError for cycles without the epochs that they take, and for a negative value.
    """

    kl_weight: float = 1.0
    start: float = 1.0
    anneal_epochs: float = 0.0
    cycles: int = 0
    free_nats: float = 0.0
    pretrain_epochs: int = 0
    ramp: str = "batches"

    def __post_init__(self):
        choose(self.ramp, RAMPS, "ramp")
        require(self, "kl_weight start anneal_epochs cycles free_nats pretrain_epochs", least=0)
        if self.anneal_epochs and self.start > self.kl_weight:
            raise BadValue(
                f"annealing raises the weight: start is at most kl_weight ({self.kl_weight:g}), not {self.start:g}"
            )
        if self.cycles and not self.anneal_epochs:
            raise BadValue("cycles share the epochs of annealing: give anneal_epochs, how many those are, as well")

    def weight(self, iteration: int, per_epoch: int, per_ramp_epoch: float | None = None) -> float:
        """The weight at outer iteration t = 1, 2, ... of a run whose epochs have `per_epoch` iterations.

        per_ramp_epoch: iterations that count as an epoch of annealing (`ramp`), `per_epoch` by default. Pretraining is
        not part of the run and has weight 0; t counts its iterations too.
        """
        iteration -= self.pretrain_epochs * per_epoch
        if iteration <= 0:
            return 0.0
        total = self.anneal_epochs * (per_epoch if per_ramp_epoch is None else per_ramp_epoch)
        if iteration >= total:
            return self.kl_weight
        climbed = iteration / total
        if self.cycles:
            cycle = total / self.cycles
            climbed = min(1.0, ((iteration - 1) % cycle) / cycle / RAMP)
        return min(self.kl_weight, self.start + (self.kl_weight - self.start) * climbed)

    @property
    def settled_from(self) -> float:
        """Epochs of the run after which the weight no longer moves."""
        return self.anneal_epochs * (1 - (1 - RAMP) / self.cycles if self.cycles else 1)
