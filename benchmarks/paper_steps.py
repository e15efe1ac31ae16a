"""`python -m benchmarks.paper_steps`: a few real steps of profile `paper`, with a checkpoint and a resumption between.

The profile can't be trained without a GPU, but its outer iterations run anywhere. Each of `CASES` makes two aggressive
ones at the paper's shape, writes a checkpoint, makes a new trainer that goes on from it, and makes a third. Written to
`results/bench/paper-steps.json`: losses (nats per example), inner steps, seconds, and the checkpoint's size.
"""

import argparse
import math
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import torch

from benchmarks import measure
from lagvae_lib import atomic, paths
from lagvae_lib.config.profiles import Config, resolve
from lagvae_lib.data import loading
from lagvae_lib.runs import train
from lagvae_lib.training import Trainer

CASES = ("yelp-small", "omniglot-28")  # public; the paper's own data sets may not be at hand
BEFORE, AFTER = 2, 1  # outer iterations before and after the resumption


class Stop(Exception):
    """Raised out of the training loop after the wanted number of iterations."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.paper_steps", description=__doc__.split("\n\n")[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--profile", default="paper", help="another profile, to try this command itself")
    parser.add_argument("datasets", nargs="*", default=CASES)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    record = {"machine": measure.machine(), "threads": arguments.threads, "profile": arguments.profile}
    record["runs"] = [measured(dataset, arguments.profile) for dataset in arguments.datasets]
    name = "paper-steps.json" if arguments.profile == "paper" else f"{arguments.profile}-steps.json"
    atomic.write_json(paths.results_dir() / "bench" / name, record)


def measured(dataset: str, profile: str) -> dict:
    """The iterations of one data set as rows, and what the checkpoint cost. Raises where a loss is not finite."""
    config = resolve(dataset, "aggressive", profile, 0)
    loaded = loading.load(dataset, config.data, profile=profile)
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder) / "checkpoint.pt"
        trainer, rows = _iterate(config, loaded, BEFORE)
        start = time.perf_counter()
        train.save(checkpoint, trainer.state_dict())
        saved = {"checkpoint_mib": checkpoint.stat().st_size / measure.MIB, "save": time.perf_counter() - start}
        del trainer
        start = time.perf_counter()
        _, more = _iterate(config, loaded, AFTER, checkpoint)
        saved["resume"] = time.perf_counter() - start - sum(row["seconds"] for row in more)
    rows += more
    if not all(math.isfinite(row["loss"]) for row in rows):
        raise FloatingPointError(f"{dataset}: {rows}")
    for row in rows:
        print(dataset, {name: round(value, 2) for name, value in row.items()}, flush=True)
    return {"dataset": dataset, "model": asdict(config.model), "iterations": rows, **saved}


def _iterate(config: Config, loaded: loading.Data, count: int, checkpoint: Path | None = None) -> tuple[Trainer, list]:
    """A trainer, resumed where there is a checkpoint, and the rows of its next `count` outer iterations."""
    trainer = train.trainer_of(config, loaded, "cpu")
    trainer.observe_every = 0  # looks are not what is measured
    if checkpoint:
        train.resume(trainer, checkpoint)
    rows, last = [], [dict(trainer.state.sums), time.perf_counter()]

    def after(trainer: Trainer) -> None:
        sums, now = dict(trainer.state.sums), time.perf_counter()
        gained = {name: sums[name] - last[0].get(name, 0.0) for name in sums}
        means = {name: gained[name] / gained["examples"] for name in ("loss", "reconstruction", "kl")}
        rows.append(
            {"iteration": trainer.state.iteration, **means, "inner_steps": gained["inner_steps"]}
            | {"seconds": now - last[1]}
        )
        last[:] = sums, now
        if len(rows) == count:
            raise Stop

    try:
        trainer.fit(after)
    except Stop:
        return trainer, rows
    raise RuntimeError(f"{config.dataset} has fewer than {count} iterations")


if __name__ == "__main__":
    main()
