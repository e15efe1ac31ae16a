"""Diagonal Gaussians against torch.distributions and against sampling."""

import pytest
import torch
from torch.distributions import Independent, Normal, kl_divergence

from lagvae_lib.models.gaussian import (
    DiagonalGaussian,
    pairwise_log_prob,
    standard_log_prob,
    standard_noise,
)


def random_q(seed: int, batch: int, nz: int, dtype=torch.float64) -> DiagonalGaussian:
    generator = torch.Generator().manual_seed(seed)
    mu, logvar = torch.randn(2, batch, nz, generator=generator, dtype=dtype)
    return DiagonalGaussian(2 * mu, logvar)


def reference(q: DiagonalGaussian) -> Independent:
    return Independent(Normal(q.mu, (0.5 * q.logvar).exp()), 1)


SHAPES = [(1, 1), (3, 2), (16, 32), (7, 5)]


@pytest.mark.parametrize(("batch", "nz"), SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_closed_forms_equal_torch_distributions(batch, nz, dtype):
    q = random_q(batch + nz, batch, nz, dtype)
    prior = Independent(Normal(torch.zeros_like(q.mu), torch.ones_like(q.mu)), 1)
    # relative in single precision: a KL of 100 nats has no more digits than that
    tolerance = {"rtol": 1e-6, "atol": 1e-6 if dtype == torch.float64 else 1e-5}
    torch.testing.assert_close(q.kl(), kl_divergence(reference(q), prior), **tolerance)
    torch.testing.assert_close(q.kl_per_dim().sum(1), q.kl(), **tolerance)
    torch.testing.assert_close(q.entropy(), reference(q).entropy(), **tolerance)
    z = q.rsample(4, generator=torch.Generator().manual_seed(1))
    assert z.shape == (batch, 4, nz)
    torch.testing.assert_close(q.log_prob(z), reference(q).log_prob(z.transpose(0, 1)).T, **tolerance)


def test_kl_equals_its_monte_carlo_estimate():
    q = random_q(0, 6, 3)
    z = q.rsample(20_000, generator=torch.Generator().manual_seed(1))
    terms = q.log_prob(z) - standard_log_prob(z)
    error = terms.std(1) / terms.shape[1] ** 0.5
    assert ((terms.mean(1) - q.kl()).abs() < 3 * error).all()


def test_tiny_kl_keeps_its_digits_in_single_precision():
    logvar = torch.full((1, 1), 1e-4)
    kl = DiagonalGaussian(torch.zeros_like(logvar), logvar).kl()
    assert float(kl) == pytest.approx(1e-4**2 / 4, rel=1e-2)


@pytest.mark.parametrize(("batch", "nz"), SHAPES)
def test_pairwise_log_prob_is_log_prob_of_every_pair(batch, nz):
    q, z = random_q(3, batch, nz), random_q(4, 5, nz).mu
    log_q = pairwise_log_prob(z, q.mu, q.logvar)
    assert log_q.shape == (5, batch)
    torch.testing.assert_close(log_q, q.log_prob(z.expand(batch, 5, nz)).T, rtol=1e-10, atol=1e-10)


def test_samples_have_the_right_moments_and_carry_gradients():
    q = random_q(5, 4, 3)
    z = q.rsample(40_000, generator=torch.Generator().manual_seed(2))
    sd = (0.5 * q.logvar).exp()
    assert ((z.mean(1) - q.mu).abs() < 5 * sd / 200).all()
    assert ((z.std(1) / sd - 1).abs() < 0.03).all()
    mu = torch.zeros(2, 3, requires_grad=True)
    DiagonalGaussian(mu, torch.zeros(2, 3)).rsample(5).sum().backward()
    torch.testing.assert_close(mu.grad, torch.full((2, 3), 5.0))


def test_given_noise_replaces_the_generator():
    q, noise = random_q(6, 4, 3), torch.randn(4, 7, 3, dtype=torch.float64)
    expected = q.mu[:, None] + q.logvar.mul(0.5).exp()[:, None] * noise
    torch.testing.assert_close(q.rsample(7, noise), expected)


def test_one_seed_gives_one_sample_and_the_global_state_another():
    q = random_q(7, 4, 3)
    draw = [q.rsample(2, generator=torch.Generator().manual_seed(9)) for _ in range(2)]
    assert torch.equal(draw[0], draw[1])
    torch.manual_seed(9)
    state = torch.random.get_rng_state()
    standard_noise((3,), q.mu, torch.Generator().manual_seed(1))
    assert torch.equal(state, torch.random.get_rng_state())
    standard_noise((3,), q.mu)
    assert not torch.equal(state, torch.random.get_rng_state())


@pytest.mark.parametrize("shapes", [((3, 2), (3, 3)), ((3,), (3,)), ((1, 3, 2), (1, 3, 2))])
def test_wrong_shapes_are_refused(shapes):
    with pytest.raises(ValueError, match="must both be"):
        DiagonalGaussian(torch.zeros(shapes[0]), torch.zeros(shapes[1]))
