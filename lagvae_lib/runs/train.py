"""Training a run: prepared from names, resumed from its checkpoint, evaluated, and recorded in one step at the end."""

import io
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as safetensors

from lagvae_lib import atomic
from lagvae_lib.config.build import build_model
from lagvae_lib.config.identity import as_json
from lagvae_lib.config.machine import choose_device
from lagvae_lib.config.profiles import Config, resolve
from lagvae_lib.data import resolve_name
from lagvae_lib.data.loading import Data
from lagvae_lib.data.loading import load as load_data
from lagvae_lib.errors import Diverged, UserError
from lagvae_lib.metrics.evaluate import IW_SAMPLES, evaluate, spread_examples
from lagvae_lib.numerics import numerics
from lagvae_lib.runs.codes import codes_of, words_of_units
from lagvae_lib.runs.observe import observer
from lagvae_lib.runs.provenance import code_version, provenance
from lagvae_lib.runs.record import (
    AGAIN,
    LOCK,
    BadCheckpoint,
    BadRecord,
    Run,
    RunBusy,
    auto_profile,
    folder_of,
    load,
    may_hold,
    on_record,
    settled_precision,
)
from lagvae_lib.training import FINAL, Trainer, noise

CHECKPOINT_SECONDS = 60.0


def run_named(
    dataset: str,
    method: str,
    profile: str = "auto",
    seed: int = 0,
    device: str = "auto",
    report: Callable[[str], None] = lambda line: None,
    *,
    precision: str = "auto",
    deterministic: bool = False,
) -> Run:
    """`run` from names alone, data included; a finished run of a named data set is loaded without them."""
    chosen = choose_device(device, dataset)
    precision = settled_precision(precision, dataset, [method], [seed], profile, chosen)
    if found := on_record(dataset, method, profile, seed, precision):
        return loaded(found, report)
    return run(*prepared(dataset, method, profile, seed, precision), chosen, report, deterministic=deterministic)


def prepared(
    dataset: str, method: str, profile: str = "auto", seed: int = 0, precision: str = "float32"
) -> tuple[Config, Data]:
    """Configuration and data of a run from names alone."""
    profile = auto_profile(dataset, [method], [seed], precision) if profile == "auto" else profile
    config = resolve(resolve_name(dataset, profile), method, profile, seed, precision)
    data = load_data(dataset, config.data, profile=profile)
    return resolve(data.name, method, profile, seed, precision, kind=data.family), data


def run(
    config: Config,
    data: Data,
    device: str = "cpu",
    report: Callable[[str], None] = lambda line: None,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
    deterministic: bool = False,
) -> Run:
    """Load the run if it is finished; else train it from its last checkpoint, or from the start, and evaluate it.

    data: what `data.loading.load` gave for this configuration. report: called with one line of text per epoch.
    deterministic: on CUDA the same bits each time, see `numerics`; a checkpoint made on one device goes on on another.
    Raises `RunBusy` if another process holds the run, or waits for that one's end where LAGVAE_WAIT is 1.
    """
    folder = folder_of(config)
    if (folder / "metrics.json").exists():
        return loaded(config, report)
    with _held(folder, report), threads_for(config), numerics(config.precision, deterministic):
        if not_taken := may_hold(folder, config):  # by the process that held it until now
            if (folder / "metrics.json").exists():  # which has finished this very run
                return loaded(config, report)
            code = code_version()
            trainer = trainer_of(config, data, device)
            _train(folder, config, trainer, checkpoint_seconds, report)
            _finish(folder, config, data, trainer, device, code)
    return load(folder) if not_taken else run(config, data, device, report, checkpoint_seconds, deterministic)


def _train(folder: Path, config: Config, trainer: Trainer, seconds: float, report: Callable[[str], None]) -> None:
    """From the folder's checkpoint, or from the start, to the end of training."""
    atomic.write_json(folder / "config.json", as_json(config))
    checkpoint = folder / "checkpoint.pt"
    if checkpoint.exists():
        resume(trainer, checkpoint)
        report(f"resumed at epoch {trainer.state.epoch + 1}, iteration {trainer.state.iteration}")
    with _said_if_it_diverges(config):
        trainer.fit(_Checkpoints(checkpoint, seconds, report))
    save(checkpoint, trainer.state_dict())


def loaded(config: Config, report: Callable[[str], None]) -> Run:
    """A finished run, with one line that says that nothing was trained."""
    folder = folder_of(config)
    record = load(folder)
    made = record.metrics.get("provenance", {})
    finished, commit = made.get("finished") or "(day unknown)", made.get("git") or "unknown"
    report(f"loaded {folder}, finished {finished[:10]}, commit {commit[:7]}")
    return record


@contextmanager
def _said_if_it_diverges(config: Config) -> Iterator[None]:
    """Turn a loss that is not a number into an error that says what to do."""
    try:
        yield
    except FloatingPointError as error:
        base = "+".join(part for part in config.method.name.split("+") if not part.startswith("lr="))
        raise Diverged(
            f"{error}: the training diverged at learning rate {config.schedule.lr:g}; give a lower one, such as "
            f"{base}+lr={config.schedule.lr / 10:g}"
        ) from None


def resume(trainer: Trainer, checkpoint: Path) -> None:
    """Let `trainer` go on from a checkpoint. Raises `BadCheckpoint` where it can't be read or is another model's."""
    content = io.BytesIO(checkpoint.read_bytes())  # an OSError of the machine's is raised here, and of the bytes below
    try:
        trainer.load_state_dict(torch.load(content, weights_only=True, map_location="cpu"))
    except Exception as error:  # bytes that are no checkpoint make torch raise nearly everything, OSError too
        if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
            raise  # the machine's, which deleting the checkpoint does not mend
        why = str(error).splitlines()[0][:120] if isinstance(error, KeyError) else type(error).__name__
        raise BadCheckpoint(f"{checkpoint} cannot be resumed ({why}); delete it to start the run again") from None


class NoWeights(UserError, FileNotFoundError):
    """A run that was not trained here, or whose weights were not kept."""


def trained_model(config: Config, data: Data, device: str = "cpu", folder: Path | None = None) -> torch.nn.Module:
    """The selected model of a finished run, for sampling. Raises FileNotFoundError if its weights are not at hand.

    folder: of a run of earlier settings with a model of the same shape (`Run.folder`); None: of the run of `config`.
    """
    model = build_model(config, data)
    path = (folder or folder_of(config)) / "weights.safetensors"
    if not path.exists():
        raise NoWeights(f"{path} is not there: the run is to be trained first, by `python -m lagvae_lib run ...`")
    try:
        weights = load_file(path)
        model.load_state_dict(
            {name: value.float() if value.is_floating_point() else value for name, value in weights.items()}
        )
    except (SafetensorError, RuntimeError) as error:
        raise BadRecord(f"{path} is damaged or another model's ({type(error).__name__}); {AGAIN}") from None
    return model.to(device).eval()


def save(path: Path, state: dict) -> None:
    """Write a checkpoint; a process killed while writing leaves the previous one.

    It is made in memory first: torch words the refusals of an operating system in its own way, Python by an OSError.
    """
    content = io.BytesIO()
    torch.save(state, content)
    atomic.write_bytes(path, content.getbuffer())


class _Checkpoints:
    """Called after every iteration: writes a checkpoint now and then, and reports each new epoch."""

    def __init__(self, path: Path, seconds: float, report: Callable[[str], None]):
        self.path, self.seconds, self.report = path, seconds, report
        self.last, self.epochs = time.monotonic(), None

    def __call__(self, trainer: Trainer) -> None:
        epochs = trainer.state.epoch
        if self.epochs is not None and epochs != self.epochs:
            self.report(_line(trainer.state.history[-1]))
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


def _finish(folder: Path, config: Config, data: Data, trainer: Trainer, device: str, code: dict) -> None:
    """Evaluate the selected model and write the record, `metrics.json` last. code: that trained, `code_version`."""
    trainer.load_best()
    start = time.perf_counter(), time.process_time()
    samples = [k for k in IW_SAMPLES if k < config.evaluation.iw_samples] + [config.evaluation.iw_samples]
    options = {"draws": config.evaluation.mi_draws, "nll_examples": config.evaluation.iw_examples}
    metrics = evaluate(trainer.evaluated, data.test.to(device), noise(config.seed, FINAL, 0), samples, **options)
    if data.fresh is not None:
        metrics |= _fresh(config, data, trainer.evaluated, device, samples)
    seconds, cpu = trainer.state.seconds, trainer.state.cpu_seconds
    seconds["test"], cpu["test"] = time.perf_counter() - start[0], time.process_time() - start[1]
    atomic.write_text(folder / "history.csv", pd.DataFrame(trainer.state.history).round(6).to_csv(index=False))
    _write_observations(folder, trainer.state.observations)
    if config.method.model != "autoregressive" and (data.labels is not None or data.family == "text"):
        _write_codes(folder, codes_of(trainer.evaluated, data, device), data)
    half = {
        name: (value.half() if value.is_floating_point() else value).contiguous()
        for name, value in trainer.model.state_dict().items()
    }
    atomic.write_bytes(folder / "weights.safetensors", safetensors(half))
    if data.vocab is not None:  # the weights of a text model mean nothing without its words
        atomic.write_json(folder / "vocabulary.json", list(data.vocab.words))
    identity = {"dataset": config.dataset, "method": config.method.name, "profile": config.profile, "seed": config.seed}
    progress = {"epochs": trainer.state.epoch, "iterations": trainer.state.iteration}
    progress["ended"] = trainer.state.progress.ended
    counts = {str(steps): times for steps, times in sorted(trainer.state.inner_counts.items())}
    progress |= {"inner_counts": counts} if counts else {}
    progress["probe"] = sum(map(len, spread_examples(data.valid, config.evaluation.probe)))
    times = {"seconds": _rounded(seconds), "cpu_seconds": _rounded(cpu)}
    atomic.write_json(
        folder / "metrics.json", identity | metrics | progress | times | {"provenance": code | provenance(data, device)}
    )
    (folder / "checkpoint.pt").unlink(missing_ok=True)


def _fresh(config: Config, data: Data, model, device: str, samples: list[int]) -> dict:
    """The toy again on lines that nothing was fitted to or selected on."""
    values = evaluate(model, data.fresh.to(device), noise(config.seed, FINAL, 1), samples)
    return {"fresh": {key: values[key] for key in ("nll", "elbo", "kl", "mi", "nll_standard_error") if key in values}}


def _write_codes(folder: Path, codes: dict[str, np.ndarray], data: Data) -> None:
    _write_arrays(folder / "codes.npz", codes)
    if data.family == "text":
        documents = (row[1:-1].tolist() for x in data.test for row in x.cpu())
        words = words_of_units(codes["means"], documents, data.vocab.words)
        atomic.write_text(folder / "words.csv", words.to_csv(index=False))


def _write_observations(folder: Path, observations: list[dict]) -> None:
    """Numbers go to dynamics.csv, tensors (the toy's points) to points.npz, stacked and in half precision."""
    if not observations:
        return
    numbers = [{k: v for k, v in row.items() if not isinstance(v, torch.Tensor)} for row in observations]
    atomic.write_text(folder / "dynamics.csv", pd.DataFrame(numbers).round(6).to_csv(index=False))
    names = [name for name, value in observations[0].items() if isinstance(value, torch.Tensor)]
    if names:
        arrays = {name: torch.stack([row[name] for row in observations]).half().numpy() for name in names}
        _write_arrays(
            folder / "points.npz", {"iteration": np.array([row["iteration"] for row in observations]), **arrays}
        )


def _write_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    with atomic.replace_with(path) as temporary, open(temporary, "wb") as f:
        np.savez_compressed(f, **arrays)


def _rounded(seconds: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 2) for name, value in seconds.items()}


@contextmanager
def threads_for(config: Config) -> Iterator[None]:
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
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        busy = f"another process is working on {os.path.relpath(folder)}"
        if os.environ.get("LAGVAE_WAIT") != "1":
            raise RunBusy(f"{busy}; wait for it or stop it") from None
        report(f"{busy}; waiting for it to end")
        lock.acquire()
    try:
        for unfinished in folder.glob(".*.tmp"):  # left by a writer that was killed
            unfinished.unlink()
        yield
    finally:
        lock.release()
