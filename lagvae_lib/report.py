"""Tables 1 to 4 and Figures 2 to 5 from records alone, written as files: what `python -m lagvae_lib tables` makes.

Each table becomes a CSV file of numbers (a line a number), and Markdown and LaTeX as one reads it; each figure becomes
PNG and PDF. The same records give the same bytes.
"""

import io
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from lagvae_lib import atomic, paths, published, sweep, tables, trajectory
from lagvae_lib.data import resolve_name
from lagvae_lib.methods import find
from lagvae_lib.plots import posterior_space, records, style
from lagvae_lib.runs import Run

DATASETS = {"yahoo": "Yahoo", "yelp": "Yelp", "omniglot": "OMNIGLOT"}
FIGURE_5 = ("vae-anneal", "beta-0.2", "aggressive")
NO_RUN = "no run"
PER_MINUTE = 60.0


@dataclass(frozen=True)
class Table:
    """caption: what the numbers are. shown: as one reads it, all text. numbers: a line a number, not rounded."""

    caption: str
    shown: pd.DataFrame
    numbers: pd.DataFrame


# -- which runs fill which row -----------------------------------------------------------------------------------------


def row_runs(runs: Iterable[Run], method: str) -> list[Run]:
    """The runs of a row: those of the method itself, else those of its smaller budget (`steps`, `max_epochs`)."""
    runs = list(runs)
    own = [run for run in runs if run.metrics["method"] == method]
    return own or [
        run
        for run in runs
        if run.metrics["method"].split("+")[0] == method and _knobs(run.metrics["method"]) <= {"steps", "max_epochs"}
    ]


def _knobs(method: str) -> set[str]:
    return {change.partition("=")[0] for change in method.split("+")[1:]}


# -- Tables 1 and 2 ----------------------------------------------------------------------------------------------------


def main_table(profile: str, name: str) -> Table:
    """Table 1 (`yahoo`, `yelp`) or 2 (`omniglot`): every row of the paper in its order, then what it does not have.

    A row of the paper without a run says so; one that was run with a smaller budget says with which. Inner loops of
    other lengths are Table 4's. KL of a prior other than N(0, I) is Monte Carlo ("~").
    """
    dataset = resolve_name(name, profile)
    runs = tables.recorded(profile, dataset)
    rows = {method: row_runs(runs, method) for method in published.methods(name)}
    used = {run.folder for of in rows.values() for run in of}
    for run in runs:
        if run.folder not in used and not {"fixed_steps", "window"} & _knobs(run.metrics["method"]):
            rows.setdefault(run.metrics["method"], []).append(run)
    shown, numbers = [], []
    for method, of in rows.items():
        printed = published.published(name, method) if method in published.methods(name) else None
        cells = {("", "method"): _label(name, method, of), ("", "runs"): str(len(of))}
        for metric, title in tables.NAMES.items():
            cells[title, "here"] = _here(metric, of)
            cells[title, "paper"] = getattr(printed, metric).text if printed else ""
        cells["MI, all examples", "here"] = _here("mi_large", of)
        shown.append(cells)
        for metric in (*tables.NAMES, *tables.BESIDE):
            value = getattr(printed, metric, None)
            numbers.append(
                {"dataset": dataset, "profile": profile, "method": _method(method, of), "metric": metric, "n": len(of)}
                | tables.moments(metric, of)
                | {"paper_mean": value and value.mean, "paper_sd": value and value.sd}
            )
    caption = (
        f"{published.SOURCE[name]}, {DATASETS[name]}. Here: test set of {dataset}, profile {profile}, mean (sd over "
        "runs); NLL, KL and MI in nats per example. Paper: as printed, for the full data and model."
    )
    return Table(caption, _frame(shown), pd.DataFrame(numbers))


def _label(name: str, method: str, runs: list[Run]) -> str:
    if method == "sa-vae-anneal-kim2018":
        return "SA-VAE + anneal (Kim et al. 2018)"
    return tables.label(_method(method, runs), images=name == "omniglot")


def _method(method: str, runs: list[Run]) -> str:
    """What a row's runs are really called; the row's own name where it has none."""
    return runs[0].metrics["method"] if runs else method


def _here(metric: str, runs: list[Run]) -> str:
    return tables.cell(metric, runs) if runs else NO_RUN


def _frame(rows: list[dict]) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=list(rows[0])).fillna("")
    frame.columns = pd.MultiIndex.from_tuples(frame.columns)
    return frame


# -- Tables 3 and 4 ----------------------------------------------------------------------------------------------------


def costs(run: Run) -> dict[str, float]:
    """What a run's time went into, in seconds, and in what it was spent.

    wall: everything, as the paper's whole-script time. cpu: the processor's seconds of training alone (steps of the
    model; looks, validation and the test left out). epochs, aggressive_epochs. step, aggressive_step: processor
    seconds of a generator update without and with an inner loop; inner_steps: the inner loop's mean length.
    aggressive_ratio, plain_updates: an aggressive update, and the whole training, in the run's own plain updates, which
    other load on the same core does not change as long as it is even. NaN where a run has no such stage.
    """
    history, cpu = run.history, run.metrics["cpu_seconds"]
    updates = history["iteration"].diff().fillna(history["iteration"].iloc[0])
    stage = history["aggressive"].astype(bool)
    aggressive, plain = updates[stage].sum(), updates[~stage].sum()
    total = cpu.get("aggressive", 0.0) + cpu.get("plain", 0.0)
    step = cpu["plain"] / plain if plain else float("nan")
    aggressive_step = cpu["aggressive"] / aggressive if aggressive else float("nan")
    return {
        "wall": sum(run.metrics["seconds"].values()),
        "cpu": total,
        "epochs": len(history),
        "aggressive_epochs": int(stage.sum()),
        "step": step,
        "aggressive_step": aggressive_step,
        "inner_steps": (history["inner_steps"] * updates)[stage].sum() / aggressive if aggressive else float("nan"),
        "aggressive_ratio": aggressive_step / step,
        "plain_updates": total / step if aggressive else float("nan"),
        "updates": float(updates.sum()),
    }


def timing(profile: str) -> Table:
    """Table 3: what Ours and SA-VAE cost, relative to the VAE on the same data.

    The paper's ratio is one of whole-script times: it mixes the cost of an update, the number of epochs, and
    evaluation. Here it stands beside the same ratio of processor seconds in training, and the two factors of that.
    """
    shown, numbers = [], []
    for name, title in DATASETS.items():
        dataset = resolve_name(name, profile)
        runs = tables.recorded(profile, dataset)
        base = _mean_costs(row_runs(runs, "vae"))
        for method in published.timed(name):
            of, printed = row_runs(runs, method), published.time(name, method)
            cost = _mean_costs(of)
            known = cost is not None and base is not None
            ratios = {key: cost[key] / base[key] if known else None for key in ("wall", "cpu", "epochs", "step")}
            ratios["aggressive_ratio"] = cost["aggressive_ratio"] if known else None
            ratios["plain_updates"] = cost["plain_updates"] / base["updates"] if known else None
            shown.append(
                {
                    ("", "data"): f"{title} ({dataset})",
                    ("", "method"): _label(name, method, of),
                    ("", "runs"): str(len(of)),
                    ("whole script, wall", "paper"): f"{printed.relative:.2f}",
                    ("whole script, wall", "here"): _number(ratios["wall"], 2),
                    ("training, processor", "total"): _number(ratios["cpu"], 2),
                    ("training, processor", "epochs"): _number(ratios["epochs"], 2),
                    ("training, processor", "plain update"): _number(ratios["step"], 2),
                    ("in its own plain updates", "aggressive one"): _number(ratios["aggressive_ratio"], 1),
                    ("in its own plain updates", "training"): _number(ratios["plain_updates"], 2),
                    ("absolute", "minutes"): _number(cost and cost["cpu"] / PER_MINUTE, 1),
                    ("absolute", "paper's hours"): f"{printed.hours:.2f}",
                }
            )
            for key, value in ratios.items():
                line = {"dataset": dataset, "profile": profile, "method": _method(method, of), "n": len(of)}
                absolute = cost["step" if key == "step" else key] if known else None
                paper = printed.relative if key == "wall" else None
                numbers.append(line | {"quantity": key, "value": absolute, "relative_to_vae": value, "paper": paper})
    caption = (
        f"Table 3. Cost relative to the VAE on the same data, profile {profile}, means over runs. Wall time holds "
        "whatever else the machine did, and processor seconds how much of a core a neighbour took (see the cost of a "
        "plain update). A run's own plain updates are a unit without either: in them an aggressive update, and the "
        "whole training relative to the VAE's number of updates."
    )
    return Table(caption, _frame(shown), pd.DataFrame(numbers))


def _mean_costs(runs: list[Run]) -> dict | None:
    return pd.DataFrame([costs(run) for run in runs]).mean().to_dict() if runs else None


def _number(value: float | None, digits: int) -> str:
    return NO_RUN if value is None else "-" if pd.isna(value) else f"{value:.{digits}f}"


def inner_table(profile: str) -> Table:
    """Table 4: aggressive training on Yelp with inner loops of fixed length, and until "convergence"."""
    dataset = resolve_name("yelp", profile)
    runs = tables.recorded(profile, dataset)
    shown, numbers = [], []
    for row, method in sweep.table_4(profile).items():
        of = [run for run in runs if run.metrics["method"] == method]
        printed = None if "window" in row else published.inner_steps(row)
        cost = _mean_costs(of)
        cells = {("", "inner steps"): row, ("", "runs"): str(len(of))}
        for metric, title in tables.NAMES.items():
            cells[title, "here"] = _here(metric, of)
            cells[title, "paper"] = f"{getattr(printed, metric)}" if printed else ""
        cells["MI, all examples", "here"] = _here("mi_large", of)
        cells["seen", "inner steps"] = _number(cost and cost["inner_steps"], 1)
        cells["seen", "aggressive epochs"] = _number(cost and cost["aggressive_epochs"], 1)
        cells["time", "plain updates"] = _number(cost and cost["plain_updates"], 0)
        cells["time", "minutes"] = _number(cost and cost["cpu"] / PER_MINUTE, 1)
        cells["time", "paper's hours"] = f"{printed.hours:.2f}" if printed else ""
        shown.append(cells)
        line = {"dataset": dataset, "profile": profile, "method": method, "n": len(of)}
        for metric in (*tables.NAMES, *tables.BESIDE):
            paper = getattr(printed, metric, None)
            numbers.append(line | {"quantity": metric} | tables.moments(metric, of) | {"paper": paper})
        for key in ("inner_steps", "aggressive_epochs", "plain_updates", "cpu"):
            values = pd.Series([costs(run)[key] for run in of], dtype=float)
            numbers.append(line | {"quantity": key, "mean": values.mean(), "sd": values.std(), "paper": None})
    ours = sweep.table_4(profile)["convergence"]
    window = of[0].config["method"]["inference"]["window"] if (of := row_runs(runs, ours)) else None
    caption = (
        f"Table 4. {_label('yelp', ours, of)} on {dataset}, profile {profile}, by the length of the inner loop (the "
        f"paper's rows: Ours, not annealed); time of training in the run's own plain updates, and in minutes of the "
        f"processor, which vary with the load. Convergence is the paper's test on windows of the loss"
        f"{f', of {window} steps where no other is named' if window else ''}."
    )
    return Table(caption, _frame(shown), pd.DataFrame(numbers))


# -- files -------------------------------------------------------------------------------------------------------------


def all_tables(profile: str) -> dict[str, Callable[[], Table]]:
    """Every table by the name of its files."""
    numbers = {"yahoo": 1, "yelp": 1, "omniglot": 2}
    found = {f"table{numbers[n]}-{resolve_name(n, profile)}": lambda n=n: main_table(profile, n) for n in DATASETS}
    return found | {"table3": lambda: timing(profile), "table4": lambda: inner_table(profile)}


def all_figures(profile: str) -> dict[str, Callable[[], Figure]]:
    """Every figure that the records at hand can give, by the name of its files. Figures 2 and 3 are the toy's."""
    found: dict[str, Callable[[], Figure]] = {"figure4": lambda: figure_4(profile)}
    yelp = tables.recorded(profile, resolve_name("yelp", profile))
    chosen = {find(method).label: row_runs(yelp, method)[0] for method in FIGURE_5 if row_runs(yelp, method)}
    if chosen:
        found["figure5"] = lambda: records.dynamics(chosen)
    toy = tables.recorded("paper", "synthetic")
    pair = {label: row_runs(toy, method) for label, method in (("VAE", "vae"), ("aggressive", "aggressive"))}
    if all(pair.values()):
        found["figure2"] = lambda: posterior_space.figure_2(pair)
        ways = {label: trajectory.recorded(of[0]) for label, of in pair.items()}
        if all(ways.values()):
            found["figure3"] = lambda: posterior_space.figure_3(ways, trajectory.DRAWN)
    return dict(sorted(found.items()))


def figure_4(profile: str) -> Figure:
    """Figure 4 for every data set that has runs, the rows of the paper's tables alone."""
    panels = {}
    for name, title in DATASETS.items():
        dataset = resolve_name(name, profile)
        runs = tables.recorded(profile, dataset)
        rows = {_label(name, m, row_runs(runs, m)): row_runs(runs, m) for m in published.methods(name)}
        if any(rows.values()):
            panels[f"{title} ({dataset})"] = {label: of for label, of in rows.items() if of}
    return records.nll_against_au(panels)


def write(profile: str, folder: Path | None = None) -> list[Path]:
    """Write every table and figure of a profile to `tables/` and `figures/` under `folder` (by default the results).

    Returns the files. Raises `UnknownName` for a profile that does not exist.
    """
    folder, written = folder or paths.results_dir(), []
    for name, make in all_tables(profile).items():
        table, stem = make(), f"{profile}-{name}"
        for suffix, text in (("csv", as_csv(table)), ("md", as_markdown(table)), ("tex", as_latex(table))):
            written.append(folder / "tables" / f"{stem}.{suffix}")
            atomic.write_text(written[-1], text)
    style()
    for name, make in all_figures(profile).items():
        figure = make()
        for suffix, metadata in (("png", {"Software": None}), ("pdf", {"CreationDate": None, "Producer": None})):
            written.append(folder / "figures" / f"{profile}-{name}.{suffix}")
            with atomic.replace_with(written[-1]) as temporary, open(temporary, "wb") as f:
                figure.savefig(f, format=suffix, metadata=metadata)
        plt.close(figure)
    return written


def as_csv(table: Table) -> str:
    """The numbers, with six significant digits."""
    return table.numbers.to_csv(index=False, float_format="%.6g", lineterminator="\n")


def as_markdown(table: Table) -> str:
    """A table that GitHub shows, its caption below."""
    titles = [" ".join(dict.fromkeys(part for part in column if part)) for column in table.shown.columns]
    rows = [[cell.replace("|", r"\|") for cell in row] for row in table.shown.to_numpy().tolist()]
    lines = [titles, ["---"] * len(titles), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines) + f"\n{table.caption}\n"


def as_latex(table: Table) -> str:
    """A `table` environment for booktabs and multirow."""
    escaped = table.shown.map(_escaped)
    escaped.columns = pd.MultiIndex.from_tuples([tuple(map(_escaped, column)) for column in table.shown.columns])
    buffer = io.StringIO()
    columns = "ll" + "r" * (escaped.shape[1] - 2)
    escaped.style.hide(axis="index").to_latex(
        buffer, caption=_escaped(table.caption), hrules=True, multicol_align="c", column_format=columns
    )
    return buffer.getvalue()


SPECIAL = {"β": r"$\beta$", "δ": r"$\delta$", "≤": r"$\leq$", "~": r"$\sim$", "%": r"\%", "_": r"\_", "&": r"\&"}


def _escaped(text: str) -> str:
    return "".join(SPECIAL.get(character, character) for character in text)
