"""Which rows exist at which profile, and the parts of README.md that are made from records."""

import re
from pathlib import Path

import pandas as pd

from lagvae_lib import atomic, paths
from lagvae_lib.config.methods import METHODS
from lagvae_lib.data import family
from lagvae_lib.paper import claims
from lagvae_lib.paper.formats import as_markdown
from lagvae_lib.paper.rows import row_runs
from lagvae_lib.paper.tables import Table
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


def seeds_recorded(records: Records) -> pd.DataFrame:
    """How many seeds of each method are recorded, as text: rows are methods, columns (profile, data set).

    "missing" where there is none, "-" where a method is not made for such data. Runs with a smaller budget count for
    their row, with an asterisk.
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
    smaller = "*" * any(run.metrics["method"] != name for run in found)
    return f"{len(found)}{smaller}" if found else MISSING


def blocks(records: Records) -> dict[str, str]:
    """The generated parts of the README, by name."""
    status = Table(
        "Seeds of each row on record, by profile and data set; * with a smaller budget than the profile's, which the "
        "row of its table names.",
        seeds_recorded(records),
        pd.DataFrame(),
    )
    return {"status": as_markdown(status), "claims": claims_markdown(records)}


def claims_markdown(records: Records) -> str:
    """The claims and what was measured, as a table."""
    frame = claims.as_frame(claims.findings(records))
    frame.columns = pd.MultiIndex.from_product([[""], frame.columns])
    return as_markdown(Table(claims.RULE, frame, pd.DataFrame()))


def update(records: Records, readme: Path | None = None) -> None:
    """Write the generated parts anew. Raises ValueError where the README has no place for one of them."""
    readme = readme or paths.ROOT / "README.md"
    text = readme.read_text(encoding="utf-8")
    for name, content in blocks(records).items():
        place = re.compile(rf"(?<=<!-- {name}: made by `make tables` -->\n).*?(?=<!-- end of {name} -->)", re.DOTALL)
        if not place.search(text):
            raise ValueError(f"{readme.name} has no part between '<!-- {name}: made by `make tables` -->' and its end")
        text = place.sub(lambda _, content=content: content, text)
    atomic.write_text(readme, text)
