"""How much of a run is rounding: the toy's first updates, with one weight at the start moved by its last bit.

    python -m lagvae_lib.runs.last_bit          trains what the record lacks, one to three minutes a run

A processor that adds in another order makes differences of that size. The record is one CSV file, one row per run:
what the probe (500 validation lines) says after `UPDATES` decoder updates, in nats.
"""

import math
from dataclasses import replace

import pandas as pd
import torch
from torch import Tensor

from lagvae_lib import atomic, paths
from lagvae_lib.config.profiles import Config, resolve
from lagvae_lib.data.loading import Data, load
from lagvae_lib.runs.provenance import machine
from lagvae_lib.runs.train import threads_for, trainer_of

METHOD, PROFILE = "aggressive", "paper"
SEEDS = (0, 2)
UPDATES = 200  # decoder updates, each with its inner loop
AS_IT_IS = -1
WEIGHTS = (AS_IT_IS, 0, 17, 33, 50, 67, 83)  # of the encoder's last layer: half of its mu's, half of its logvar's
PLACE = "last_bit", f"{METHOD}.csv"  # among the records
KEPT = ("kl", "mi_large", "posterior_sd")


def settings(seed: int, updates: int = UPDATES, profile: str = PROFILE) -> Config:
    """The run's own configuration, ended after so many decoder updates."""
    config = resolve("synthetic", METHOD, profile, seed)
    config = replace(config, schedule=replace(config.schedule, epoch_updates=updates, max_epochs=1))
    return replace(config, evaluation=replace(config.evaluation, observe_every=updates))


def train(config: Config, data: Data, weight: int) -> dict:
    """One row of the record: trained with the encoder's `weight` moved to the next float32 number, or as it is."""
    with threads_for(config):
        trainer = trainer_of(config, data, "cpu")
        if weight != AS_IT_IS:
            move(trainer.model.encoder.linear.weight.data, weight)
        trainer.fit()
    seen = trainer.state.observations[-1]
    row = {"seed": config.seed, "weight": weight, "iteration": seen["iteration"]}
    return row | {key: round(float(seen[key]), 6) for key in KEPT} | machine("cpu")


def move(weights: Tensor, place: int) -> None:
    """Replace the weight at this place of the flattened float32 `weights` by the next larger number."""
    one = weights.view(-1)[place]
    one.copy_(torch.nextafter(one, torch.tensor(math.inf)))


def read() -> pd.DataFrame:
    """The record, where LAGVAE_RESULTS has none the repository's own. Raises FileNotFoundError."""
    return pd.read_csv(paths.recorded(*PLACE))


def main() -> None:
    """Train the runs that the record lacks."""
    data, path = load("synthetic", settings(0).data, profile=PROFILE), paths.results_dir().joinpath(*PLACE)
    rows = pd.read_csv(path).to_dict("records") if path.exists() else []
    for seed in SEEDS:
        for weight in WEIGHTS:
            if not any(row["seed"] == seed and row["weight"] == weight for row in rows):
                rows.append(train(settings(seed), data, weight))
                atomic.write_text(path, pd.DataFrame(rows).to_csv(index=False))
                print(rows[-1], flush=True)


if __name__ == "__main__":
    main()
