"""Known information: how many nats of topic and sentiment a code holds while a model trains on the grammar.

    python -m lagvae_lib.runs.known          trains what is missing, a few minutes per method

The grammar's class is known exactly for every sentence, so here it can be asked not only how much a code says but
what. The record is one CSV file, one row per look; the ceilings I(x; class) lie beside it.
"""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch
from torch import nn

from lagvae_lib import atomic, paths
from lagvae_lib.config.profiles import Config, resolve
from lagvae_lib.data.grammar import review_grammar
from lagvae_lib.data.loading import Data, load
from lagvae_lib.metrics import mutual_information
from lagvae_lib.metrics.evaluate import encode, spread_examples
from lagvae_lib.metrics.known_information import class_information
from lagvae_lib.runs.train import trainer_of
from lagvae_lib.training import OBSERVED, noise

METHODS = ("vae", "aggressive")
EPOCHS, UPDATES, EVERY, PROBE = 16, 50, 25, 300  # an epoch is 50 decoder updates, a look every 25 of them
ABOUT = {"topic": (2,), "sentiment": (1,)}  # which axes of p(topic, sentiment|x) are summed over


def folder() -> Path:
    """Where the record lies."""
    return paths.results_dir() / "known"


def settings(method: str, seed: int = 0) -> Config:
    """Profile `scaled` on the grammar, but shorter, with a look every `EVERY` decoder updates."""
    config = resolve("grammar", method, "scaled", seed)
    schedule = replace(config.schedule, max_epochs=EPOCHS, epoch_updates=UPDATES)
    return replace(config, schedule=schedule, evaluation=replace(config.evaluation, observe_every=EVERY))


class Looker:
    """Called by the trainer: nats of topic and of sentiment in z, beside KL and MI, on validation sentences."""

    def __init__(self, config: Config, data: Data):
        self.seed, self.probe = config.seed, spread_examples(data.valid, PROBE)
        words = [data.vocab.decode(row[1:-1].tolist()) for x in self.probe for row in x]
        self.words, self.posterior = words, torch.from_numpy(review_grammar().posterior(words))

    def __call__(self, model: nn.Module, iteration: int) -> dict:
        """One row of the record."""
        q, _ = encode(model, self.probe)
        known = {
            about: class_information(q, self.posterior.sum(axes), noise(self.seed, OBSERVED, iteration))
            for about, axes in ABOUT.items()
        }
        mi = mutual_information.same_sample(q.mu, q.logvar, generator=noise(self.seed, OBSERVED, iteration))
        return known | {"kl": float(q.kl().mean()), "mi_large": mi.lower}


def train(config: Config, data: Data) -> pd.DataFrame:
    """The looks of one run."""
    trainer = trainer_of(config, data, "cpu")
    trainer.observe, trainer.observe_every = Looker(config, data), config.evaluation.observe_every
    trainer.fit()
    seen = pd.DataFrame(trainer.state.observations).round(4)
    aggressive = sum(row["aggressive"] for row in trainer.state.history) * trainer.epoch_length
    return seen.assign(method=config.method.name, seed=config.seed, stage_end=aggressive)


def ceilings(data: Data) -> dict[str, float]:
    """I(x; topic) and I(x; sentiment) in nats, exact but for the mean over the test sentences."""
    words = [data.vocab.decode(row[1:-1].tolist()) for x in data.test for row in x]
    return {about: round(review_grammar().information(words, about)[0], 4) for about in ABOUT}


def read() -> tuple[pd.DataFrame, dict[str, float]]:
    """The record and its ceilings. Raises FileNotFoundError where there is none."""
    rows = pd.read_csv(folder() / "grammar.csv")
    return rows, pd.read_csv(folder() / "ceilings.csv").iloc[0].to_dict()


def main() -> None:
    """Train the methods that the record lacks."""
    data, path = load("grammar", settings("vae").data, profile="scaled"), folder() / "grammar.csv"
    rows = pd.read_csv(path) if path.exists() else pd.DataFrame(columns=["method"])
    atomic.write_text(folder() / "ceilings.csv", pd.DataFrame([ceilings(data)]).to_csv(index=False))
    for method in METHODS:
        if method not in set(rows["method"]):
            rows = pd.concat([rows, train(settings(method), data)]) if len(rows) else train(settings(method), data)
            atomic.write_text(path, rows.to_csv(index=False))
            print(method, rows[rows["method"] == method].iloc[-1].to_dict(), flush=True)


if __name__ == "__main__":
    main()
