"""Tables, banner and figures of text runs: fed by records, beside the paper's own cells."""

import re
import shutil
from dataclasses import replace

import matplotlib.pyplot as plt
import pandas as pd
import pytest
import torch

from lagvae_lib import notebook, plots
from lagvae_lib.config.profiles import TABLE
from lagvae_lib.data import family
from lagvae_lib.data.sources import MissingData
from lagvae_lib.notebook import display
from lagvae_lib.notebook.released import Speaker, score, speaker
from lagvae_lib.paper import rows, tables
from lagvae_lib.plots import records as figures
from lagvae_lib.runs import record, train
from lagvae_lib.runs.record import Records, Run
from tests.tiny import tiny_config, tiny_data

METHODS = ("autoregressive", "vae", "aggressive")


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Three methods on the tiny data, the VAE with two seeds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LAGVAE_RESULTS", str(tmp_path_factory.mktemp("results")))
        data = tiny_data()
        yield [train.run(config_of(m, seed), data) for m, seed in (*((m, 0) for m in METHODS), ("vae", 1))]


def config_of(method, seed=0):
    """Two epochs, and an inner loop of two steps."""
    config = tiny_config(method, seed, epochs=2)
    if method != "aggressive":
        return config
    return replace(config, method=replace(config.method, inference=replace(config.method.inference, fixed_steps=2)))


def settings_of(profile="smoke", dataset="tiny"):
    return notebook.Settings({}, dataset, METHODS, (0,), profile, "cpu")


def as_yelp(run):
    return replace(run, metrics=run.metrics | {"dataset": "yelp-small"})


@pytest.fixture(autouse=True)
def no_open_figures():
    yield
    plt.close("all")


# -- tables ---------------------------------------------------------------------------------------------------------


def test_recorded_finds_finished_runs_only(results):
    folder = results[0].folder.parent.parent
    (folder / "vae" / "seed7").mkdir()
    (folder / "vae" / "seed0-deadbeef").mkdir()
    (folder / "vae" / "seed0-deadbeef" / "metrics.json").write_text("{}")
    found = [(run.metrics["method"], run.metrics["seed"]) for run in Records("smoke").of("tiny")]
    assert found == [("autoregressive", 0), ("vae", 0), ("vae", 1), ("aggressive", 0)]
    assert Records("scaled").of("tiny") == []


def test_tables_read_the_run_of_todays_settings_wherever_it_had_to_be_made(results, tmp_path, monkeypatch):
    """A sweep makes a run anew in `seed<k>-<hash>` where `seed<k>` holds one of earlier settings."""
    shutil.copytree(results[0].folder.parents[1], tmp_path / "runs/smoke/tiny", ignore=shutil.ignore_patterns("*-*"))
    monkeypatch.setenv("LAGVAE_RESULTS", str(tmp_path))
    kept = tmp_path / "runs/smoke/tiny/vae/seed1"
    newer = kept.with_name("seed1-0123abcd")
    shutil.copytree(kept, newer)
    shutil.copytree(kept, kept.with_name("seed2-0123abcd"))  # another's, who changed a knob
    todays = {newer}
    monkeypatch.setattr(Run, "earlier", property(lambda run: run.folder not in todays))
    assert folders("vae") == [kept.with_name("seed0"), newer]
    todays.clear()
    assert folders("vae") == [kept.with_name("seed0"), kept]


def folders(method):
    return [run.folder for run in Records("smoke").of("tiny") if run.metrics["method"] == method]


def test_moments_are_over_runs_and_a_cell_shows_them(results):
    runs = [run for run in results if run.metrics["method"] == "vae"]
    values = [run.metrics["nll"] for run in runs]
    mean, sd = sum(values) / 2, abs(values[0] - values[1]) / 2**0.5
    assert rows.moments("nll", runs) == pytest.approx({"mean": mean, "sd": sd})
    assert rows.cell("nll", runs) == f"{mean:.2f} ({sd:.2f})"
    assert pd.isna(rows.moments("nll", runs[:1])["sd"]) and rows.cell("nll", runs[:1]) == f"{values[0]:.2f}"
    below_zero = replace(runs[0], metrics=runs[0].metrics | {"mi_large": -0.001, "kl_is_exact": False, "kl": 1.0})
    assert rows.cell("mi_large", [below_zero]) == "0.00" and rows.cell("kl", [below_zero]) == "~1.00"


def test_runs_of_two_data_sets_have_no_mean(results):
    with pytest.raises(ValueError, match="several values of dataset: tiny, yelp-small"):
        tables.beside_paper([results[0], as_yelp(results[1])])


def test_each_row_stands_beside_the_papers(results):
    table = tables.beside_paper(map(as_yelp, results))
    assert list(table.index) == ["LSTM-LM‡", "VAE‡", "Aggressive‡"]  # settings that are not the profile's
    assert table["NLL", "paper"].tolist() == ["358.1 (0.6)", "358.3 (0.2)", "356.9 (0.2)"]
    assert table["runs"].tolist() == [1, 2, 1]
    two = [run.metrics["nll"] for run in results if run.metrics["method"] == "vae"]
    assert table.loc["VAE‡", ("NLL", "here")].startswith(f"{sum(two) / 2:.2f} (")
    assert table.loc["LSTM-LM‡", ("KL", "here")] == table.loc["LSTM-LM‡", ("MI, all examples", "here")] == "-"


def test_where_the_paper_has_no_row_its_cell_is_empty(results):
    table = tables.beside_paper(results)
    assert set(table["NLL", "paper"]) == {""}
    knob = replace(results[3], metrics=results[3].metrics | {"method": "aggressive+window=10", "dataset": "yelp"})
    assert tables.beside_paper([knob])["NLL", "paper"].tolist() == [""]


def test_no_runs_make_an_empty_table():
    assert tables.beside_paper([]).empty


# -- banner ---------------------------------------------------------------------------------------------------------


def test_banner_says_what_is_used():
    text = display.banner(settings_of(), replace(tiny_data(), source="<made> & up"))
    assert "tiny" in text and "train 48 documents" in text and "vocabulary 12" in text
    assert "&lt;made&gt; &amp; up" in text
    assert "stand-in" not in text.lower()
    cells = re.findall(r"<td[^>]*>([^<]*)</td>", text)
    assert "LSTM 16 1,024" in " ".join(cells)


def test_banner_names_a_stand_in():
    data = replace(tiny_data(), name="grammar", stand_in=True)
    text = display.banner(settings_of(dataset="<yelp>"), data)
    assert "A stand-in" in text
    assert "(asked for: <code>&lt;yelp&gt;</code>)" in text
    assert display.TITLES["data.max_len"] not in text  # it is not cut
    assert display.TITLES["data.max_len"] in display.banner(settings_of(), tiny_data())


def test_a_banner_and_a_record_need_no_data(results, monkeypatch):
    def missing(*names, **options):
        raise MissingData("no data here")

    monkeypatch.setattr(display, "load", missing)
    monkeypatch.setattr(train, "load_data", missing)
    text = display.banner(replace(settings_of(), dataset="yelp", methods=("vae",)))
    assert "not at hand" in text and "yelp-small" in text
    with pytest.raises(MissingData):
        train.run_named("yelp", "vae", "smoke", 0)
    monkeypatch.setattr(record, "resolve", lambda *names, **options: config_of("vae"))
    assert train.run_named("yelp", "vae", "smoke", 0).folder == results[1].folder


def test_paper_departs_from_nothing():
    assert display.departures("yelp", "paper").empty
    assert "No setting departs" in display.banner(settings_of("paper"), tiny_data())


@pytest.mark.parametrize("profile", ["smoke", "quick", "scaled"])
@pytest.mark.parametrize("dataset", ["synthetic", "yelp-small", "omniglot-28"])
def test_every_departure_has_a_title_and_both_values(dataset, profile):
    if profile in TABLE[family(dataset)]:
        table = display.departures(dataset, profile)
        assert (table["here"] != table["paper"]).all() and table["setting"].is_unique
        assert set(table["setting"]) <= set(display.TITLES.values())


def test_departures_are_in_words():
    left_out = "words beyond the vocabulary are left out"
    assert display.departures("yahoo-small", "scaled").set_index("setting").loc[left_out].tolist() == ["yes", "no"]
    assert left_out not in set(display.departures("yelp-small", "scaled")["setting"])
    assert display.departures("yelp-small", "scaled").set_index("setting").loc["LSTM", "paper"] == "1,024"
    rules = display.departures("omniglot-28", "scaled").set_index("setting")
    assert rules.loc["bad epochs before the rate is halved"].tolist() == ["8", "20"]
    assert rules.loc["updates of an epoch"].tolist() == ["50", "a whole pass"]
    assert "the rate may be halved while annealing" not in rules.index  # the released rules


def test_sentences_are_escaped():
    text = display.sentences(["a<b"], [["<unk> costs $5 & $6"], [""]])
    assert "&lt;unk&gt; costs $5 &amp; $6" in text and "a&lt;b" in text
    assert "tex2jax_ignore" in text  # or the two $ would make a formula
    assert display.shorten("one two three", 2) == "one two …"
    assert display.shorten("one two", 2) == "one two"


# -- figures --------------------------------------------------------------------------------------------------------


def by_name(results):
    return {f"{run.metrics['method']}-{run.metrics['seed']}": run for run in results}


def lines(ax):
    return {line.get_label(): line.get_xydata() for line in ax.get_lines()}


def test_style_is_applied():
    plots.style()
    assert plt.rcParams["figure.constrained_layout.use"]


def test_dynamics_draws_both_estimators(results):
    figure = figures.dynamics(by_name(results))
    assert [ax.get_title() for ax in figure.axes] == ["vae-0", "aggressive-0", "vae-1"]
    run, drawn = results[2], lines(figure.axes[1])
    assert drawn["MI"].tolist() == run.dynamics[["iteration", "mi"]].to_numpy().tolist()
    assert drawn["MI, all examples"].tolist() == run.dynamics[["iteration", "mi_large"]].to_numpy().tolist()
    patches = [{p.get_label() for p in ax.patches} for ax in figure.axes]
    assert ["aggressive stage" in found for found in patches] == [False, True, False]


def test_the_noise_is_that_of_as_many_examples_as_there_are(results):
    def half_width(run):
        (noise,) = [p for p in figures.dynamics({"vae": run}).axes[0].patches if p.get_label().startswith("noise")]
        return noise.get_height() / 2

    run = results[1]
    probe = run.metrics["probe"]
    assert probe == min(run.config["evaluation"]["probe"], 16)
    assert half_width(run) == pytest.approx(2 * (run.config["model"]["nz"] / (2 * probe)) ** 0.5)
    fewer = replace(run, metrics=run.metrics | {"probe": 4})
    assert half_width(fewer) == pytest.approx(2 * (run.config["model"]["nz"] / 8) ** 0.5)


def test_runs_of_one_method_have_colours_of_their_own(results):
    """The spare colour of the second is not the one that a later method wants."""
    first, other = results[1], results[2]
    drawn = figures._colours({"a": first, "b": first, "c": other})
    assert len(set(drawn.values())) == 3 and drawn["c"] == figures._colours({"c": other})["c"]


def test_cap_is_drawn_where_it_is_in_sight(results):
    run = {"vae": results[1]}
    assert "log 8" not in lines(figures.dynamics(run, nats=2.0).axes[0])
    assert lines(figures.dynamics(run, nats=2.1).axes[0])["log 8"][0, 1] == pytest.approx(2.0794, abs=1e-4)


def test_figures_show_the_records(results):
    runs_by_name = by_name(results)
    drawn = lines(figures.nll_by_samples(runs_by_name).axes[0])
    assert drawn["autoregressive-0 (exact)"][0, 1] == results[0].metrics["nll"]
    assert drawn["vae-0"][:, 1].tolist() == list(results[1].metrics["nll_by_samples"].values())
    left, right = figures.code_usage(runs_by_name).axes
    assert lines(left)["vae-0"][0, 1] == pytest.approx(max(results[1].metrics["kl_per_dim"]), abs=figures.FLOOR)
    assert lines(left)["aggressive-0"][0, 1] == pytest.approx(max(results[2].metrics["kl_per_dim"]), abs=figures.FLOOR)
    assert lines(right)["vae-0"][:, 1].tolist() == results[1].metrics["au_by_threshold"]["au"]
    panel = lines(figures.information_by_batch(runs_by_name).axes[0])
    assert (panel["same sample"][:, 1] <= panel["log B"][:, 1]).all()


@pytest.mark.parametrize("draw", ["dynamics", "nll_by_samples", "code_usage", "information_by_batch"])
def test_nothing_to_draw_is_no_error(draw, results):
    for some in ({}, {"LM": results[0]}):
        getattr(figures, draw)(some).canvas.draw()


# -- the speaker ----------------------------------------------------------------------------------------------------


def test_speaker_is_the_notebooks_own_run(results, monkeypatch):
    config = config_of("vae")
    monkeypatch.setattr("lagvae_lib.notebook.released.resolve", lambda *names, **options: config)
    voice = speaker(settings_of(), tiny_data(), "vae")
    assert voice.run.folder == results[1].folder
    assert "vae, profile smoke, seed 0, on tiny" in voice.note
    assert not voice.model.training
    x = voice.examples(4)
    assert len(x) == 4
    scores = score(voice, list(x), torch.zeros(4, 2))
    with torch.no_grad():
        torch.testing.assert_close(scores, voice.model.decoder.log_prob(x, torch.zeros(4, 1, 2))[:, 0])


def test_examples_no_two_of_which_have_one_length_are_cut_alike(capsys):
    test = [torch.arange(length)[None] for length in (4, 9, 7, 12)]
    x = Speaker(None, replace(tiny_data(), test=test), None, 20).examples(3)
    assert x.tolist() == [[*range(6), 6], [*range(6), 8], [*range(6), 11]]  # each one's own last id
    assert "3 test documents, cut to 5 words: there are not 3 of one length" in capsys.readouterr().out


@pytest.mark.parametrize(("profile", "order"), [("quick", [0, 4]), ("scaled", [4, 0]), ("smoke", [4])])
def test_speaker_prefers_a_recorded_run_with_weights_to_training(profile, order, monkeypatch):
    """Of seeds whose weights are not released too: what is trained later is then trained side by side."""
    settings, data = replace(settings_of(profile, "yelp"), seeds=(4,)), replace(tiny_data(), name="yelp-small")
    asked = []

    def with_weights(config, *of):
        asked.append(config.seed)
        return "found" if len(asked) == len(order) else None

    monkeypatch.setattr("lagvae_lib.notebook.released._with_weights", with_weights)
    assert speaker(settings, data, "vae") == "found" and asked == order


@pytest.mark.parametrize(("profile", "others"), [("smoke", METHODS), ("quick", METHODS), ("paper", ())])
def test_speaker_does_not_take_weights_for_other_data(profile, others, results, monkeypatch):
    config, other = config_of("vae"), replace(tiny_data(), sha256="1" * 64)
    monkeypatch.setattr("lagvae_lib.notebook.released.resolve", lambda *names, **options: config)
    monkeypatch.setattr("lagvae_lib.notebook.released.load_data", lambda *names, **options: other)
    asked = []
    monkeypatch.setattr("lagvae_lib.notebook.released.trained", lambda of, methods: asked.append((of, [*methods])))
    with pytest.raises(FileNotFoundError, match="no weights for skip-vae"):
        speaker(settings_of(profile), other, "skip-vae")
    # It did try to train: those that the notebook asks for side by side, and no other where hours would be shortened
    assert asked == [(settings_of(profile).live(), [*others, "skip-vae"])]
