"""How well two sets of posterior means agree, and what a few seeds can say: one rule for every comparison.

The rule: a difference between two methods is taken seed by seed, over the seeds that both have; it is decided where
the 95% interval of its mean, by Student's t, excludes zero. A level or a ratio is decided in the same way against its
limits. One seed has no spread and decides nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.special import stdtrit

CONFIDENCE = 0.95  # of every interval


class Agreement(NamedTuple):
    """Points in the posterior mean space: their correlation, the least-squares slope of vertical on horizontal, and
    their spreads.

    Correlation and slope are nan where one of the spreads (standard deviations) is below `COLLAPSED`: what is left
    there is rounding.
    """

    correlation: float
    slope: float
    model_sd: float
    inference_sd: float


COLLAPSED = 1e-3


def agreement(model_mean: np.ndarray, inference_mean: np.ndarray) -> Agreement:
    """How close the points (model_mean, inference_mean), [N] each, lie to the diagonal, where both numbers are 1."""
    x, y = np.asarray(model_mean, dtype=np.float64), np.asarray(inference_mean, dtype=np.float64)
    sd = float(x.std()), float(y.std())
    if min(sd) < COLLAPSED:
        return Agreement(np.nan, np.nan, *sd)
    covariance = float(((x - x.mean()) * (y - y.mean())).mean())
    return Agreement(covariance / (sd[0] * sd[1]), covariance / sd[0] ** 2, *sd)


def relative_lag(model_mean: np.ndarray, inference_mean: np.ndarray) -> np.ndarray:
    """The share of the spread of the model's posterior means that the inference network does not follow.

    Var(model_mean - inference_mean) / Var(model_mean), variances over the last axis, the N examples: [..., N] -> [...].
    0 where the network follows every mean, 1 where it says the same of every example. More than 1 where it moves the
    wrong way or too far. nan where the model's means spread (standard deviation) by less than `COLLAPSED`.
    """
    x, y = np.asarray(model_mean, dtype=np.float64), np.asarray(inference_mean, dtype=np.float64)
    spread = x.var(-1)
    return np.where(np.sqrt(spread) < COLLAPSED, np.nan, (x - y).var(-1) / np.maximum(spread, COLLAPSED**2))


@dataclass(frozen=True)
class Interval:
    """Values over seeds, one per seed: their mean, and half of its interval by Student's t (nan for one seed)."""

    values: tuple[float, ...]
    mean: float
    half_width: float

    @property
    def differences(self) -> tuple[float, ...]:
        """The values, where they are differences (`paired`)."""
        return self.values

    @property
    def sign(self) -> int:
        """-1 or 1 where the interval excludes zero, 0 where it does not or cannot."""
        return int(np.sign(self.mean)) if abs(self.mean) > self.half_width else 0

    def within(self, low: float, high: float) -> bool | None:
        """Whether the mean lies between two limits: None where the interval crosses one, or there is one seed."""
        if low < self.mean - self.half_width and self.mean + self.half_width < high:
            return True
        return False if self.mean + self.half_width < low or self.mean - self.half_width > high else None

    def __str__(self) -> str:
        if np.isnan(self.half_width):
            return f"{self.mean:+.3f} nats (one seed, no interval)"
        return f"{self.mean:+.3f} ± {self.half_width:.3f} nats (95%, {len(self.values)} seeds)"


def interval(values: Sequence[float], confidence: float = CONFIDENCE) -> Interval:
    """The mean of values that stand for one seed each, with its two-sided interval. Raises ValueError for none."""
    if not len(values):
        raise ValueError("an interval needs at least one value")
    found = np.asarray(values, dtype=np.float64)
    half = half_width(len(found), float(found.std(ddof=1)), confidence) if len(found) > 1 else np.nan
    return Interval(tuple(found.tolist()), float(found.mean()), float(half))


def half_width(n: int, sd: float, confidence: float = CONFIDENCE) -> float:
    """Half of the interval of the mean of n values, at least two, whose sample standard deviation is sd."""
    return float(stdtrit(n - 1, (1 + confidence) / 2)) * sd / n**0.5


def paired(a: Sequence[float], b: Sequence[float], confidence: float = CONFIDENCE) -> Interval:
    """b - a of runs that share their seeds. Raises ValueError for unequal or empty lists."""
    if len(a) != len(b) or not len(a):
        raise ValueError(f"pairs need as many values of one as of the other, at least one: {len(a)} and {len(b)}")
    return interval(np.asarray(b, dtype=np.float64) - np.asarray(a, dtype=np.float64), confidence)


@dataclass(frozen=True)
class AtLength:
    """Values of runs of different lengths, as if all had been equally long: a method's level + slope * length.

    length: the mean of all runs, at which the levels are read. slope: per unit of length. Each interval is by Student's
    t with the degrees of freedom left after the levels and the slope.
    """

    length: float
    slope: Interval
    levels: dict[str, Interval]
    _covariance: np.ndarray
    _quantile: float

    def difference(self, a: str, b: str) -> Interval:
        """The level of b less that of a."""
        names = list(self.levels)
        sign = np.array([(name == b) - (name == a) for name in names], dtype=np.float64)
        half = self._quantile * float(np.sqrt(sign @ self._covariance @ sign))
        return Interval((), self.levels[b].mean - self.levels[a].mean, half)


def at_equal_length(
    runs: Mapping[str, Sequence[tuple[float, float]]], confidence: float = CONFIDENCE
) -> AtLength | None:
    """Least squares over all runs, given by method as pairs (length, value); None where too few are there for a spread,
    or all of a method are equally long, for every method. The methods share the slope, and the scatter around it."""
    names = [name for name in runs for _ in runs[name]]
    length, value = np.array([pair for of in runs.values() for pair in of], dtype=np.float64).reshape(-1, 2).T
    freedom = len(names) - len(runs) - 1
    if freedom < 1:
        return None
    levels = np.array([[name == other for other in runs] for name in names], dtype=np.float64)
    within = length - levels @ (levels.T @ length / levels.sum(0))
    if np.abs(within).max() <= 1e-9 * np.abs(length).max():
        return None
    design = np.column_stack([levels, length - length.mean()])
    found, *_ = np.linalg.lstsq(design, value, rcond=None)
    noise = float(((value - design @ found) ** 2).sum()) / freedom
    covariance, quantile = noise * np.linalg.inv(design.T @ design), float(stdtrit(freedom, (1 + confidence) / 2))
    halves = quantile * np.sqrt(covariance.diagonal())
    read = [Interval((), float(mean), float(half)) for mean, half in zip(found, halves, strict=True)]
    return AtLength(float(length.mean()), read[-1], dict(zip(runs, read, strict=False)), covariance[:-1, :-1], quantile)


def seeds_to_decide(found: Interval, low: float, high: float, most: int = 100) -> int | None:
    """How many seeds would bring the interval clear of both limits, if mean and spread stayed as they are.

    None: more than `most`, or one seed, whose spread is not known.
    """
    distance, n = min(abs(found.mean - limit) for limit in (low, high)), len(found.values)
    if n < 2:
        return None
    sd = float(np.std(found.values, ddof=1))
    return next((more for more in range(n, most + 1) if half_width(more, sd) < distance), None)


def verdict(difference: Interval, where: str) -> str:
    """A sentence on an NLL difference (aggressive minus plain) that claims no more than the numbers support."""
    said = {
        -1: "aggressive training models these lines better",
        1: "aggressive training models these lines worse",
        0: "no difference can be established",
    }[difference.sign]
    if np.isnan(difference.half_width):
        said = "one pair of runs cannot decide"
    return f"{where}: {said}; aggressive - plain = {difference}"
