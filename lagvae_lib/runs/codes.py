"""What a run keeps of its test set's codes, `codes.npz`: for pictures, and for what can be read from z."""

import numpy as np
import torch

from lagvae_lib.data.loading import Data
from lagvae_lib.data.text import UNKNOWN
from lagvae_lib.metrics.evaluate import encode


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
