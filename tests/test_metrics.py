"""Estimators of mutual information, active units and likelihood: what they can and cannot exceed."""

import math

import numpy as np
import pytest
import torch

from lagvae_lib.metrics import mutual_information as mutual
from lagvae_lib.metrics.active_units import active_units, threshold_curve, variance_of_means
from lagvae_lib.metrics.evaluate import evaluate, information, spread_examples, validate
from lagvae_lib.metrics.nll import importance_weighted, importance_weighted_curve, log_weights
from lagvae_lib.models.gaussian import DiagonalGaussian, standard_log_prob
from lagvae_lib.models.linear_gaussian import LinearEncoder, LinearGaussian, LinearVAE
from lagvae_lib.models.priors import StandardNormal


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def encoded(n: int, nz: int, spread: float = 1.0, seed: int = 77, dtype=torch.float64):
    """Posteriors N(mu, .5^2) with means of sd `spread`: the population's MI is nz/2 log(1 + 4 spread^2)."""
    mu = spread * torch.randn(n, nz, generator=generator(seed), dtype=dtype)
    return mu, torch.full_like(mu, 2 * math.log(0.5))


def partition(n: int, size: int) -> list[int]:
    return [size] * (n // size) + ([n % size] if n % size else [])


def test_paper_estimate_is_the_textbook_sum():
    mu, logvar = encoded(10, 3)
    z = DiagonalGaussian(mu, logvar).rsample(1, generator=generator(4))[:, 0]
    total = 0.0
    for rows in ([0, 1, 2, 3], [4, 5, 6, 7], [8, 9]):
        for i in rows:
            densities = [DiagonalGaussian(mu[j : j + 1], logvar[j : j + 1]).log_prob(z[None, i : i + 1]).exp()
                         for j in rows]  # fmt: skip
            log_aggregate = math.log(float(sum(densities)) / len(rows))
            total += -float(DiagonalGaussian(mu[i : i + 1], logvar[i : i + 1]).entropy()) - log_aggregate
    assert mutual.paper_estimate(mu, logvar, [4, 4, 2], generator(4)) == pytest.approx(total / 10, abs=1e-10)


def test_decomposition_on_one_set_of_samples():
    mu, logvar = encoded(300, 4, spread=0.7)
    parts = mutual.decompose(mu, logvar, generator(1))
    assert parts.kl == pytest.approx(parts.mi + parts.aggregate_kl, abs=1e-6)
    # and each part is its own thing: KL against its closed form, MI against the pointwise terms
    q = DiagonalGaussian(mu, logvar)
    z = q.rsample(1, generator=generator(1))
    terms = q.log_prob(z)[:, 0] - standard_log_prob(z[:, 0])
    assert abs(parts.kl - float(q.kl().mean())) < 4 * float((terms - q.kl()).std()) / 300**0.5
    assert parts.mi == pytest.approx(float(mutual.pointwise(mu, logvar, z[:, 0])[0].mean()), abs=1e-10)


@pytest.mark.parametrize("batch_size", [2, 32, 50])
@pytest.mark.parametrize("spread", [0.5, 100.0])
def test_same_sample_estimate_never_passes_log_b(batch_size, spread):
    mu, logvar = encoded(300, 8, spread)
    bounds = mutual.same_sample(mu, logvar, batch_size, generator())
    assert bounds.cap == math.log(batch_size)
    assert bounds.lower <= bounds.cap + 1e-12
    z = DiagonalGaussian(mu, logvar).rsample(1, generator=generator())[:, 0]
    assert mutual.pointwise(mu[:batch_size], logvar[:batch_size], z[:batch_size])[0].max() <= bounds.cap + 1e-12
    if spread == 100.0:
        # far apart, the estimate is the cap and the leave-one-out one says that the truth may be larger
        assert bounds.lower == pytest.approx(bounds.cap, abs=1e-6) and bounds.upper > 100


@pytest.mark.parametrize(("nz", "spread"), [(1, 1.0), (8, 0.6), (32, 1.0)])
def test_same_sample_estimate_grows_with_the_batch_and_brackets_the_truth(nz, spread):
    mu, logvar = encoded(2000, nz, spread)
    truth = nz / 2 * math.log(1 + 4 * spread**2)
    curve = mutual.same_sample_curve(mu, logvar, (2, 8, 50, 2000), generator())
    lower, upper = [b.lower for b in curve], [b.upper for b in curve]
    assert lower == sorted(lower)
    assert all(low < up for low, up in zip(lower, upper, strict=True))
    assert lower[-1] < truth + 0.1 and upper[-1] > truth - 0.1


def test_same_sample_estimate_finds_a_known_information():
    mu, logvar = encoded(3000, 1, spread=1.0)
    bounds = mutual.same_sample(mu, logvar, generator=generator())
    assert bounds.lower == pytest.approx(0.5 * math.log(5), abs=0.05)
    assert bounds.upper - bounds.lower < 0.02


@pytest.mark.parametrize("chunk", [1, 70, 10**9])
def test_chunks_change_nothing(monkeypatch, chunk):
    mu, logvar = encoded(60, 3)
    whole = mutual.same_sample(mu, logvar, generator=generator()), mutual.decompose(mu, logvar, generator())
    monkeypatch.setattr(mutual, "CHUNK_ELEMENTS", chunk)
    parts = mutual.same_sample(mu, logvar, generator=generator()), mutual.decompose(mu, logvar, generator())
    for a, b in zip(whole, parts, strict=True):
        assert list(vars(a).values()) == pytest.approx(list(vars(b).values()), abs=1e-12)


@pytest.mark.parametrize("nz", [1, 8, 32])
def test_collapsed_encoder_has_no_information_beyond_noise(nz):
    n = 640
    mu = torch.zeros(n, nz)
    bounds = mutual.same_sample(mu, mu, 32, generator())
    assert abs(bounds.lower) < 1e-6 and abs(bounds.upper) < 1e-6
    noise = math.sqrt(nz / (2 * n))
    estimates = [mutual.paper_estimate(mu, mu, partition(n, 32), generator(seed)) for seed in range(40)]
    assert max(map(abs, estimates)) < 4 * noise
    # it is noise of that size, of both signs: not merely small
    assert 0.6 * noise < np.std(estimates, ddof=1) < 1.5 * noise
    assert min(estimates) < 0 < max(estimates)


def test_large_kl_is_not_information():
    mu = torch.full((500, 4), 1.5, dtype=torch.float64)
    assert DiagonalGaussian(mu, torch.zeros_like(mu)).kl().mean() == pytest.approx(4.5)
    assert abs(mutual.same_sample(mu, torch.zeros_like(mu), generator=generator()).lower) < 1e-6
    assert active_units(variance_of_means(mu.split(32))) == 0
    # up to noise, all of the KL lies between the aggregated posterior and the prior
    parts = mutual.decompose(mu, torch.zeros_like(mu), generator())
    assert abs(parts.mi) < 1e-6 and parts.aggregate_kl == pytest.approx(4.5, abs=0.6)


def test_aggregate_kl_is_floored():
    assert mutual.aggregate_kl(3.0, 2.5) == 0.5
    assert mutual.aggregate_kl(0.01, 0.05) == 0.0


@pytest.mark.parametrize("sizes", [[5, 4], [10, 0], [11], []])
def test_batch_sizes_that_are_no_partition_are_refused(sizes):
    with pytest.raises(ValueError, match="sum to 10"):
        mutual.paper_estimate(*encoded(10, 2), sizes, generator())


def test_a_batch_of_one_is_refused():
    with pytest.raises(ValueError, match="at least 2"):
        mutual.same_sample(*encoded(10, 2), 1, generator())


def test_samples_come_from_the_given_generator_alone():
    mu, logvar = encoded(50, 2)
    state = torch.random.get_rng_state()
    first = mutual.same_sample_curve(mu, logvar, (10, 50), generator(3))
    assert first == mutual.same_sample_curve(mu, logvar, (10, 50), generator(3))
    assert mutual.paper_estimate(mu, logvar, [50], generator(3)) != mutual.paper_estimate(
        mu, logvar, [50], generator(4)
    )
    assert torch.equal(state, torch.random.get_rng_state())


@pytest.mark.parametrize("size", [1, 2, 7, 50, 333])
@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_active_units_equal_numpy_whatever_the_batching(size, offset):
    scale = torch.logspace(-3, 0, 9, dtype=torch.float64)
    mu = offset + scale * torch.randn(333, 9, generator=generator(), dtype=torch.float64)
    variance = variance_of_means(mu.split(size))
    expected = mu.numpy().var(axis=0, ddof=1)
    np.testing.assert_allclose(variance.numpy(), expected, rtol=1e-7)
    assert active_units(variance) == int((expected >= 0.01).sum())
    assert threshold_curve(variance, [0, 1e-4, 10]) == [9, int((expected >= 1e-4).sum()), 0]


def test_active_units_counts_the_threshold_itself():
    assert active_units(torch.tensor([0.01, 0.0099], dtype=torch.float64)) == 1


def test_a_variance_of_too_few_examples_is_refused():
    with pytest.raises(ValueError, match="at least 2 examples, not 1"):
        variance_of_means([torch.zeros(0, 3), torch.ones(1, 3)])


def linear_vae(nx: int = 4, nz: int = 2) -> tuple[LinearVAE, torch.Tensor]:
    def randn(*shape):
        return torch.randn(*shape, generator=draws, dtype=torch.float64)

    draws = generator(7)
    model = LinearGaussian(randn(nx, nz), torch.tensor(0.8, dtype=torch.float64), randn(nx))
    return LinearVAE(model, LinearEncoder(randn(nz, nx), randn(nz), randn(nz))), model.sample(6, draws)[0]


@pytest.mark.parametrize("chunk", [1, 3, 50, 500])
def test_iw_bound_does_not_depend_on_the_chunk(chunk):
    vae, x = linear_vae()
    bound = importance_weighted(vae, x, 17, generator(1), chunk)
    expected = log_weights(vae, x, 17, generator(1)).logsumexp(1) - math.log(17)
    torch.testing.assert_close(bound, expected, rtol=1e-12, atol=1e-12)


def test_iw_curve_uses_the_first_k_samples():
    vae, x = linear_vae()
    weights = log_weights(vae, x, 20, generator(1))
    curve = importance_weighted_curve(vae, x, (1, 7, 20), generator(1), chunk=4)
    for column, k in zip(curve.T, (1, 7, 20), strict=True):
        torch.testing.assert_close(column, weights[:, :k].logsumexp(1) - math.log(k), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("ks", "chunk"), [((), 1), ((10, 1), 1), ((0, 2), 1), ((2, 2), 1), ((1,), 0)])
def test_iw_curve_refuses_impossible_sample_counts(ks, chunk):
    vae, x = linear_vae()
    with pytest.raises(ValueError, match="increasing"):
        importance_weighted_curve(vae, x, ks, generator(), chunk)


def test_iw_takes_another_proposal_and_keeps_no_gradient():
    vae, x = linear_vae()
    q = vae.decoder.optimal_encoder()(x)
    q = DiagonalGaussian(q.mu.requires_grad_(), q.logvar.clone())
    better = importance_weighted(vae, x, 10, generator(1), q=q)
    assert not better.requires_grad
    assert better.mean() > importance_weighted(vae, x, 10, generator(1)).mean()


def test_spread_examples_takes_short_and_long_in_proportion():
    sizes = [3, 32, 32, 20, 32, 32, 5, 32, 1, 32, 32, 11, 32, 32, 2, 1, 1]
    batches = [torch.full((size, 1), length) for length, size in enumerate(sizes)]
    total = sum(sizes)
    for examples in (50, 100, 200, total, total + 5):
        kept = torch.cat([x[:, 0] for x in spread_examples(batches, examples)])
        assert len(kept) == min(examples, total)
        seen = 0
        for length, size in enumerate(sizes):
            seen += size
            share = seen / total * len(kept)
            assert abs(int((kept <= length).sum()) - share) <= max(sizes), "off by a batch at most"


# -- the record's metrics, on a model of which all of them are known ---------------------------------------------------


class Known(torch.nn.Module):
    """A linear model whose posterior is diagonal, so that q can be exact; `wider` adds to the log of q's variances."""

    def __init__(self, wider: float = 0.0):
        super().__init__()
        weight = torch.tensor([[1.5, 0.0], [0.0, 0.7], [0.0, 0.0]], dtype=torch.float64)
        self.truth = LinearGaussian(weight, torch.tensor(0.5, dtype=torch.float64), torch.zeros(3, dtype=torch.float64))
        self.decoder, self.prior, self.wider = self.truth, StandardNormal(), wider
        self.x = self.truth.sample(600, generator(5))[0]

    def encode(self, x):
        q = self.truth.optimal_encoder()(x)
        return DiagonalGaussian(q.mu, q.logvar + self.wider)

    def prior_log_prob(self, z):
        return standard_log_prob(z)


def test_the_metrics_of_a_record_where_all_of_them_are_known():
    model = Known()
    evidence, q = model.truth.log_marginal(model.x), model.encode(model.x)
    kl = float(0.5 * (q.mu**2 + q.logvar.exp() - 1 - q.logvar).sum(1).mean())
    found = evaluate(model, model.x.split(50), generator(), iw_samples=(1, 5), draws=3)
    assert found["nll_by_samples"] == pytest.approx(dict.fromkeys("15", -float(evidence.mean())))  # q is exact
    assert found["nll_standard_error"] == pytest.approx(float(evidence.std() / len(evidence) ** 0.5))
    assert found["kl"] == pytest.approx(kl) and found["elbo"] == pytest.approx(float(evidence.mean()), abs=0.15)
    information_there = float(model.truth.mutual_information())
    assert found["mi"] == pytest.approx(information_there, abs=0.2)
    assert found["mi_large"] == pytest.approx(information_there, abs=0.15)
    for suffix in ("", "_large"):
        assert found[f"aggregate_kl{suffix}"] == pytest.approx(max(0.0, found["kl"] - found[f"mi{suffix}"]))
    of_validation = validate(model, model.x.split(50), generator())
    assert of_validation["loss"] == pytest.approx(of_validation["reconstruction"] + kl)
    assert of_validation["loss"] == pytest.approx(-float(evidence.mean()), abs=0.15)


def test_the_nll_of_a_record_is_the_bound_with_the_most_samples():
    found = evaluate(Known(1.5), Known().x.split(50), generator(), iw_samples=(1, 50))
    assert found["nll"] == found["nll_by_samples"]["50"] < found["nll_by_samples"]["1"] - 0.1


def test_the_information_of_a_record_never_passes_the_log_of_its_examples():
    model = Known(-20.0)
    found = information(model, model.encode(model.x[:12]), [12], generator())
    assert found["mi_large"] == pytest.approx(math.log(12), abs=1e-3)
