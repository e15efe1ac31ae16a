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


def summary(runs: Iterable[Run]) -> pd.DataFrame:
    """n, and mean and sd of each metric over the seeds of each method; in nats per example, on the test set.

    Index: method. Columns: ("n", ""), then (metric, "mean") and (metric, "sd"); the sd of one run is missing.
    Raises ValueError for runs of several data sets or profiles: they do not belong into one mean.
    """
    rows = pd.DataFrame([run.metrics for run in runs])
    if rows.empty:
        return rows
    for name in ("dataset", "profile"):
        if rows[name].nunique() > 1:
            raise ValueError(f"runs of several values of {name}: {', '.join(sorted(rows[name].unique()))}")
    metrics = [name for name in (*NAMES, *BESIDE) if name in rows]
    groups = rows.groupby("method", sort=False)
    table = groups[metrics].agg(["mean", "std"]).rename(columns={"std": "sd"})
    table.insert(0, ("n", ""), groups.size())
    return table


def beside_paper(runs: Iterable[Run]) -> pd.DataFrame:
    """The table to show: "mean (sd)" of `summary` beside the cell that the paper prints for the same method.

    The paper's are of its own data and model; where the paper has no such row, the cell is empty. A model without a
    latent variable has no KL, MI or AU ("-"); a KL by Monte Carlo (a prior other than N(0, I)) begins with "~". Rows
    stand in the order of the methods' first run.
    """
    runs = list(runs)
    table = summary(runs)
    if table.empty:
        return pd.DataFrame(columns=pd.MultiIndex.from_product([["no finished run"], [""]]))
    exact = {run.metrics["method"] for run in runs if run.metrics["nll_is_exact"]}
    sampled = {run.metrics["method"] for run in runs if not run.metrics.get("kl_is_exact", True)}
    paper = {method: _printed(runs[0].metrics["dataset"], method) for method in table.index}
    shown = {("runs", ""): table["n"].tolist()}
    for metric, title in (NAMES | BESIDE).items():
        if metric not in table:
            continue
        shown[title, "here"] = [
            "-"
            if method in exact and metric != "nll"
            else "~" * (metric == "kl" and method in sampled) + _cell(metric, row)
            for method, row in table[metric].iterrows()
        ]
        if metric in NAMES:
            shown[title, "paper"] = [paper[method].get(metric, "") for method in table.index]
    images = "kernels" in runs[0].config["model"]
    frame = pd.DataFrame(shown, index=[label(method, images) for method in table.index])
    frame.columns = pd.MultiIndex.from_tuples(frame.columns)
    return frame


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


def _cell(metric: str, row: pd.Series) -> str:
    digits = {"nll": 2, "au": 1}.get(metric, 3)
    sd = "" if pd.isna(row["sd"]) else f" ({row['sd']:.{digits}f})"
    return f"{row['mean']:.{digits}f}{sd}"


def paper_rows(dataset: str, methods: Iterable[str]) -> pd.DataFrame:
    """The paper's own rows, as printed, for those of `methods` that it has on `dataset` or its full version."""
    name = published.counterpart(dataset)
    known = [method for method in methods if name and method in published.methods(name)]
    rows = {label(method, is_images(dataset)): _printed(name, method) for method in known}
    return pd.DataFrame(rows, index=list(NAMES)).T.rename(columns=NAMES)
