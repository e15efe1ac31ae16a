"""What the inner loop's test of convergence would do if there were nothing left to converge."""

import math


def counts_of_noise(window: int, max_steps: int = 99) -> dict[int, float]:
    """The distribution of inner counts when the windows' mean losses are nothing but independent noise.

    The loop ends with the first window whose mean is above the one before, and n means in a row all fall with
    probability 1/n!. So it ends with window n with probability 1/(n-1)! - 1/n!, after e windows on average: 27.2 steps
    at a window of 10, 40.8 at 15. What has not ended then ends with `max_steps`. {inner steps: probability}.
    """
    windows = max_steps // window
    counts = {n * window: 1 / math.factorial(n - 1) - 1 / math.factorial(n) for n in range(2, windows + 1)}
    counts[max_steps] = counts.get(max_steps, 0.0) + 1 / math.factorial(windows)
    return counts


def mean_count(counts: dict[int, float]) -> float:
    """Mean of a distribution of inner counts, {inner steps: weight}; the weights need not sum to 1."""
    return sum(steps * weight for steps, weight in counts.items()) / sum(counts.values())
