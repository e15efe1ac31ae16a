"""Which rows exist at which profile, and the parts of README.md and results/README.md that are made from records."""

import re
from pathlib import Path

import pandas as pd

from lagvae_lib import atomic, paths
from lagvae_lib.config.methods import METHODS
from lagvae_lib.data import family, resolve_name
from lagvae_lib.paper import claims, plan
from lagvae_lib.paper.formats import as_markdown
from lagvae_lib.paper.rows import DATASETS, DOUBLE_DAGGER, EARLIER, NO_RUN, cell, converged, count, legend, row_runs
from lagvae_lib.paper.tables import Table, every_run
from lagvae_lib.runs.record import Records

COLUMNS = (  # profile, data set
    ("paper", "synthetic"),
    ("scaled", "yelp-small"),
    ("scaled", "yahoo-small"),
    ("scaled", "omniglot-28"),
    ("paper", "yelp"),
    ("paper", "yahoo"),
    ("paper", "omniglot"),
)
MISSING, OTHER = "missing", "-"
PROFILE = "scaled"  # of the committed records
PLACES = {"README.md": ("results",), "results/README.md": ("status", "criteria", "claims", "Yelp runs", "Yahoo runs")}
QUANTITIES = (
    "NLL, KL and MI in nats per example of the test set, MI over all of its examples. Relative lag: the share of the "
    "variance of the model's posterior means, over the toy's 500 points, that the means of q(z|x) do not follow."
)
MAIN = {"nll": "NLL", "mi_large": "MI", "au": "AU"}  # columns of the main results


def seeds_recorded(records: Records) -> pd.DataFrame:
    """How many seeds of each method are recorded and converged, as text: rows are methods, columns (profile, data set).

    "1/3": three seeds, of which one ended by its schedule's rule. "missing" where there is none, "-" where a method is
    not made for such data. Runs with another budget count for their row, with an asterisk; those of earlier settings
    have the mark of `rows.legend`.
    """
    columns = {}
    for profile, dataset in COLUMNS:
        runs = records.of(dataset, profile)
        columns[profile, dataset] = {name: _seeds(runs, name, family(dataset)) for name in METHODS}
    frame = pd.DataFrame(columns)
    frame.insert(0, ("", "method"), [METHODS[name].label for name in frame.index])
    return frame


def _seeds(runs: list, name: str, kind: str) -> str:
    if kind not in METHODS[name].families:
        return OTHER
    found = row_runs(runs, name)
    starred = "*" * any(run.metrics["method"] != name for run in found)
    earlier = EARLIER * any(run.earlier for run in found)
    return f"{sum(map(converged, found))}/{len(found)}{starred}{earlier}" if found else MISSING


def blocks(records: Records) -> dict[str, str]:
    """The generated parts, by name."""
    found = claims.findings(records)
    return {
        "results": as_markdown(main_results(records)),
        "status": as_markdown(status(records)),
        "criteria": as_markdown(_table(QUANTITIES, claims.criteria_frame(records.profile))),
        "claims": as_markdown(_table(f"{claims.RULE} {claims.expected_by_chance(found)}", claims.as_frame(found))),
        "Yelp runs": as_markdown(every_run(records, resolve_name("yelp", records.profile))),
        "Yahoo runs": as_markdown(every_run(records, resolve_name("yahoo", records.profile))),
    }


def status(records: Records) -> Table:
    """The rows of the registry with their seeds."""
    caption = (
        "Seeds of each row on record, by profile and data set, converged / all; * with another budget than the "
        f"profile's, which the row of its table names; SA-VAE's smaller one never counts as converged. {DOUBLE_DAGGER}"
    )
    return Table(caption, seeds_recorded(records), pd.DataFrame())


def main_results(records: Records) -> Table:
    """NLL, MI over all examples, and AU of the five methods of the paper on its three data sets."""
    shown, counted = [], []
    for method in plan.FIVE:
        line = {("", "method"): METHODS[method].label}
        for name, title in DATASETS.items():
            of = row_runs(records.of(resolve_name(name, records.profile)), method)
            counted += of
            line[title, "seeds"] = count(of) if of else NO_RUN
            line |= {(title, short): cell(metric, of) if of else "" for metric, short in MAIN.items()}
        shown.append(line)
    frame = pd.DataFrame(shown)
    frame.columns = pd.MultiIndex.from_tuples(frame.columns)
    caption = (
        f"Test set at profile {records.profile}, mean (sd over seeds), nats per example; MI over all test examples, "
        f"AU active units; LSTM-LM stands for the PixelCNN on images. {legend(counted)} "
        "What the paper prints beside it: [results/tables](results/tables). Every claim with its criterion, control "
        "and verdict, and all rows with their seeds: [results/README.md](results/README.md#the-papers-claims)."
    )
    return Table(caption, frame, pd.DataFrame())


def _table(caption: str, frame: pd.DataFrame) -> Table:
    return Table(caption, frame.set_axis(pd.MultiIndex.from_product([[""], frame.columns]), axis=1), pd.DataFrame())


def shows(records: Records) -> bool:
    """Whether these are the records that the checkout's pages are made from, and not of another profile or folder."""
    return records.profile == PROFILE and paths.results_dir().resolve() == (paths.ROOT / "results").resolve()


def update(records: Records, root: Path | None = None) -> None:
    """Write the generated parts anew. Raises ValueError, and writes nothing, where a file has no place for one."""
    root, made, texts = root or paths.ROOT, blocks(records), {}
    for file, names in PLACES.items():
        texts[file] = (root / file).read_text(encoding="utf-8")
        for name in names:
            place = re.compile(
                rf"(?<=<!-- {name}: made by `make tables` -->\n).*?(?=<!-- end of {name} -->)", re.DOTALL
            )
            if not place.search(texts[file]):
                raise ValueError(f"{file} has no part between '<!-- {name}: made by `make tables` -->' and its end")
            texts[file] = place.sub(lambda _, name=name: made[name], texts[file])
    for file, text in texts.items():
        atomic.write_text(root / file, text)
