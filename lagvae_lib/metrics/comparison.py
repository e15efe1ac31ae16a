"""Two methods beside each other: how well two sets of means agree, and whether a difference over seeds can be told."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

# Student's t at 97.5% for 1, 2, ... degrees of freedom; past the table the last value, which errs to the wide side
T_975 = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26)


class Agreement(NamedTuple):
    """Of points in the posterior mean space: correlation, least-squares slope of vertical on horizontal, and spreads.

    Correlation and slope are nan where one of the spreads (standard deviations) is below `COLLAPSED`: what is left
    there is rounding.
    """

    correlation: float
    slope: float
    model_sd: float
    inference_sd: float


COLLAPSED = 1e-3


def agreement(model_mean: np.ndarray, inference_mean: np.ndarray) -> Agreement:
    """How near the points (model_mean, inference_mean), [N] each, lie to the diagonal, where both numbers are 1."""
    x, y = np.asarray(model_mean, dtype=np.float64), np.asarray(inference_mean, dtype=np.float64)
    sd = float(x.std()), float(y.std())
    if min(sd) < COLLAPSED:
        return Agreement(np.nan, np.nan, *sd)
    covariance = float(((x - x.mean()) * (y - y.mean())).mean())
    return Agreement(covariance / (sd[0] * sd[1]), covariance / sd[0] ** 2, *sd)


def relative_lag(model_mean: np.ndarray, inference_mean: np.ndarray) -> np.ndarray:
    """The share of the spread of the model's posterior means that the inference network does not follow.

    Var(model_mean - inference_mean) / Var(model_mean), variances over the last axis (N examples): [..., N] -> [...].
    0 where the network follows every mean, 1 where it says the same of every example. More than 1 where it moves the
    wrong way or too far. nan where the model's means spread (standard deviation) by less than `COLLAPSED`.
    """
    x, y = np.asarray(model_mean, dtype=np.float64), np.asarray(inference_mean, dtype=np.float64)
    spread = x.var(-1)
    return np.where(np.sqrt(spread) < COLLAPSED, np.nan, (x - y).var(-1) / np.maximum(spread, COLLAPSED**2))


@dataclass(frozen=True)
class Paired:
    """Differences b - a over seeds: their mean, and half of the 95% interval by Student's t (nan for one seed)."""

    differences: tuple[float, ...]
    mean: float
    half_width: float

    @property
    def sign(self) -> int:
        """-1 or 1 where the interval excludes zero, 0 where it does not or cannot."""
        return int(np.sign(self.mean)) if abs(self.mean) > self.half_width else 0

    def __str__(self) -> str:
        if np.isnan(self.half_width):
            return f"{self.mean:+.3f} nats (one seed, no interval)"
        return f"{self.mean:+.3f} ± {self.half_width:.3f} nats (95%, {len(self.differences)} seeds)"


def paired(a: list[float], b: list[float]) -> Paired:
    """b - a of runs that share their seeds. Raises ValueError for unequal or empty lists."""
    if len(a) != len(b) or not len(a):
        raise ValueError(f"pairs need as many values of one as of the other, at least one: {len(a)} and {len(b)}")
    differences = np.asarray(b, dtype=np.float64) - np.asarray(a, dtype=np.float64)
    n = len(differences)
    half = T_975[min(n - 1, len(T_975)) - 1] * differences.std(ddof=1) / n**0.5 if n > 1 else np.nan
    return Paired(tuple(differences.tolist()), float(differences.mean()), float(half))


def verdict(difference: Paired, where: str) -> str:
    """A sentence on an NLL difference (aggressive minus plain) that says no more than the numbers do."""
    said = {
        -1: "aggressive training models these lines better",
        1: "aggressive training models these lines worse",
        0: "no difference can be told",
    }[difference.sign]
    if np.isnan(difference.half_width):
        said = "one pair of runs cannot tell"
    return f"{where}: {said}; aggressive - plain = {difference}"
