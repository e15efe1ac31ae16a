"""Tables of the paper from the records of runs: a row for each method, with n, mean and sd beside the printed cell."""

import re
from collections.abc import Iterable

import pandas as pd

from lagvae_lib import paths, published
from lagvae_lib.data import is_images
from lagvae_lib.methods import METHODS, find
from lagvae_lib.runs import Run, load

NAMES = {"nll": "NLL", "kl": "KL", "mi": "MI", "au": "AU"}
BESIDE = {"mi_large": "MI, all examples"}  # what the paper does not have


def recorded(profile: str, dataset: str) -> list[Run]:
    """All finished runs of a profile on a data set, methods in the order of the registry, then by seed.

    They are looked for in `results_dir()` and, where that has been moved, among the repository's own records too.
    Runs of a changed configuration (folders `seed<k>-<hash>`) are left out.
    """
    found = {}
    for root in (paths.ROOT / "results", paths.results_dir()):
        for path in (root / "runs" / profile / dataset).glob("*/seed*/metrics.json"):
            if re.fullmatch(r"seed\d+", path.parent.name):
                found[path.parent.parent.name, int(path.parent.name[4:])] = path.parent
    return [load(found[key]) for key in sorted(found, key=_place)]


def _place(key: tuple[str, int]) -> tuple:
    """The order of the registry, changed knobs after the plain method."""
    method, seed = key
    base = method.split("+")[0]
    return list(METHODS).index(base) if base in METHODS else len(METHODS), method, seed


def moments(metric: str, runs: Iterable[Run]) -> dict[str, float]:
    """Mean and sd of a metric over runs, nats per example on the test set; NaN where there are too few runs.

    A model without a latent variable has an NLL alone.
    """
    values = pd.Series([run.metrics[metric] for run in runs if _has(metric, run)], dtype=float)
    return {"mean": values.mean(), "sd": values.std()}


def cell(metric: str, runs: list[Run]) -> str:
    """The same as text, "mean (sd)", without the sd for one run; "-" for a metric that the model does not have.

    A KL by Monte Carlo (a prior other than N(0, I)) begins with "~".
    """
    if not all(_has(metric, run) for run in runs):
        return "-"
    digits, of = 1 if metric == "au" else 2, moments(metric, runs)
    sampled = metric == "kl" and not all(run.metrics.get("kl_is_exact", True) for run in runs)
    sd = "" if pd.isna(of["sd"]) else f" ({of['sd']:.{digits}f})"
    return "~" * sampled + f"{round(of['mean'], digits) + 0.0:.{digits}f}{sd}"  # + 0.0: no "-0.00"


def _has(metric: str, run: Run) -> bool:
    return metric == "nll" or not run.metrics["nll_is_exact"]


def beside_paper(runs: Iterable[Run]) -> pd.DataFrame:
    """The table to show: the `cell` of each metric beside the one that the paper prints for the same method.

    The paper's are of its own data and model; where the paper has no such row, the cell is empty. Rows stand in the
    order of the methods' first run. Raises ValueError for runs of several data sets or profiles: they do not belong
    into one mean.
    """
    rows = {}
    for run in runs:
        rows.setdefault(run.metrics["method"], []).append(run)
    if not rows:
        return pd.DataFrame(columns=pd.MultiIndex.from_product([["no finished run"], [""]]))
    dataset, _ = (_only(name, rows.values()) for name in ("dataset", "profile"))
    shown = {("runs", ""): [len(of) for of in rows.values()]}
    paper = [_printed(dataset, method) for method in rows]
    for metric, title in (NAMES | BESIDE).items():
        shown[title, "here"] = [cell(metric, of) for of in rows.values()]
        if metric in NAMES:
            shown[title, "paper"] = [printed.get(metric, "") for printed in paper]
    images = "kernels" in next(iter(rows.values()))[0].config["model"]
    frame = pd.DataFrame(shown, index=[label(method, images) for method in rows])
    frame.columns = pd.MultiIndex.from_tuples(frame.columns)
    return frame


def _only(name: str, rows: Iterable[list[Run]]) -> str:
    """The one value that `name` has in the metrics of all runs."""
    values = {run.metrics[name] for of in rows for run in of}
    if len(values) > 1:
        raise ValueError(f"runs of several values of {name}: {', '.join(sorted(values))}")
    return values.pop()


def label(method: str, images: bool) -> str:
    """A method's name in tables; the decoder without z is called after its network."""
    return "PixelCNN" if images and method == "autoregressive" else find(method).label


def _printed(dataset: str, method: str) -> dict[str, str]:
    """The paper's cells for a method, as printed; none where it has no such row."""
    name = published.counterpart(dataset)
    if name is None or method not in published.methods(name):
        return {}
    row = published.published(name, method)
    return {metric: getattr(row, metric).text for metric in NAMES}


def paper_rows(dataset: str, methods: Iterable[str]) -> pd.DataFrame:
    """The paper's own rows, as printed, for those of `methods` that it has on `dataset` or its full version."""
    name = published.counterpart(dataset)
    known = [method for method in methods if name and method in published.methods(name)]
    rows = {label(method, is_images(dataset)): _printed(name, method) for method in known}
    return pd.DataFrame(rows, index=list(NAMES)).T.rename(columns=NAMES)
