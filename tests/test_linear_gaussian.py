"""The identities that hold in the linear-Gaussian model, to the digits of float64."""

import math

import pytest
import torch

from lagvae_lib.metrics.nll import importance_weighted, importance_weighted_curve, log_weights
from lagvae_lib.models.gaussian import DiagonalGaussian, standard_log_prob
from lagvae_lib.models.linear_gaussian import LinearEncoder, LinearGaussian, LinearVAE, ppca

SHAPES = [(1, 1), (4, 2), (3, 5), (6, 6)]  # nx, nz; more codes than data dimensions included


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def randn(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def random_model(nx: int, nz: int, noise: float = 0.7) -> LinearGaussian:
    return LinearGaussian(randn(nx, nz, seed=nx + nz), torch.tensor(noise, dtype=torch.float64), randn(nx, seed=2))


def random_q(batch: int, nz: int, seed: int = 5) -> DiagonalGaussian:
    return DiagonalGaussian(randn(batch, nz, seed=seed), randn(batch, nz, seed=seed + 1))


def random_encoder(nx: int, nz: int) -> LinearEncoder:
    return LinearEncoder(randn(nz, nx, seed=11), randn(nz, seed=12), randn(nz, seed=13))


def grid_mean(model: LinearGaussian, x: torch.Tensor, step: float = 0.1) -> torch.Tensor:
    """Mean of p(z|x), z in R, as a softmax of log p(x, z) over a grid from -20 to 20: [B]."""
    grid = torch.arange(-200, 201, dtype=torch.float64) * (20 / 200) * (step / 0.1)
    weights = model.log_joint(x, grid[None, :, None].expand(len(x), -1, 1)).softmax(1)
    return weights @ grid


@pytest.mark.parametrize(("nx", "nz"), SHAPES)
def test_bayes_rule_holds_at_every_z(nx, nz):
    model = random_model(nx, nz)
    x, _ = model.sample(8, generator())
    z = 2 * randn(8, 9, nz, seed=4)
    evidence = model.log_joint(x, z) - model.log_posterior(x, z)
    assert (evidence - model.log_marginal(x)[:, None]).abs().max() < 1e-10


@pytest.mark.parametrize(("nx", "nz"), SHAPES)
def test_elbo_is_evidence_minus_kl_to_the_posterior(nx, nz):
    model, q = random_model(nx, nz), random_q(8, nz)
    x, _ = model.sample(8, generator())
    assert (model.elbo(x, q) - model.log_marginal(x) + model.kl_to_posterior(x, q)).abs().max() < 1e-10


@pytest.mark.parametrize(("nx", "nz"), SHAPES)
def test_kl_to_the_posterior_equals_torch_distributions(nx, nz):
    model, q = random_model(nx, nz), random_q(8, nz)
    x, _ = model.sample(8, generator())
    full = torch.distributions.MultivariateNormal(q.mu, torch.diag_embed(q.logvar.exp()))
    expected = torch.distributions.kl_divergence(full, model.posterior(x))
    torch.testing.assert_close(model.kl_to_posterior(x, q), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("nx", "nz"), SHAPES)
def test_mutual_information_of_the_model(nx, nz):
    model = random_model(nx, nz)
    # through the data side, H(x) - H(x|z), instead of the code side
    entropy_drop = 0.5 * (torch.logdet(model.covariance) - 2 * nx * model.noise.log())
    assert (model.mutual_information() - entropy_drop).abs() < 1e-10
    x, z = model.sample(20_000, generator())
    terms = model.log_prob(x, z[:, None])[:, 0] - model.log_marginal(x)
    assert (terms.mean() - model.mutual_information()).abs() < 4 * terms.std() / 20_000**0.5


@pytest.mark.parametrize(("nx", "nz"), SHAPES)
def test_aggregated_posterior_decomposition_in_closed_form(nx, nz):
    model, encoder = random_model(nx, nz), random_encoder(nx, nz)
    kl, mi, aggregate = encoder.decomposition(model.mean, model.covariance)
    assert (kl - mi - aggregate).abs() < 1e-10
    assert mi >= 0 and aggregate >= 0
    per_point = encoder(model.sample(20_000, generator())[0]).kl()
    assert (per_point.mean() - kl).abs() < 4 * per_point.std() / 20_000**0.5


@pytest.mark.parametrize(("nx", "nz"), SHAPES)
def test_no_diagonal_encoder_beats_the_optimal_one(nx, nz):
    model = random_model(nx, nz)
    x, _ = model.sample(8, generator())
    best = model.optimal_encoder()(x)
    mu, logvar = best.mu.clone().requires_grad_(), best.logvar.clone().requires_grad_()
    model.elbo(x, DiagonalGaussian(mu, logvar)).sum().backward()
    assert mu.grad.abs().max() < 1e-10 and logvar.grad.abs().max() < 1e-10
    for seed in range(5):
        other = DiagonalGaussian(best.mu + 0.1 * randn(8, nz, seed=seed), best.logvar + 0.1)
        assert (model.elbo(x, other) < model.elbo(x, best)).all()


def parameter_gradients(objective, model: LinearGaussian) -> torch.Tensor:
    theta = [t.clone().requires_grad_() for t in (model.weight, model.noise, model.mean)]
    return torch.cat([g.flatten() for g in torch.autograd.grad(objective(LinearGaussian(*theta)), theta)])


def test_elbo_gradient_is_the_evidence_gradient_where_q_is_the_posterior():
    # one code dimension, so that the posterior is itself diagonal
    model = random_model(4, 1)
    x, _ = model.sample(8, generator())
    q = model.optimal_encoder()(x)
    evidence = parameter_gradients(lambda m: m.log_marginal(x).mean(), model)
    lower_bound = parameter_gradients(lambda m: m.elbo(x, q).mean(), model)
    assert (lower_bound - evidence).abs().max() < 1e-6
    lagging = parameter_gradients(lambda m: m.elbo(x, random_q(8, 1)).mean(), model)
    assert (lagging - evidence).abs().max() > 1e-2


def test_iw_bound_is_exact_and_without_variance_at_the_posterior():
    model = random_model(4, 1)
    x, _ = model.sample(8, generator())
    vae = LinearVAE(model, model.optimal_encoder())
    weights = log_weights(vae, x, 5, generator(1))
    assert weights.std(1).max() < 1e-10
    assert (importance_weighted(vae, x, 3, generator(1)) - model.log_marginal(x)).abs().max() < 1e-10


def test_iw_bound_climbs_towards_the_evidence():
    model, encoder = random_model(4, 2), random_encoder(4, 2)
    x, _ = model.sample(400, generator())
    curve = importance_weighted_curve(LinearVAE(model, encoder), x, (1, 10, 100), generator(1))
    gaps = model.log_marginal(x)[:, None] - curve
    steps = torch.cat([gaps[:, :-1] - gaps[:, 1:], gaps[:, -1:]], dim=1)
    assert (steps.mean(0) > 2 * steps.std(0) / 400**0.5).all()


@pytest.mark.parametrize("shift", [0.5, 0.8])
def test_iw_bias_of_a_shifted_posterior(shift):
    k, n = 50, 100_000
    model = LinearGaussian(*(torch.tensor(v, dtype=torch.float64) for v in ([[0.0]], 1.0, [0.0])))
    x = randn(n, 1, seed=8)
    # weight zero makes p(z|x) = N(0, 1); the proposal has the same variance, `shift` away
    q = DiagonalGaussian(torch.full_like(x, shift), torch.zeros_like(x))
    gap = model.log_marginal(x) - importance_weighted(LinearVAE(model, lambda _: q), x, k, generator(2))
    expected = (math.exp(shift**2) - 1) / (2 * k)
    error = gap.std() / n**0.5
    assert error < 0.2 * expected
    assert (gap.mean() - expected).abs() < 3 * error


def test_sampled_elbo_agrees_with_the_closed_form():
    model, encoder = random_model(4, 2), random_encoder(4, 2)
    x, _ = model.sample(50, generator())
    estimate = log_weights(LinearVAE(model, encoder), x, 4000, generator(3)).mean(1)
    exact = model.elbo(x, encoder(x))
    assert ((estimate - exact) / exact).abs().max() < 0.05
    assert ((estimate - exact).mean() / exact.mean()).abs() < 0.005


@pytest.mark.parametrize(("sd", "accurate"), [(0.1, True), (0.5, True), (0.03, False)])
def test_grid_posterior_mean_needs_a_step_below_the_posterior_sd(sd, accurate):
    # precision 1 + w^2/s^2 = 1/sd^2
    noise = 0.5
    weight = noise * math.sqrt(1 / sd**2 - 1)
    model = LinearGaussian(*(torch.tensor(v, dtype=torch.float64) for v in ([[weight]], noise, [0.0])))
    x, _ = model.sample(200, generator())
    error = (grid_mean(model, x) - model.posterior(x).mean[:, 0]).abs().max()
    assert error < 1e-6 if accurate else error > 1e-3


def random_covariance(nx: int) -> torch.Tensor:
    root = randn(nx, nx, seed=21)
    return root @ root.T + 0.1 * torch.eye(nx, dtype=torch.float64)


@pytest.mark.parametrize("collapsed", [0, 1, 2, 4])
def test_ppca_dimensions_collapse_exactly_where_the_eigenvalue_is_within_the_noise(collapsed):
    nx, nz = 6, 4
    covariance, mean = random_covariance(nx), randn(nx, seed=22)
    leading = torch.linalg.eigvalsh(covariance).flip(0)[:nz]
    edges = torch.cat([leading, leading[-1:] * 0.5])
    # the noise variance lies on the first collapsed eigenvalue itself: "at most", not "below"
    variance = float(edges[nz - collapsed] if collapsed else edges[-1])
    model = ppca(mean, covariance, nz, math.sqrt(variance))
    x = mean + randn(50, nx, seed=24) @ torch.linalg.cholesky(covariance).T
    assert model.kl_to_posterior(x, model.optimal_encoder()(x)).max() < 1e-10
    best = model.optimal_encoder()
    rows = [LinearEncoder(*(t[j : j + 1] for t in vars(best).values())) for j in range(nz)]
    parts = [row.decomposition(mean, covariance) for row in rows]
    kl, mi, aggregate = (torch.stack(t) for t in zip(*parts, strict=True))
    expected = 0.5 * (leading / variance).log().clamp(min=0)
    assert (kl - expected).abs().max() < 1e-10
    assert (mi - expected).abs().max() < 1e-10 and aggregate.abs().max() < 1e-10
    assert int((kl < 1e-12).sum()) == collapsed


@pytest.mark.parametrize("nz", [1, 3])
def test_ppca_is_a_stationary_point_that_no_neighbour_beats(nz):
    covariance, mean = random_covariance(5), randn(5, seed=23)
    noise = (
        float(torch.linalg.eigvalsh(covariance)[: 5 - nz].mean()) ** 0.5
    )  # of highest likelihood (Tipping & Bishop 1999)
    model = ppca(mean, covariance, nz, noise)
    gradient = parameter_gradients(lambda m: m.expected_log_marginal(mean, covariance), model)
    assert gradient.abs().max() < 1e-10
    best = model.expected_log_marginal(mean, covariance)
    for seed in range(5):
        moved = LinearGaussian(model.weight + 0.1 * randn(5, nz, seed=seed), model.noise * 1.02, model.mean + 0.01)
        assert moved.expected_log_marginal(mean, covariance) < best


def test_expected_log_marginal_is_the_mean_over_data_with_those_moments():
    model = random_model(4, 2)
    x = randn(50, 4, seed=3)
    centred = x - x.mean(0)
    expected = model.expected_log_marginal(x.mean(0), centred.T @ centred / len(x))
    assert (model.log_marginal(x).mean() - expected).abs() < 1e-10


def test_collapse_is_a_global_optimum_when_the_decoder_needs_no_code():
    # the claim's two conditions: the decoder without z is the data distribution, and q is the prior
    model = LinearGaussian(
        torch.zeros(3, 2, dtype=torch.float64), torch.tensor(1.3, dtype=torch.float64), randn(3, seed=1)
    )
    x, z = model.sample(20, generator())
    assert (model.log_posterior(x, z[:, None]) - standard_log_prob(z[:, None])).abs().max() < 1e-10
    prior = DiagonalGaussian(torch.zeros_like(z), torch.zeros_like(z))
    assert (model.elbo(x, prior) - model.log_marginal(x)).abs().max() < 1e-10


@pytest.mark.parametrize(
    ("weight", "noise", "mean", "message"),
    [
        (torch.zeros(3, 2), torch.tensor(1.0), torch.zeros(3), "float64"),
        (torch.zeros(3, 2).double(), torch.tensor(0.0).double(), torch.zeros(3).double(), "positive"),
        (torch.zeros(3, 2).double(), torch.tensor(1.0).double(), torch.zeros(2).double(), "mean"),
    ],
)
def test_bad_parameters_are_refused(weight, noise, mean, message):
    with pytest.raises(ValueError, match=message):
        LinearGaussian(weight, noise, mean)


def test_ppca_refuses_impossible_sizes():
    covariance, mean = random_covariance(3), torch.zeros(3, dtype=torch.float64)
    with pytest.raises(ValueError, match="between 1 and 3"):
        ppca(mean, covariance, 4, 0.1)
