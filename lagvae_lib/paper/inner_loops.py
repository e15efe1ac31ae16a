"""Table 4, and the paper's stops beside others: how long inner loops and the aggressive stage last, and what that does.

From records alone. Knobs are those of `inference.aggressive.Aggressive`.
"""

from collections.abc import Iterable
from dataclasses import replace

import pandas as pd

from lagvae_lib.config.methods import knobs
from lagvae_lib.data import resolve_name
from lagvae_lib.inference.aggressive import Aggressive
from lagvae_lib.metrics.comparison import Interval
from lagvae_lib.paper import plan, published
from lagvae_lib.paper.rows import (
    BESIDE,
    METRICS,
    costs,
    count,
    legend,
    mean_costs,
    moments,
    paired_difference,
    row_label,
    row_runs,
)
from lagvae_lib.paper.tables import OF_TABLE_4, PER_MINUTE, Table, frame, here, number
from lagvae_lib.runs.record import Records, Run

STOPS = {"inner_test", "stop_metric", "stop_patience"}  # knobs of a stop other than the paper's


def _other_stops(runs: Iterable[Run], method: str) -> dict[str, str]:
    """The method of each row, on record, that differs from `method` by another stop than the paper's, by its knobs."""
    names = dict.fromkeys(run.metrics["method"] for run in runs)
    found = [
        name for name in names if name.startswith(f"{method}+") and knobs(name) & STOPS and knobs(name) <= OF_TABLE_4
    ]
    return {name.removeprefix(f"{method}+").replace("+", ", ").replace("_", " "): name for name in found}


def _named(runs: Iterable[Run], method: str) -> list[Run]:
    return [run for run in runs if run.metrics["method"] == method]


def _lasted(of: list[Run]) -> dict[tuple[str, str], str]:
    """Cells: how long loops and stage were, and what the training took."""
    cost = mean_costs(of)
    return {
        ("seen", "inner steps"): number(cost and cost["inner_steps"], 1),
        ("seen", "aggressive epochs"): number(cost and cost["aggressive_epochs"], 1),
        ("time", "plain updates"): number(cost and cost["plain_updates"], 0),
        ("time", "minutes"): number(cost and cost["cpu"] / PER_MINUTE, 1),
    }


def _numbers(records: Records, dataset: str, method: str, of: list[Run]) -> list[dict]:
    """A row's numbers, one line each: the metrics, and what the training took."""
    line = {"dataset": dataset, "profile": records.profile, "method": method, "n": len(of)}
    lines = [line | {"quantity": metric} | moments(metric, of) for metric in (*METRICS, *BESIDE)]
    for key in ("inner_steps", "aggressive_epochs", "plain_updates", "cpu"):
        values = pd.Series([costs(run)[key] for run in of], dtype=float)
        lines.append(line | {"quantity": key, "mean": values.mean(), "sd": values.std()})
    return lines


def inner_table(records: Records) -> Table:
    """Table 4: aggressive training on Yelp with inner loops of fixed length, and until "convergence"."""
    dataset = resolve_name("yelp", records.profile)
    runs = records.of(dataset)
    shown, numbers, counted = [], [], []
    planned = plan.table_4(records.profile)
    for row, method in (planned | _other_stops(runs, planned["convergence"])).items():
        of = _named(runs, method)
        counted += of
        printed = published.inner_steps(row) if row in planned and "window" not in row else None
        cells = {("", "inner steps"): row, ("", "runs"): count(of)}
        for metric, title in METRICS.items():
            cells[title, "here"] = here(metric, of)
            cells[title, "paper"] = f"{getattr(printed, metric)}" if printed else ""
        cells["MI, all examples", "here"] = here("mi_large", of)
        cells |= _lasted(of)
        cells["time", "paper's hours"] = f"{printed.hours:.2f}" if printed else ""
        shown.append(cells)
        numbers += [
            line | {"paper": getattr(printed, line["quantity"], None)}
            for line in _numbers(records, dataset, method, of)
        ]
    ours = planned["convergence"]
    window = of[0].config["method"]["inference"]["window"] if (of := row_runs(runs, ours)) else None
    caption = (
        f"Table 4. {row_label('yelp', ours, of)} on {dataset}, profile {records.profile}, by the length of the inner "
        f"loop (the paper's rows: its \"Ours\", not annealed); time of training in the run's own plain updates, and in "
        f"minutes of the processor, which vary with the load. Convergence is the paper's test on windows of the loss"
        f"{f', of {window} steps where no other is named' if window else ''}. {legend(counted)}"
    )
    return Table(caption, frame(shown), pd.DataFrame(numbers))


def stops(records: Records) -> Table:
    """The paper's two stops (inner loop, stage) beside others, on the toy and on Yelp, and their paired differences."""
    yelp = resolve_name("yelp", records.profile)
    places = {
        "synthetic": (records.toy(), "aggressive"),
        yelp: (records.of(yelp), plan.table_4(records.profile)["convergence"]),
    }
    shown, numbers, counted = [], [], []
    for dataset, (runs, method) in places.items():
        base = _named(runs, method)
        for row, name in ({"the paper's": method} | _other_stops(runs, method)).items():
            of = _named(runs, name)
            counted += of
            cells = {("", "data"): dataset, ("", "stop"): row, ("", "runs"): count(of)}
            for metric, title in (BESIDE | {"nll": "NLL"}).items():
                less = paired_difference(metric, base, of) if name != method else None
                cells[title, "here"] = here(metric, of)
                cells[title, "less the paper's"] = _signed(less)
            shown.append(cells | _lasted(of))
            numbers += _numbers(records, dataset, name, of)
    caption = (
        "The paper's rules for the end of the inner loop and of the stage, and others beside them: inner test=gain "
        "ends a loop whose gain is within its standard error, stop metric=mi large decides the stage's end by the "
        "mutual information over all validation examples. Aggressive on the toy at the paper's scale, Aggressive + "
        f"anneal on {yelp}; differences are paired by seed, ± half of the 95% interval from two seeds on. "
        f"{legend(counted)}"
    )
    return Table(caption, frame(shown), pd.DataFrame(numbers))


def stage_ends(runs: Iterable[Run]) -> pd.DataFrame:
    """The epoch with which other rules would have ended the aggressive stage of a run, replayed on its history.

    One row per data set and method, in its cells one number per seed, as text; "> n" where a rule had not ended the
    stage when the run's own did, with epoch n. Up to there training does not depend on the rule. Left out: stages with
    a beginning or a latest end of their own (`delay`, `stage`).
    """
    rows = {}
    for run in runs:
        knobs, stage = run.config["method"]["inference"], run.history[run.history["aggressive"].astype(bool)]
        if not len(stage) or knobs.get("delay") or knobs.get("stage"):
            continue
        own = Aggressive(**knobs)
        patient = {"stop_patience": own.stop_patience + 1}
        line = rows.setdefault((run.metrics["dataset"], run.metrics["method"]), [])
        line.append(
            {
                "seed": str(run.metrics["seed"]),
                "patience": str(own.stop_patience),
                "as recorded": _ended(own, stage),
                "MI over all examples": _ended(replace(own, stop_metric="mi_large"), stage),
                "patience + 1": _ended(replace(own, **patient), stage),
                "both": _ended(replace(own, stop_metric="mi_large", **patient), stage),
            }
        )
    shown = [
        {"data": dataset, "method": method} | {column: ", ".join(seed[column] for seed in line) for column in line[0]}
        for (dataset, method), line in rows.items()
    ]
    return pd.DataFrame(shown).rename(columns={"seed": "seeds"})


def _ended(rule: Aggressive, stage: pd.DataFrame) -> str:
    """With which of its epochs a rule ends a stage."""
    state = rule.begin()
    for epoch, mi, mi_large in stage[["epoch", "valid_mi", "valid_mi_large"]].itertuples(index=False):
        if not rule.epoch_end(state, mi, mi_large)["aggressive"]:
            return str(epoch)
    return f"> {epoch}"


def after_the_stage(runs: Iterable[Run]) -> pd.DataFrame:
    """What the aggressive stage of each run cost, and what became of the code that it built; one row per run.

    stage, epochs; of all updates: how long it was, and its share of the decoder's updates. an aggressive update,
    training: in the run's own plain updates, the second per update of the decoder. MI: nats, over all validation
    examples, at the stage's end, 1 and 10 epochs later, and at the end of the run. Left out: runs without a stage and
    plain epochs after it.
    """
    lines = []
    for run in runs:
        history = run.history
        length = int(history["aggressive"].sum())  # the stage comes first
        if not 0 < length < len(history) or history["aggressive"][:length].sum() < length:
            continue
        cost, mi, last = costs(run), history["valid_mi_large"], len(history) - 1
        share = history["iteration"][length - 1] / history["iteration"].iloc[-1]
        line = {key: run.metrics[key] for key in ("dataset", "method", "seed")}
        line |= {"stage, epochs": length, "of all updates": f"{share:.1%}"}
        line |= {"an aggressive update": number(cost["aggressive_ratio"], 1)}
        line |= {"training": number(cost["plain_updates"] / cost["updates"], 2)}
        looks = {
            "at its end": length - 1,
            "1 epoch later": length,
            "10 epochs later": min(length + 9, last),
            "at the end": last,
        }
        lines.append(line | {f"MI, {name}": number(mi[at], 2) for name, at in looks.items()})
    return pd.DataFrame(lines).rename(columns={"dataset": "data"})


def _signed(found: Interval | None) -> str:
    """A difference with its sign, and its interval where there is one."""
    if found is None:
        return ""
    spread = f" ± {found.half_width:.2f}" if len(found.values) > 1 else ""
    return f"{round(found.mean, 2) + 0.0:+.2f}{spread}"
