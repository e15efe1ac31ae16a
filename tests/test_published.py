"""The paper's numbers: complete, readable as numbers, and consistent with themselves and the registry."""

import pytest

from lagvae_lib.config.methods import for_family
from lagvae_lib.paper import published
from lagvae_lib.paper.published import Value

QUOTED = {"sa-vae-anneal-kim2018"}  # Kim et al.'s own number for a row that the paper has too
OTHERS_REPORTS = {"cnn-vae", "sa-vae-anneal-kim2018", "vlae", "vampprior"}


@pytest.mark.parametrize("dataset", published.SOURCE)
def test_every_row_can_be_read(dataset):
    rows = {name: published.published(dataset, name) for name in published.methods(dataset)}
    assert rows.keys() - QUOTED <= set(for_family("images" if dataset == "omniglot" else "text"))
    for name, row in rows.items():
        assert row.nll.mean > 80
        assert row.nll.bound == (name in OTHERS_REPORTS and dataset != "omniglot")
        assert (row.nll.sd is None) == (name in OTHERS_REPORTS)
        assert (row.kl.mean is None) == (name in ("autoregressive", "vlae", "vampprior"))


@pytest.mark.parametrize("dataset", published.SOURCE)
def test_rows_agree_with_what_the_metrics_are(dataset):
    """MI is at most KL (their difference is a divergence), at most log of the batch of 32 or 50, and AU at most 32."""
    for name in published.methods(dataset):
        row = published.published(dataset, name)
        if row.mi.mean is not None:
            assert row.mi.mean <= row.kl.mean
            assert row.mi.mean <= 3.5 if dataset != "omniglot" else row.mi.mean <= 3.95
            assert 0 <= row.au.mean <= 32


def test_rows_quoted_in_the_papers_text():
    row = published.published("yelp", "aggressive-anneal")
    assert (row.nll.mean, row.nll.sd, row.kl.mean, row.mi.mean, row.au.mean) == (355.9, 0.1, 3.8, 2.4, 11.3)
    assert published.published("yahoo", "autoregressive").nll == Value("328.0 (0.3)", 328.0, 0.3, False)
    assert published.published("omniglot", "vae").nll.mean == 89.41
    assert published.published("yahoo", "cnn-vae").nll == Value("≤332.1", 332.1, None, True)


@pytest.mark.parametrize("dataset", published.SOURCE)
def test_relative_times_are_about_the_ratios_of_the_hours(dataset):
    """Both are printed rounded."""
    base = published.time(dataset, "vae")
    assert base.relative == 1
    for method in ("sa-vae", "aggressive"):
        row = published.time(dataset, method)
        assert row.relative == pytest.approx(row.hours / base.hours, rel=0.01)


def test_fixed_inner_steps():
    assert published.inner_steps(10).au == published.inner_steps("10").au == 3
    assert published.inner_steps("convergence").hours == published.time("yelp", "aggressive").hours


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: published.published("yelpp", "vae"), "did you mean 'yelp'.* Valid: yahoo, yelp, omniglot"),
        (lambda: published.published("yelp", "agressive"), "did you mean 'aggressive'"),
        (lambda: published.methods("synthetic"), "unknown published data set"),
        (lambda: published.time("yelp", "beta-0.2"), "Valid: vae, sa-vae, aggressive"),
        (lambda: published.inner_steps(20), "Valid: 10, 30, 50, 70, convergence"),
    ],
)
def test_unknown_names_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("text", ["", "357.9(0.1)", "<=3", "3.0 (0.1", "nan", "-1.0"])
def test_what_is_no_cell_is_refused(text):
    with pytest.raises(ValueError, match="not a table cell"):
        Value.parse(text)


def test_small_versions_have_the_full_set_as_counterpart():
    assert published.counterpart("yelp-small") == published.counterpart("yelp") == "yelp"
    assert published.counterpart("omniglot-28") == "omniglot"
    assert published.counterpart("grammar") is None
    assert published.counterpart("synthetic") is None
