"""Annealed importance sampling of log p(x) (Neal 2001; for decoder-based models Wu et al. 2017), in nats per example.

Importance sampling from s(z), the prior or the encoder's q(z|x), fails where p(z|x) lies far from s. Annealing goes
there by small steps: along f_b(z) = s(z)^(1-b) p(x, z)^b, 0 = b_0 < ... < b_T = 1, with one transition that leaves f_b
invariant at each b in between, and

    log w = sum_t (b_t - b_{t-1}) [log p(x, z_{t-1}) - log s(z_{t-1})],    E w = p(x).

The transitions are Hamiltonian Monte Carlo. A model is what `metrics.nll` asks for, `encode(x)`,
`decoder.log_prob(x, z)` and `prior_log_prob(z)`; where it has a `prior`, that is sampled, else z ~ N(0, I).

The step size follows the acceptance, as in Wu et al. But a chain that sets its step size by its own past is no longer
a Markov chain, and E w = p(x) then holds only in the limit of many steps. So a few chains of each example, the scouts,
set the step size and are not counted; the chains that count take it from them. These have no part in the choice: the
estimate of p(x) is unbiased for every number of steps, and the chains are independent given the scouts.
"""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn

from lagvae_lib.models.gaussian import DiagonalGaussian, standard_noise
from lagvae_lib.models.holding import without_gradient
from lagvae_lib.names import choose

STEPS, LEAPFROG, CHAINS, SCOUTS = 100, 5, 16, 2
STARTS = ("prior", "posterior")
RADIUS = 4.0  # the schedule is the logistic function's course from -RADIUS to RADIUS, as in Wu et al.
STEP_SIZE = 0.3  # of the first leapfrog steps, in standard deviations of the start
ACCEPTANCE = 0.65  # what the step size is steered to
GAIN = 0.2  # change of log step size for each unit by which the scouts' acceptance missed it
ROWS = 128  # (example, chain) pairs that the decoder sees at once


@dataclass(frozen=True)
class Ais:
    """Estimates for B examples from C chains each, in float64.

    log_weights: [B, C], log w of every chain. acceptance: [B], mean probability with which the chains' proposals were
    accepted, nan where there was no transition (steps = 1). step_size: [B], at the end of the path.
    """

    log_weights: Tensor
    acceptance: Tensor
    step_size: Tensor

    @property
    def log_prob(self) -> Tensor:
        """log 1/C sum_c w_c, [B] nats; its expectation never exceeds log p(x) (Jensen) and grows with C."""
        return self.log_weights.logsumexp(1) - math.log(self.log_weights.shape[1])

    @property
    def effective_sample_size(self) -> Tensor:
        """(sum w)^2 / sum w^2, [B]: from 1, where one chain holds all the weight, to C, where all weigh alike."""
        return (2 * self.log_weights.logsumexp(1) - (2 * self.log_weights).logsumexp(1)).exp()

    @property
    def standard_error(self) -> Tensor:
        """Of `log_prob` for each example, [B] nats, by the delta method; nan for one chain.

        To be trusted only where the effective sample size is well above 1: what every chain missed is not in it.
        """
        relative = (self.log_weights - self.log_prob[:, None]).exp()  # mean 1 over the chains
        chains = relative.shape[1]
        return relative.std(1) / chains**0.5 if chains > 1 else torch.full_like(relative[:, 0], math.nan)


def annealed(
    model,
    x: Tensor,
    steps: int = STEPS,
    leapfrog: int = LEAPFROG,
    chains: int = CHAINS,
    generator: torch.Generator | None = None,
    start: str = "prior",
    scouts: int = SCOUTS,
    step_size: float = STEP_SIZE,
    rows: int = ROWS,
) -> Ais:
    """log p(x) of a batch x [B, ...] by annealed importance sampling, [B] nats in `.log_prob`.

    steps: intervals T of the path; 1 is plain importance sampling from the start.
    leapfrog: steps of each transition. All B * (chains + scouts) pairs of x and z pass through the decoder, forward and
        back, 1 + (steps - 1) * leapfrog times.
    start: "prior", or "posterior" for q(z|x), whose standard deviations are then also the unit of z in leapfrog steps.
    scouts: chains beside `chains` that steer the step size; without any it stays at `step_size`.
    rows: pairs that the decoder sees at once, which bounds the memory and changes the results by rounding alone.

    Parameters' gradients, the model's mode and, with a `generator`, the global random state stay as they are.
    Raises ValueError for a model in training mode and for arguments out of range.
    """
    _check(model, start, step_size, scouts, steps=steps, leapfrog=leapfrog, chains=chains, rows=rows)
    with without_gradient(model.parameters() if isinstance(model, nn.Module) else ()):
        path, z = _begin(model, x, chains + scouts, start, rows, generator)
        size = StepSize(len(x), chains + scouts, scouts, step_size, z.device)
        return _anneal(path, z, steps, leapfrog, size, generator)


def _check(model, start: str, step_size: float, scouts: int, **counts: int) -> None:
    if getattr(model, "training", False):
        raise ValueError("annealing needs a model in evaluation mode (dropout off): call model.eval()")
    choose(start, STARTS, "start")
    for name, value in counts.items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1, not {value}")
    if scouts < 0:
        raise ValueError(f"scouts must not be negative, not {scouts}")
    if not 0 < step_size < math.inf:
        raise ValueError(f"step_size must be positive and finite, not {step_size}")


def schedule(steps: int) -> Tensor:
    """b_0 = 0 to b_T = 1, [steps + 1] in float64, by a logistic function: slow at both ends (Wu et al. 2017)."""
    course = torch.sigmoid(torch.linspace(-RADIUS, RADIUS, steps + 1, dtype=torch.float64))
    betas = (course - course[0]) / (course[-1] - course[0])
    betas[-1] = 1  # exactly
    return betas


# -- the path ----------------------------------------------------------------------------------------------------------


class Point(NamedTuple):
    """R places z [R, nz] and all that the path needs of them at any b, so that no pass is made twice.

    log_start, log_ratio: log s(z) and log p(x, z) - log s(z), [R] in float64. d_start, d_ratio: gradients [R, nz].
    """

    z: Tensor
    log_start: Tensor
    log_ratio: Tensor
    d_start: Tensor
    d_ratio: Tensor

    def log_target(self, beta: float) -> Tensor:
        """log f_b(z), [R]."""
        return self.log_start + beta * self.log_ratio

    def gradient(self, beta: float) -> Tensor:
        """d log f_b / d z, [R, nz]."""
        return self.d_start + beta * self.d_ratio


@dataclass(frozen=True)
class Path:
    """The densities between the start s(z) and p(x, z) for R pairs of an example and a chain.

    x: [R, ...]. q: the start, one row per pair, or None for the prior. scale: [R, nz], the unit of z in leapfrog steps.
    rows: pairs that the decoder sees at once.
    """

    model: object
    x: Tensor
    q: DiagonalGaussian | None
    scale: Tensor
    rows: int = ROWS

    def at(self, z: Tensor) -> Point:
        """Values and gradients at z [R, nz], by one pass through the decoder and back."""
        parts = [self._part(slice(i, i + self.rows), z[i : i + self.rows]) for i in range(0, len(z), self.rows)]
        return Point(*map(torch.cat, zip(*parts, strict=True)))

    def _part(self, rows: slice, z: Tensor) -> Point:
        with torch.enable_grad():
            z = z.detach().requires_grad_()
            log_start, log_ratio = self._log_terms(rows, z[:, None])
            (d_start,) = torch.autograd.grad(log_start.sum(), z, retain_graph=True)  # log_ratio shares its nodes
            (d_ratio,) = torch.autograd.grad(log_ratio.sum(), z)
        return Point(z.detach(), log_start.detach().double(), log_ratio.detach().double(), d_start, d_ratio)

    def _log_terms(self, rows: slice, z: Tensor) -> tuple[Tensor, Tensor]:
        """log s(z) and log p(x, z) - log s(z), each [r], for z [r, 1, nz]."""
        log_lik = self.model.decoder.log_prob(self.x[rows], z)[:, 0]
        log_prior = self.model.prior_log_prob(z)[:, 0]
        if self.q is None:
            return log_prior, log_lik
        log_q = DiagonalGaussian(self.q.mu[rows], self.q.logvar[rows]).log_prob(z)[:, 0]
        return log_q, log_lik + log_prior - log_q


@torch.no_grad()
def _begin(model, x: Tensor, chains: int, start: str, rows: int, generator) -> tuple[Path, Tensor]:
    """The path of `chains` pairs an example, those of one example side by side, and z [R, nz] drawn from its start."""
    q = model.encode(x)
    x, mu, logvar = (values.repeat_interleave(chains, dim=0) for values in (x, q.mu, q.logvar))
    if start == "posterior":
        q = DiagonalGaussian(mu, logvar)
        return Path(model, x, q, (0.5 * logvar).exp(), rows), q.rsample(1, generator=generator)[:, 0]
    prior = getattr(model, "prior", None)
    draw = standard_noise if prior is None else prior.sample
    return Path(model, x, None, torch.ones_like(mu), rows), draw(tuple(mu.shape), mu, generator)


# -- the transitions ---------------------------------------------------------------------------------------------------


@torch.no_grad()
def leapfrog_steps(
    path: Path, point: Point, momentum: Tensor, beta: float, step: Tensor, count: int
) -> tuple[Point, Tensor]:
    """Follow H = |momentum|^2 / 2 - log f_b(z) for `count` steps: new point and momentum.

    momentum: [R, nz]. step: [R, 1]; in the unit `path.scale` of z. Reversible and volume-preserving.
    """
    length = step * path.scale
    momentum = momentum + 0.5 * length * point.gradient(beta)
    for i in range(count):
        point = path.at(point.z + length * momentum)
        half = 0.5 if i == count - 1 else 1.0  # two half steps between two places are one
        momentum = momentum + half * length * point.gradient(beta)
    return point, momentum


@torch.no_grad()
def transition(
    path: Path, point: Point, beta: float, step: Tensor, count: int, generator: torch.Generator | None = None
) -> tuple[Point, Tensor]:
    """One Hamiltonian Monte Carlo transition that leaves f_b invariant: new point, and acceptance probability [R].

    A rejected chain stays, with the values and the gradient that it has.
    """
    momentum = standard_noise(tuple(point.z.shape), point.z, generator)
    proposal, last = leapfrog_steps(path, point, momentum, beta, step.to(point.z.dtype), count)
    log_odds = proposal.log_target(beta) - point.log_target(beta) + kinetic(momentum) - kinetic(last)
    log_uniform = torch.special.log_ndtr(standard_noise(tuple(log_odds.shape), log_odds, generator))
    accepted = log_uniform < log_odds  # never where a step too long has led to nan
    pairs = zip(proposal, point, strict=True)
    kept = [torch.where(accepted if new.ndim == 1 else accepted[:, None], new, old) for new, old in pairs]
    return Point(*kept), log_odds.nan_to_num(nan=-math.inf).clamp(max=0).exp()


def kinetic(momentum: Tensor) -> Tensor:
    """|momentum|^2 / 2 in float64: [R, nz] -> [R]."""
    return 0.5 * momentum.double().square().sum(-1)


class StepSize:
    """A leapfrog step size for each of B examples, [B] in float64, steered by the acceptance of its scouts."""

    def __init__(self, examples: int, chains: int, scouts: int, first: float, device: torch.device):
        self.chains, self.scouts = chains, scouts
        self.log = torch.full((examples,), math.log(first), dtype=torch.float64, device=device)

    def of_pairs(self) -> Tensor:
        """[R, 1]: the same for all chains of an example."""
        return self.log.exp().repeat_interleave(self.chains)[:, None]

    def follow(self, chance: Tensor) -> None:
        """Longer where the scouts, the first chains of each example, accept too much; chance: [B, chains]."""
        if self.scouts:
            self.log += GAIN * (chance[:, : self.scouts].mean(1) - ACCEPTANCE)


def _anneal(path: Path, z: Tensor, steps: int, leapfrog: int, size: StepSize, generator) -> Ais:
    """Reweight to the next b, then move at it, until b = 1, where a move would change no weight."""
    point = path.at(z)
    log_weights, chances = torch.zeros_like(point.log_ratio), torch.zeros_like(point.log_ratio)
    for beta, following in pairwise(schedule(steps).tolist()):
        if beta:  # z was drawn at 0
            point, chance = transition(path, point, beta, size.of_pairs(), leapfrog, generator)
            size.follow(chance.view(-1, size.chains))
            chances += chance
        log_weights += (following - beta) * point.log_ratio
    log_weights, chances = (values.view(-1, size.chains)[:, size.scouts :] for values in (log_weights, chances))
    acceptance = chances.mean(1) / (steps - 1)  # 0 / 0 without a transition
    return Ais(log_weights, acceptance, size.log.exp())
