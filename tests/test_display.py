"""What notebooks display besides figures: training in short, tables, and what was seen."""

import sys
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


def test_progress_is_shown_while_it_trains_and_folded_afterwards(run, monkeypatch):
    pytest.importorskip("IPython")
    shown, updates = [], []

    def displayed(value, display_id):
        shown.append(value)
        return SimpleNamespace(update=updates.append)

    def train(method, seed):
        print(f"{method}, seed {seed}: epoch 1")
        return run

    monkeypatch.setattr("IPython.display.display", displayed)
    settings = SimpleNamespace(methods=("vae", "aggressive"), run=train)
    assert display.trained(settings, seed=3) == {"vae": run, "aggressive": run}
    assert [update for update in updates if "<pre>" in update] == [
        "<pre>vae, seed 3: epoch 1</pre>",
        "<pre>aggressive, seed 3: epoch 1</pre>",
    ]
    assert updates[-1].count("<details>") == 2
    assert sys.stdout is not None


def test_what_was_seen_is_escaped():
    assert display.saw("a < b", "c") == "<ul><li>a &lt; b</li><li>c</li></ul>"
    assert display.saw("-0.00 of -0.05, -0.0") == "<ul><li>0.00 of -0.05, 0.0</li></ul>"


def test_tables_cut_no_cell_and_mark_what_is_missing():
    text = display.table(pd.DataFrame({"words": ["w" * 80], "number": [float("nan")]}), "a < b", index=False)
    assert "w" * 80 in text and "<td>-</td>" in text and text.endswith("<p>a &lt; b</p>")
