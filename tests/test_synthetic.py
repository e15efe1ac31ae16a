"""The synthetic data, its true generator and the oracle."""

import itertools
import json
import math

import pytest
import torch

from lagvae_lib.config.settings import DataSettings
from lagvae_lib.data import oracle as oracle_module
from lagvae_lib.data import synthetic
from lagvae_lib.data.loading import load
from lagvae_lib.paths import ROOT, mirror_dir, results_dir

TINY = synthetic.Recipe(vocab=3, embedding=4, hidden=5, length=4, lines=40, train_lines=30, batch=8, seed=3)
RELEASED_FIRST_TEST_LINE = [147, 988, 326, 392, 761, 712, 671, 177, 177, 177]


@pytest.fixture(scope="module")
def lines():
    return synthetic.generate()


@pytest.fixture(scope="module")
def generator():
    return synthetic.TrueGenerator()


@pytest.fixture
def cache(tmp_path, monkeypatch, lines):
    """An empty cache folder; the lines are generated once for the whole module."""
    monkeypatch.setenv("LAGVAE_DATA", str(tmp_path))
    monkeypatch.setattr(synthetic, "generate", lambda: lines)
    return tmp_path / "synthetic"


def test_log_prob_sums_to_one_over_all_strings():
    tiny = synthetic.TrueGenerator(TINY, torch.float64, chunk=7)
    strings = torch.tensor(list(itertools.product(range(3), repeat=4)))
    z = torch.tensor([[0.0, 0.0], [2.0, -2.0], [-1.5, 3.0]], dtype=torch.float64)
    total = tiny.log_prob(strings, z.expand(len(strings), 3, 2)).exp().sum(0)
    torch.testing.assert_close(total, torch.ones(3, dtype=torch.float64), rtol=0, atol=1e-10)


def test_words_follow_log_prob():
    """Frequencies of the tiny generator's sentences at one z against its own probabilities (chi-square)."""
    tiny = synthetic.TrueGenerator(TINY, torch.float64)
    n, stream = 20_000, torch.Generator().manual_seed(1)
    z = torch.tensor([[0.3, -0.2]], dtype=torch.float64)
    first = torch.randint(3, (n,), generator=stream)
    x = tiny.words(first, z.expand(n, 2), torch.rand(n, 3, generator=stream, dtype=torch.float64))
    strings = torch.tensor(list(itertools.product(range(3), repeat=4)))
    expected = n * tiny.log_prob(strings, z.expand(81, 1, 2)).exp().squeeze(1)
    observed = (x @ torch.tensor([27, 9, 3, 1])).bincount(minlength=81)
    common = expected > 5
    assert common.sum() > 10
    chi2 = ((observed - expected).square() / expected)[common].sum().item()
    assert chi2 < common.sum() + 5 * math.sqrt(2 * common.sum())


def test_prior_integrates_to_one(generator):
    z = oracle_module._centres(130, 6.5)
    assert generator.prior_log_prob(z).exp().sum().item() * 0.1**2 == pytest.approx(1 - 6.8e-6, abs=1e-6)


def test_generation_is_deterministic_and_leaves_the_global_stream_alone():
    torch.manual_seed(5)
    first = synthetic.generate(TINY)
    after = torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(after, torch.rand(1))
    assert torch.equal(first, synthetic.generate(TINY))
    assert first.shape == (40, 4)


def test_the_first_test_line_is_the_released_one(lines):
    assert lines[synthetic.PAPER.train_lines].tolist() == RELEASED_FIRST_TEST_LINE


def test_agreement_with_the_released_files(lines):
    mirror = mirror_dir()
    if mirror is None:
        pytest.skip("LAGVAE_DATA_MIRROR is not set, so the released files are not at hand")
    released = []
    for part in ("train", "test"):
        path = mirror / "synthetic" / f"synthetic_{part}.txt"
        if not path.exists():
            pytest.skip(f"the mirror has no {path.name}")
        released += [[int(word) for word in line.split()] for line in path.read_text().splitlines()]
    same = (lines == torch.tensor(released)).all(1).sum().item()
    assert same >= 19_990


def test_fresh_lines_are_new(lines):
    fresh = synthetic.fresh_lines(synthetic.FRESH_LINES)
    assert fresh.shape == (synthetic.FRESH_LINES, 10)
    known = set(map(tuple, lines.tolist()))
    assert known.isdisjoint(map(tuple, fresh.tolist()))
    assert torch.equal(fresh[:100], synthetic.fresh_lines(100))
    assert not torch.equal(fresh[:100], synthetic.fresh_lines(100, seed=1))


def test_fresh_lines_refuse_the_generators_own_seed():
    with pytest.raises(ValueError, match="drew the generator"):
        synthetic.fresh_lines(4, seed=synthetic.PAPER.seed)


def test_quadrature_against_a_uniform_grid(generator, lines):
    """The adaptive rule against the plain one at step 0.1 on the whole square, itself good to about 2e-3."""
    x = lines[16_000:16_001]
    z = oracle_module._centres(130, 6.5)
    joint = generator.log_prob(x, z.expand(1, -1, 2)).double() + generator.prior_log_prob(z)
    exact = oracle_module.oracle(x, generator=generator)
    torch.testing.assert_close(exact.log_px, joint.logsumexp(1) + 2 * math.log(0.1), rtol=0, atol=5e-3)


def test_quadrature_against_a_finer_rule(generator, lines):
    fine = oracle_module.Quadrature(cells=40, min_levels=3, depth=12.0, tolerance=1e-4)
    usual, better = (
        oracle_module.oracle(lines[16_003:16_005], rule, generator) for rule in (oracle_module.Quadrature(), fine)
    )
    torch.testing.assert_close(usual.log_px, better.log_px, rtol=0, atol=1e-3)
    torch.testing.assert_close(usual.kl, better.kl, rtol=0, atol=1e-2)


def _importance_estimate(generator, x, stream, n=2000):
    """log p(x) [B] and its standard error; the proposal is a Gaussian fitted to a first sample."""
    z = _prior_sample(len(x) * n, stream)
    z = z.view(len(x), n, 2)
    w = generator.log_prob(x, z).softmax(1).unsqueeze(2)
    mean = (w * z).sum(1)
    spread = (w * (z - mean.unsqueeze(1)).square()).sum(1).sqrt().unsqueeze(1) * 1.5 + 0.05
    eps = torch.randn(len(x), n, 2, generator=stream)
    local = mean.unsqueeze(1) + spread * eps
    wide = torch.rand(len(x), n, 1, generator=stream) < 0.3  # a defensive share, so that no region is missed
    z = torch.where(wide, z, local)
    gauss = torch.distributions.Normal(mean.unsqueeze(1), spread).log_prob(z).sum(2)
    prior = generator.prior_log_prob(z)
    proposal = torch.logaddexp(prior + math.log(0.3), gauss + math.log(0.7))
    ratio = (generator.log_prob(x, z) + prior - proposal).double()
    scaled = (ratio - ratio.amax(1, keepdim=True)).exp()
    return ratio.logsumexp(1) - math.log(n), scaled.std(1) / scaled.mean(1) / math.sqrt(n)


def _prior_sample(n, stream):
    component = torch.randint(4, (n,), generator=stream)
    return torch.tensor(synthetic.CENTRES)[component] + torch.randn(n, 2, generator=stream)


def test_quadrature_against_importance_sampling(generator, lines):
    x = lines[16_010:16_014]
    estimate, error = _importance_estimate(generator, x, torch.Generator().manual_seed(0))
    exact = oracle_module.oracle(x, generator=generator).log_px
    assert (error < 0.1).all()
    assert ((estimate - exact).abs() < 4 * error + 1e-3).all()


def test_an_unsettled_line_is_an_error(generator, lines):
    rule = oracle_module.Quadrature(cells=4, min_levels=1, max_levels=1)
    with pytest.raises(ArithmeticError, match="still move"):
        oracle_module.oracle(lines[:2], rule, generator)


def test_corpus_is_cached_and_regenerated_when_damaged(cache, monkeypatch):
    corpus = synthetic.synthetic_corpus()
    assert (len(corpus.train), len(corpus.test)) == (16_000, 4_000)
    assert corpus.test[0] == [str(word) for word in RELEASED_FIRST_TEST_LINE]
    intact = (cache / "train.txt").read_bytes()
    (cache / "train.txt").write_bytes(intact.replace(b"39", b"40", 1))
    assert synthetic.synthetic_corpus() == corpus
    assert (cache / "train.txt").read_bytes() == intact
    monkeypatch.setattr(synthetic, "generate", lambda: pytest.fail("a sound cache was not used"))
    assert synthetic.synthetic_corpus() == corpus


def test_selection_and_test_are_the_same_file_as_in_the_paper_and_training_another(cache):
    data = load("synthetic", DataSettings(train=60, valid=40, test=40, batch_size=20), profile="paper")
    train, valid, test, fresh = (
        {tuple(row) for x in s for row in x.tolist()} for s in (data.train, data.valid, data.test, data.fresh)
    )
    assert valid == test and len(valid) == 40 and len(train) == 60
    assert not valid & train and not fresh & (train | valid)


@pytest.mark.parametrize("name", ["train.txt", "test.txt", "sha256"])
def test_a_missing_file_is_written_again(cache, name):
    synthetic.synthetic_corpus()
    (cache / name).unlink()
    synthetic.synthetic_corpus()
    assert (cache / name).exists()


def test_a_cut_file_with_a_matching_sum_is_not_believed(cache):
    """The content check does not lean on the hash: here the hash is right for the wrong content."""
    corpus = synthetic.synthetic_corpus()
    train, test = ((cache / name).read_text() for name in ("train.txt", "test.txt"))
    short = train[: len(train) // 2]
    (cache / "train.txt").write_text(short)
    (cache / "sha256").write_text(synthetic._sha256(short, test))
    assert synthetic.synthetic_corpus() == corpus


@pytest.mark.parametrize("bad", ["1 2 3", "1 2 3 4 5 6 7 8 9 1000", "1 2 3 4 5 6 7 8 9 -1", "1 2 3 4 5 6 7 8 9 x"])
def test_malformed_lines_are_seen(bad):
    good = "0 1 2 3 4 5 6 7 8 999\n"
    assert synthetic._well_formed(good * 2, 2)
    assert not synthetic._well_formed(good + bad + "\n", 2)


def test_oracle_record_round_trip(cache, tmp_path, monkeypatch):
    synthetic.synthetic_corpus()
    values = torch.tensor([-30.123456, -28.5], dtype=torch.float64)
    exact = oracle_module.Oracle(values, torch.tensor([4.0, 4.5], dtype=torch.float64), torch.tensor([2, 3]))
    monkeypatch.setattr(oracle_module, "oracle", lambda *_: exact)
    path = oracle_module.write_oracle(tmp_path / "o.json")
    record = oracle_module.read_oracle(path)
    assert record == json.loads(path.read_text())
    assert record["test"]["log_px"] == [-30.1235, -28.5]
    assert record["test"]["nll"] == pytest.approx(29.311728)
    assert record["fresh"]["seed"] == synthetic.FRESH_SEED
    assert record["data_sha256"] == synthetic.synthetic_corpus().sha256


def test_a_missing_record_names_its_remedy(tmp_path):
    with pytest.raises(FileNotFoundError, match="write_oracle"):
        oracle_module.read_oracle(tmp_path / "none.json")


def test_results_elsewhere_without_a_record_have_the_repositorys(tmp_path, monkeypatch):
    stored = oracle_module.read_oracle(ROOT / "results/oracle/synthetic.json")
    monkeypatch.setenv("LAGVAE_RESULTS", str(tmp_path))
    assert oracle_module.read_oracle() == stored
    own = results_dir().joinpath(*oracle_module.PLACE)
    own.parent.mkdir()
    own.write_text('{"of": "these results"}')
    assert oracle_module.read_oracle() == {"of": "these results"}


def test_stored_oracle(generator, cache):
    """The stored record belongs to these data, matches values found independently, and is recomputed in part."""
    record = oracle_module.read_oracle()
    corpus = synthetic.synthetic_corpus()
    assert record["data_sha256"] == corpus.sha256
    first = torch.tensor(record["test"]["log_px"][:1000])
    assert -first.mean().item() == pytest.approx(30.81, abs=0.24)
    assert torch.tensor(record["test"]["kl_per_line"][:1000]).mean().item() == pytest.approx(4.14, abs=0.03)
    again = oracle_module.oracle(corpus.test[:4], generator=generator).log_px
    torch.testing.assert_close(again.float(), first[:4], rtol=0, atol=1e-3)
