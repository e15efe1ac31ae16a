"""Annealed importance sampling: exact evidence, unbiased weights, and transitions that leave their target alone."""

import json
import math
from dataclasses import replace
from itertools import product

import pytest
import torch

from lagvae_lib.config.build import build_model
from lagvae_lib.metrics import ais
from lagvae_lib.metrics.ais import Ais, Path, annealed, leapfrog_steps, schedule, transition
from lagvae_lib.metrics.grid import full_grid_posterior
from lagvae_lib.metrics.nll import importance_weighted
from lagvae_lib.models.gaussian import DiagonalGaussian, standard_noise
from lagvae_lib.models.images import PixelCNNDecoder, ResNetEncoder
from lagvae_lib.models.linear_gaussian import LinearEncoder, LinearGaussian, LinearVAE
from lagvae_lib.models.priors import FlowPrior, VampPrior
from lagvae_lib.models.text import LSTMDecoder, LSTMEncoder
from lagvae_lib.models.vae import VAE
from lagvae_lib.runs import ais_check, record, train
from tests.tiny import tiny_config, tiny_data

NX, NZ, NOISE = 6, 3, 0.4
WORDS = 12


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def randn(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def linear_vae(shift: float = 0.0, noise: float = NOISE, nx: int = NX, nz: int = NZ) -> LinearVAE:
    """An exact model with the best diagonal encoder, its mean `shift` off in each dimension."""
    model = LinearGaussian(randn(nx, nz, seed=9), torch.tensor(noise, dtype=torch.float64), randn(nx, seed=2))
    best = model.optimal_encoder()
    return LinearVAE(model, LinearEncoder(best.weight, best.bias + shift, best.logvar))


def collapsed(vae: LinearVAE) -> LinearVAE:
    """The same model with q the prior for every x."""
    best = vae.encoder
    return LinearVAE(vae.decoder, LinearEncoder(0 * best.weight, 0 * best.bias, 0 * best.logvar))


def sentences(n: int = 6) -> torch.Tensor:
    x = torch.randint(4, WORDS, (n, 8), generator=generator(1))
    x[:, 0], x[:, -1] = 1, 2
    return x


def text_vae(spread: float = 1.0) -> VAE:
    """One-dimensional z, with weights U(-spread, spread) so that z matters and q is not the prior."""
    torch.manual_seed(0)
    vae = VAE(LSTMEncoder(WORDS, 1, 6, 8), LSTMDecoder(WORDS, 1, 6, 8)).eval()
    for parameter in vae.parameters():
        torch.nn.init.uniform_(parameter, -spread, spread)
    return vae


def image_vae() -> VAE:
    torch.manual_seed(0)
    decoder = PixelCNNDecoder(2, channels=8, kernels=(5, 3, 3, 3), latent_maps=2, size=6)
    return VAE(ResNetEncoder(2, (4, 4, 4), 8, size=6), decoder).eval()


def images(n: int = 3) -> torch.Tensor:
    return (torch.rand(n, 1, 6, 6, generator=generator(2)) < 0.4).float()


# -- against the exact evidence --------------------------------------------------------------------------------------


@pytest.mark.parametrize("start", ais.STARTS)
def test_the_evidence_is_met_where_importance_sampling_fails(start):
    vae = linear_vae(shift=0.5, noise=0.8, nx=10, nz=8)
    vae = collapsed(vae) if start == "prior" else vae
    x, _ = vae.decoder.sample(8, generator())
    exact = vae.decoder.log_marginal(x)
    assert (importance_weighted(vae, x, 500, generator(1)) < exact - 1.5).all()
    found = annealed(vae, x, 300, 4, 48, generator(1), start)
    error = found.log_prob - exact
    assert (error.abs() < 4 * found.standard_error).all() and found.standard_error.max() < 0.4
    assert error.abs().max() < 0.8 and error.mean().abs() < 0.25
    assert found.effective_sample_size.min() > 5


def test_more_steps_are_a_better_estimate():
    vae = linear_vae()
    x, _ = vae.decoder.sample(8, generator())
    gaps = [
        float((vae.decoder.log_marginal(x) - annealed(vae, x, steps, 4, 8, generator(1)).log_prob).mean())
        for steps in (2, 20, 200)
    ]
    assert gaps[0] > 5 * gaps[1] > 0 and gaps[1] > 2 * abs(gaps[2])


@pytest.mark.parametrize("start", ais.STARTS)
@pytest.mark.parametrize("scouts", [0, 2])
def test_single_chains_are_unbiased_at_few_steps(start, scouts):
    """E w = p(x) at any number of steps; not so where the move comes before the weight, or at the wrong b."""
    vae = linear_vae(shift=0.3, noise=1.0)
    x, _ = vae.decoder.sample(3, generator(4))
    many = x.repeat_interleave(3000, dim=0)
    found = annealed(vae, many, 4, 3, 1, generator(5), start, scouts, step_size=0.6)
    relative = (found.log_prob - vae.decoder.log_marginal(many)).exp().view(3, -1)
    standard_error = relative.std(1) / relative.shape[1] ** 0.5
    assert standard_error.max() < 0.1, "too wide to notice a bias"
    assert ((relative.mean(1) - 1).abs() < 4 * standard_error).all()


def test_one_step_is_importance_sampling_from_the_start():
    vae = linear_vae(shift=0.3)
    x, _ = vae.decoder.sample(4, generator())
    z = standard_noise((4 * 7, NZ), x, generator(3)).view(4, 7, NZ)
    found = annealed(vae, x, 1, 5, 7, generator(3), scouts=0)
    torch.testing.assert_close(found.log_weights, vae.decoder.log_prob(x, z), rtol=1e-12, atol=1e-12)
    assert found.acceptance.isnan().all()
    found = annealed(vae, x, 1, 5, 7, generator(3), "posterior", scouts=0)
    torch.testing.assert_close(
        found.log_prob, importance_weighted(vae, x, 7, q=None, generator=generator(3)), rtol=1e-12, atol=1e-12
    )


def test_text_agrees_with_the_grid():
    vae, x = text_vae(), sentences()
    exact = full_grid_posterior(vae, x).log_evidence
    with torch.no_grad():
        assert vae.decoder.log_prob(x, torch.tensor([-1.0, 0, 1]).expand(6, 3)[..., None]).std(1).min() > 0.1
    for start in ais.STARTS:
        found = annealed(vae, x, 30, 2, 1200, generator(1), start, rows=8000)
        assert (found.log_prob - exact).abs().max() < 0.02
        assert (found.log_prob - exact).abs().max() < 4 * found.standard_error.max()


# -- the transitions -------------------------------------------------------------------------------------------------


def linear_path(rows: int) -> tuple[LinearVAE, Path]:
    """All rows hold one x of the exact model."""
    vae = linear_vae()
    x = vae.decoder.sample(1, generator())[0].expand(rows, -1)
    return vae, Path(vae, x, None, torch.ones(rows, NZ, dtype=torch.float64), rows)


def constant(value: float, rows: int) -> torch.Tensor:
    """A step size for every row, [rows, 1]."""
    return torch.full((rows, 1), value, dtype=torch.float64)


def test_values_and_gradients_of_the_path():
    vae, path = linear_path(5)
    q = DiagonalGaussian(randn(5, NZ, seed=1), randn(5, NZ, seed=2))
    z = randn(5, NZ, seed=3)
    from_q = Path(vae, path.x, q, path.scale, rows=2)  # in pieces, too
    for beta, chosen in product((0.0, 0.3, 1.0), (path, from_q)):
        leaf = z.clone().requires_grad_()
        start = q.log_prob(leaf[:, None])[:, 0] if chosen is from_q else vae.prior_log_prob(leaf)
        target = (1 - beta) * start + beta * vae.decoder.log_joint(path.x, leaf[:, None])[:, 0]
        (gradient,) = torch.autograd.grad(target.sum(), leaf)
        torch.testing.assert_close(chosen.at(z).log_target(beta), target.detach(), rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(chosen.at(z).gradient(beta), gradient, rtol=1e-10, atol=1e-10)


def test_leapfrog_goes_back_where_it_came_from():
    _, path = linear_path(20)
    point, momentum = path.at(randn(20, NZ, seed=3)), randn(20, NZ, seed=4)
    there, last = leapfrog_steps(path, point, momentum, 0.7, constant(0.1, 20), 6)
    back, returned = leapfrog_steps(path, there, -last, 0.7, constant(0.1, 20), 6)
    assert (there.z - point.z).abs().min(0).values.max() > 1e-3
    torch.testing.assert_close(back.z, point.z, rtol=0, atol=1e-10)
    torch.testing.assert_close(returned, -momentum, rtol=0, atol=1e-10)


def energy_error(step: float, count: int) -> float:
    _, path = linear_path(50)
    point, momentum = path.at(randn(50, NZ, seed=3)), randn(50, NZ, seed=4)
    there, last = leapfrog_steps(path, point, momentum, 0.7, constant(step, 50), count)
    change = ais.kinetic(last) - there.log_target(0.7) - ais.kinetic(momentum) + point.log_target(0.7)
    return float(change.abs().mean())


def test_leapfrog_is_of_second_order():
    assert energy_error(0.02, 10) / energy_error(0.01, 20) == pytest.approx(4, rel=0.1)


def moments(z: torch.Tensor) -> torch.Tensor:
    """z and all products of two of its dimensions, [n, nz + nz^2]."""
    return torch.cat([z, (z[:, :, None] * z[:, None]).flatten(1)], dim=1)


def test_transitions_leave_the_posterior_invariant():
    rows = 20_000
    vae, path = linear_path(rows)
    posterior = vae.decoder.posterior(path.x[:1])
    factor = torch.linalg.cholesky(posterior.covariance_matrix[0])
    first = posterior.mean + randn(rows, NZ, seed=6) @ factor.T
    point, draws = path.at(first), generator(7)
    for _ in range(3):
        point, chance = transition(path, point, 1.0, constant(0.16, rows), 3, draws)
    assert 0.3 < chance.mean() < 0.9, "without rejections nothing is tested"
    assert (point.z - first).abs().mean() > 0.5 * first.std(0).min()
    standardised = (point.z - posterior.mean) @ torch.linalg.inv(factor).T
    values = moments(standardised)
    expected = torch.cat([torch.zeros(NZ), torch.eye(NZ).flatten()]).double()
    assert ((values.mean(0) - expected).abs() < 4 * values.std(0) / rows**0.5).all()


def test_rejected_chains_stay_with_what_they_have():
    _, path = linear_path(200)
    point = path.at(0.3 * randn(200, NZ, seed=3))
    moved, chance = transition(path, point, 0.1, constant(0.5, 200), 3, generator(1))
    stayed = (moved.z == point.z).all(1)
    assert 20 < stayed.sum() < 180
    for new, fresh in zip(moved, path.at(moved.z), strict=True):
        torch.testing.assert_close(new, fresh, rtol=1e-10, atol=1e-10)
    assert chance[~stayed].mean() > chance[stayed].mean()


def test_a_step_that_diverges_is_rejected():
    _, path = linear_path(10)
    point = path.at(randn(10, NZ, seed=3))
    moved, chance = transition(path, point, 1.0, constant(1e200, 10), 5, generator(1))
    assert torch.equal(moved.z, point.z) and (chance == 0).all()


@pytest.mark.parametrize("start", ais.STARTS)
@pytest.mark.parametrize("step_size", [0.02, 3.0])
def test_the_step_size_finds_the_acceptance(start, step_size):
    vae = linear_vae(shift=0.3)
    x, _ = vae.decoder.sample(8, generator())
    found = annealed(vae, x, 150, 4, 8, generator(1), start, step_size=step_size)
    assert found.acceptance.min() > 0.4 and found.acceptance.max() < 0.95
    assert 0.5 < found.acceptance.mean() < 0.8
    fixed = annealed(vae, x, 20, 4, 8, generator(1), start, scouts=0, step_size=step_size)
    torch.testing.assert_close(fixed.step_size, torch.full((8,), step_size, dtype=torch.float64))
    assert not 0.4 < fixed.acceptance.mean() < 0.95


# -- everything else -------------------------------------------------------------------------------------------------


def test_schedule():
    betas = schedule(20)
    assert betas[0] == 0 and betas[-1] == 1 and len(betas) == 21 and (betas.diff() > 0).all()
    torch.testing.assert_close(betas, 1 - betas.flip(0))
    assert betas.diff().argmax() in (9, 10) and betas.diff()[0] < 0.2 * betas.diff().max()
    assert schedule(1).tolist() == [0, 1]


def test_summaries_of_the_weights():
    weights = torch.tensor([[1.0, 2.0, 3.0, 6.0], [5.0, 5.0, 5.0, 5.0], [1.0, 0.0, 0.0, 0.0]], dtype=torch.float64)
    found = Ais(weights.log() - 1000, torch.ones(3), torch.ones(3))
    torch.testing.assert_close(found.log_prob, weights.mean(1).log() - 1000)
    torch.testing.assert_close(found.effective_sample_size, torch.tensor([144 / 50, 4, 1]).double())
    expected = weights.std(1) / weights.mean(1) / 2
    torch.testing.assert_close(found.standard_error, expected)
    assert Ais(weights[:, :1].log(), torch.ones(3), torch.ones(3)).standard_error.isnan().all()


@pytest.mark.parametrize("start", ais.STARTS)
@pytest.mark.parametrize(("vae", "x"), [(image_vae(), images()), (text_vae(), sentences(3))])
def test_the_model_and_the_random_state_stay_as_they_are(vae, x, start):
    before = {name: value.clone() for name, value in vae.state_dict().items()}
    fixed = next(vae.encoder.parameters()).requires_grad_(False)
    for parameter in vae.parameters():
        parameter.grad = None
    marked = next(vae.decoder.parameters())
    marked.grad = torch.full_like(marked, 7.0)
    state = torch.random.get_rng_state()
    with torch.no_grad():  # as evaluation is
        found = annealed(vae, x, 4, 2, 3, generator(1), start)
        again = annealed(vae, x, 4, 2, 3, generator(1), start, rows=4)
        other = annealed(vae, x, 4, 2, 3, generator(2), start)
    assert found.log_prob.shape == (3,) and found.log_weights.shape == (3, 3)
    assert found.log_prob.dtype == torch.float64 and not found.log_prob.requires_grad
    torch.testing.assert_close(found.log_weights, again.log_weights, rtol=0, atol=1e-3)
    assert (found.log_weights - other.log_weights).abs().max() > 1e-2
    assert torch.equal(state, torch.random.get_rng_state())
    assert not any(module.training for module in vae.modules())
    assert all(torch.equal(before[name], value) for name, value in vae.state_dict().items())
    assert all(p.grad is None for p in vae.parameters() if p is not marked) and (marked.grad == 7).all()
    assert all(p.requires_grad is (p is not fixed) for p in vae.parameters())
    fixed.requires_grad_(True)


def test_one_seed_gives_one_set_of_numbers():
    vae, x = text_vae(), sentences()
    first, second = (annealed(vae, x, 5, 2, 3, generator(1)) for _ in range(2))
    for name, value in vars(first).items():
        assert torch.equal(value, getattr(second, name))


@pytest.mark.parametrize("prior", ["flow", "vamp"])
def test_other_priors_are_sampled(prior):
    vae = image_vae()
    flow = FlowPrior(2, blocks=2, hidden=4)
    for parameter in flow.parameters():
        torch.nn.init.uniform_(parameter, -0.7, 0.7)
    vae.prior = flow if prior == "flow" else VampPrior(vae.encoder, torch.rand(4, 1, 6, 6, generator=generator()))
    vae.eval()
    x = images()
    exact = importance_weighted(vae, x, 4000, generator(3))
    for start in ais.STARTS:
        found = annealed(vae, x, 12, 2, 24, generator(1), start)
        assert ((found.log_prob - exact).abs() < 4 * found.standard_error + 0.02).all()


def test_parameters_are_given_back_after_an_error():
    vae = text_vae()
    with pytest.raises(IndexError):
        annealed(vae, sentences() + WORDS, 2, 1, 1, generator())
    assert all(parameter.requires_grad for parameter in vae.parameters())


def test_the_library_s_own_model_takes_part():
    vae = build_model(tiny_config("vae"), tiny_data()).eval()
    x = next(iter(tiny_data().test))
    found = annealed(vae, x, 10, 2, 8, generator(1), "posterior")
    expected = importance_weighted(vae, x, 2000, generator(2))
    torch.testing.assert_close(found.log_prob, expected, rtol=0, atol=0.02)


def test_training_mode_is_refused():
    with pytest.raises(ValueError, match=r"model\.eval\(\)"):
        annealed(text_vae().train(), sentences())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"steps": 0}, "steps must be at least 1"),
        ({"leapfrog": 0}, "leapfrog must be at least 1"),
        ({"chains": 0}, "chains must be at least 1"),
        ({"rows": 0}, "rows must be at least 1"),
        ({"scouts": -1}, "scouts must not be negative"),
        ({"step_size": 0.0}, "step_size must be positive"),
        ({"step_size": math.nan}, "step_size must be positive"),
        ({"start": "postrior"}, "did you mean 'posterior'"),
    ],
)
def test_impossible_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        annealed(text_vae(), sentences(), **arguments)


def test_the_check_of_a_run_compares_the_same_examples(tmp_path, monkeypatch):
    monkeypatch.setenv("LAGVAE_RESULTS", str(tmp_path))
    config, data = tiny_config("vae"), tiny_data()
    train.run(config, data)
    found = ais_check.compare(config, data, examples=10, steps=4, chains=3)
    assert found == json.loads((record.folder_of(config) / "ais.json").read_text())
    assert found["examples"] == 10 and found["gain"] == pytest.approx(found["nll_bound"] - found["nll_ais"], abs=1e-9)
    assert abs(found["gain"]) < 0.5  # a collapsed model: both are nearly exact
    with pytest.raises(FileNotFoundError):
        ais_check.compare(tiny_config("vae", seed=5), data)
    lm = tiny_config("autoregressive")
    train.run(lm, data)
    with pytest.raises(ValueError, match="exact"):
        ais_check.compare(lm, data)
    two = replace(config, method=replace(config.method, variant=replace(config.method.variant, levels=2)))
    monkeypatch.setattr(ais_check, "trained_model", lambda *given: text_vae())
    with pytest.raises(ValueError, match="two levels of z"):
        ais_check.compare(two, data)
