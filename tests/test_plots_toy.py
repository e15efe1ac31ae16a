"""The toy's figures, drawn from made-up records, and the comparison of methods that stands beside them."""

import io
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from lagvae_lib.config.methods import METHODS
from lagvae_lib.metrics import comparison
from lagvae_lib.paper.rows import row_runs
from lagvae_lib.plots import posterior_space as figures
from lagvae_lib.plots import toy_curves as curves
from lagvae_lib.runs.record import Records, Run, Trajectory

ORACLE = {split: {"nll": 30.0, "nll_se": 0.1} for split in ("test", "fresh")}


@pytest.fixture(autouse=True)
def no_figure_stays_open():
    yield
    plt.close("all")


def record(slope: float, looks: int = 6, aggressive_epochs: int = 0, nll: float = 38.0, seed: int = 0) -> Run:
    """A run whose points lie on a line of this slope and spread with time."""
    generator = np.random.default_rng(0)
    iteration = 200 * np.arange(looks)
    model_mean = (iteration[:, None] / 1000 * generator.normal(size=50)).astype(np.float16)
    dynamics = {name: np.linspace(0, 1, looks) for name in ("lag", "amortisation", "approximation", "kl", "mi_large")}
    method = "aggressive" if aggressive_epochs else "vae"
    values = {
        "dataset": "synthetic",
        "method": method,
        "profile": "paper",
        "seed": seed,
        "nll": nll,
        "nll_standard_error": 0.1,
    }
    return Run(
        Path("nowhere"),
        {},
        values | {"fresh": values},
        pd.DataFrame({"iteration": [500, 1000], "aggressive": [i < aggressive_epochs for i in range(2)]}),
        pd.DataFrame({"iteration": iteration, **dynamics}),
        {"iteration": iteration, "model_mean": model_mean, "inference_mean": (slope * model_mean).astype(np.float16)},
    )


RUNS = {
    "VAE": [record(0.0), record(0.0, seed=1)],
    "aggressive": [record(0.9, 4, 1, nll=37.9), record(0.9, 4, 1, nll=37.8, seed=1)],
}


def texts(axis) -> str:
    return " ".join(text.get_text() for text in axis.texts)


def test_figure_2_has_a_row_a_method_and_says_where_the_points_end():
    figure = figures.figure_2(RUNS)
    rows = [figure.axes[:3], figure.axes[3:]]
    assert [axis.get_title() for axis in rows[0]] == ["0 updates", "200 updates", "1,000 updates"]
    assert "collapsed" in texts(rows[0][2])
    drawn = [axis for axis in rows[1] if axis.get_visible()]
    assert [axis.get_title() for axis in drawn] == ["0 updates", "200 updates", "600 updates"]
    assert "correlation 1.000" in texts(drawn[-1]) and "slope 0.90" in texts(drawn[-1])
    limits = {axis.get_xlim() for axis in drawn}
    assert len(limits) == 1
    points = drawn[-1].collections[0].get_offsets()
    np.testing.assert_allclose(points[:, 0], RUNS["aggressive"][0].points["model_mean"][3])
    assert np.abs(points).max() < next(iter(limits))[1]


def test_labels_of_one_method_have_colours_that_no_other_has():
    plain, aggressive = RUNS.values()
    drawn = curves.shades({"VAE": plain, "Aggressive": aggressive, "late": aggressive, "short": aggressive})
    assert (drawn["VAE"], drawn["Aggressive"]) == (METHODS["vae"].colour, METHODS["aggressive"].colour)
    assert len({to_hex(tint) for tint in drawn.values()}) == 4


def test_looks_are_the_nearest_without_repeats():
    run = record(1.0)
    assert figures.nearest(run, (0, 190, 210, 90_000, None)) == [0, 1, 5]


def test_stages_end_where_the_history_says():
    assert curves.stage_end(record(1.0)) is None
    assert curves.stage_end(record(1.0, aggressive_epochs=1)) == 500
    assert curves.stage_end(record(1.0, aggressive_epochs=2)) is None  # it never ended


@pytest.mark.parametrize(
    ("draw", "panels"),
    [
        (curves.lag_over_training, 3),
        (curves.information_over_training, 2),
        (curves.relative_lag_over_training, 2),
    ],
)
def test_curves_show_every_run_and_the_end_of_the_stage(draw, panels):
    figure = draw(RUNS)
    assert len(figure.axes) == panels
    for axis in figure.axes:
        lines = [line for line in axis.lines if line.get_linewidth() >= 1]
        assert len(lines) == 4 + 2  # a curve per run, a dotted line per aggressive run
        assert sorted({line.get_xdata()[0] for line in lines}) == [0, 500]


def test_likelihood_shows_runs_oracle_and_paired_differences():
    left, right = curves.likelihood(RUNS, ORACLE).axes
    assert len(left.containers) == 2 * (1 + 4)
    drawn = [value for line in right.lines for value in np.ravel(line.get_ydata())]
    assert {round(float(value), 6) for value in drawn} >= {-0.1, -0.2, -0.15}


def test_likelihoods_are_compared_over_the_seeds_that_both_methods_have():
    plain = [record(0.0, nll=30.0, seed=7), *RUNS["VAE"]]
    assert curves.less(plain, RUNS["aggressive"][::-1], "fresh").differences == pytest.approx((-0.1, -0.2))
    curves.likelihood({"VAE": plain, "aggressive": RUNS["aggressive"]}, ORACLE)
    with pytest.raises(ValueError, match="at least one: 0 and 0"):
        curves.less(plain[:1], RUNS["aggressive"], "fresh")


def test_figure_3_follows_the_points_only_so_far():
    iteration, after_inner = np.array([0, 0, 1, 1, 2]), np.array([0, 1, 0, 1, 0], dtype=bool)
    x, y = np.zeros((5, 3)), np.zeros((5, 3))
    y[1:], x[2:] = [1, 2, 3], [1, 2, 3]
    y[3:], x[4:] = [1, 2, 5], 7
    (axis,) = figures.figure_3({"aggressive": Trajectory(iteration, after_inner, x, y)}, updates=1).axes
    segments = [line for line in axis.lines if len(line.get_xdata()) == 2 and line.get_linewidth() == 1.1]
    assert len(segments) == 2 * 3  # two points; an inner loop, a generator step and the inner loop after it
    assert max(np.max(line.get_ydata()) for line in segments) == 5  # the outermost point is among them
    assert max(np.max(line.get_xdata()) for line in segments) == 3  # nothing of the second update


def test_half_steps_are_numbered_arrows_of_one_point():
    iteration, after_inner = np.array([0, 0, 1, 1, 2]), np.array([0, 1, 0, 1, 0], dtype=bool)
    x, y = np.zeros((5, 2)), np.zeros((5, 2))
    x[2:4, 1], x[4, 1], y[1:3, 1], y[3:, 1] = 1, 3, 0.5, 1
    (axis,) = figures.half_steps({"Aggressive": Trajectory(iteration, after_inner, x, y)}, first=0, moves=4).axes
    assert [text.get_text() for text in axis.texts if text.get_text()] == ["1", "2", "3", "4"]
    assert axis.get_title() == "Aggressive, decoder updates 0 to 2"
    ends = [text.arrow_patch for text in axis.texts if text.arrow_patch]
    assert len(ends) == 4


def test_the_numbers_of_moves_side_by_side_do_not_change_places():
    iteration, after_inner = np.array([0, 0, 1, 1, 2]), np.array([0, 1, 0, 1, 0], dtype=bool)
    x, y = np.array([[0.0], [0], [3], [3], [0]]), np.array([[-1.0], [0], [0], [0.2], [0.2]])  # 4 returns just above 2
    (axis,) = figures.half_steps({"Aggressive": Trajectory(iteration, after_inner, x, y)}, first=0, moves=4).axes
    height = {text.get_text(): text.xyann[1] for text in axis.texts if text.get_text()}
    assert height["2"] < 0 < height["4"] and "3" not in height


def test_moves_too_short_for_numbers_are_said_to_be():
    iteration, after_inner = np.arange(5), np.zeros(5, dtype=bool)
    still, wide = np.linspace(0, 0.2, 5)[:, None], np.linspace(0, 3, 5)[:, None]
    paths = {name: Trajectory(iteration, after_inner, x, np.zeros((5, 1))) for name, x in (("a", still), ("b", wide))}
    left, right = figures.half_steps(paths, first=0, moves=4).axes
    assert [text.get_text() for text in left.texts if text.get_text()] == ["4 moves, the longest 0.05"]
    assert [text.get_text() for text in right.texts if text.get_text()] == ["1", "2", "3", "4"]


def test_the_first_frame_is_laid_out_like_the_last_and_nothing_comes_from_another_host():
    moving = figures.animation({label: of[:1] for label, of in RUNS.items()}, frames=3)
    html = figures.scrubber(moving)
    assert "http" not in html and "fa-" not in html and html.count("data:image/png") == 3
    places = [axis.get_position().bounds for axis in moving._fig.axes]
    moving._fig.savefig(io.BytesIO())
    assert places == [axis.get_position().bounds for axis in moving._fig.axes]


def test_animation_becomes_a_gif():
    moving = figures.gif(figures.animation({label: of[:1] for label, of in RUNS.items()}, frames=3))
    assert moving.startswith(b"GIF89a") and len(moving) < 200_000


# -- comparison ------------------------------------------------------------------------------------------------------


def test_agreement_is_correlation_and_least_squares():
    generator = np.random.default_rng(1)
    x = generator.normal(size=400)
    y = 0.7 * x + 0.2 * generator.normal(size=400) + 3
    found = comparison.agreement(x, y)
    assert found.correlation == pytest.approx(np.corrcoef(x, y)[0, 1], abs=1e-12)
    assert found.slope == pytest.approx(np.polyfit(x, y, 1)[0], abs=1e-12)
    assert np.isnan(comparison.agreement(x, 1e-5 * y).correlation)


def test_relative_lag_is_the_share_of_the_spread_that_is_not_followed():
    x = np.random.default_rng(1).normal(size=(3, 400))
    assert comparison.relative_lag(x, x).tolist() == [0, 0, 0]
    np.testing.assert_allclose(comparison.relative_lag(x, np.full_like(x, 2.0)), 1)  # the same of every example
    np.testing.assert_allclose(comparison.relative_lag(x, 0.7 * x + 1), 0.09)
    np.testing.assert_allclose(comparison.relative_lag(x, -x), 4)
    y = x + np.random.default_rng(2).normal(size=x.shape)
    by_hand = [np.mean((d - d.mean()) ** 2) / np.mean((m - m.mean()) ** 2) for m, d in zip(x, x - y, strict=True)]
    np.testing.assert_allclose(comparison.relative_lag(x, y), by_hand)
    assert np.isnan(comparison.relative_lag(1e-4 * x, y)).all()


def test_relative_lag_of_the_records_tells_the_paper_s_story():
    """1 for the plain VAE at every look of every seed; below 0.35 throughout for Aggressive, and 0.02 in the end."""
    runs = Records("scaled").toy()
    plain, aggressive = ([curves.lags(run)[1:] for run in row_runs(runs, m)] for m in ("vae", "aggressive"))
    assert min(len(plain), len(aggressive)) >= 3
    assert all(np.abs(of - 1).max() < 0.01 for of in plain)
    assert all(of.max() < 0.35 and of[-1] < 0.02 for of in aggressive)


@pytest.mark.parametrize("n", [2, 3, 5, 10, 11, 40])
def test_paired_interval_is_students(n):
    stats = pytest.importorskip("scipy.stats")
    a, b = np.random.default_rng(n).normal(size=(2, n))
    found = comparison.paired(a, b)
    interval = stats.ttest_rel(b, a).confidence_interval(0.95)
    assert found.mean - found.half_width == pytest.approx(interval.low, abs=1e-9)
    assert found.mean + found.half_width == pytest.approx(interval.high, abs=1e-9)


def test_within_is_decided_only_where_the_interval_is_clear_of_both_limits():
    found = comparison.interval([0.9, 1.0, 1.1])  # 1 +- 0.248
    assert found.within(0.7, 1.3) is True and found.within(0.7, np.inf) is True
    assert found.within(0.8, 1.3) is None and found.within(-np.inf, 1.1) is None
    assert found.within(1.3, 2) is False and found.within(-np.inf, 0.7) is False
    assert comparison.interval([1.0]).within(0, 2) is None


def test_seeds_to_decide_is_the_least_number_whose_interval_is_clear():
    found = comparison.interval([0.0, 1.0, 2.0])
    assert comparison.seeds_to_decide(found, 0, np.inf) == 7
    assert comparison.seeds_to_decide(found, 0.99, np.inf) is None
    assert comparison.seeds_to_decide(comparison.interval([1.0]), 0, np.inf) is None


@pytest.mark.parametrize(
    ("differences", "said"),
    [
        ([-0.30, -0.31, -0.29], "better"),
        ([0.30, 0.31, 0.29], "worse"),
        ([-0.3, 0.3, -0.1], "no difference can be established"),
        ([-0.3], "cannot decide"),
    ],
)
def test_verdict_says_what_the_numbers_say(differences, said):
    plain = [38.0] * len(differences)
    sentence = comparison.verdict(comparison.paired(plain, [38.0 + d for d in differences]), "fresh lines")
    assert said in sentence and f"{np.mean(differences):+.3f}" in sentence


@pytest.mark.parametrize(("a", "b"), [([], []), ([1.0], [1.0, 2.0])])
def test_unpaired_values_are_refused(a, b):
    with pytest.raises(ValueError, match="pairs need"):
        comparison.paired(a, b)
