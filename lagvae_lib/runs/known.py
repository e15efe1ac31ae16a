"""Known information: what a code is about while a model trains on the grammar, in nats.

    python -m lagvae_lib.runs.known          trains what is missing, some minutes a run

Everything about a sentence of the grammar is known exactly: what it is about (topic, sentiment) and how it is built
(the phrase that opens it, the clause that continues it). So here it can be asked not only how much a code says but what
it says. The record is one CSV file, one row per measurement; the ceilings I(x; class) lie beside it.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace

import pandas as pd
import torch
from torch import Tensor, nn

from lagvae_lib import atomic, paths
from lagvae_lib.config.profiles import Config, resolve
from lagvae_lib.data.grammar import PHRASES, review_grammar
from lagvae_lib.data.loading import Data, load
from lagvae_lib.metrics import mutual_information
from lagvae_lib.metrics.evaluate import encode, spread_examples
from lagvae_lib.metrics.known_information import class_information
from lagvae_lib.runs.train import threads_for, trainer_of
from lagvae_lib.training import OBSERVED, noise

SEEDS = {"vae": (0,), "vae-anneal": (0, 1), "aggressive": (0,), "aggressive-anneal": (0, 1)}
PROBE = 1000  # validation sentences of a measurement
OPENINGS = [PHRASES[name].pattern.split()[0] for name in ("at", "visit", "taken")]  # each phrase has its own first word
CLAUSES = [PHRASES[name].pattern.split()[0] for name in ("and_thing", "but_person")]  # no other phrase has these words


def settings(method: str, seed: int = 0) -> Config:
    """Profile `quick` on the grammar, with its measurements as close at the end as at the start."""
    config = resolve("grammar", method, "quick", seed)
    return replace(config, evaluation=replace(config.evaluation, observe_dense=10_000))


def classes(words: Sequence[Sequence[str]]) -> dict[str, Tensor]:
    """p(class|x) of N sentences, [N, K] for each of the four classes that are known; the last two are certain."""
    posterior = torch.from_numpy(review_grammar().posterior(words))  # [N, topics, sentiments]
    clauses = [next((i for i, word in enumerate(CLAUSES) if word in sentence), len(CLAUSES)) for sentence in words]
    return {
        "topic": posterior.sum(2),
        "sentiment": posterior.sum(1),
        "opening": nn.functional.one_hot(torch.tensor([OPENINGS.index(s[0]) for s in words]), len(OPENINGS)),
        "continuation": nn.functional.one_hot(torch.tensor(clauses), len(CLAUSES) + 1),
    }


def ceilings(words: Sequence[Sequence[str]]) -> dict[str, float]:
    """I(x; class) in nats, of topic and sentiment as a mean over these sentences, of the other two exact."""
    grammar, following = review_grammar(), PHRASES["thing"].following
    clauses = [following["and_thing"], following["but_person"]]
    return {
        **{about: grammar.information(words, about)[0] for about in ("topic", "sentiment")},
        "opening": _entropy(grammar.start),
        "continuation": _entropy([*clauses, 1 - sum(clauses)]),
    }


def _entropy(probabilities: Iterable[float]) -> float:
    return -sum(p * math.log(p) for p in probabilities if p > 0)


def sentences(data: Data, batches: Iterable[Tensor]) -> list[list[str]]:
    """The words of each sentence, without <s> and </s>."""
    return [data.vocab.decode(row[1:-1].tolist()) for x in batches for row in x]


class Reading:
    """Called by the trainer: nats of each class in z, beside KL and MI, on validation sentences."""

    def __init__(self, config: Config, data: Data):
        self.seed, self.probe = config.seed, spread_examples(data.valid, PROBE)
        self.classes = classes(sentences(data, self.probe))

    def __call__(self, model: nn.Module, iteration: int) -> dict:
        """One row of the record."""
        q, _ = encode(model, self.probe)
        known = {
            about: class_information(q, posterior, noise(self.seed, OBSERVED, iteration))
            for about, posterior in self.classes.items()
        }
        mi = mutual_information.same_sample(q.mu, q.logvar, generator=noise(self.seed, OBSERVED, iteration))
        return known | {"kl": float(q.kl().mean()), "mi_large": mi.lower}


def train(config: Config, data: Data) -> pd.DataFrame:
    """The measurements of one run."""
    with threads_for(config):
        trainer = trainer_of(config, data, "cpu")
        trainer.observe = Reading(config, data)
        trainer.fit()
    seen = pd.DataFrame(trainer.state.observations).round(4)
    aggressive = sum(row["aggressive"] for row in trainer.state.history) * trainer.epoch_length
    return seen.assign(method=config.method.name, seed=config.seed, stage_end=aggressive)


def read() -> tuple[pd.DataFrame, dict[str, float]]:
    """The record and its ceilings, where LAGVAE_RESULTS has none the repository's own. Raises FileNotFoundError."""
    rows, most = (pd.read_csv(paths.recorded("known", name)) for name in ("grammar.csv", "ceilings.csv"))
    return rows, most.iloc[0].to_dict()


def main() -> None:
    """Train the runs that the record lacks."""
    data, folder = load("grammar", settings("vae").data, profile="quick"), paths.results_dir() / "known"
    path = folder / "grammar.csv"
    most = {about: round(value, 4) for about, value in ceilings(sentences(data, data.test)).items()}
    atomic.write_text(folder / "ceilings.csv", pd.DataFrame([most]).to_csv(index=False))
    rows = pd.read_csv(path) if path.exists() else pd.DataFrame(columns=["method", "seed"])
    parts = dict(list(rows.groupby(["method", "seed"])))
    wanted = [(method, seed) for method, seeds in SEEDS.items() for seed in seeds]
    for method, seed in wanted:
        if (method, seed) not in parts:
            parts[method, seed] = train(settings(method, seed), data)
            atomic.write_text(path, pd.concat([parts[run] for run in wanted if run in parts]).to_csv(index=False))
            print(method, seed, parts[method, seed].iloc[-1].to_dict(), flush=True)


if __name__ == "__main__":
    main()
