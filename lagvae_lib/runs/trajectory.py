"""Figure 3 of the paper: how training moves points through the posterior mean space, one half-step at a time.

A few examples are the only batch, for the inner loop and for the decoder. While theta stands still a point can only
move vertically (the mean of q(z|x) changes), while phi stands still only horizontally (the mean of p(z|x) does).

    python -m lagvae_lib.runs.trajectory aggressive --profile paper --seed 0        makes the record (minutes)
"""

import argparse
import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from lagvae_lib import atomic, paths
from lagvae_lib.config.build import build_model
from lagvae_lib.config.identity import same_configuration
from lagvae_lib.config.profiles import Config, resolve
from lagvae_lib.data.loading import Data, load
from lagvae_lib.errors import BadValue
from lagvae_lib.inference import Batch, Optimisers
from lagvae_lib.inference.aggressive import Aggressive
from lagvae_lib.metrics.evaluate import spread_examples
from lagvae_lib.metrics.grid import grid_posterior
from lagvae_lib.runs.record import DAMAGE, Trajectory
from lagvae_lib.training import OPTIMISERS

POINTS = 50
STEPS = 60  # decoder updates
SMOKE_STEPS = 4


def load_or_trace(config: Config, data: Data, device: str = "cpu", steps: int | None = None) -> Trajectory:
    """The trajectory of `config`'s model and method: read if it is recorded, else computed (minutes) and recorded.

    Only the seed, the model, the method and the optimiser of `config` matter; training stops after `steps` updates.
    A record of another configuration, or a damaged one, is replaced.
    """
    steps = steps or (SMOKE_STEPS if config.profile == "smoke" else STEPS)
    path = record_path(config)
    if path.exists():
        with suppress(*DAMAGE), np.load(path, allow_pickle=False) as saved:
            if _is_of(json.loads(str(saved["config"])), config, data, steps):
                return Trajectory(*(saved[name] for name in Trajectory.__dataclass_fields__))
    trajectory = trace(config, data, steps, device)
    path.parent.mkdir(parents=True, exist_ok=True)
    decided_by = _identity(config, data, steps) | {part: asdict(_deciding(config)[part]) for part in PARTS}
    with atomic.replace_with(path) as temporary, open(temporary, "wb") as f:
        np.savez_compressed(f, config=np.array(json.dumps(decided_by, sort_keys=True)), **vars(trajectory))
    return trajectory


def record_path(config: Config) -> Path:
    """Where a configuration's trajectory lies: beside the runs of its method."""
    folder = paths.results_dir() / "runs" / config.profile / config.dataset / config.method.name
    return folder / f"trajectory-seed{config.seed}.npz"


PARTS = ("method", "model")  # of a configuration, which may have knobs that are younger than a record


def _identity(config: Config, data: Data, steps: int) -> dict:
    schedule = {"lr": config.schedule.lr, "optimiser": config.schedule.optimiser}
    values = {"points": POINTS, "steps": steps, "data_sha256": data.sha256, "dataset": config.dataset}
    return values | schedule | {"seed": config.seed}


def _deciding(config: Config) -> dict[str, object]:
    """`PARTS` without what the first epoch's MI is compared with: a trajectory has no epochs."""
    method = config.method
    if isinstance(method.inference, Aggressive):
        method = replace(method, inference=replace(method.inference, first_reference=None))
    return {"method": method, "model": config.model}


def _is_of(saved: dict, config: Config, data: Data, steps: int) -> bool:
    """Whether what decided a recorded trajectory would decide this one."""
    parts = {part: saved.pop(part) for part in PARTS}
    known = all(same_configuration(parts[part], value) for part, value in _deciding(config).items())
    return known and saved == _identity(config, data, steps)


def trace(config: Config, data: Data, steps: int, device: str = "cpu") -> Trajectory:
    """Train from `config`'s initialisation on `POINTS` training examples alone, and measure after every move."""
    torch.manual_seed(config.seed)
    model = build_model(config, data).to(device)
    torch.manual_seed(config.seed)
    x = torch.cat(spread_examples(data.train, POINTS)).to(device)
    make = OPTIMISERS[config.schedule.optimiser]
    lr = config.schedule.lr
    optimisers = Optimisers(make(model.encoder_parameters(), lr=lr), make(model.decoder_parameters(), lr=lr))
    batch = Batch(x, lambda: x, units=data.units)
    rows = list(_positions(config, model, batch, optimisers, steps))
    iteration, after_inner, model_mean, inference_mean = zip(*rows, strict=True)
    means = (torch.stack(values).float().cpu().numpy() for values in (model_mean, inference_mean))
    return Trajectory(np.array(iteration), np.array(after_inner), *means)


Row = tuple[int, bool, Tensor, Tensor]


def _positions(config: Config, model: nn.Module, batch: Batch, optimisers: Optimisers, steps: int) -> Iterator[Row]:
    """(decoder updates, after an inner loop?, model means, inference means) at the start and after every move."""
    strategy = config.method.inference
    if isinstance(strategy, Aggressive) and (strategy.delay or strategy.moves != "encoder"):
        raise BadValue("a trajectory is of Algorithm 1 from its first update on: neither delay nor moves=decoder")
    state = strategy.begin()
    yield 0, False, *_look(model, batch.x)
    for step in range(1, steps + 1):
        model.train()
        if isinstance(strategy, Aggressive):
            strategy.inner_loop(model, batch, optimisers.encoder)
            yield step - 1, True, *_look(model, batch.x)
            model.train()
            strategy.decoder_step(model, batch, optimisers.decoder)
        else:
            strategy.step(model, batch, optimisers, state)
        yield step, False, *_look(model, batch.x)


@torch.no_grad()
def _look(model: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """Both means of every example, [N] each, without dropout."""
    model.eval()
    return grid_posterior(model, x).mean(), model.encode(x).mu[:, 0]


def main(words: list[str] | None = None) -> None:
    """Make the trajectory of a method on the toy where there is none."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("method")
    parser.add_argument("--profile", default="paper")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(words)
    config = resolve("synthetic", args.method, args.profile, args.seed)
    made = load_or_trace(config, load("synthetic", config.data, profile=args.profile))
    print(f"{made.updates} decoder updates in {record_path(config)}")


if __name__ == "__main__":
    main()
