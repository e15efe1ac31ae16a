"""The runs that the paper's tables need, as data: `plan` lists them, and the Snakefile trains those without a record.

    runs = plan("scaled", datasets=["yelp"], seeds=[0])
    runs[0].record          results/runs/scaled/yelp-small/<method>/seed0/metrics.json
    runs[0].notebook        the essay that trains it, given `parameters(runs[0])`

Knobs in a method's name (`aggressive+fixed_steps=10`) are those of `lagvae_lib.config.methods`.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lagvae_lib.config.machine import choose_device, device_named
from lagvae_lib.config.methods import find, for_family
from lagvae_lib.config.profiles import PROFILES, TABLE, resolve
from lagvae_lib.data import absolute_dataset, family, is_file, resolve_name
from lagvae_lib.errors import BadValue
from lagvae_lib.names import choose
from lagvae_lib.numerics import PRECISIONS
from lagvae_lib.paper import published
from lagvae_lib.runs.record import folder_of, settled_precision

# "" is all of the plan
DEFAULTS = {"profile": "scaled", "datasets": "", "methods": "", "seeds": "", "device": "auto", "precision": "auto"}
NOTEBOOKS = {"toy": "02_synthetic.ipynb", "text": "03_yelp.ipynb", "images": "04_omniglot.ipynb"}
TOY, BESIDE = "Figures 2 and 3", "beside the paper"  # of runs that belong to none of the paper's tables

FIVE = ("autoregressive", "vae", "vae-anneal", "aggressive", "aggressive-anneal")
PAIR = ("vae", "aggressive")
INNER_STEPS = (10, 30, 50, 70)  # Table 4
# The method of Table 4 and of Figure 5's last panel is Aggressive, not annealed. At `scaled` it ends with next to no
# code on Yelp, and too little would be left to compare.
OURS = {"scaled": "aggressive-anneal"}
WINDOWS = (10, 15)  # of Algorithm 1: what the published text results probably used, and what was released
# SA-VAE's 10 steps and 10 back, for every batch of 40 epochs (toy: 50), would cost more than all other runs together
SMALLER = {name: f"{name}+steps=5+max_epochs=15" for name in ("sa-vae", "sa-vae-anneal")}


@dataclass(frozen=True)
class Planned:
    """One run to be made: data set x method x profile x seed, under the names that its record has.

    path: of a user's own data, whose name is made from their content. kind: one of `data.FAMILIES`. precision: one of
    `numerics.PRECISIONS`, never "auto": the machine that plans may not be the one that trains.
    """

    dataset: str
    method: str
    profile: str
    seed: int
    path: str = ""
    kind: str = ""
    precision: str = "float32"

    @property
    def notebook(self) -> str:
        """The file in `notebooks/` that trains this run."""
        return NOTEBOOKS[self.family]

    @property
    def family(self) -> str:
        """Which kind of data the run is on; the name of a user's own data does not tell."""
        return self.kind or family(self.dataset)

    @property
    def record(self) -> Path:
        """The file whose presence means that the run is finished."""
        config = resolve(self.dataset, self.method, self.profile, self.seed, self.precision, kind=self.family)
        return folder_of(config) / "metrics.json"

    @property
    def tables(self) -> tuple[str, ...]:
        """Where in the paper the run belongs; methods that came after it stand beside."""
        if self.path:
            return ()
        paper, base = published.counterpart(self.dataset), self.method.split("+")[0]
        if paper is None:
            return (TOY,) if self.method in PAIR else (BESIDE,)
        places, row = [], self.method in (base, SMALLER.get(base))
        if row and base in published.methods(paper):
            places.append(published.SOURCE[paper])
        if row and base in published.timed(paper):
            places.append("Table 3")
        if paper == "yelp" and self.seed == 0 and self.method in table_4(self.profile).values():
            places.append("Table 4")
        return tuple(places) or (BESIDE,)


def plan(
    profile: str, datasets: Iterable[str] = (), methods: Iterable[str] = (), seeds: Iterable[int] = ()
) -> list[Planned]:
    """All runs of a sweep in order, or those of some data sets, methods and seeds (none given: all).

    The toy fits any machine, so a `scaled` sweep makes it at the paper's scale. Raises `UnknownName` for a name that
    the plan does not have, and BadValue for a combination that it does not have. A path to data of the user's own
    stands for runs that belong to no table.
    """
    choose(profile, PROFILES, "profile")
    datasets, methods, seeds = list(datasets), list(methods), list(seeds)
    own = [run for path in datasets if is_file(path) for run in _own(path, profile, methods, seeds)]
    datasets = [name for name in datasets if not is_file(name)]
    if own and not datasets:
        return own
    runs = list(dict.fromkeys(_all(profile)))
    wanted = {
        "dataset": {resolve_name(name, profile) for name in datasets},
        "method": {_affordable(find(name).name, profile) for name in methods},
        "seed": set(seeds),
    }
    for field, values in wanted.items():
        there = dict.fromkeys(str(getattr(run, field)) for run in runs)
        for value in sorted(values):
            choose(str(value), there, f"{field} in the plan of profile {profile}")
    found = [run for run in runs if all(not v or getattr(run, field) in v for field, v in wanted.items())]
    if not found:
        asked = "; ".join(f"{field} {', '.join(map(str, sorted(v)))}" for field, v in wanted.items() if v)
        raise BadValue(f"the plan of profile {profile} has these, but no run of all of them together: {asked}")
    return own + found


def _own(path: str, profile: str, methods: Sequence[str], seeds: Sequence[int]) -> Iterator[Planned]:
    """Runs on a user's own data: the paper's five methods with seed 0, unless methods and seeds are given."""
    from lagvae_lib.runs.train import prepared  # PyTorch, which a plan of named data is made without

    for seed in seeds or (0,):
        for method in map(_own_name, methods or FIVE):
            config, data = prepared(path, _affordable(method, profile), profile, seed)
            yield Planned(data.name, config.method.name, profile, seed, absolute_dataset(path), data.family)


def _own_name(method: str) -> str:
    return find(method).name


def _all(profile: str) -> Iterator[Planned]:
    toy = profile if profile in TABLE["toy"] else "paper"
    text, images = for_family("text"), for_family("images")
    if profile == "paper":
        yield from _grid("yelp", text, profile, range(5))
        yield from _grid("yelp", [*table_4(profile).values()], profile, range(1))
        yield from _grid("yahoo", text, profile, range(5))
        yield from _grid("omniglot", images, profile, range(5))
    else:
        yield from _grid("yelp", text, profile, range(1))
        yield from _grid("yelp", FIVE, profile, range(5))
        yield from _grid("yelp", [*table_4(profile).values()], profile, range(1))
        yield from _grid("yahoo", text, profile, range(1))
        yield from _grid("yahoo", FIVE, profile, range(5))
        yield from _grid("omniglot", images, profile, range(1))
        yield from _grid("omniglot", FIVE, profile, range(3))
    budget = [_affordable(name, profile) for name in text]  # of the sweep's profile, which says what can be afforded
    yield from _grid("synthetic", budget, toy, range(1))
    yield from _grid("synthetic", PAIR, toy, range(5))


def _grid(dataset: str, methods: Sequence[str], profile: str, seeds: Iterable[int]) -> Iterator[Planned]:
    """Seed by seed, so that an unfinished sweep has every method before it has any twice."""
    name = resolve_name(dataset, profile)
    return (Planned(name, _affordable(method, profile), profile, seed) for seed in seeds for method in methods)


def _affordable(method: str, profile: str) -> str:
    """The method with the budget that it has at a profile, where that is not its own."""
    return SMALLER.get(method, method) if profile == "scaled" else method


def table_4(profile: str) -> dict[str, str]:
    """The method of each row of Table 4: a fixed number of inner steps, "convergence", and other windows for that."""
    ours, own = OURS.get(profile, "aggressive"), TABLE["text"][profile].window
    rows = {str(steps): f"{ours}+fixed_steps={steps}" for steps in INNER_STEPS} | {"convergence": ours}
    return rows | {f"convergence, window {n}": f"{ours}+window={n}" for n in WINDOWS if n != own}


def configured(config: dict) -> tuple[list[Planned], str]:
    """The runs and the device that the Snakefile asks for; a list is "a,b", or ["a", "b"], or one value.

    Raises ValueError for anything invalid, and names what is valid.
    """
    for key in config:
        choose(key, DEFAULTS, "config key")
    values = DEFAULTS | {key: value for key, value in config.items() if value is not None}
    datasets, methods, seeds = (_words(values[key]) for key in ("datasets", "methods", "seeds"))
    if not all(seed.isdigit() for seed in seeds):
        raise BadValue(f"seeds must be whole numbers with commas, not {','.join(seeds)!r}")
    device, profile = device_named(str(values["device"])), str(values["profile"])
    precision = choose(str(values["precision"]), ("auto", *PRECISIONS), "precision")
    runs = plan(profile, datasets, methods, map(int, seeds))
    # At the other profiles missing data are an error, which can wait until the sweep starts
    runs = at_hand(runs) if profile in ("smoke", "quick") else runs
    return [replace(run, precision=_settled(precision, run, device)) for run in runs], device


def _settled(precision: str, run: Planned, device: str) -> str:
    """What the notebook that trains the run would make of `precision` on this machine."""
    dataset = run.path or run.dataset
    if device == "auto" and run.profile == "paper":  # nowhere else does it matter, and it takes PyTorch
        device = choose_device(device, dataset)
    return settled_precision(precision, dataset, [run.method], [run.seed], run.profile, device)


def _words(value: object) -> list[str]:
    parts = value if isinstance(value, list) else str(value).split(",")
    return [str(part).strip() for part in parts if str(part).strip()]


def at_hand(runs: Iterable[Planned]) -> list[Planned]:
    """The same runs on the data that is available: at `smoke` and `quick` a stand-in replaces a missing data set.

    Fetches and checks every data set once. Raises `MissingData` at the other profiles.
    """
    from lagvae_lib.data.loading import load  # PyTorch, which a plan is made without

    runs, names = list(runs), {}
    for run in runs:
        if run.path:  # loaded when it was planned, which its name is from
            names[run.dataset, run.profile] = run.dataset
        elif (run.dataset, run.profile) not in names:
            settings = resolve(run.dataset, run.method, run.profile, run.seed).data
            names[run.dataset, run.profile] = load(run.dataset, settings, profile=run.profile).name
    return list(dict.fromkeys(replace(run, dataset=names[run.dataset, run.profile]) for run in runs))


def parameters(run: Planned, device: str = "auto") -> list[str]:
    """What papermill is told: `-r` for text, `-p` for numbers."""
    text = {"methods": run.method, "profile": run.profile, "device": device, "precision": run.precision}
    if run.family == "toy":  # its notebook compares over seeds, and has one data set
        return _options("-r", text | {"seeds": run.seed})
    return _options("-r", text | {"dataset": run.path or run.dataset}) + _options("-p", {"seed": run.seed})


def _options(flag: str, values: dict) -> list[str]:
    return [word for name, value in values.items() for word in (flag, name, str(value))]
