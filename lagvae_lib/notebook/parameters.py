"""The edge between a notebook and the library: parameters checked by name and type, runs with lines of progress.

papermill passes unknown names and wrong types without a word, so every notebook's second code cell is

    from lagvae_lib import notebook
    settings = notebook.settings(globals())
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from lagvae_lib.config.machine import check_seed, choose_device
from lagvae_lib.config.methods import METHODS, find
from lagvae_lib.config.profiles import PROFILES, resolve
from lagvae_lib.data import is_file, resolve_name
from lagvae_lib.errors import UserError
from lagvae_lib.names import choose
from lagvae_lib.notebook import cells
from lagvae_lib.notebook.side_by_side import Job
from lagvae_lib.runs.record import Run, auto_profile, finished, settled_precision

# What a parameter is made of. "words" and "numbers" are text with commas, or the list that YAML makes of it.
KINDS = {
    "dataset": "str",
    "methods": "words",
    "method": "str",
    "seed": "int",
    "seeds": "numbers",
    "points": "int",
    "profile": "str",
    "device": "str",
    "precision": "str",
    "deterministic": "bool",
}


class BadParameter(UserError, ValueError):
    """A notebook's parameter has an unknown name, a wrong type or an impossible value."""


@dataclass(frozen=True)
class Settings:
    """A notebook's parameters after checking: `profile` and `device` are decided, `methods` are known names."""

    values: dict
    dataset: str
    methods: tuple[str, ...]
    seeds: tuple[int, ...]
    profile: str
    device: str
    precision: str = "float32"
    deterministic: bool = False

    @property
    def seed(self) -> int:
        """The first seed."""
        return self.seeds[0]

    def run(self, method: str, seed: int | None = None, report: Callable[[str], None] | None = None) -> Run:
        """The run of one method: loaded if it is finished, trained otherwise.

        report: called with each line of progress; by default it is printed, behind the run's name.
        """
        from lagvae_lib.runs.train import run_named  # PyTorch, which the check of the parameters does without

        seed = self.seed if seed is None else seed
        report = report or (lambda line: print(f"{method}, seed {seed}: {line}", flush=True))
        numerics = {"precision": self.precision, "deterministic": self.deterministic}
        return run_named(self.dataset, method, self.profile, seed, self.device, report, **numerics)

    def recorded(self, method: str, seed: int) -> bool:
        """Whether the run is finished, so that `run` would load it. A user's own file is looked at by `run` alone."""
        if is_file(self.dataset):
            return False
        return finished(resolve(resolve_name(self.dataset, self.profile), method, self.profile, seed, self.precision))

    def job(self, method: str, seed: int) -> Job:
        """The run as a process of its own."""
        return Job(self.dataset, method, self.profile, seed, self.device, self.precision, self.deterministic)

    def live(self) -> "Settings":
        """The same at a profile that is trained before the reader's eyes: `quick` in place of `scaled` and `paper`."""
        return replace(self, profile="quick") if self.profile in ("scaled", "paper") else self


def settings(names: dict) -> Settings:
    """Check the parameters in a notebook's `globals()` and decide what "auto" means.

    A parameter is declared by its annotation in the cell tagged `parameters` (`seed: int = 2`); names that no cell of
    parameters sets are ignored. Raises `BadParameter`, which names the valid parameters or values.
    """
    try:
        return _settled(_checked(names))
    except UserError as error:
        raise BadParameter(str(error)) from None


def _checked(names: dict) -> dict:
    """The declared parameters' values, each of its kind."""
    found = cells.read(names, KINDS.keys()) or cells.without_source(names, KINDS.keys())
    valid = [name for name in found.declared if name in KINDS]
    if not valid or not set(valid) <= names.keys():
        raise BadParameter("run the parameters cell first, the one with lines such as `seed: int = 0`")
    for name in (*found.declared, *found.strays):
        choose(name, valid if name not in found.declared else KINDS, "parameter", listed=valid)
    for one, other in (("seed", "seeds"), ("method", "methods")):
        if {one, other} <= set(valid):
            raise BadParameter(f"parameters {one!r} and {other!r} exclude each other; remove the one that was added")
    return {name: _typed(name, names[name]) for name in valid}


def _typed(name: str, value: object) -> object:
    """`value` as its parameter's kind: YAML's and papermill's natural spellings are taken for what they mean."""
    kind = KINDS[name]
    if kind == "int" and isinstance(value, str) and value.strip().isdecimal():
        return int(value)
    if kind == "numbers" and _is_int(value):
        return str(value)
    if _is_list_of(kind, value):
        return ",".join(map(str, value))
    if not (_is_int(value) if kind == "int" else isinstance(value, bool if kind == "bool" else str)):
        raise BadParameter(f"parameter {name!r} must be {EXPECTED[kind]}, not {value!r} ({type(value).__name__})")
    return value


def _is_list_of(kind: str, value: object) -> bool:
    return (
        kind in ("words", "numbers")
        and isinstance(value, (list, tuple))
        and all(isinstance(part, str) or (kind == "numbers" and _is_int(part)) for part in value)
    )


EXPECTED = {
    "str": "str",
    "int": "int",
    "bool": "bool",
    "words": 'str ("vae,aggressive") or a list of str',
    "numbers": 'str ("0,1,2"), int or a list of int',
}


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _settled(values: dict) -> Settings:
    dataset, asked = values.get("dataset", "synthetic"), values.get("profile", "auto")
    choose(asked, ("auto", *PROFILES), "profile")
    chosen = _split(values.get("methods", ""))
    if "methods" in values and not chosen:
        raise BadParameter(f"parameter 'methods' names no method; valid are {', '.join(METHODS)}")
    named = (*chosen, *_split(values.get("method", "")))
    for name in named:
        find(name)
    seeds = _seeds(values)
    device = choose_device(values.get("device", "auto"), dataset)
    precision = settled_precision(values.get("precision", "auto"), dataset, named, seeds, asked, device)
    profile = auto_profile(dataset, named, seeds, precision) if asked == "auto" else asked
    resolve_name(dataset, profile)
    deterministic = values.get("deterministic", False)
    return Settings(values, dataset, chosen, seeds, profile, device, precision, deterministic)


def _split(value: str) -> tuple[str, ...]:
    """The parts between commas, each once."""
    return tuple(dict.fromkeys(part.strip() for part in value.split(",") if part.strip()))


def _seeds(values: dict) -> tuple[int, ...]:
    """From `seed` or `seeds` ("0,1,2")."""
    parts = (values["seed"],) if "seed" in values else _split(values.get("seeds", "0"))
    try:
        seeds = tuple(dict.fromkeys(int(part) for part in parts))
    except ValueError:
        seeds = ()
    if not seeds:
        raise BadParameter(f"parameter 'seeds' must be whole numbers with commas, not {values['seeds']!r}")
    for seed in seeds:
        check_seed(seed)
    return seeds


def stop(reason: str) -> None:
    """End the notebook here, without an error: the cells below need what was not asked for.

    papermill takes `SystemExit` of status 0 for a good end, and JupyterLab leaves the cells below as they are.
    """
    print(reason)
    raise SystemExit(0)
