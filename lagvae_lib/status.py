"""Which rows exist at which profile, and the parts of README.md that are made from records."""

import re
from pathlib import Path

import pandas as pd

from lagvae_lib import atomic, claims, paths, report, tables
from lagvae_lib.methods import METHODS
from lagvae_lib.profiles import family

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


def seeds_recorded() -> pd.DataFrame:
    """How many seeds of each method are recorded, as text: rows are methods, columns (profile, data set).

    "missing" where there is none, "-" where a method is not made for such data. Runs with a smaller budget count for
    their row, with an asterisk.
    """
    columns = {}
    for profile, dataset in COLUMNS:
        runs = tables.recorded(profile, dataset)
        kind = "images" if family(dataset) == "images" else "text"
        columns[profile, dataset] = {name: _seeds(runs, name, kind) for name in METHODS}
    frame = pd.DataFrame(columns)
    frame.insert(0, ("", "method"), [METHODS[name].label for name in frame.index])
    return frame


def _seeds(runs: list, name: str, kind: str) -> str:
    if kind not in METHODS[name].families:
        return OTHER
    found = report.row_runs(runs, name)
    smaller = "*" * any(run.metrics["method"] != name for run in found)
    return f"{len(found)}{smaller}" if found else MISSING


def blocks() -> dict[str, str]:
    """The generated parts of the README, by name."""
    status = report.Table(
        "Seeds of each row on record, by profile and data set; * with a smaller budget than the profile's, which the "
        "row of its table names.",
        seeds_recorded(),
        pd.DataFrame(),
    )
    return {"status": report.as_markdown(status), "claims": claims_markdown("scaled")}


def claims_markdown(profile: str) -> str:
    """The claims and what was measured, as a table."""
    frame = claims.as_frame(claims.findings(profile))
    frame.columns = pd.MultiIndex.from_product([[""], frame.columns])
    return report.as_markdown(report.Table(claims.RULE, frame, pd.DataFrame()))


def update(readme: Path | None = None) -> None:
    """Write the generated parts anew. Raises ValueError where the README has no place for one of them."""
    readme = readme or paths.ROOT / "README.md"
    text = readme.read_text(encoding="utf-8")
    for name, content in blocks().items():
        place = re.compile(rf"(?<=<!-- {name}: made by `make tables` -->\n).*?(?=<!-- end of {name} -->)", re.DOTALL)
        if not place.search(text):
            raise ValueError(f"{readme.name} has no part between '<!-- {name}: made by `make tables` -->' and its end")
        text = place.sub(lambda _, content=content: content, text)
    atomic.write_text(readme, text)
