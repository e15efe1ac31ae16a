"""Tables 1 to 3 from records alone, each cell beside the one that the paper prints; Table 4 is in `inner_loops`."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations

import pandas as pd

from lagvae_lib.config.methods import knobs
from lagvae_lib.data import resolve_name
from lagvae_lib.metrics.comparison import at_equal_length
from lagvae_lib.paper import plan, published
from lagvae_lib.paper.rows import (
    BESIDE,
    DATASETS,
    DOUBLE_DAGGER,
    METRICS,
    NO_RUN,
    cell,
    count,
    how_ended,
    legend,
    marked,
    mean_costs,
    moments,
    row_label,
    row_method,
    row_runs,
)
from lagvae_lib.runs.record import Records, Run

PER_MINUTE = 60.0
OF_TABLE_4 = {"fixed_steps", "window", "inner_test", "stop_metric", "stop_patience"}  # knobs, of `inner_loops`


@dataclass(frozen=True)
class Table:
    """caption: what the numbers are. shown: for reading, all text. numbers: one line per number, not rounded."""

    caption: str
    shown: pd.DataFrame
    numbers: pd.DataFrame


def outside_table_4(runs: Iterable[Run]) -> list[Run]:
    """The runs but for those with inner loops of another length, or another stop, which are Table 4's."""
    return [run for run in runs if not OF_TABLE_4 & knobs(run.metrics["method"])]


# -- beside the paper, for a notebook ----------------------------------------------------------------------------------


def beside_paper(runs: Iterable[Run]) -> pd.DataFrame:
    """The table to show: the `cell` of each metric beside the one that the paper prints for the same method.

    The paper's are of its own data and model; where the paper has no such row, the cell is empty. Rows stand in the
    order of the methods' first run; runs of earlier settings have rows of their own. Raises ValueError for runs of
    several data sets or profiles: they do not belong into one mean.
    """
    rows = {}
    for run in runs:
        rows.setdefault((run.metrics["method"], marked(run)), []).append(run)
    if not rows:
        return pd.DataFrame(columns=pd.MultiIndex.from_product([["no finished run"], [""]]))
    dataset, _ = (_only(name, rows.values()) for name in ("dataset", "profile"))
    shown = {("runs", ""): [len(of) for of in rows.values()]}
    shown["ended by", ""] = [how_ended(of) for of in rows.values()]
    paper = [_printed(dataset, method) for method, _ in rows]
    for metric, title in (METRICS | BESIDE).items():
        shown[title, "here"] = [cell(metric, of) for of in rows.values()]
        if metric in METRICS:
            shown[title, "paper"] = [printed.get(metric, "") for printed in paper]
    frame = pd.DataFrame(shown, index=[name for _, name in rows])
    frame.columns = pd.MultiIndex.from_tuples(frame.columns)
    return frame


def _only(name: str, rows: Iterable[list[Run]]) -> str:
    """The one value that `name` has in the metrics of all runs."""
    values = {run.metrics[name] for of in rows for run in of}
    if len(values) > 1:
        raise ValueError(f"runs of several values of {name}: {', '.join(sorted(values))}")
    return values.pop()


def _printed(dataset: str, method: str) -> dict[str, str]:
    """The paper's cells for a method, as printed; none where it has no such row."""
    name = published.counterpart(dataset)
    if name is None or method not in published.methods(name):
        return {}
    row = published.published(name, method)
    return {metric: getattr(row, metric).text for metric in METRICS}


# -- Tables 1 and 2 ----------------------------------------------------------------------------------------------------


def main_table(records: Records, name: str) -> Table:
    """Table 1 (`yahoo`, `yelp`) or 2 (`omniglot`): every row of the paper in its order, then what it does not have.

    A row of the paper without a run says so; one that was run with a smaller budget says with which. Inner loops of
    other lengths are Table 4's. KL of a prior other than N(0, I) is Monte Carlo ("~").
    """
    dataset = resolve_name(name, records.profile)
    runs = records.of(dataset)
    rows = {method: row_runs(runs, method) for method in published.methods(name)}
    used = {run.metrics["method"] for of in rows.values() for run in of}
    others = dict.fromkeys(run.metrics["method"] for run in outside_table_4(runs))
    rows |= {method: row_runs(runs, method) for method in others if method not in used}
    shown, numbers = [], []
    for method, of in rows.items():
        printed = published.published(name, method) if method in published.methods(name) else None
        cells = {("", "method"): row_label(name, method, of), ("", "runs"): count(of)}
        for metric, title in METRICS.items():
            cells[title, "here"] = here(metric, of)
            cells[title, "paper"] = getattr(printed, metric).text if printed else ""
        cells["MI, all examples", "here"] = here("mi_large", of)
        shown.append(cells)
        line = {"dataset": dataset, "profile": records.profile, "method": row_method(method, of)}
        for metric in (*METRICS, *BESIDE):
            value = getattr(printed, metric, None)
            numbers.append(
                line
                | {"metric": metric, "n": len(of)}
                | moments(metric, of)
                | {"paper_mean": value and value.mean, "paper_sd": value and value.sd}
            )
    caption = (
        f"{published.SOURCE[name]}, {DATASETS[name]}. Here: test set of {dataset}, profile {records.profile}, mean (sd "
        'over runs); NLL, KL and MI in nats per example. Paper: as printed, for the full data and model; its "Ours" '
        f"is Aggressive here. {legend(run for of in rows.values() for run in of)}"
    )
    return Table(caption, frame(shown), pd.DataFrame(numbers))


def here(metric: str, runs: list[Run]) -> str:
    """A row's cell of a metric, or that there is no run."""
    return cell(metric, runs) if runs else NO_RUN


def frame(rows: list[dict]) -> pd.DataFrame:
    """Rows of cells by (group, column), the columns those of the first."""
    found = pd.DataFrame(rows, columns=list(rows[0])).fillna("")
    found.columns = pd.MultiIndex.from_tuples(found.columns)
    return found


def every_run(records: Records, dataset: str | None = None) -> Table:
    """Each run by itself, with what it took: on one data set, or on those of the paper and on the toy."""
    small = [resolve_name(name, records.profile) for name in DATASETS]
    runs = [run for name in small for run in records.of(name)] + records.toy() if not dataset else records.of(dataset)
    shown, numbers = [], []
    for run in runs:
        names = {key: run.metrics[key] for key in ("dataset", "method", "seed")}
        clocks = {"processor_minutes": "cpu_seconds", "wall_minutes": "seconds"}
        took = {name: sum(run.metrics[clock].values()) / PER_MINUTE for name, clock in clocks.items()}
        line = {("", "data"): names["dataset"]} if not dataset else {}
        line |= {
            ("", "method"): marked(run),
            ("", "seed"): str(names["seed"]),
            ("training", "epochs"): str(len(run.history)),
            ("training", "ended by"): run.ended,
        }
        line |= {(title, ""): cell(metric, [run]).removesuffix(".0") for metric, title in (METRICS | BESIDE).items()}
        line |= {("minutes", name.removesuffix("_minutes")): f"{minutes:.1f}" for name, minutes in took.items()}
        shown.append(line)
        values = {"epochs": len(run.history)} | {metric: run.metrics.get(metric) for metric in METRICS | BESIDE} | took
        numbers += [names | {"quantity": key, "value": value} for key, value in values.items()]
    where = f"on {dataset}" if dataset else "on the paper's data sets, and the toy's at the paper's scale"
    caption = (
        f"Every run of profile {records.profile} {where}: the test set, nats per example, and minutes with evaluation. "
        "Wall times contain pauses, and processor times depend on the processor (metrics.json names it)."
        + f" {DOUBLE_DAGGER}"
        * any(run.earlier for run in runs)
    )
    return Table(caption, frame(shown or [{("", "method"): NO_RUN}]), pd.DataFrame(numbers))


# -- Table 3, and NLL at equal length ----------------------------------------------------------------------------------


def timing(records: Records) -> Table:
    """Table 3: what Aggressive (the paper's "Ours") and SA-VAE cost, relative to the VAE on the same data.

    The paper's ratio is one of whole-script times: it mixes the cost of an update, the number of epochs, and
    evaluation. Here it stands beside the same ratio of processor seconds in training, and the two factors of that.
    """
    shown, numbers, counted = [], [], []
    for name, title in DATASETS.items():
        dataset = resolve_name(name, records.profile)
        runs = records.of(dataset)
        plain = row_runs(runs, "vae")
        base = mean_costs(plain)
        for method in published.timed(name):
            of, printed = row_runs(runs, method), published.time(name, method)
            cost, alike = mean_costs(of), {run.earlier for run in of} == {run.earlier for run in plain}
            ratios = _relative(cost, base, alike)
            counted += of
            shown.append(
                {
                    ("", "data"): f"{title} ({dataset})",
                    ("", "method"): row_label(name, method, of),
                    ("", "runs"): count(of),
                    ("whole script, wall", "paper"): f"{printed.relative:.2f}",
                    ("whole script, wall", "here"): number(ratios["wall"], 2),
                    ("training, processor", "total"): number(ratios["cpu"], 2),
                    ("training, processor", "epochs"): number(ratios["epochs"], 2),
                    ("training, processor", "plain update"): number(ratios["step"], 2),
                    ("in its own plain updates", "aggressive one"): number(ratios["aggressive_ratio"], 1),
                    ("in its own plain updates", "training"): number(ratios["plain_updates"], 2),
                    ("absolute", "minutes"): number(cost and cost["cpu"] / PER_MINUTE, 1),
                    ("absolute", "paper's hours"): f"{printed.hours:.2f}",
                }
            )
            for key, value in ratios.items():
                line = {"dataset": dataset, "profile": records.profile, "method": row_method(method, of), "n": len(of)}
                absolute = cost[key] if of and plain else None
                paper = printed.relative if key == "wall" else None
                numbers.append(line | {"quantity": key, "value": absolute, "relative_to_vae": value, "paper": paper})
    caption = (
        f"Table 3. Cost relative to the VAE on the same data, profile {records.profile}, means over runs. Wall time "
        "includes whatever else the machine was doing, and processor seconds depend on what ran beside (see the cost "
        "of a plain update). A run's own plain updates are a unit without either: in them an aggressive update, and "
        f"the whole training relative to the VAE's number of updates. {legend(counted)}"
    )
    return Table(caption, frame(shown), pd.DataFrame(numbers))


def _relative(cost: dict | None, base: dict | None, alike: bool) -> dict[str, float | None]:
    """What a method costs relative to the VAE, both `mean_costs`: None where one of them has no runs, NaN where
    they are of different settings."""
    keys = ("wall", "cpu", "epochs", "step", "aggressive_ratio", "plain_updates")
    if not cost or not base:
        return dict.fromkeys(keys)
    if not alike:
        return dict.fromkeys(keys, float("nan"))
    in_own_unit = {"aggressive_ratio": 1.0, "plain_updates": base["updates"]}
    return {key: cost[key] / in_own_unit.get(key, base[key]) for key in keys}


def number(value: float | None, digits: int) -> str:
    """A cell: None where there is no run, NaN where its run has no such thing."""
    return NO_RUN if value is None else "-" if pd.isna(value) else f"{value:.{digits}f}"


def equal_length(records: Records, name: str) -> Table | None:
    """NLL of the paper's methods as if all their runs had been equally long; None where too few runs are on record."""
    dataset = resolve_name(name, records.profile)
    rows = {method: row_runs(records.of(dataset), method) for method in plan.FIVE}
    rows = {method: of for method, of in rows.items() if of}
    pairs = {m: [(run.metrics["iterations"], run.metrics["nll"]) for run in of] for m, of in rows.items()}
    found = at_equal_length(pairs)
    if found is None:
        return None
    shown, numbers = [], []
    for method, of in rows.items():
        level, updates = found.levels[method], sum(length for length, _ in pairs[method]) / len(of)
        nll = moments("nll", of)
        shown.append(
            {
                ("", "method"): row_label(name, method, of),
                ("", "runs"): count(of),
                ("updates", "mean"): f"{updates:,.0f}",
                ("NLL", "as ended"): f"{nll['mean']:.2f}",
                ("NLL", "at equal length"): f"{level.mean:.2f} ± {level.half_width:.2f}",
            }
        )
        line = {"dataset": dataset, "profile": records.profile, "method": method, "n": len(of), "updates": updates}
        numbers.append(line | {"quantity": "nll", "mean": level.mean, "half_width": level.half_width})
    slope, half = 1000 * found.slope.mean, 1000 * found.slope.half_width
    caption = (
        f"NLL on {dataset} as if all runs had had {found.length:,.0f} decoder updates: least squares with a level for "
        f"each method and a slope that all share, {slope:+.2f} ± {half:.2f} nats in a thousand (95%, Student's t)."
    )
    differences = {(a, b): found.difference(b, a) for a, b in combinations(rows, 2)}
    clear = [
        f"{row_label(name, a, rows[a])} less {row_label(name, b, rows[b])} {apart.mean:+.2f} ± {apart.half_width:.2f}"
        for (a, b), apart in differences.items()
        if apart.sign
    ]
    caption += f" Of {len(differences)} differences these are clear of 0: {', '.join(clear) or 'none'}."
    return Table(caption, frame(shown), pd.DataFrame(numbers))
