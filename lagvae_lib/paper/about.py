"""What the codes of recorded runs are about, in nats: a label that no model saw, first word, length, unknown words."""

from collections.abc import Iterable
from contextlib import suppress

import numpy as np
import pandas as pd

from lagvae_lib.config.methods import label
from lagvae_lib.metrics.probe import TooFewLabels, draw, linear_probe, pooled, ranges
from lagvae_lib.runs.record import Run

READ = 2000  # test examples whose codes are read: Bayes' rule compares each with every other


def about(runs: Iterable[Run]) -> pd.DataFrame:
    """What the codes of recorded runs say, in nats, from one draw of z per test example; one row per run.

    label: by a linear probe, and by Bayes' rule (`class_information`). first word, length, unknown words (their share):
    by Bayes' rule; first words of less than 1% of the documents are one class. All are lower bounds, a little below 0
    where nothing is there to be read. The last row has the most that there is, the entropy of each. Empty where no run
    kept its codes. Of more than `READ` examples that many are read, from all over the set.
    """
    rows, most = {}, {}
    for run in runs:
        if run.codes:
            codes = {name: values[:: -(-len(values) // READ)] for name, values in run.codes.items()}
            row = rows[f"{label(run.metrics['method'], run.family)}, seed {run.metrics['seed']}"] = {}
            row["MI, all examples"] = run.metrics["mi_large"]
            if "labels" in codes:
                with suppress(TooFewLabels):
                    probe = linear_probe(draw(codes), codes["labels"])
                    row["label, linear probe"], most["label, linear probe"] = probe.nats, probe.entropy
            for title, classes in _classes(codes).items():
                row[title], most[title] = _by_bayes(codes, classes)
    return pd.DataFrame.from_dict(rows | ({"the most there is": most} if rows else {}), orient="index")


def _classes(codes: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    found = {"label": codes.get("labels"), "first word": codes.get("opening"), "length": codes.get("words")}
    if "unknown" in codes:
        found["unknown words"] = codes["unknown"] / codes["words"]
    ways = {"label": pooled, "first word": pooled, "length": ranges, "unknown words": ranges}
    return {name: ways[name](values) for name, values in found.items() if values is not None}


def _by_bayes(codes: dict[str, np.ndarray], classes: np.ndarray) -> tuple[float, float]:
    """Nats about the classes in z, and their entropy."""
    import torch  # which tables do without

    from lagvae_lib.metrics.known_information import class_information
    from lagvae_lib.models.gaussian import DiagonalGaussian

    q = DiagonalGaussian(*(torch.from_numpy(codes[name].astype(np.float64)) for name in ("means", "logvar")))
    _, numbers, counts = np.unique(classes, return_inverse=True, return_counts=True)
    share = counts / counts.sum()
    exact = torch.eye(len(counts), dtype=torch.float64)[torch.from_numpy(numbers)]
    found = class_information(q, exact, torch.Generator().manual_seed(0))
    return found, float(-(share * np.log(share)).sum())


def words_of(run: Run) -> pd.DataFrame:
    """The words that go with each active unit of a text run, the most expensive unit first: KL, and the words that a
    document with a high, or a low, posterior mean has more of. Empty without an active unit, or without `words.csv`."""
    path, costs = run.folder / "words.csv", run.metrics.get("kl_per_dim", [])
    found = pd.read_csv(path, keep_default_na=False) if path.exists() else pd.DataFrame(columns=["unit"])
    rows = [
        {
            "unit": int(unit),
            "KL": costs[int(unit)],
            "high": " ".join(of["word"][of["correlation"] > 0]),
            "low": " ".join(of["word"][of["correlation"] < 0][::-1]),
        }
        for unit, of in found.groupby("unit")
    ]
    return pd.DataFrame(rows).sort_values("KL", ascending=False).set_index("unit") if rows else pd.DataFrame()
