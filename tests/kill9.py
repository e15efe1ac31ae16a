"""Runs that are killed by SIGKILL at random moments end with the numbers of runs that nobody disturbed.

    python -m tests.kill9 [kills]       100 by default, shared out over text, images, SA-VAE, pretraining and two levels

Each run is trained in forked processes, with a checkpoint after every update; one is killed after a random time and
another goes on. At the end the record is compared with that of an undisturbed run, and nothing may be left behind.
"""

import json
import os
import random
import signal
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch

from lagvae_lib.config.profiles import resolve
from lagvae_lib.config.settings import DataSettings, Evaluation, ImageModelSettings
from lagvae_lib.data import loading
from lagvae_lib.runs import train
from tests.tiny import tiny_config, tiny_data

RECORD = {"config.json", "history.csv", "metrics.json", "dynamics.csv", "weights.safetensors"}
LEFT = RECORD | {".lock", "codes.npz", "words.csv", "vocabulary.json"}  # the last three of text
TIMES = ("seconds", "cpu_seconds", "provenance")


def images(method: str):
    """A tiny image run: configuration and data."""
    config = resolve("glyphs", method, "smoke", 0)
    config = replace(
        config,
        data=DataSettings(batch_size=8, train=32, valid=16, test=16),
        model=ImageModelSettings(nz=3, encoder=4, last=8, kernels=(3, 3, 3, 3), channels=4, latent_maps=2),
        evaluation=Evaluation(iw_samples=2, iw_examples=4, observe_every=2, probe=8),
    )
    return config, loading.load("glyphs", config.data, profile="smoke")


CASES = {
    "text, aggressive": lambda: (tiny_config("aggressive-anneal"), tiny_data()),
    "text, SA-VAE": lambda: (tiny_config("sa-vae+steps=2"), tiny_data()),
    "text, pretraining": lambda: (tiny_config("pretrain-free-bits"), tiny_data()),
    "images, aggressive": lambda: images("aggressive+fixed_steps=4"),
    "images, two levels": lambda: images("vampprior-2level"),
}


def start(case, results: Path) -> int:
    """A forked process that trains the run, or goes on with it; its id."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        os.environ["LAGVAE_RESULTS"] = str(results)
        train.run(*case, checkpoint_seconds=0.0)
        status = 0
    finally:
        os._exit(status)


def numbers(results: Path) -> tuple[dict, str, str]:
    """What a record says, times left out."""
    folder = next(results.rglob("metrics.json")).parent
    metrics = json.loads((folder / "metrics.json").read_text())
    history = [",".join(line.split(",")[:-1]) for line in (folder / "history.csv").read_text().splitlines()]
    return (
        {name: value for name, value in metrics.items() if name not in TIMES},
        "\n".join(history),  # its last column is the time
        (folder / "dynamics.csv").read_text(),
    )


def disturbed(case, results: Path, kills: int, longest: float, rng: random.Random) -> int:
    """Train with at most so many kills; returns how many found the process alive."""
    hits = 0
    while True:
        child = start(case, results)
        if hits < kills:
            time.sleep(rng.uniform(0, longest))
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):
            hits += 1
        elif os.WEXITSTATUS(status):
            raise SystemExit(f"the run failed after {hits} kills")
        else:
            return hits


def main(kills: int = 100, names=tuple(CASES)) -> None:
    """Kill, compare, and say what was done for each case."""
    torch.set_num_threads(1)
    rng = random.Random(0)
    for name in names:
        case = CASES[name]()
        with tempfile.TemporaryDirectory() as folder:
            whole, torn = Path(folder, "whole"), Path(folder, "torn")
            began = time.monotonic()
            disturbed(case, whole, 0, 0, rng)
            took = time.monotonic() - began
            hits, goal = 0, kills // len(names)
            while hits < goal:  # a run that ended before its kills were used is followed by another
                here = torn / str(hits)
                hits += disturbed(case, here, goal - hits, took / 3, rng)
                assert numbers(here) == numbers(whole), name
                left = {file.name for file in here.rglob("*") if file.is_file()} - LEFT
                assert not left, (name, left)
            print(f"{name}: {hits} kills, same numbers, nothing left behind", flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
