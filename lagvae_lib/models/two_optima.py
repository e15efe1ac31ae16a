"""A linear-Gaussian VAE with two equally good optima, one that uses z and one that does not, and no other.

Data x ~ N(0, C) with C = w w' + s^2 I. The decoder has one parameter, the share t in [0, 1] of z:

    p_t(x|z) = N(t w z, C - t w w')         t = 1: all correlation passes through z; t = 0: the noise carries it.

Its marginal N(0, C - t(1 - t) w w') is the data's at both ends and at no t between. Everything depends on the data by
c = w' C^-1 w alone, the squared correlation of x with z. The posterior means of all x move together: m(t) times the
same statistic of unit variance. The encoder has one parameter too, its gain a on that statistic; its variance is kept
at the posterior's, its best value, so what is left of the lag is a(t) != m(t).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np


class Path(NamedTuple):
    """A run of gradient ascent: the share of z and the encoder's gain after every decoder step, [S + 1] each."""

    share: np.ndarray
    gain: np.ndarray


@dataclass(frozen=True)
class TwoOptima:
    """c: squared correlation of x with z where the decoder uses z fully, in (0, 1). All values in nats per example."""

    c: float = 0.95

    def __post_init__(self):
        if not 0 < self.c < 1:
            raise ValueError(f"c must lie between 0 and 1, not {self.c}")

    def log_likelihood(self, t):
        """E log p_t(x) less its value at the two optima: 0 at t = 0 and 1, negative between."""
        missing = t * (1 - t) * self.c
        return -0.5 * (np.log1p(-missing) + missing / (1 - missing))

    def posterior(self, t):
        """p_t(z|x): the factor m(t) of its mean, and its variance V(t)."""
        precision = (1 - t * self.c + t**2 * self.c) / (1 - t * self.c)
        return t * math.sqrt(self.c) / (1 - t * self.c) / precision, 1 / precision

    def elbo(self, t, a):
        """E ELBO less its value at the two optima, at the best variance of q: likelihood less lag."""
        m, variance = self.posterior(t)
        return self.log_likelihood(t) - (a - m) ** 2 / (2 * variance)

    def gradient(self, t, a) -> tuple:
        """Derivatives of `elbo` in t and in a."""
        m, variance = self.posterior(t)
        c, missing = self.c, t * (1 - t) * self.c
        likelihood = -0.5 * (1 - 2 * t) * c * missing / (1 - missing) ** 2
        d_m = math.sqrt(c) * (1 - c * t**2) / (1 - c * t + c * t**2) ** 2
        d_precision = (2 * t * c * (1 - t * c) + t**2 * c**2) / (1 - t * c) ** 2
        return likelihood + (a - m) * d_m / variance - (a - m) ** 2 * d_precision / 2, (m - a) / variance

    def climb(self, t, a, inner: int | Sequence[int], steps: int = 4000, rate: float = 0.02, outer: int = 1) -> Path:
        """Gradient ascent from (t, a): `inner` steps of the encoder and then `outer` of the decoder, `steps` times.

        t, a: numbers or arrays of starts. inner: one number, or one for each of the `steps`. The share is kept within
        [0, 1].
        """
        t, a = np.asarray(t, dtype=np.float64), np.asarray(a, dtype=np.float64)
        shares, gains = [t], [a]
        for count in np.broadcast_to(inner, steps):
            m, variance = self.posterior(t)
            a = m + (a - m) * (1 - rate / variance) ** count  # all inner steps at once: each shrinks the lag alike
            for _ in range(outer):
                t = np.clip(t + rate * self.gradient(t, a)[0], 0, 1)
            shares.append(t)
            gains.append(a)
        return Path(np.stack(shares), np.stack(gains))
