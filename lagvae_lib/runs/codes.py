"""What a run keeps of its test set's codes, for pictures and for what can be read from z."""

from collections.abc import Iterable

import numpy as np
import pandas as pd
import torch

from lagvae_lib.data.loading import Data
from lagvae_lib.data.text import UNKNOWN
from lagvae_lib.metrics import THRESHOLD
from lagvae_lib.metrics.evaluate import encode

COMMON = 0.02  # the share of the documents that a word has to be in
WORDS = 8  # of each end of a unit


@torch.no_grad()
def codes_of(model: torch.nn.Module, data: Data, device: str = "cpu") -> dict[str, np.ndarray]:
    """means, logvar: q(z|x) of the N test examples, [N, nz], in half precision. labels: [N], which the model never saw,
    where the data have any. Of text also opening, the id of a document's first word, words, how many it has, and, where
    there are any, unknown, how many of them are <unk>, [N].
    """
    q, _ = encode(model, data.test.to(device))
    found = {name: value.half().cpu().numpy() for name, value in (("means", q.mu), ("logvar", q.logvar))}
    if data.labels is not None:
        found["labels"] = np.asarray(data.test_labels)
    if data.family == "text":
        found["opening"] = np.concatenate([x[:, 1].cpu().numpy().astype(np.int32) for x in data.test])
        found["words"] = np.concatenate([np.full(len(x), x.shape[1] - 2, dtype=np.int32) for x in data.test])
        unknown = np.concatenate([(x == UNKNOWN).sum(1).cpu().numpy().astype(np.int32) for x in data.test])
        found |= {"unknown": unknown} if unknown.any() else {}
    return found


def words_of_units(means: np.ndarray, documents: Iterable[Iterable[int]], words: tuple[str, ...]) -> pd.DataFrame:
    """Which words go with each active unit, a reading that needs no label: one row a unit and word.

    means: posterior means of the documents, [N, nz]. documents: their word ids without <s> and </s>, in the same order.
    words: by id. correlation: of a unit's mean with the word's share of a document, over the documents; the `WORDS`
    highest and the `WORDS` lowest of each unit, among the words that are in `COMMON` of the documents or more.
    """
    documents = [np.fromiter(document, dtype=np.int64) for document in documents]
    appears = sum(np.bincount(np.unique(document), minlength=len(words)) for document in documents)
    common = np.flatnonzero(appears >= COMMON * len(documents))  # a few hundred of the 20,000 that there may be
    place = np.full(len(words), len(common))
    place[common] = np.arange(len(common))
    counts = (np.bincount(place[document], minlength=len(common) + 1)[:-1] for document in documents)
    shares = np.stack([count / max(len(document), 1) for count, document in zip(counts, documents, strict=True)])
    common, shares = common[shares.std(0) > 0], shares[:, shares.std(0) > 0]
    rows, means = [], means.astype(np.float64)
    for unit in np.flatnonzero(means.var(0) >= THRESHOLD):
        mean = means[:, unit]
        correlation = (shares - shares.mean(0)).T @ (mean - mean.mean()) / len(mean) / (shares.std(0) * mean.std())
        order = np.argsort(-correlation, kind="stable")
        ends = order if len(order) <= 2 * WORDS else np.concatenate([order[:WORDS], order[-WORDS:]])
        rows += [{"unit": unit, "word": words[common[i]], "correlation": round(correlation[i], 3)} for i in ends]
    return pd.DataFrame(rows, columns=["unit", "word", "correlation"])
