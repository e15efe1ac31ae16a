"""The rows of tables: which runs fill them, what those cost, and whether they converged."""

from dataclasses import replace

import pandas as pd
import pytest
from scipy.special import stdtrit

from lagvae_lib.config.methods import METHODS
from lagvae_lib.paper import formats, inner_loops, published, readme, report, rows, tables
from lagvae_lib.runs.record import Records
from tests.made_up import made_up, of_earlier_settings


def test_what_a_run_cost_is_the_processor_s_time_or_on_a_gpu_the_wall_clock_s():
    run = made_up("aggressive")  # 127 processor seconds, 100 of them in the stage of 20 updates; twice that on the wall
    on_a_gpu = replace(run, metrics=run.metrics | {"provenance": {"cuda": "13.0"}})
    assert [3600 * rows.hours([r]) for r in (run, on_a_gpu)] == pytest.approx([127, 254])
    assert [rows.costs(r)["aggressive_step"] for r in (run, on_a_gpu)] == [5.0, 10.0]


# -- rows --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", rows.DATASETS)
def test_every_row_of_the_paper_is_there_in_its_order_and_says_when_it_has_no_run(records, name):
    table = tables.main_table(Records("scaled"), name)
    assert len(table.shown) == len(published.methods(name))
    assert set(table.shown["NLL", "here"]) == {rows.NO_RUN}
    assert list(table.shown["NLL", "paper"]) == [published.published(name, m).nll.text for m in published.methods(name)]
    assert not (table.shown["", "method"] == "").any()


def test_mean_sd_and_n_of_a_row(records):
    records += [made_up("vae", seed, nll=nll) for seed, nll in enumerate((100.0, 101.0, 105.0))]
    table = tables.main_table(Records("scaled"), "yelp")
    row = table.shown[table.shown["", "method"] == "VAE"].iloc[0]
    assert (row["", "runs"], row["NLL", "here"], row["NLL", "paper"]) == ("3", "102.00 (2.65)", "358.3 (0.2)")
    number = table.numbers.query("method == 'vae' and metric == 'nll'").iloc[0]
    assert (number["mean"], number["n"], number["paper_mean"]) == (102.0, 3, 358.3)
    assert number["sd"] == pytest.approx(7**0.5)


def test_a_smaller_budget_fills_the_row_and_says_so_until_there_is_a_full_run(records):
    records.append(made_up("sa-vae+steps=5+max_epochs=15"))
    labels = list(tables.main_table(Records("scaled"), "yelp").shown["", "method"])
    assert "SA-VAE (steps 5, max epochs 15)" in labels and "SA-VAE" not in labels
    records.append(made_up("sa-vae"))
    labels = list(tables.main_table(Records("scaled"), "yelp").shown["", "method"])
    assert "SA-VAE" in labels and "SA-VAE (steps 5, max epochs 15)" in labels  # the smaller one as a row of its own
    assert rows.row_runs([made_up("aggressive+clip=separate")], "aggressive") == []


def test_earlier_settings_fill_a_row_alone_are_marked_and_have_no_ratio_to_todays(records):
    old = of_earlier_settings(made_up("vae", 1, nll=90.0))
    assert old.earlier and not made_up("vae", 1).earlier
    assert rows.row_runs([old], "vae") == [old]
    records += [made_up("vae"), old, of_earlier_settings(made_up("sa-vae")), of_earlier_settings(made_up("free-bits"))]
    assert rows.row_runs(records, "vae") == records[:1]
    main, cost = tables.main_table(Records("scaled"), "yelp"), tables.timing(Records("scaled"))
    shown = main.shown.set_index(("", "method"))
    assert list(shown.loc[["VAE", "SA-VAE", "free bits"], ("", "runs")]) == ["1", "1‡", "1‡"]
    assert shown.loc["VAE", ("NLL", "here")] == "100.00"
    refined = cost.shown[(cost.shown["", "method"] == "SA-VAE") & (cost.shown["", "runs"] == "1‡")].iloc[0]
    assert (refined["training, processor", "total"], refined["absolute", "minutes"]) == ("-", "0.7")
    assert all(rows.DOUBLE_DAGGER in table.caption for table in (main, cost))
    assert readme.seeds_recorded(Records("scaled"))["scaled", "yelp-small"]["free-bits"] == "1/1‡"
    both = tables.beside_paper([made_up("vae"), old])
    assert both["ended by"].to_dict() == {"VAE": "schedule", "VAE‡": "schedule, earlier settings"}
    assert both["runs"].tolist() == [1, 1] and tables.every_run(Records("scaled"), "yelp-small").shown[
        "", "method"
    ].tolist() == ["VAE", "VAE‡", "SA-VAE‡", "free bits‡"]
    records[:] = [made_up("vae")]
    assert rows.DOUBLE_DAGGER not in tables.main_table(Records("scaled"), "yelp").caption


def test_a_run_of_earlier_settings_stands_beside_others_of_them():
    now, old = made_up("vae"), of_earlier_settings(made_up("vae", 1))
    bits = of_earlier_settings(made_up("free-bits"))
    assert rows.beside(bits, [now, old, bits], "vae") is old and rows.beside(now, [old, now], "vae") is now
    assert rows.beside(bits, [now, bits], "vae") is None
    assert (rows.marked(now), rows.marked(bits)) == ("VAE", "free bits‡")


def test_of_a_method_or_data_set_that_is_not_known_here_no_settings_are_earlier():
    run = of_earlier_settings(made_up("vae"))
    assert not any(replace(run, metrics=run.metrics | it).earlier for it in ({"method": "mine"}, {"dataset": "mine"}))


def test_a_run_with_a_knob_that_is_no_more_is_of_earlier_settings():
    run = made_up("vae")
    assert replace(run, metrics=run.metrics | {"method": "vae+old_knob=3"}).earlier


def test_other_methods_follow_the_papers_and_other_inner_loops_do_not(records):
    records += [made_up("free-bits"), made_up("aggressive+fixed_steps=10"), made_up("aggressive+window=15")]
    labels = list(tables.main_table(Records("scaled"), "yelp").shown["", "method"])
    assert labels[-1] == "free bits" and len(labels) == len(published.methods("yelp")) + 1


def test_a_model_without_z_has_a_nll_alone_and_no_number_is_minus_zero(records):
    records += [made_up("autoregressive", exact=True), made_up("vae", mi=-0.0004)]
    shown = tables.main_table(Records("scaled"), "yelp").shown.set_index(("", "method"))
    assert shown.loc["LSTM-LM", ("KL", "here")] == "-" and shown.loc["LSTM-LM", ("NLL", "here")] == "100.00"
    assert shown.loc["VAE", ("MI", "here")] == "0.00"


def test_every_run_is_a_line_with_what_it_took(records):
    records += [made_up("vae"), made_up("vae", 1, ended="cap"), made_up("autoregressive", exact=True)]
    table = tables.every_run(Records("scaled"), "yelp-small")
    shown = table.shown.set_index([("", "method"), ("", "seed")])
    assert list(shown.index) == [("VAE", "0"), ("VAE", "1"), ("LSTM-LM", "0")]
    assert list(shown["training", "ended by"]) == ["schedule", "cap", "schedule"]
    assert list(shown["AU", ""]) == ["2", "2", "-"] and set(shown["training", "epochs"]) == {"4"}
    assert set(shown["minutes", "processor"]) == {"0.8"} and set(shown["minutes", "wall"]) == {"1.6"}  # 47 s, 94 s
    took = table.numbers[table.numbers["quantity"] == "processor_minutes"]
    assert list(took["value"]) == pytest.approx([47 / 60] * 3)
    assert set(tables.every_run(Records("scaled")).shown["", "data"]) == {"yelp-small"}
    records.clear()
    nothing = tables.every_run(Records("scaled"))
    assert nothing.shown.to_numpy().tolist() == [[rows.NO_RUN]] and nothing.numbers.empty
    assert rows.NO_RUN in formats.as_markdown(nothing) and rows.NO_RUN in formats.as_latex(nothing)
    formats.as_csv(nothing)


# -- cost --------------------------------------------------------------------------------------------------------------


def test_costs_by_hand():
    cost = rows.costs(made_up("aggressive"))
    assert cost["cpu"] == 120 and cost["wall"] == 2 * 127
    assert (cost["epochs"], cost["aggressive_epochs"]) == (4, 2)
    assert (cost["step"], cost["aggressive_step"], cost["inner_steps"]) == (1.0, 5.0, 10.0)
    assert (cost["aggressive_ratio"], cost["plain_updates"], cost["updates"]) == (5.0, 120.0, 40.0)
    plain = rows.costs(made_up("vae"))
    assert pd.isna(plain["plain_updates"]) and plain["updates"] == 40
    assert plain["step"] == 1.0 and pd.isna(plain["aggressive_step"]) and pd.isna(plain["inner_steps"])
    pretrained = made_up("pretrain-free-bits")
    pretrained.metrics["cpu_seconds"] = {"pretraining": 5.0, "plain": 60.0}
    pretrained.config["method"]["objective"] = {"pretrain_epochs": 1}
    assert rows.costs(pretrained)["cpu"] == 65 and rows.costs(pretrained)["step"] == 2.0


def test_table_3_is_relative_to_the_vae(records):
    records += [made_up("vae"), made_up("aggressive")]
    shown = tables.timing(Records("scaled")).shown
    row = shown[(shown["", "data"] == "Yelp (yelp-small)") & (shown["", "method"] == "Aggressive")].iloc[0]
    assert row["training, processor", "total"] == "3.00" and row["in its own plain updates", "aggressive one"] == "5.0"
    assert row["in its own plain updates", "training"] == "3.00"
    assert row["whole script, wall", "here"] == "2.70" and row["whole script, wall", "paper"] == "3.73"
    assert set(shown[shown["", "data"].str.startswith("Yahoo")]["absolute", "minutes"]) == {rows.NO_RUN}


def test_table_4_has_every_setting_of_the_paper(records):
    records.append(made_up("aggressive-anneal+fixed_steps=30", mi_large=1.5))
    shown = inner_loops.inner_table(Records("scaled")).shown.set_index(("", "inner steps"))
    assert list(shown.index) == ["10", "30", "50", "70", "convergence", "convergence, window 15"]
    assert shown.loc["30", ("MI, all examples", "here")] == "1.50" and shown.loc["30", ("NLL", "paper")] == "357.1"
    assert shown.loc["30", ("time", "plain updates")] == "120"  # 100 s, then 20 updates in 20 s
    assert shown.loc["10", ("NLL", "here")] == rows.NO_RUN


def test_another_stop_is_a_row_of_table_4_and_of_no_other_table(records):
    records += [made_up("aggressive-anneal"), made_up("aggressive-anneal+inner_test=gain+stop_metric=mi_large")]
    inner = inner_loops.inner_table(Records("scaled")).shown.set_index(("", "inner steps"))
    assert list(inner.index)[-1] == "inner test=gain, stop metric=mi large" and inner["", "runs"].iloc[-1] == "1"
    main = tables.main_table(Records("scaled"), "yelp")
    assert len(main.shown) == len(published.methods("yelp"))


def test_another_stop_is_compared_with_the_papers_by_seed(records, monkeypatch):
    gain, toy = "+inner_test=gain", {"dataset": "synthetic", "profile": "paper"}
    lag = [made_up("aggressive", seed, **toy, mi_large=seed, nll=50.0) for seed in (0, 1, 2)]
    lag += [made_up(f"aggressive{gain}", seed, **toy, mi_large=seed + 0.25, nll=50.0 + seed) for seed in (1, 2)]
    monkeypatch.setattr(Records, "toy", lambda self: lag)
    records += [made_up("aggressive-anneal"), made_up(f"aggressive-anneal{gain}", nll=99.0), made_up("aggressive")]
    records += [made_up("aggressive-anneal+delay=5"), made_up("aggressive-anneal+window=15")]
    shown = inner_loops.stops(Records("scaled")).shown
    assert shown["", "stop"].tolist() == ["the paper's", "inner test=gain"] * 2
    assert shown["", "runs"].tolist() == ["3", "2", "1", "1"]
    assert shown["MI, all examples", "less the paper's"].tolist() == ["", "+0.25 ± 0.00", "", "+0.00"]
    half = stdtrit(1, 0.975) * 0.5**0.5 / 2**0.5  # of 1 and 2: sd sqrt(1/2), over two seeds
    assert shown["NLL", "less the paper's"].tolist() == ["", f"+1.50 ± {half:.2f}", "", "-1.00"]
    assert shown["seen", "inner steps"].tolist() == ["10.0"] * 4


def test_other_rules_are_replayed_on_the_stage_of_a_run():
    runs = []
    for seed, mi in enumerate(([1.0, 2.0, 1.9], [1.0, 1.5, 2.0])):
        history = pd.DataFrame({"epoch": [1, 2, 3, 4], "aggressive": [True] * 3 + [False], "valid_mi": [*mi, 0.0]})
        history["valid_mi_large"] = [1.0, 0.9, 0.8, 0.0]
        run = replace(made_up("aggressive", seed), history=history)
        run.config["method"]["inference"] = {"window": 10, "stop_patience": 1}
        runs.append(run)
    late = made_up("aggressive+delay=5")
    late.config["method"]["inference"] = {"delay": 5}
    (line,) = inner_loops.stage_ends([*runs, made_up("vae"), late]).to_dict("records")
    assert line == {
        "data": "yelp-small",
        "method": "aggressive",
        "seeds": "0, 1",
        "patience": "1, 1",
        "as recorded": "3, > 3",
        "MI over all examples": "2, 2",
        "patience + 1": "> 3, > 3",
        "both": "3, 3",
    }


def test_what_became_of_a_stage_is_read_from_the_history():
    run, whole = made_up("aggressive", 3), made_up("aggressive")
    run = replace(run, history=run.history.assign(valid_mi_large=[2.0, 1.5, 1.25, 0.126]))
    whole = replace(whole, history=whole.history.assign(aggressive=True))  # a stage that no epoch follows
    (line,) = inner_loops.after_the_stage([run, whole, made_up("vae")]).to_dict("records")
    assert line == {
        "data": "yelp-small",
        "method": "aggressive",
        "seed": 3,
        "stage, epochs": 2,
        "of all updates": "50.0%",
        "an aggressive update": "5.0",
        "training": "3.00",
        "MI, at its end": "1.50",
        "MI, 1 epoch later": "1.25",
        "MI, 10 epochs later": "0.13",  # the last epoch
        "MI, at the end": "0.13",
    }


@pytest.mark.parametrize(("profile", "ours"), [("scaled", "Aggressive + anneal"), ("paper", "Aggressive")])
def test_figure_5_has_the_papers_panels(records, monkeypatch, profile, ours):
    dataset = {"scaled": "yelp-small", "paper": "yelp"}[profile]
    records += [made_up(m, dataset=dataset) for m in ("aggressive", "vae-anneal", "beta-0.2", "aggressive-anneal")]
    monkeypatch.setattr(report.curves, "dynamics", lambda runs, **options: list(runs))
    assert report.all_figures(Records(profile))["figure5"]() == ["VAE + anneal", "β-VAE (β = 0.2)", ours]


# -- what has converged ------------------------------------------------------------------------------------------------


def old_record(epochs, bad_from, **objective):
    """A record that does not say how it ended; its loss falls until `bad_from`, and 5 decays take 10 epochs."""
    run = made_up("vae")
    del run.metrics["ended"]
    run.config["schedule"] = {"max_epochs": 40, "patience": 2, "max_decays": 5}
    run.config["method"]["objective"] = objective
    losses = [100.0 - epoch if epoch <= bad_from else 100.5 - bad_from for epoch in range(epochs)]
    return replace(run, history=pd.DataFrame({"valid_loss": losses}))


@pytest.mark.parametrize(
    ("run", "ended"),
    [
        (old_record(38, 27), "schedule"),
        (old_record(40, 29), "schedule"),  # the fifth decay falls on the last epoch
        (old_record(40, 30), "cap"),
        (old_record(45, 34, pretrain_epochs=5), "schedule"),
        (old_record(45, 35, pretrain_epochs=5), "cap"),
        (made_up("vae", ended="cap"), "cap"),
        (made_up("vae"), "schedule"),
    ],
)
def test_how_a_run_ended_is_read_or_derived(run, ended):
    assert run.ended == ended and rows.converged(run) == (ended == "schedule")


def test_a_run_has_converged_where_its_schedule_ended_it_whatever_its_cap():
    assert not rows.converged(made_up("sa-vae+steps=5"))
    assert rows.converged(made_up("vae+max_epochs=600")) and not rows.converged(made_up("vae", ended="cap"))
    assert rows.converged(made_up("aggressive+window=15"))


def test_every_table_marks_rows_that_ended_at_a_cap_and_says_what_the_mark_means(records):
    records += [made_up("vae"), made_up("vae", 1, ended="cap"), made_up("aggressive")]
    main, cost = tables.main_table(Records("scaled"), "yelp"), tables.timing(Records("scaled"))
    for table in (main, cost):
        shown = table.shown.set_index(("", "method"))
        assert {"1"} == set(shown.loc[["Aggressive"], ("", "runs")]) - {"0"} and rows.DAGGER in table.caption
    assert main.shown.set_index(("", "method")).loc["VAE", ("", "runs")] == "2†"
    records[:] = [made_up("aggressive-anneal", ended="cap")]
    inner = inner_loops.inner_table(Records("scaled"))
    assert "1†" in set(inner.shown["", "runs"]) and rows.DAGGER in inner.caption
    assert tables.beside_paper([made_up("vae"), made_up("vae", 1, ended="cap")])["ended by"].tolist() == [
        "1 of 2 at the cap"
    ]


def test_status_says_how_many_converged_or_missing_and_is_never_blank(records):
    records += [made_up("vae", 0), made_up("vae", 1, ended="cap"), made_up("sa-vae+steps=5")]
    frame = readme.seeds_recorded(Records("scaled"))
    assert list(frame.index) == list(METHODS)
    column = frame["scaled", "yelp-small"]
    assert (column["vae"], column["sa-vae"], column["free-bits"], column["vlae"]) == ("1/2", "0/1*", "missing", "-")
    assert not (frame == "").any().any()


def test_the_main_results_are_of_five_methods_with_their_marks(records):
    records += [made_up("vae", 0), made_up("vae", 1, ended="cap")]
    shown = readme.main_results(Records("scaled")).shown.set_index(("", "method"))
    assert len(shown) == 5 and shown.loc["VAE", ("Yelp", "seeds")] == "2†"
    assert shown.loc["VAE", ("Yelp", "NLL")] == "100.00 (0.00)" and shown.loc["VAE", ("Yahoo", "seeds")] == rows.NO_RUN
