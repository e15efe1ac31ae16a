"""Several runs at once, one process each, with one line of progress per run."""

import json

import pytest

from lagvae_lib.notebook import side_by_side
from lagvae_lib.notebook.side_by_side import Board, Job, TrainingFailed, train


@pytest.fixture
def results(tmp_path, monkeypatch):
    monkeypatch.setenv("LAGVAE_RESULTS", str(tmp_path))
    return tmp_path


def test_the_runs_are_made_and_each_has_its_last_line(results, monkeypatch):
    boards = []
    monkeypatch.setattr(side_by_side, "display", lambda board, **_: boards.append(board))
    train([Job("grammar", method, "smoke", 0) for method in ("vae", "autoregressive")])
    for method in ("vae", "autoregressive"):
        folder = results / "runs" / "smoke" / "grammar" / method / "seed0"
        assert json.loads((folder / "metrics.json").read_text())["method"] == method
        assert str(folder) in boards[0].lines[method]
    assert len(repr(boards[0]).splitlines()) == 2


def test_a_process_that_fails_says_why(results):
    with pytest.raises(TrainingFailed, match="vea: error: unknown method 'vea'; did you mean 'vae'"):
        train([Job("grammar", "vea", "smoke", 0)])


def test_a_board_outside_a_notebook_keeps_its_lines(capsys):
    board = Board(["vae", "aggressive"])
    board.update("vae", "epoch 1")
    assert repr(board) == "vae         epoch 1\naggressive  waiting"
