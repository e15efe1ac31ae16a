"""What notebooks display besides figures: training in short, tables, and what was seen."""

from types import SimpleNamespace

import pandas as pd
import pytest

from lagvae_lib.notebook import display
from lagvae_lib.paper.rows import row_runs
from lagvae_lib.runs.record import Records


@pytest.fixture(scope="module")
def run():
    return row_runs(Records("scaled").toy(), "aggressive")[0]


def test_training_is_one_line_and_a_folded_table(run):
    text = display.training(run)
    assert text.startswith(
        "<details><summary><b>Aggressive, seed 0, profile paper</b>: 38 epochs, 3 of them aggressive"
    )
    assert text.count("<tr") == 1 + display.ROWS and text.endswith("</details>")
    assert "<td>1</td>" in text and "<td>38</td>" in text and "-0.0" not in text


def test_what_must_be_trained_is_trained_side_by_side_with_one_line_per_run(run, monkeypatch):
    shown, updates, jobs = [], [], []

    def displayed(value, display_id):
        shown.append(value)
        return SimpleNamespace(update=lambda value: updates.append(value._repr_html_()))

    def load(method, seed, report):
        report(f"loaded {method}, seed {seed}")
        return run

    monkeypatch.setattr("IPython.display.display", displayed)
    monkeypatch.setattr(display, "side_by_side", lambda made, board: jobs.append(made))
    settings = SimpleNamespace(
        methods=("vae", "aggressive", "autoregressive"),
        profile="quick",
        run=load,
        recorded=lambda method, seed: method == "autoregressive",
        job=lambda method, seed: (method, seed),
    )
    assert display.trained(settings, seed=3) == dict.fromkeys(settings.methods, run)
    assert jobs == [[("aggressive", 3), ("vae", 3)]]  # the longest first
    assert (
        updates[1]
        == "<pre>vae             loaded vae, seed 3\naggressive      loaded aggressive, seed 3\nautoregressive</pre>"
    )
    assert updates[-1].count("<details>") == 3
    settings.profile = "smoke"
    display.trained(settings, seed=3)
    assert len(jobs) == 1  # a smoke run takes less time than starting a process


def test_what_was_seen_is_escaped():
    assert display.saw("a < b", "c") == "<ul><li>a &lt; b</li><li>c</li></ul>"
    assert display.saw("-0.00 of -0.05, -0.0") == "<ul><li>0.00 of -0.05, 0.0</li></ul>"


def test_tables_cut_no_cell_and_mark_what_is_missing():
    text = display.table(pd.DataFrame({"words": ["w" * 80], "number": [float("nan")]}), "a < b", index=False)
    assert "w" * 80 in text and "<td>-</td>" in text and text.endswith("<p>a &lt; b</p>")
