"""Several runs at once, one process each, with one line of progress per run."""

import json

import pytest

from lagvae_lib.notebook.side_by_side import Board, Job, TrainingFailed, train


@pytest.fixture
def results(tmp_path, monkeypatch):
    monkeypatch.setenv("LAGVAE_RESULTS", str(tmp_path))
    return tmp_path


def test_the_runs_are_made_and_each_has_its_last_line(results):
    board = Board(["vae", "autoregressive"])
    train([Job("grammar", method, "smoke", 0) for method in board.lines], board)
    for method, line in board.lines.items():
        folder = results / "runs" / "smoke" / "grammar" / method / "seed0"
        assert json.loads((folder / "metrics.json").read_text())["method"] == method
        assert str(folder) in line
    assert len(repr(board).splitlines()) == 2


def test_a_process_that_fails_says_why(results):
    with pytest.raises(TrainingFailed, match="vea: error: unknown method 'vea'; did you mean 'vae'"):
        train([Job("grammar", "vea", "smoke", 0)], Board(["vea"]))


def test_an_error_of_several_lines_is_handed_on_whole(results, monkeypatch):
    monkeypatch.delenv("LAGVAE_DATA_MIRROR", raising=False)
    monkeypatch.setenv("LAGVAE_DATA", str(results / "none"))
    with pytest.raises(TrainingFailed, match=r"(?s)vae: error: .*LAGVAE_DATA_MIRROR.*\n.*Licence"):
        train([Job("yelp", "vae", "paper", 0)], Board(["vae"]))


def test_a_board_shows_one_line_per_run_and_keeps_its_display_up_to_date():
    board, seen = Board(["vae", "aggressive"]), []
    board.shown = type("Shown", (), {"update": lambda self, value: seen.append(value._repr_html_())})()
    board.update("vae", "epoch 1 <b>")
    assert repr(board) == "vae         epoch 1 <b>\naggressive"
    assert seen == ["<pre>vae         epoch 1 &lt;b&gt;\naggressive</pre>"]
