"""Runs that nobody made, as records, for what reads records."""

from dataclasses import replace
from pathlib import Path

import pandas as pd

from lagvae_lib.config.identity import as_json
from lagvae_lib.config.profiles import resolve
from lagvae_lib.runs.record import Run


def made_up(method, seed=0, *, dataset="yelp-small", profile="scaled", exact=False, **metrics):
    """A run of 4 epochs of 10 updates, the first 2 aggressive with 5 and 15 inner steps where the method is."""
    aggressive = method.startswith("aggressive")
    history = pd.DataFrame(
        {
            "iteration": [10, 20, 30, 40],
            "aggressive": [aggressive, aggressive, False, False],
            "inner_steps": [5.0, 15.0, 0.0, 0.0] if aggressive else 0.0,
        }
    )
    values = {"nll": 100.0, "kl": 1.0, "mi": 0.5, "mi_large": 0.6, "au": 2} | metrics
    cpu = {"plain": 20.0, "aggressive": 100.0, "test": 7.0} if aggressive else {"plain": 40.0, "test": 7.0}
    values |= {"dataset": dataset, "profile": profile, "method": method, "seed": seed, "nll_is_exact": exact}
    values |= {"cpu_seconds": cpu, "seconds": {name: 2 * value for name, value in cpu.items()}}
    values = {"ended": "schedule", "iterations": 40} | values
    config = as_json(resolve(dataset, method, profile, seed))
    return Run(Path(f"{dataset}/{method}/seed{seed}"), config, values, history, pd.DataFrame(), {})


def of_earlier_settings(run):
    """The same run, made when its profile had another learning rate."""
    return replace(run, config=run.config | {"schedule": run.config["schedule"] | {"lr": 0.123}})
