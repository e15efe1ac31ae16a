"""One folder per run: configuration, history, metrics and provenance; atomic, resumable, loaded when finished.

    results/runs/<profile>/<data set>/<method>/seed<k>/
        config.json   history.csv   metrics.json   dynamics.csv   points.npz (toy)     committed
        checkpoint.pt   weights.safetensors                                            not committed

`metrics.json` is written last: a run that has it is finished and is never trained again.
"""

import fcntl
import hashlib
import json
import os
import platform
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from pickle import UnpicklingError

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file, save_file

from lagvae_lib import atomic, paths
from lagvae_lib.data import Data, resolve_name
from lagvae_lib.data import load as load_data
from lagvae_lib.metrics.evaluate import IW_SAMPLES, test_metrics
from lagvae_lib.models.build import build_model
from lagvae_lib.names import choose
from lagvae_lib.observe import observer
from lagvae_lib.profiles import Config, default_profile, family, resolve
from lagvae_lib.training import FINAL, Trainer, noise

CHECKPOINT_SECONDS = 60.0
DEVICES = ("auto", "cpu", "cuda")


class RunBusy(RuntimeError):
    """Another process is working on this run."""


class BadCheckpoint(RuntimeError):
    """A checkpoint that cannot be read or belongs to another model."""


@dataclass(frozen=True)
class Run:
    """A finished run's record."""

    folder: Path
    config: dict
    metrics: dict
    history: pd.DataFrame
    dynamics: pd.DataFrame
    points: dict[str, np.ndarray]


def run_named(
    dataset: str,
    method: str,
    profile: str = "auto",
    seed: int = 0,
    device: str = "auto",
    report: Callable[[str], None] = lambda line: None,
) -> Run:
    """`run` from names alone, data included."""
    return run(*prepared(dataset, method, profile, seed), choose_device(device), report)


def prepared(dataset: str, method: str, profile: str = "auto", seed: int = 0) -> tuple[Config, Data]:
    """Configuration and data of a run from names alone."""
    profile = default_profile(dataset) if profile == "auto" else profile
    config = resolve(resolve_name(dataset, profile), method, profile, seed)
    loaded = load_data(dataset, config.data, profile=profile)
    return replace(config, dataset=loaded.name), loaded


def choose_device(device: str) -> str:
    """`device` itself, or for "auto" the GPU if there is one. Raises ValueError for an unknown or absent device."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    choose(device, DEVICES, "device")
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device 'cuda' is asked for, but torch finds no GPU here; valid here: auto, cpu")
    return device


def folder_of(config: Config) -> Path:
    """The run's folder: `seed<k>`, or `seed<k>-<hash>` where that holds a run of another configuration."""
    base = paths.results_dir() / "runs" / config.profile / config.dataset / config.method.name
    plain = base / f"seed{config.seed}"
    saved = _read_config(plain)
    if saved is None or same_configuration(saved, config):
        return plain
    return base / f"seed{config.seed}-{config_hash(config)}"


def same_configuration(saved: dict, config: object) -> bool:
    """Whether a saved configuration, or part of one, is this; a knob younger than the record must be at its default.

    How a method is called in tables, and where it comes from, may change (fields without `compare`).
    """
    for field in fields(config):
        value = getattr(config, field.name)
        if not field.compare:
            continue
        if field.name not in saved:
            if value != field.default:
                return False
        elif is_dataclass(value):
            if not same_configuration(saved[field.name], value):
                return False
        elif saved[field.name] != (list(value) if isinstance(value, tuple) else value):
            return False
    return set(saved) <= {field.name for field in fields(config)}


def config_hash(config: Config) -> str:
    """Eight hexadecimal digits that stand for a configuration."""
    return hashlib.sha256(json.dumps(_as_json(config), sort_keys=True).encode()).hexdigest()[:8]


def run(
    config: Config,
    data: Data,
    device: str = "cpu",
    report: Callable[[str], None] = lambda line: None,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
) -> Run:
    """Load the run if it is finished; else train it from its last checkpoint, or from the start, and evaluate it.

    data: what `lagvae_lib.data.load` gave for this configuration. report: called with one line of text an epoch.
    Raises `RunBusy` if another process holds the run, or waits for that one's end where LAGVAE_WAIT is 1.
    """
    folder = folder_of(config)
    if (folder / "metrics.json").exists():
        return load(folder)
    with _held(folder, report), _threads_for(config):
        if (folder / "metrics.json").exists():  # the process that held the run until now has finished it
            return load(folder)
        atomic.write_json(folder / "config.json", _as_json(config))
        trainer = trainer_of(config, data, device)
        checkpoint = folder / "checkpoint.pt"
        if checkpoint.exists():
            resume(trainer, checkpoint)
            report(f"resumed at epoch {trainer.state['epoch'] + 1}, iteration {trainer.state['iteration']}")
        trainer.fit(_Checkpoints(checkpoint, checkpoint_seconds, report))
        save(checkpoint, trainer.state_dict())
        _finish(folder, config, data, trainer, device)
    return load(folder)


def resume(trainer: Trainer, checkpoint: Path) -> None:
    """Let `trainer` go on from a checkpoint. Raises `BadCheckpoint` where it can't be read or is another model's."""
    try:
        trainer.load_state_dict(torch.load(checkpoint, weights_only=True, map_location="cpu"))
    except (RuntimeError, KeyError, EOFError, UnpicklingError) as error:
        raise BadCheckpoint(f"{checkpoint} cannot be resumed ({error}); delete it to start the run again") from None


def load(folder: Path) -> Run:
    """The record of a finished run. Raises FileNotFoundError where there is none."""
    points = folder / "points.npz"
    dynamics = folder / "dynamics.csv"
    return Run(
        folder,
        json.loads((folder / "config.json").read_text()),
        json.loads((folder / "metrics.json").read_text()),
        pd.read_csv(folder / "history.csv"),
        pd.read_csv(dynamics) if dynamics.exists() else pd.DataFrame(),
        dict(np.load(points, allow_pickle=False)) if points.exists() else {},
    )


def trained_model(config: Config, data: Data, device: str = "cpu") -> torch.nn.Module:
    """The selected model of a finished run, for sampling. Raises FileNotFoundError if its weights are not at hand."""
    model = build_model(config, data)
    weights = load_file(folder_of(config) / "weights.safetensors")
    model.load_state_dict(
        {name: value.float() if value.is_floating_point() else value for name, value in weights.items()}
    )
    return model.to(device).eval()


def save(path: Path, state: dict) -> None:
    """Write a checkpoint; a process killed while writing leaves the previous one."""
    with atomic.replace_with(path) as temporary:
        torch.save(state, temporary)


class _Checkpoints:
    """Called after every iteration: writes a checkpoint now and then, and reports each new epoch."""

    def __init__(self, path: Path, seconds: float, report: Callable[[str], None]):
        self.path, self.seconds, self.report = path, seconds, report
        self.last, self.epochs = time.monotonic(), None

    def __call__(self, trainer: Trainer) -> None:
        epochs = trainer.state["epoch"]
        if self.epochs is not None and epochs != self.epochs:
            self.report(_line(trainer.state["history"][-1]))
        self.epochs = epochs
        if time.monotonic() - self.last >= self.seconds:
            save(self.path, trainer.state_dict())
            self.last = time.monotonic()


def _line(row: dict) -> str:
    stage = f"aggressive, {row['inner_steps']:.0f} inner steps" if row["aggressive"] else "plain"
    return (
        f"epoch {row['epoch']:3d}  -ELBO {row['valid_loss']:.2f}  KL {row['valid_kl']:.3f}  MI {row['valid_mi']:.3f}"
        f" (all {row['valid_mi_large']:.3f})  AU {row['valid_au']}  lr {row['lr']:g}  {row['seconds']:.0f} s  ({stage})"
    )


def trainer_of(config: Config, data: Data, device: str) -> Trainer:
    """A run's trainer before its first iteration."""
    torch.manual_seed(config.seed)
    model = build_model(config, data).to(device)
    torch.manual_seed(config.seed)  # the same dropout and z noise whatever the model's initialisation drew
    return Trainer(
        model,
        data.train.to(device),
        data.valid.to(device),
        objective=config.method.objective,
        inference=config.method.inference,
        schedule=config.schedule,
        seed=config.seed,
        units=data.units,
        observe=observer(config, data, device),
        observe_every=config.evaluation.observe_every,
        observe_dense=config.evaluation.observe_dense,
        mi_draws=config.evaluation.mi_draws,
    )


def _finish(folder: Path, config: Config, data: Data, trainer: Trainer, device: str) -> None:
    """Evaluate the selected model and write the record, `metrics.json` last."""
    trainer.load_best()
    start = time.perf_counter(), time.process_time()
    samples = [k for k in IW_SAMPLES if k < config.evaluation.iw_samples] + [config.evaluation.iw_samples]
    options = {"draws": config.evaluation.mi_draws, "nll_examples": config.evaluation.iw_examples}
    metrics = test_metrics(trainer.evaluated, data.test.to(device), noise(config.seed, FINAL, 0), samples, **options)
    if family(config.dataset) == "toy":
        metrics |= _fresh(config, data, trainer.evaluated, device, samples)
    seconds, cpu = trainer.state["seconds"], trainer.state["cpu_seconds"]
    seconds["test"], cpu["test"] = time.perf_counter() - start[0], time.process_time() - start[1]
    atomic.write_text(folder / "history.csv", pd.DataFrame(trainer.state["history"]).round(6).to_csv(index=False))
    _write_observations(folder, trainer.state["observations"])
    half = {
        name: (value.half() if value.is_floating_point() else value).contiguous()
        for name, value in trainer.model.state_dict().items()
    }
    with atomic.replace_with(folder / "weights.safetensors") as temporary:
        save_file(half, temporary)
    identity = {"dataset": config.dataset, "method": config.method.name, "profile": config.profile, "seed": config.seed}
    progress = {"epochs": trainer.state["epoch"], "iterations": trainer.state["iteration"]}
    counts = {str(steps): times for steps, times in sorted(trainer.state["inner_counts"].items())}
    progress |= {"inner_counts": counts} if counts else {}
    times = {"seconds": _rounded(seconds), "cpu_seconds": _rounded(cpu)}
    atomic.write_json(
        folder / "metrics.json", identity | metrics | progress | times | {"provenance": provenance(data, device)}
    )
    (folder / "checkpoint.pt").unlink(missing_ok=True)


def _fresh(config: Config, data: Data, model, device: str, samples: list[int]) -> dict:
    """The toy again on lines that nothing was fitted to or selected on."""
    values = test_metrics(model, data.fresh.to(device), noise(config.seed, FINAL, 1), samples)
    return {"fresh": {key: values[key] for key in ("nll", "elbo", "kl", "mi", "nll_standard_error") if key in values}}


def _write_observations(folder: Path, observations: list[dict]) -> None:
    """Numbers go to dynamics.csv, tensors (the toy's points) to points.npz, stacked and in half precision."""
    if not observations:
        return
    numbers = [{k: v for k, v in row.items() if not isinstance(v, torch.Tensor)} for row in observations]
    atomic.write_text(folder / "dynamics.csv", pd.DataFrame(numbers).round(6).to_csv(index=False))
    names = [name for name, value in observations[0].items() if isinstance(value, torch.Tensor)]
    if names:
        arrays = {name: torch.stack([row[name] for row in observations]).half().numpy() for name in names}
        with atomic.replace_with(folder / "points.npz") as temporary, open(temporary, "wb") as f:
            np.savez_compressed(f, iteration=np.array([row["iteration"] for row in observations]), **arrays)


def provenance(data: Data, device: str) -> dict:
    """What a number can be traced back to."""
    return {
        "git": _git("rev-parse", "HEAD"),
        "modified": bool(_git("status", "--porcelain", "--", "lagvae_lib")),
        "data": data.name,
        "data_source": data.source,
        "data_sha256": data.sha256,
        "stand_in": data.stand_in,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "device": torch.cuda.get_device_name() if device.startswith("cuda") else platform.machine(),
        "threads": torch.get_num_threads(),
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(paths.ROOT), *arguments], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None  # not a checkout, or no git: the record then says null
    return done.stdout.strip()


def _rounded(seconds: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 2) for name, value in seconds.items()}


def _as_json(config: Config) -> dict:
    return json.loads(json.dumps(config.as_dict()))


def _read_config(folder: Path) -> dict | None:
    path = folder / "config.json"
    return json.loads(path.read_text()) if path.exists() else None


@contextmanager
def _threads_for(config: Config) -> Iterator[None]:
    """One thread for small models: a second makes them slower, and the numbers would depend on the machine's cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1 if config.model.small else before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _held(folder: Path, report: Callable[[str], None] = lambda line: None) -> Iterator[None]:
    """Hold the run's folder against other processes; the lock goes with the process, however that ends.

    Where the environment says LAGVAE_WAIT=1, wait for the lock: a sweep that was killed leaves its notebooks running,
    and the same sweep started again is to have what they make.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w") as f:
        try:
            fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            busy = f"another process is working on {os.path.relpath(folder)}"
            if os.environ.get("LAGVAE_WAIT") != "1":
                raise RunBusy(f"{busy}; wait for it or stop it") from None
            report(f"{busy}; waiting for it to end")
            fcntl.flock(f, fcntl.LOCK_EX)
        yield
