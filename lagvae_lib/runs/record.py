"""What a run is, where its record lies, and how it is read; without PyTorch, so that tables and plots start fast.

    results/runs/<profile>/<data set>/<method>/seed<k>/
        config.json   history.csv   metrics.json   dynamics.csv                         committed
        points.npz (the toy's posterior means)   codes.npz (text, labelled data: those of the test set)   committed
        words.csv (text: the words that go with each active unit)                       committed
        weights.safetensors   vocabulary.json (text)           committed for the runs that notebooks sample from
        checkpoint.pt                                                                   not committed

`metrics.json` is written last: a run that has it is finished and is never trained again.
"""

import json
import os
import re
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from tokenize import TokenError
from zipfile import BadZipFile

import numpy as np
import pandas as pd

from lagvae_lib import paths
from lagvae_lib.config.identity import config_hash, same_run
from lagvae_lib.config.machine import choose_precision
from lagvae_lib.config.methods import METHODS
from lagvae_lib.config.profiles import PROFILES, Config, resolve
from lagvae_lib.data import NAMES, family, is_file, resolve_name
from lagvae_lib.errors import UserError
from lagvae_lib.names import choose
from lagvae_lib.numerics import PRECISIONS
from lagvae_lib.objectives import Objective
from lagvae_lib.schedule import Progress, Schedule


class RunBusy(UserError, RuntimeError):
    """Another process is working on this run."""


class BadCheckpoint(UserError, RuntimeError):
    """A checkpoint that cannot be read or belongs to another model."""


class BadRecord(UserError, ValueError):
    """The files of a run are not what a run leaves."""


AGAIN = "delete that folder to train the run again"
DAMAGE = (ValueError, TypeError, KeyError, EOFError, TokenError, BadZipFile, zlib.error)  # of a file that is no record
FOLDER = re.compile(r"seed(?P<seed>\d+)(?P<changed>-[0-9a-f]{8})?")  # of a run, see `folder_of`
LOCK = ".lock"  # in the folder of a run that is being trained


@dataclass(frozen=True)
class Run:
    """A finished run's record."""

    folder: Path
    config: dict
    metrics: dict
    history: pd.DataFrame
    dynamics: pd.DataFrame
    points: dict[str, np.ndarray]
    codes: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def family(self) -> str:
        """Which kind of data the run is on, one of `data.FAMILIES`."""
        # A record older than the field: a user's own file has a name that does not tell, so its model does
        of_name = "images" if "kernels" in self.config["model"] else family(self.config["dataset"])
        return self.config.get("family") or of_name

    @property
    def ends_by_window(self) -> bool:
        """Whether its inner loops end by the paper's test: not after a fixed number of steps, nor by another test."""
        knobs = self.config["method"]["inference"]
        return "window" in knobs and not knobs.get("fixed_steps") and knobs.get("inner_test", "window") == "window"

    @cached_property
    def earlier(self) -> bool:
        """Whether its profile has had other settings since: such a run is compared with none of today's.

        Of a method or data that this process does not know nothing can be said.
        """
        dataset, method, profile = (self.metrics[name] for name in ("dataset", "method", "profile"))
        if dataset not in NAMES or method.split("+")[0] not in METHODS:
            return False
        precision = self.config.get("precision", "float32")
        try:
            todays = resolve(dataset, method, profile, self.metrics["seed"], precision)
        except UserError:  # it names a knob that is no more
            return True
        return not same_run(self.config, self.metrics, todays)

    @property
    def ended(self) -> str:
        """How training ended: by the rule of the "schedule", or at the "cap" on the number of epochs.

        Where the record does not say, the schedule of its configuration is replayed on the losses of its history.
        """
        if "ended" in self.metrics:
            return self.metrics["ended"]
        objective, schedule = Objective(**self.config["method"]["objective"]), Schedule(**self.config["schedule"])
        progress, ramp = Progress(schedule.lr), objective.settled_from
        for epoch, loss in enumerate(self.history["valid_loss"].iloc[objective.pretrain_epochs :]):
            progress.after_epoch(schedule, loss, epoch, ramp)
        return progress.ended or "cap"


def load(folder: Path) -> Run:
    """The record of a finished run. Raises FileNotFoundError where there is none, BadRecord where it is damaged."""
    try:
        run = _read(folder)
    except FileNotFoundError as error:
        if not (folder / "metrics.json").exists():
            raise
        raise BadRecord(f"the record in {folder} lacks {Path(error.filename).name}; {AGAIN}") from None
    except (*DAMAGE, OSError) as error:
        raise BadRecord(f"the record in {folder} is damaged ({type(error).__name__}); {AGAIN}") from None
    missing = [name for name in NEEDED if name not in run.metrics]
    if missing or not {"dataset", "method", "model"} <= set(run.config):
        raise BadRecord(f"the record in {folder} lacks {', '.join(missing) or 'a part of config.json'}; {AGAIN}")
    return run


NEEDED = ("dataset", "method", "profile", "seed", "nll", "elbo", "kl", "mi", "au")  # of metrics.json


def _read(folder: Path) -> Run:
    dynamics = folder / "dynamics.csv"
    return Run(
        folder,
        _object(folder / "config.json"),
        _object(folder / "metrics.json"),
        pd.read_csv(folder / "history.csv"),
        pd.read_csv(dynamics) if dynamics.exists() else pd.DataFrame(),
        _arrays(folder / "points.npz"),
        codes if "logvar" in (codes := _arrays(folder / "codes.npz")) else {},  # an older record has the means alone
    )


def _arrays(path: Path) -> dict[str, np.ndarray]:
    return dict(np.load(path, allow_pickle=False)) if path.exists() else {}


def _object(path: Path) -> dict:
    value = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(value, dict):
        raise ValueError(f"{path} holds no JSON object")
    return value


@dataclass
class Records:
    """The finished runs of a profile, each data set's read once, when it is first asked for.

    Runs are looked for in `results_dir()` and, where that has been moved, among the repository's own records too.
    Of several records of a method and seed (`folder_of`) one of today's settings is taken, and where none is that in
    `seed<k>`.
    """

    profile: str
    _read: dict[tuple[str, str], list[Run]] = field(default_factory=dict, repr=False)

    def of(self, dataset: str, profile: str | None = None) -> list[Run]:
        """The runs on a data set, methods in the order of the registry, then by seed; profile: another than this."""
        key = profile or self.profile, dataset
        if key not in self._read:
            self._read[key] = _recorded(*key)
        return self._read[key]

    def toy(self) -> list[Run]:
        """The toy's runs, which are at the paper's scale whatever the profile."""
        return self.of("synthetic", "paper")


def _recorded(profile: str, dataset: str) -> list[Run]:
    found: dict[tuple[str, int], list[Path]] = {}
    for root in dict.fromkeys((paths.results_dir(), paths.ROOT / "results")):
        for path in sorted((root / "runs" / profile / dataset).glob("*/seed*/metrics.json")):
            if named := FOLDER.fullmatch(path.parent.name):
                found.setdefault((path.parent.parent.name, int(named["seed"])), []).append(path.parent)
    runs = (_todays(found[key]) for key in sorted(found, key=_place))
    return [run for run in runs if run]


def _todays(folders: list[Path]) -> Run | None:
    """Of a method and seed the first record of today's settings, else the first that has the seed's own folder."""
    fallback = None
    for folder in folders:
        run = load(folder)
        if not run.earlier:
            return run
        fallback = fallback or (None if FOLDER.fullmatch(folder.name)["changed"] else run)
    return fallback


def _place(key: tuple[str, int]) -> tuple:
    """The order of the registry, changed knobs after the plain method."""
    method, seed = key
    base = method.split("+")[0]
    return list(METHODS).index(base) if base in METHODS else len(METHODS), method, seed


def paired_by_seed(a: list[Run], b: list[Run]) -> list[tuple[Run, Run]]:
    """The runs of two methods that share a seed, in the order of the seeds; none of earlier settings with one of
    today's."""
    other = {(run.metrics["seed"], run.earlier): run for run in b}
    shared = [(run, other[key]) for run in a if (key := (run.metrics["seed"], run.earlier)) in other]
    return sorted(shared, key=lambda pair: pair[0].metrics["seed"])


def folder_of(config: Config) -> Path:
    """The run's folder: `seed<k>`, or `seed<k>-<hash>` where that holds a run of another configuration."""
    base = paths.results_dir() / "runs" / config.profile / config.dataset / config.method.name
    plain = base / f"seed{config.seed}"
    if _is_of(plain, config) or (may_hold(plain, config) and not _at_work(plain)):
        return plain
    return base / f"seed{config.seed}-{config_hash(config)}"


def may_hold(folder: Path, config: Config) -> bool:
    """Whether a folder holds this run, none, or another that ended before its first checkpoint and gives up its place.

    To be asked again once the folder is held: the process that held it before may have got further.
    """
    begun = any((folder / name).exists() for name in ("metrics.json", "checkpoint.pt"))
    return not begun or _is_of(folder, config)


def _is_of(folder: Path, config: Config) -> bool:
    """Whether a folder holds this run, or nothing yet."""
    saved = read_config(folder)
    return saved is None or same_run(saved, _saved(folder / "metrics.json") or {}, config)


def _at_work(folder: Path) -> bool:
    """Whether a process holds the folder, or it is not ours to touch."""
    from filelock import FileLock, Timeout  # a notebook's first cell reads records and locks none

    try:
        with FileLock(folder / LOCK, timeout=0):
            return False
    except (Timeout, OSError):
        return True


def finished(config: Config) -> bool:
    """Whether the run is on record, so that it would be loaded and not trained."""
    return (folder_of(config) / "metrics.json").exists()


def auto_profile(dataset: str, methods: Iterable[str], seeds: Iterable[int], precision: str = "float32") -> str:
    """The profile that "auto" means: LAGVAE_PROFILE if that is set; for the toy `paper`, which fits any machine; else
    `scaled` where every one of these runs is on record, so that nothing needs to be trained, and `quick` otherwise.

    A GPU changes the device, not the profile: `paper` on text and images must be asked for by name.
    """
    if forced := os.environ.get("LAGVAE_PROFILE"):
        return choose(forced, PROFILES, "profile in LAGVAE_PROFILE")
    if family(dataset) == "toy":
        return "paper"
    name, seeds = resolve_name(dataset, "scaled"), list(seeds)
    configs = (resolve(name, method, "scaled", seed, precision) for method in methods for seed in seeds)
    recorded = not is_file(dataset) and all(map(finished, configs))
    return "scaled" if recorded else "quick"


def on_record(
    dataset: str, method: str, profile: str = "auto", seed: int = 0, precision: str = "float32"
) -> Config | None:
    """The configuration of a finished run of named data, which is loaded without them; None where there is none."""
    if is_file(dataset):
        return None
    profile = auto_profile(dataset, [method], [seed], precision) if profile == "auto" else profile
    config = resolve(resolve_name(dataset, profile), method, profile, seed, precision)
    return config if finished(config) else None


def settled_precision(
    precision: str, dataset: str, methods: Sequence[str], seeds: Sequence[int], profile: str, device: str
) -> str:
    """`precision` itself, or what "auto" means for these runs: the one in which all of them are on record, so that days
    of a GPU are not trained again on another machine, and `machine.choose_precision`'s otherwise."""
    if precision == profile == "auto":
        profile = auto_profile(dataset, methods, seeds)
    chosen = choose_precision(precision, dataset, profile, device)
    if precision != "auto" or profile != "paper" or is_file(dataset):
        return chosen
    name = resolve_name(dataset, profile)
    for tried in (chosen, *PRECISIONS):
        if all(finished(resolve(name, method, profile, seed, tried)) for method in methods for seed in seeds):
            return tried
    return chosen


def read_config(folder: Path) -> dict | None:
    """The configuration that a folder holds a run of, or None. Raises BadRecord where it is damaged."""
    return _saved(folder / "config.json")


def _saved(path: Path) -> dict | None:
    try:
        return _object(path) if path.exists() else None
    except (ValueError, OSError) as error:
        raise BadRecord(f"{path} is damaged ({type(error).__name__}); {AGAIN}") from None


@dataclass(frozen=True)
class Trajectory:
    """Positions of N points after the initialisation and after every move.

    iteration [S] decoder updates so far; after_inner [S] whether the last move was an inner loop;
    model_mean, inference_mean [S, N]: the axes of Figure 2.
    """

    iteration: np.ndarray
    after_inner: np.ndarray
    model_mean: np.ndarray
    inference_mean: np.ndarray

    @property
    def updates(self) -> int:
        """How many decoder updates were made."""
        return int(self.iteration[-1])


def trajectory_of(run: Run) -> Trajectory | None:
    """The trajectory that lies beside a run of the same method and seed, if there is one."""
    path = run.folder.parent / f"trajectory-seed{run.metrics['seed']}.npz"
    if not path.exists():
        return None
    with np.load(path, allow_pickle=False) as saved:
        return Trajectory(*(saved[name] for name in Trajectory.__dataclass_fields__))
