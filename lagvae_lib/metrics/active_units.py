"""Active units (Burda et al. 2016): dimensions whose posterior mean moves when x does."""

from collections.abc import Iterable, Sequence

from torch import Tensor

from lagvae_lib.metrics import THRESHOLD


class RunningVariance:
    """Per-dimension mean and unbiased variance over batches seen one after the other (Chan's merge, float64).

    Equal to `numpy.var(ddof=1)` of everything seen at once, whatever the batches.
    """

    def __init__(self):
        self.count = 0
        self._mean: Tensor | None = None
        self._squares: Tensor | None = None

    def update(self, values: Tensor) -> None:
        """Add a batch, values [B, nz]; an empty one changes nothing."""
        values = values.detach().double()
        if not len(values):
            return
        mean = values.mean(0)
        squares = (values - mean).square().sum(0)
        if self._mean is None:
            self.count, self._mean, self._squares = len(values), mean, squares
            return
        total, shift = self.count + len(values), mean - self._mean
        self._squares = self._squares + squares + shift.square() * self.count * len(values) / total
        self._mean = self._mean + shift * len(values) / total
        self.count = total

    @property
    def mean(self) -> Tensor:
        """[nz]. Raises ValueError before the first batch."""
        if self._mean is None:
            raise ValueError("no values yet")
        return self._mean

    @property
    def variance(self) -> Tensor:
        """Unbiased variance, [nz]. Raises ValueError below two values."""
        if self.count < 2:
            raise ValueError(f"a variance needs at least 2 values, not {self.count}")
        return self._squares / (self.count - 1)


def variance_of_means(batches: Iterable[Tensor]) -> Tensor:
    """Var_x E_q[z_j|x] of every dimension j, [nz] in float64, from batches of posterior means [B, nz]."""
    running = RunningVariance()
    for mu in batches:
        running.update(mu)
    return running.variance


def active_units(variance: Tensor, threshold: float = THRESHOLD) -> int:
    """How many dimensions reach the threshold (the paper's is 0.01); variance [nz]."""
    return int((variance >= threshold).sum())


def threshold_curve(variance: Tensor, thresholds: Sequence[float]) -> list[int]:
    """Active units at each threshold: a count that hangs on the threshold is not a count of anything."""
    return [active_units(variance, threshold) for threshold in thresholds]
