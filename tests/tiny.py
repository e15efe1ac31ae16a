"""Small things that several test files need: a tiny text data set and a configuration that trains on it in a second."""

from dataclasses import replace

import torch

from lagvae_lib.config.profiles import Config, resolve
from lagvae_lib.config.settings import DataSettings, Evaluation, ModelSettings
from lagvae_lib.data.loading import Data, predicted_words
from lagvae_lib.data.text import TextBatches, Vocab


def tiny_data(seed: int = 0, train: int = 48, held_out: int = 16) -> Data:
    """Sentences of two kinds (words a* or words b*), so that there is something for z to say."""
    generator = torch.Generator().manual_seed(seed)
    vocab = Vocab.from_counts({f"{kind}{i}": 1 for kind in "ab" for i in range(4)}, min_count=0)

    def split(n):
        kinds = torch.randint(2, (n,), generator=generator).tolist()
        lengths = torch.randint(3, 6, (n,), generator=generator).tolist()
        words = torch.randint(4, (n, 6), generator=generator).tolist()
        return TextBatches(
            [vocab.encode([f"{'ab'[k]}{w}" for w in ws[:m]]) for k, m, ws in zip(kinds, lengths, words, strict=True)], 8
        )

    return Data(
        "tiny", split(train), split(held_out), split(held_out), "0" * 64, False, "made up", (), vocab, predicted_words
    )


def tiny_config(method: str, seed: int = 0, epochs: int = 3) -> Config:
    """`method` on `tiny_data`, with every part of the protocol on."""
    config = resolve("yelp-small", method, "smoke", seed)
    return replace(
        config,
        dataset="tiny",
        data=DataSettings(batch_size=8),
        model=ModelSettings(nz=2, embedding=6, hidden=8),
        schedule=replace(config.schedule, max_epochs=epochs, patience=1, decay_from=1),
        evaluation=Evaluation(iw_samples=20, observe_every=2, probe=16),
    )
