"""Verdicts: one rule, criteria that can fail, and controls that they are set against."""

from dataclasses import replace
from math import inf

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from lagvae_lib.metrics import comparison
from lagvae_lib.metrics.comparison import at_equal_length
from lagvae_lib.paper import claims, criteria
from lagvae_lib.paper.claims import Claim, Finding, judge
from lagvae_lib.paper.criteria import FAILS, HOLDS, NOT_CONVERGED, NOT_DISTINGUISHED, OPEN, Collapse, Cost, Lag, Order
from lagvae_lib.paper.rows import NO_RUN, paired_difference
from lagvae_lib.runs.record import Records, paired_by_seed
from tests.made_up import made_up, of_earlier_settings

KEEPS = Claim("keeps", "aggressive", Order("mi_large", "vae", least=0.1), "vae-anneal")
BETTER = Claim("better", "aggressive", Order("nll", "vae", sign=-1), "vae-anneal")
COLLAPSES = Claim("collapses", "vae", Collapse(), "aggressive")
COSTS = Claim("costs", "aggressive", Cost(2, 4), "vae-anneal")
LAGS = Claim("lags", "vae", Lag(above=True), "aggressive")
CLOSES = Claim("closes", "aggressive", Lag(late=True, against="vae"), "vae")


def row(method, values, metric="nll", **metrics):
    """A run for every value, seeds 0, 1, ..."""
    return [made_up(method, seed, **metrics | {metric: value}) for seed, value in enumerate(values)]


def toy(method, early, late, seeds=3):
    """Runs whose inference network's means fall short of the model's: the relative lag early, and later."""
    x = np.random.default_rng(0).normal(size=500)
    iteration = np.arange(0, 2200, 200)
    runs = []
    for seed in range(seeds):
        lag = np.where(iteration <= 1000, early, late) + 0.001 * seed
        points = {"iteration": iteration, "model_mean": np.tile(x, (len(iteration), 1))}
        points["inference_mean"] = points["model_mean"] * (1 - np.sqrt(lag))[:, None]
        runs.append(replace(made_up(method, seed), points=points))
    return runs


def cost(method, aggressive_seconds, **metrics):
    """Runs whose aggressive stage takes so many seconds, beside 20 plain updates of a second each."""
    runs = row(method, [100.0] * len(aggressive_seconds), **metrics)
    for run, seconds in zip(runs, aggressive_seconds, strict=True):
        run.metrics["cpu_seconds"]["aggressive"] = seconds
    return runs


def verdict(claim, *rows):
    return judge(claim, "yelp-small", [run for row in rows for run in row]).verdict


# -- the rule ----------------------------------------------------------------------------------------------------------


def test_an_order_holds_fails_or_is_open():
    vae, control = row("vae", [100.0, 101.0, 102.0]), row("vae-anneal", [100.1, 100.9, 102.0])
    assert verdict(BETTER, vae, row("aggressive", [98.0, 99.1, 100.0]), control) == HOLDS
    assert verdict(BETTER, vae, row("aggressive", [102.0, 103.1, 104.0]), control) == FAILS
    assert verdict(BETTER, vae, row("aggressive", [98.0, 101.5, 102.0]), control) == OPEN
    assert verdict(BETTER, vae) == NO_RUN


def test_two_standard_errors_are_not_enough_at_three_seeds():
    differences = [-1.0, -0.2, -0.9]  # 2.8 standard errors from zero, where Student's t asks 4.3
    assert abs(np.mean(differences)) > 2 * np.std(differences, ddof=1) / 3**0.5
    assert verdict(BETTER, row("vae", [100.0] * 3), row("aggressive", 100 + np.array(differences))) == OPEN


def test_differences_are_paired_by_seed_whatever_the_order_of_the_runs():
    vae, ours = row("vae", [100.0, 110.0, 120.0]), row("aggressive", [99.0, 109.1, 119.0])
    control = row("vae-anneal", [100.0, 110.1, 119.9])
    assert verdict(BETTER, vae, ours[::-1], control) == HOLDS  # unpaired, 10 nats of spread would hide 1
    assert [a.metrics["seed"] == b.metrics["seed"] for a, b in paired_by_seed(vae, ours[::-1])] == [True] * 3
    expected = comparison.paired(*([run.metrics["nll"] for run in of] for of in (vae, ours)))
    assert paired_difference("nll", vae, ours[::-1]) == expected and paired_difference("nll", vae, []) is None
    shifted = [replace(run, metrics=run.metrics | {"seed": (run.metrics["seed"] + 1) % 3}) for run in ours]
    assert verdict(BETTER, vae, shifted, control) == OPEN
    alone = [replace(run, metrics=run.metrics | {"seed": 10 + run.metrics["seed"]}) for run in ours]
    assert verdict(BETTER, vae, alone, control) == OPEN  # no seed in common


def test_a_run_of_earlier_settings_is_paired_with_none_of_todays():
    vae, ours = row("vae", [100.0, 110.0]), row("aggressive", [99.0, 109.0])
    old = [of_earlier_settings(run) for run in vae]
    assert paired_by_seed(old, ours) == [] and paired_difference("nll", old, ours) is None
    assert len(paired_by_seed(old, [of_earlier_settings(run) for run in ours])) == 2
    assert paired_by_seed([*old, vae[1]], ours) == [(vae[1], ours[1])]


def test_one_seed_is_open_in_every_kind():
    one = [made_up("vae", kl=0.0, mi_large=0.0), made_up("aggressive", nll=10.0, mi_large=9.0)]
    for claim in (KEEPS, BETTER, COLLAPSES, COSTS):
        assert verdict(claim, one) == OPEN
    assert verdict(CLOSES, toy("vae", 1.0, 1.0, 1), toy("aggressive", 0.1, 0.01, 1)) == OPEN


def test_open_says_what_it_would_take():
    """Differences of mean 1 and sd 1: t(n-1) / sqrt(n) < 1 from n = 7 on; a seed takes 127 and 47 processor seconds."""
    differences = np.array([0.0, 1.0, 2.0])
    found = judge(BETTER, "yelp-small", row("vae", [100.0] * 3) + row("aggressive", 100 - differences))
    assert (found.verdict, found.takes) == (OPEN, f"4 more seeds, {4 * (127 + 47) / 3600:.1f} h")
    assert comparison.half_width(7, 1.0) < 1 < comparison.half_width(6, 1.0)
    one = judge(BETTER, "yelp-small", [made_up("vae"), made_up("aggressive")])
    assert one.takes == f"2 more seeds at least, {2 * (127 + 47) / 3600:.1f} h"
    hopeless = judge(BETTER, "yelp-small", row("vae", [100.0] * 3) + row("aggressive", [100.0, 101.0, 99.001]))
    assert hopeless.takes == "more than 100 seeds"


def test_orders_are_counted_and_so_are_the_false_ones_to_expect():
    text = claims.expected_by_chance([Finding("a", "b", "", "", OPEN, orders=1)] * 40)
    assert text.startswith("40 differences and ratios") and "about 2.0 of them" in text
    both = row("vae", [100.0] * 3) + row("aggressive", [99.0, 99.1, 99.2])
    assert judge(BETTER, "yelp-small", both).orders == 1
    assert judge(BETTER, "yelp-small", row("vae", [100.0] * 3, ended="cap") + both[3:]).orders == 0


# -- each kind: it can fail, and a vacuous criterion is seen -----------------------------------------------------------


def test_information_is_kept_only_where_there_is_a_code():
    vae, control = row("vae", [0.0, 0.001, 0.0], "mi_large"), row("vae-anneal", [0.0, 0.0, 0.001], "mi_large")
    little = row("aggressive", [0.03, 0.031, 0.032], "mi_large")
    assert verdict(KEEPS, vae, little, control) == FAILS  # thirty standard errors, and no code
    assert verdict(KEEPS, vae, row("aggressive", [1.03, 1.031, 1.032], "mi_large"), control) == HOLDS
    vacuous = replace(KEEPS, criterion=replace(KEEPS.criterion, least=-inf))
    assert verdict(vacuous, vae, little, control) == HOLDS


def test_a_claim_of_two_conditions_fails_with_one_whatever_the_other_says():
    """An order that is open, and a level that is missed for certain."""
    vae, little = row("vae", [0.0, 0.01, 0.0], "mi_large"), row("aggressive", [0.0, 0.0, 0.012], "mi_large")
    order = replace(KEEPS, criterion=replace(KEEPS.criterion, least=-inf))
    control = row("vae-anneal", [-1.0, -1.01, -1.0], "mi_large")
    assert verdict(order, vae, little, control) == OPEN
    assert verdict(KEEPS, vae, little, control) == FAILS


def test_a_method_and_its_control_are_compared_without_the_margin_of_the_claim():
    runs = row("aggressive", [100.2, 101.21, 102.2]) + row("vae-anneal", [100.0, 101.0, 102.0])
    as_good = Order("nll", "vae-anneal", sign=-1, margin=0.5)
    assert as_good(runs, "aggressive").verdict == HOLDS
    assert replace(as_good, against="vae").between(runs, "aggressive", "vae-anneal").verdict == FAILS


def test_an_order_without_an_interval_decides_by_noise_and_its_control_tells():
    vae, noise = row("vae", [100.0, 101.0, 102.0]), row("aggressive", [98.0, 101.5, 102.0])
    vacuous = replace(BETTER, criterion=replace(BETTER.criterion, confidence=0.0))
    assert verdict(BETTER, vae, noise, row("vae-anneal", [99.0, 101.2, 102.1])) == OPEN
    assert verdict(vacuous, vae, noise, row("vae-anneal", [101.0, 101.2, 102.1])) == HOLDS
    assert verdict(vacuous, vae, noise, row("vae-anneal", [99.0, 101.2, 102.1])) == NOT_DISTINGUISHED


def test_collapse_fails_where_there_is_a_code_and_a_vacuous_limit_is_seen():
    collapsed, kept = row("vae", [0.01] * 3, "kl", mi_large=0.0), row("aggressive", [1.0, 1.1, 1.2], "kl")
    assert verdict(COLLAPSES, collapsed, kept) == HOLDS
    assert verdict(COLLAPSES, row("vae", [1.0, 1.1, 1.2], "kl", mi_large=0.0), kept) == FAILS  # without information
    assert verdict(COLLAPSES, row("vae", [0.05, 2.0], "kl", mi_large=0.0), kept) == OPEN  # one seed of two
    vacuous = replace(COLLAPSES, criterion=Collapse(limit=inf))
    assert verdict(vacuous, collapsed, kept) == NOT_DISTINGUISHED


def test_cost_is_judged_in_plain_updates_against_both_limits():
    vae, control = row("vae", [100.0] * 3), row("vae-anneal", [100.0] * 3)
    ours = cost("aggressive", [100.0, 101.0, 99.0])  # with 20 plain ones 3 times VAE's 40
    assert verdict(COSTS, vae, ours, control) == HOLDS
    for run in ours:  # a neighbour on the core
        run.metrics["cpu_seconds"] = {name: 3 * value for name, value in run.metrics["cpu_seconds"].items()}
    assert verdict(COSTS, vae, ours, control) == HOLDS
    assert verdict(COSTS, vae, cost("aggressive", [1000.0, 1001.0, 999.0]), control) == FAILS
    assert verdict(COSTS, vae, cost("aggressive", [100.0, 140.0, 160.0]), control) == OPEN
    vacuous = replace(COSTS, criterion=Cost(0))
    assert verdict(vacuous, vae, ours, control) == NOT_DISTINGUISHED


def test_sa_vaes_cost_is_open_where_it_depends_on_the_seed_that_it_is_set_against():
    claim = Claim("dear", "sa-vae", Cost(9), "aggressive")
    vae, sa, ours = row("vae", [100.0] * 3), row("sa-vae", [100.0] * 3), cost("aggressive", [100.0, 101.0, 99.0])
    for run, seconds in zip(vae, (38.0, 40.0, 42.0), strict=True):
        run.metrics["cpu_seconds"]["plain"] = seconds
    for run in sa:
        run.metrics["cpu_seconds"]["plain"] = 361.0  # 9.5, 9.0 and 8.6 times
    assert verdict(claim, vae, sa, ours) == OPEN
    found = judge(claim, "yelp-small", [*vae, sa[0], *ours])
    assert found.verdict == OPEN and "8.6 to 9.5 by the seed of VAE" in found.measured
    for run in sa:
        run.metrics["cpu_seconds"]["plain"] = 600.0
    assert verdict(claim, vae, sa, ours) == HOLDS


def test_the_lag_is_judged_early_and_at_the_end_and_vacuous_limits_are_seen():
    vae, ours = toy("vae", 0.99, 0.99), toy("aggressive", 0.05, 0.01)
    assert verdict(LAGS, vae, ours) == verdict(CLOSES, vae, ours) == HOLDS
    assert verdict(LAGS, toy("vae", 0.05, 0.99), ours) == FAILS  # late is not early
    assert verdict(LAGS, vae, toy("aggressive", 0.9, 0.01)) == NOT_DISTINGUISHED  # Aggressive lags as well
    assert verdict(CLOSES, vae, toy("aggressive", 0.05, 0.9)) == FAILS  # it was closed, and opened again
    assert verdict(CLOSES, toy("vae", 0.3, 0.01), ours) == NOT_DISTINGUISHED  # so does VAE
    vacuous = replace(LAGS, criterion=replace(LAGS.criterion, limit=-1.0))
    assert verdict(vacuous, vae, ours) == NOT_DISTINGUISHED
    anything = Claim("closes", "aggressive", Lag(late=True, limit=inf), "vae")
    assert verdict(anything, vae, ours) == NOT_DISTINGUISHED


def test_a_lag_behind_means_that_do_not_spread_is_none(monkeypatch):
    vae, ours = toy("vae", 0.99, 0.99), toy("aggressive", 0.05, 0.01)
    for run in vae:
        run.points["model_mean"], run.points["inference_mean"] = (
            0.05 * run.points[name] for name in ("model_mean", "inference_mean")
        )
    assert verdict(LAGS, vae, ours) == FAILS
    monkeypatch.setattr(criteria, "SPREADS", 0.0)
    assert verdict(LAGS, vae, ours) == HOLDS


# -- controls and convergence ------------------------------------------------------------------------------------------


def test_a_verdict_whose_control_passes_too_is_not_distinguished():
    vae, ours = row("vae", [100.0, 101.0, 102.0]), row("aggressive", [98.0, 99.1, 100.0])
    assert verdict(BETTER, vae, ours, row("vae-anneal", [98.0, 99.2, 100.1])) == NOT_DISTINGUISHED
    assert verdict(BETTER, vae, ours) == OPEN  # a control without a run
    found = judge(BETTER, "yelp-small", vae + ours + row("vae-anneal", [98.0]))
    assert found.verdict == OPEN and found.takes.startswith("of the control: 2 more seeds")
    assert verdict(BETTER, vae, ours, row("vae-anneal", [103.0])) == HOLDS  # one seed is enough not to pass


def test_a_control_that_is_open_is_compared_with_the_method_itself():
    """A difference that is established, beside one of the same size that is not, tells nothing of the two methods."""
    vae, ours = row("vae", [100.0, 101.0, 102.0]), row("aggressive", [99.0, 99.9, 101.1])
    alike = row("vae-anneal", [98.5, 100.9, 101.0])
    order = BETTER.criterion
    assert order(vae + alike, "vae-anneal").verdict == OPEN
    assert verdict(BETTER, vae, ours, alike) == OPEN
    assert "of the control: " in judge(BETTER, "yelp-small", vae + ours + alike).takes
    assert verdict(BETTER, vae, ours, row("vae-anneal", [100.1, 100.9, 102.0])) == HOLDS
    wild = row("vae-anneal", [97.0, 98.0, 60.0])  # open against VAE, and below Aggressive by far in one seed alone
    assert verdict(BETTER, vae, ours, wild) == OPEN
    vague = Claim("collapses", "vae", Collapse(), "aggressive")  # no order: an open control leaves it open
    collapsed = row("vae", [0.01] * 3, "kl", mi_large=0.0)
    assert verdict(vague, collapsed, row("aggressive", [0.0, 0.01, 1.0], "kl", mi_large=0.0)) == OPEN


def test_no_verdict_on_nll_or_cost_rests_on_a_run_that_ended_at_a_cap():
    vae, control = row("vae", [100.0, 101.0, 102.0]), row("vae-anneal", [100.1, 100.9, 102.0])
    ours = row("aggressive", [98.0, 99.1, 100.0])
    capped = [*ours[:2], replace(ours[2], metrics=ours[2].metrics | {"ended": "cap"})]
    assert verdict(BETTER, vae, capped, control) == NOT_CONVERGED
    assert "1 of 6 runs to the schedule's end" in judge(BETTER, "yelp-small", vae + capped + control).takes
    assert verdict(BETTER, vae, ours, row("vae-anneal", [100.0] * 3, ended="cap")) == NOT_CONVERGED  # the control
    assert verdict(COSTS, vae, cost("aggressive", [100.0, 101.0, 99.0], ended="cap"), control) == NOT_CONVERGED
    dear = Claim("dear", "sa-vae", Cost(9), "aggressive")
    assert verdict(dear, vae, row("sa-vae+steps=5+max_epochs=15", [100.0] * 3), ours) == NOT_CONVERGED
    kept = row("aggressive", [1.0, 1.1, 1.2], "mi_large", ended="cap")
    found = judge(KEEPS, "yelp-small", row("vae", [0.0, 0.01, 0.0], "mi_large") + kept + control[:0])
    assert "seeds†" in found.measured and found.verdict == OPEN  # information may be judged, with a mark


# -- the paper's claims ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("profile", ["scaled", "paper"])
def test_every_claim_has_a_criterion_and_a_control_other_than_its_method(profile):
    listed = claims.claims(profile)
    assert len({claim.text for claim in listed}) == len(listed)
    for claim in listed:
        assert claim.control != claim.method and str(claim.criterion)
        if isinstance(claim.criterion, Order):  # a method is never above itself: such a control could not pass
            assert claim.control != claim.criterion.against
    assert not (claims.criteria_frame(profile) == "").any().any()


def test_without_records_every_claim_says_no_run(monkeypatch):
    monkeypatch.setattr(Records, "of", lambda self, *_: [])
    found = claims.findings(Records("scaled"))
    assert {finding.verdict for finding in found} == {NO_RUN} and all(finding.takes for finding in found)
    assert isinstance(claims.as_frame(found), pd.DataFrame)


def test_no_verdict_rests_on_a_run_of_earlier_settings(monkeypatch):
    runs = row("vae", (0.0, 0.01, 0.0), "mi_large") + row("vae-anneal", (0.0, 0.0, 0.01), "mi_large")
    ours = row("aggressive", (1.0, 1.1, 1.05), "mi_large")
    monkeypatch.setattr(Records, "of", lambda *_: runs + ours)
    claim = replace(KEEPS, names=("yelp",))
    assert [f.verdict for f in claims.findings(Records("scaled"), [claim])] == [HOLDS]
    ours[:] = map(of_earlier_settings, ours)
    (found,) = claims.findings(Records("scaled"), [claim])
    assert (found.verdict, found.takes) == (NO_RUN, "runs of Aggressive")


def test_the_lag_claims_hold_on_the_records_and_for_no_other_reason_than_the_method(monkeypatch):
    monkeypatch.delenv("LAGVAE_RESULTS", raising=False)
    lag = claims.claims("scaled")[:2]
    assert [f.verdict for f in claims.findings(Records("scaled"), lag)] == [HOLDS, HOLDS]
    swapped = [replace(claim, method=claim.control, control=claim.method) for claim in lag]
    assert [f.verdict for f in claims.findings(Records("scaled"), swapped)] == [FAILS, FAILS]


# -- runs of different lengths -----------------------------------------------------------------------------------------


def test_two_methods_at_equal_length_by_the_formulas_of_the_analysis_of_covariance():
    rng = np.random.default_rng(0)
    length = {"a": rng.uniform(10, 20, 4), "b": rng.uniform(14, 26, 5)}
    value = {
        "a": 3 - 0.2 * length["a"] + 0.1 * rng.normal(size=4),
        "b": 4 - 0.2 * length["b"] + 0.1 * rng.normal(size=5),
    }
    found = at_equal_length({name: list(zip(length[name], value[name], strict=True)) for name in "ab"})
    x, y = ({name: values[name] - values[name].mean() for name in "ab"} for values in (length, value))
    square = sum((x[name] ** 2).sum() for name in "ab")
    slope = sum((x[name] * y[name]).sum() for name in "ab") / square
    spread = sum(((y[name] - slope * x[name]) ** 2).sum() for name in "ab") / (9 - 3)
    gap = length["b"].mean() - length["a"].mean()
    t = stats.t.ppf(0.975, 6)
    assert found.slope.mean == pytest.approx(slope)
    assert found.slope.half_width == pytest.approx(t * (spread / square) ** 0.5)
    difference = found.difference("a", "b")
    assert difference.mean == pytest.approx(value["b"].mean() - value["a"].mean() - slope * gap)
    assert difference.half_width == pytest.approx(t * (spread * (1 / 4 + 1 / 5 + gap**2 / square)) ** 0.5)
    assert found.length == pytest.approx(np.concatenate(list(length.values())).mean())


def test_no_level_at_equal_length_where_no_spread_is_left_or_all_are_equally_long():
    assert at_equal_length({"a": [(1, 2.0), (2, 1.0)], "b": [(1, 3.0)]}) is None
    assert at_equal_length({"a": [(5, 2.0), (5, 1.0)], "b": [(5, 3.0), (5, 2.0)]}) is None
    capped = {"a": [(20_000, 2.0), (20_000, 1.0), (20_000, 1.5)], "b": [(15_000, 3.0)], "c": [(10_000.0, 1.0)]}
    assert at_equal_length(capped) is None  # all of each method at a cap of its own: there is no slope to see
    assert at_equal_length({}) is None
