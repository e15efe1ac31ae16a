"""The VAE with two optima against multivariate Gaussians, and what its phase plane shows."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from torch.distributions import MultivariateNormal

from lagvae_lib.models.two_optima import TwoOptima
from lagvae_lib.plots.interventions import INNER, interventions, keeping, staged
from lagvae_lib.plots.phase_plane import basin, phase_plane

W, S = torch.tensor([1.6, 0.8]).double(), 0.5
C = torch.outer(W, W) + S**2 * torch.eye(2).double()
MODEL = TwoOptima(float(W @ torch.linalg.solve(C, W)))
ZERO = torch.zeros(2).double()


def entropy_term(covariance: torch.Tensor) -> float:
    """E log N(x; 0, covariance) for x ~ N(0, C)."""
    return float(MultivariateNormal(ZERO, covariance).log_prob(ZERO) - 0.5 * torch.linalg.solve(covariance, C).trace())


@pytest.mark.parametrize("t", [0.0, 0.2, 0.5, 0.9, 1.0])
def test_likelihood_is_that_of_the_marginal(t):
    marginal = t**2 * torch.outer(W, W) + C - t * torch.outer(W, W)
    assert MODEL.log_likelihood(t) == pytest.approx(entropy_term(marginal) - entropy_term(C), abs=1e-10)


@pytest.mark.parametrize("t", [0.2, 0.5, 0.9])
def test_posterior_is_bayes_rule(t):
    noise = C - t * torch.outer(W, W)
    precision = 1 + t**2 * W @ torch.linalg.solve(noise, W)
    direction = t * torch.linalg.solve(noise, W) / precision  # its mean is direction @ x
    m, variance = MODEL.posterior(t)
    assert variance == pytest.approx(float(1 / precision), abs=1e-12)
    assert m**2 == pytest.approx(float(direction @ C @ direction), abs=1e-12)  # the statistic has unit variance


@pytest.mark.parametrize(("t", "a"), [(0.3, 0.1), (0.8, 0.9), (0.6, -0.2)])
def test_elbo_is_reconstruction_less_kl(t, a):
    noise, (_, v) = C - t * torch.outer(W, W), MODEL.posterior(t)
    gain = a * torch.linalg.solve(C, W) / MODEL.c**0.5  # q's mean is gain @ x
    residual = torch.eye(2).double() - t * torch.outer(W, gain)
    scatter = residual @ C @ residual.T + v * t**2 * torch.outer(W, W)
    fit = MultivariateNormal(ZERO, noise).log_prob(ZERO) - 0.5 * torch.linalg.solve(noise, scatter).trace()
    kl = 0.5 * (a**2 + v - 1 - np.log(v))
    assert MODEL.elbo(t, a) == pytest.approx(float(fit) - kl - entropy_term(C), abs=1e-10)


@pytest.mark.parametrize(("t", "a"), [(0.3, 0.1), (0.8, 0.9), (0.05, 0.7)])
def test_gradient_is_that_of_the_elbo(t, a):
    h = 1e-6
    numeric = (
        (MODEL.elbo(t + h, a) - MODEL.elbo(t - h, a)) / 2 / h,
        (MODEL.elbo(t, a + h) - MODEL.elbo(t, a - h)) / 2 / h,
    )
    np.testing.assert_allclose(MODEL.gradient(t, a), numeric, atol=1e-7)


def test_inner_steps_at_once_are_the_steps_one_by_one():
    t, a = 0.7, 0.1
    for _ in range(3):
        a += 0.02 * MODEL.gradient(t, a)[1]
    t += 0.02 * MODEL.gradient(t, a)[0]
    path = MODEL.climb(0.7, 0.1, inner=3, steps=1, rate=0.02)
    assert (path.share[1], path.gain[1]) == (pytest.approx(t, abs=1e-14), pytest.approx(a, abs=1e-14))


def test_both_optima_are_equally_good_and_nothing_else_is_better():
    best = MODEL.posterior(1.0)[0]
    assert MODEL.elbo(0.0, 0.0) == MODEL.elbo(1.0, best) == 0
    t, a = np.meshgrid(np.linspace(0.01, 0.99, 50), np.linspace(-0.5, 1.5, 50))
    assert (MODEL.elbo(t, a) < 0).all()


def test_more_inner_steps_leave_fewer_starts_that_collapse():
    shares = [(basin(MODEL, inner, 9)[2] < 0.5).mean() for inner in (1, 5, 30)]
    assert shares[0] > shares[1] > shares[2]


def test_impossible_correlations_are_refused():
    for c in (0.0, 1.0, float("nan")):
        with pytest.raises(ValueError, match="between 0 and 1"):
            TwoOptima(c)


def test_phase_plane_has_a_panel_for_each_number_of_inner_steps():
    figure = phase_plane(MODEL, (1, 2), starts=((0.8, 0.0),))
    assert [axis.get_title() for axis in figure.axes] == ["1 inner step", "2 inner steps"]
    plt.close(figure)


def test_inner_steps_may_change_on_the_way_and_the_decoder_may_have_more_of_them():
    constant = MODEL.climb(0.7, 0.1, inner=3, steps=20)
    np.testing.assert_array_equal(MODEL.climb(0.7, 0.1, inner=[3] * 20, steps=20).share, constant.share)
    late = MODEL.climb(0.7, 0.1, inner=[1] * 5 + [3] * 15, steps=20).share
    np.testing.assert_array_equal(late[:6], MODEL.climb(0.7, 0.1, inner=1, steps=5).share)
    assert late[-1] != constant.share[-1]
    twice = MODEL.climb(0.7, 0.1, inner=1, steps=1, outer=2)
    t, a = 0.7, twice.gain[1]
    for _ in range(2):
        t += 0.02 * MODEL.gradient(t, a)[0]
    assert twice.share[1] == pytest.approx(t, abs=1e-14)


def test_a_stage_helps_early_and_briefly_and_not_late_nor_the_decoder():
    always, never = keeping(MODEL, INNER), keeping(MODEL, 1)
    assert always > never
    assert staged(MODEL) == always == staged(MODEL, ends=200)
    assert staged(MODEL, ends=0) == never == staged(MODEL, begins=200)
    assert keeping(MODEL, 1, INNER) <= never


def test_the_interventions_have_a_panel_each():
    figure = interventions(MODEL, (0, 3))
    assert [axis.get_title() for axis in figure.axes] == ["the stage begins late", "the stage ends early"]
    plt.close(figure)
