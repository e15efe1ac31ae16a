"""Every table and figure of the paper as files: what `python -m lagvae_lib tables` makes.

Each table becomes a CSV file of numbers (one number per line), and Markdown and LaTeX for reading; each figure becomes
PNG and PDF. The same records give the same bytes.
"""

from collections.abc import Callable
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from lagvae_lib import atomic, paths
from lagvae_lib.config.methods import find
from lagvae_lib.data import resolve_name
from lagvae_lib.paper import published
from lagvae_lib.paper.formats import as_csv, as_latex, as_markdown
from lagvae_lib.paper.inner_loops import inner_table, stops
from lagvae_lib.paper.plan import OURS
from lagvae_lib.paper.rows import DATASETS, row_label, row_runs
from lagvae_lib.paper.tables import Table, every_run, main_table, timing
from lagvae_lib.plots import posterior_space, style
from lagvae_lib.plots import records as curves
from lagvae_lib.runs.record import Records, trajectory_of

DRAWN = 25  # decoder updates in Figure 3; more would cover its panels with lines


def all_tables(records: Records) -> dict[str, Callable[[], Table]]:
    """Every table by the name of its files."""
    numbers = {"yahoo": 1, "yelp": 1, "omniglot": 2}
    found = {
        f"table{numbers[n]}-{resolve_name(n, records.profile)}": lambda n=n: main_table(records, n) for n in DATASETS
    }
    found |= {
        "table3": lambda: timing(records),
        "table4": lambda: inner_table(records),
        "stops": lambda: stops(records),
    }
    return found | {"runs": lambda: every_run(records)}


def all_figures(records: Records) -> dict[str, Callable[[], Figure]]:
    """Every figure that the records at hand can give, by the name of its files. Figures 2 and 3 are the toy's."""
    found: dict[str, Callable[[], Figure]] = {"figure4": lambda: figure_4(records)}
    yelp = records.of(resolve_name("yelp", records.profile))
    panels = ("vae-anneal", "beta-0.2", OURS.get(records.profile, "aggressive"))
    chosen = {find(method).label: row_runs(yelp, method)[0] for method in panels if row_runs(yelp, method)}
    if chosen:
        found["figure5"] = lambda: curves.dynamics(chosen, nats=8)  # above it the KL of a few first updates alone
    toy = records.toy()
    pair = {label: row_runs(toy, method) for label, method in (("VAE", "vae"), ("Aggressive", "aggressive"))}
    if all(pair.values()):
        found["figure2"] = lambda: posterior_space.figure_2(pair)
        ways = {label: trajectory_of(of[0]) for label, of in pair.items()}
        if all(ways.values()):
            found["figure3"] = lambda: posterior_space.figure_3(ways, DRAWN)
    return dict(sorted(found.items()))


def figure_4(records: Records) -> Figure:
    """Figure 4 for every data set that has runs of today's settings, the rows of the paper's tables alone."""
    panels = {}
    for name, title in DATASETS.items():
        dataset = resolve_name(name, records.profile)
        runs = [run for run in records.of(dataset) if not run.earlier]
        rows = {row_label(name, m, row_runs(runs, m)): row_runs(runs, m) for m in published.methods(name)}
        if any(rows.values()):
            panels[f"{title} ({dataset})"] = {label: of for label, of in rows.items() if of}
    return curves.nll_against_au(panels)


def write(records: Records, folder: Path | None = None) -> list[Path]:
    """Write every table and figure of a profile's records; returns the files.

    folder: they go to `tables/` and `figures/` under it; by default under the results.
    """
    folder, written = folder or paths.results_dir(), []
    for name, make in all_tables(records).items():
        table, stem = make(), f"{records.profile}-{name}"
        for suffix, text in (("csv", as_csv(table)), ("md", as_markdown(table)), ("tex", as_latex(table))):
            written.append(folder / "tables" / f"{stem}.{suffix}")
            atomic.write_text(written[-1], text)
    style()
    for name, make in all_figures(records).items():
        figure = make()
        for suffix, metadata in (("png", {"Software": None}), ("pdf", {"CreationDate": None, "Producer": None})):
            written.append(folder / "figures" / f"{records.profile}-{name}.{suffix}")
            with atomic.replace_with(written[-1]) as temporary, open(temporary, "wb") as f:
                figure.savefig(f, format=suffix, metadata=metadata)
        plt.close(figure)
    return written
