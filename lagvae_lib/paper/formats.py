"""A table as text: CSV, Markdown and LaTeX."""

import io

import pandas as pd

from lagvae_lib.paper.tables import Table


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


SPECIAL = {
    "β": r"$\beta$",
    "δ": r"$\delta$",
    "†": r"$\dagger$",
    "≤": r"$\leq$",
    "~": r"$\sim$",
    "%": r"\%",
    "_": r"\_",
    "&": r"\&",
}


def _escaped(text: str) -> str:
    return "".join(SPECIAL.get(character, character) for character in text)
