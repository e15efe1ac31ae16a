"""What a linear probe reads from the code: information that a person cares about, such as a review's stars.

The model never sees the labels. The probe is a multinomial logistic regression on the posterior means, judged on
examples that it was not fitted to, so that what it reads is a lower bound on the information in them about the label.
"""

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


def linear_probe(means: np.ndarray, labels: np.ndarray, folds: int = FOLDS, seed: int = 0) -> Probe:
    """What a linear probe reads of `labels` [N] from posterior means [N, nz], cross-validated over `folds` parts.

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
    x = np.asarray(means, dtype=np.float64)
    predicted = cross_val_predict(probe, x, numbers, cv=parts, method="predict_proba")  # [N, labels]
    share = counts / counts.sum()
    entropy = float(-(share * np.log(share)).sum())
    cross_entropy = float(-np.log(predicted[np.arange(len(x)), numbers]).mean())
    accuracy = float((predicted.argmax(1) == numbers).mean())
    return Probe(entropy - cross_entropy, entropy, accuracy, float(share.max()))
