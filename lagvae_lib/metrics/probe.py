"""What can be read from the code: information that a person cares about, such as a review's stars.

The model never sees the labels. A probe is a multinomial logistic regression, judged on examples that it was not fitted
to, so that what it reads is a lower bound on the information about the label. It is to read draws of z, not posterior
means: a mean that moves by a hundredth of q's own spread tells a probe everything, and the decoder, which sees z,
nothing.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

FOLDS = 5


class TooFewLabels(ValueError):
    """A probe has nothing to be fitted to, or to be judged on."""


class Probe(NamedTuple):
    """nats: H(label) minus the probe's cross-entropy on held-out examples; a useless probe can fall below 0.

    entropy: H(label), the most that could be read. accuracy: share of held-out examples whose label is the most
    probable. majority: the same for always guessing the most frequent label.
    """

    nats: float
    entropy: float
    accuracy: float
    majority: float


def draw(codes: Mapping[str, np.ndarray], seed: int = 0) -> np.ndarray:
    """One z ~ q(z|x) of each example, [N, nz], from the `means` and `logvar` that a record keeps."""
    means, logvar = (codes[name].astype(np.float64) for name in ("means", "logvar"))
    return means + np.exp(0.5 * logvar) * np.random.default_rng(seed).standard_normal(means.shape)


def pooled(values: np.ndarray, least: float = 0.01) -> np.ndarray:
    """The class of each of `values` [N], as numbers: those rarer than `least` of all are one class together."""
    _, numbers, counts = np.unique(values, return_inverse=True, return_counts=True)
    return np.where(counts < least * len(values), -1, np.arange(len(counts)))[numbers]


def ranges(values: np.ndarray, parts: int = 10) -> np.ndarray:
    """Which of `parts` equally frequent ranges each of `values` [N] lies in; fewer where one value is that frequent."""
    return np.digitize(values, np.unique(np.quantile(values, np.arange(1, parts) / parts)))


def linear_probe(z: np.ndarray, labels: np.ndarray, folds: int = FOLDS, seed: int = 0) -> Probe:
    """What a linear probe reads of `labels` [N] from codes [N, nz], cross-validated over `folds` parts.

    Raises `TooFewLabels` where there are fewer than two labels, or a label has fewer examples than there are folds.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    kinds, numbers, counts = np.unique(np.asarray(labels), return_inverse=True, return_counts=True)
    if len(kinds) < 2 or counts.min() < folds:
        found = ", ".join(f"{kind}: {count}" for kind, count in zip(kinds, counts, strict=True))
        raise TooFewLabels(f"a probe needs two labels with at least {folds} examples each, not {found}")
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    parts = StratifiedKFold(folds, shuffle=True, random_state=seed)
    x = np.asarray(z, dtype=np.float64)
    predicted = cross_val_predict(probe, x, numbers, cv=parts, method="predict_proba")  # [N, labels]
    share = counts / counts.sum()
    entropy = float(-(share * np.log(share)).sum())
    cross_entropy = float(-np.log(predicted[np.arange(len(x)), numbers]).mean())
    accuracy = float((predicted.argmax(1) == numbers).mean())
    return Probe(entropy - cross_entropy, entropy, accuracy, float(share.max()))
