"""The edge between a notebook and the library: parameters checked by name and type, runs with lines of progress.

papermill passes unknown names and wrong types without a word, so every notebook's second code cell is

    from lagvae_lib import notebook
    settings = notebook.settings(globals())
"""

import types
from dataclasses import dataclass

from lagvae_lib.config.methods import METHODS, find
from lagvae_lib.config.profiles import PROFILES, choose_device, default_profile
from lagvae_lib.data import resolve_name
from lagvae_lib.names import choose
from lagvae_lib.numerics import PRECISIONS
from lagvae_lib.runs.record import Run

SHELL = {"In", "Out", "exit", "quit", "open", "get_ipython"}  # what IPython itself puts among a notebook's names


class BadParameter(ValueError):
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

    def run(self, method: str, seed: int | None = None) -> Run:
        """The run of one method: loaded if it is finished, trained otherwise, with a line of progress an epoch."""
        from lagvae_lib.runs.train import run_named  # PyTorch, which the check of the parameters does without

        seed = self.seed if seed is None else seed
        prefix = f"{method}, seed {seed}: "
        numerics = {"precision": self.precision, "deterministic": self.deterministic}
        return run_named(
            self.dataset,
            method,
            self.profile,
            seed,
            self.device,
            report=lambda line: print(prefix + line, flush=True),
            **numerics,
        )


def settings(names: dict) -> Settings:
    """Check the parameters in a notebook's `globals()` and decide what "auto" means.

    A parameter is declared by its annotation in the cell tagged `parameters` (`seed: int = 2`). Raises `BadParameter`,
    which names the valid parameters or values.
    """
    declared = names.get("__annotations__", {})
    values = _checked(names, declared)
    try:
        return _settled(values)
    except ValueError as error:
        raise BadParameter(str(error)) from None


def _checked(names: dict, declared: dict[str, type]) -> dict:
    # When the cell is run again in JupyterLab, the notebook's own variables are there too: only the first call's count.
    first = names.setdefault("_names_at_first_check", frozenset(names))
    for name, value in list(names.items()):
        if (
            name not in first
            or name.startswith("_")
            or name in SHELL
            or name in declared
            or isinstance(value, types.ModuleType)
        ):
            continue
        try:
            choose(name, declared, "parameter")
        except ValueError as error:
            raise BadParameter(str(error)) from None
    for name, kind in declared.items():
        value = names[name]
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise BadParameter(f"parameter {name!r} must be {kind.__name__}, not {value!r} ({type(value).__name__})")
    return {name: names[name] for name in declared}


def _settled(values: dict) -> Settings:
    dataset, asked = values.get("dataset", "synthetic"), values.get("profile", "auto")
    choose(asked, ("auto", *PROFILES), "profile")
    profile = default_profile(dataset) if asked == "auto" else asked
    resolve_name(dataset, profile)
    chosen = tuple(name.strip() for name in values.get("methods", "").split(",") if name.strip())
    if "methods" in values and not chosen:
        raise ValueError(f"parameter 'methods' names no method; valid are {', '.join(METHODS)}")
    for name in chosen:
        find(name)
    device = choose_device(values.get("device", "auto"), dataset)
    precision = choose(values.get("precision", "float32"), PRECISIONS, "precision")
    deterministic = values.get("deterministic", False)
    return Settings(values, dataset, chosen, _seeds(values), profile, device, precision, deterministic)


def _seeds(values: dict) -> tuple[int, ...]:
    """From `seed: int` or `seeds: str` ("0,1,2")."""
    if "seed" in values:
        seeds = (values["seed"],)
    else:
        try:
            seeds = tuple(int(part) for part in values.get("seeds", "0").split(","))
        except ValueError:
            raise ValueError(f"parameter 'seeds' must be whole numbers with commas, not {values['seeds']!r}") from None
    if min(seeds) < 0:
        raise ValueError(f"seeds must be 0 or more, not {min(seeds)}")
    return seeds


def stop(reason: str) -> None:
    """End the notebook here, without an error: the cells below need what was not asked for.

    papermill takes `SystemExit` of status 0 for a good end, and JupyterLab leaves the cells below as they are.
    """
    print(reason)
    raise SystemExit(0)
