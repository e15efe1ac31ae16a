"""Priors other than N(0, I): densities against autograd's Jacobian, quadrature and the closed form."""

import math

import pytest
import torch

from lagvae_lib.metrics.evaluate import mean_kl
from lagvae_lib.models.gaussian import DiagonalGaussian, standard_log_prob
from lagvae_lib.models.priors import FlowPrior, StandardNormal, VampPrior
from lagvae_lib.models.vae import VAE


class FixedEncoder(torch.nn.Module):
    """q(z|u) = N(a u + b, diag exp(logvar)), and BatchNorm to see what pseudo-inputs do to it."""

    def __init__(self, nz=2, slope=1.0, shift=0.0, logvar=0.0):
        super().__init__()
        self.norm = torch.nn.BatchNorm1d(nz)
        self.slope, self.shift, self.logvar = (torch.nn.Parameter(torch.tensor(v)) for v in (slope, shift, logvar))

    def forward(self, u):
        mu = self.slope * self.norm(u) + self.shift
        return DiagonalGaussian(mu, self.logvar.expand_as(mu))


def perturbed(flow, scale=0.3):
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(scale * torch.randn_like(parameter))
    return flow.double()


@pytest.mark.parametrize("nz", [1, 2, 5])
def test_the_flows_log_determinant_is_that_of_its_jacobian(nz):
    flow, z = perturbed(FlowPrior(nz, blocks=4, hidden=16)), torch.randn(6, nz, dtype=torch.float64)
    _, log_det = flow.to_noise(z)
    jacobians = [torch.autograd.functional.jacobian(lambda v: flow.to_noise(v)[0], row) for row in z]
    torch.testing.assert_close(log_det, torch.stack([torch.linalg.slogdet(j)[1] for j in jacobians]))
    assert nz == 1 or any(abs(float(j[0, -1])) > 1e-6 for j in jacobians)  # the dimensions do depend on each other


def test_the_flow_and_its_inverse():
    flow, z = perturbed(FlowPrior(4, hidden=8), 0.2), torch.randn(7, 3, 4, dtype=torch.float64)
    torch.testing.assert_close(flow.from_noise(flow.to_noise(z)[0]), z)


def test_the_flows_density_integrates_to_one():
    flow = perturbed(FlowPrior(2, hidden=8), 0.2)
    axis = torch.linspace(-12, 12, 601, dtype=torch.float64)
    points = torch.cartesian_prod(axis, axis)
    with torch.no_grad():
        assert float(flow.log_prob(points).exp().sum()) * float(axis[1] - axis[0]) ** 2 == pytest.approx(1, abs=1e-4)


def test_the_flow_begins_as_the_standard_normal():
    z = torch.randn(5, 3, 4)
    torch.testing.assert_close(FlowPrior(4).log_prob(z), standard_log_prob(z))


def test_one_pseudo_input_and_a_gaussian_give_the_kl_of_the_gaussian_prior():
    """With K = 1 and q(z|u) = N(0, I) the VampPrior is N(0, I); its sampled KL then estimates the closed form."""
    prior = VampPrior(FixedEncoder(slope=0.0).double(), torch.full((1, 2), 0.5)).double()
    q = DiagonalGaussian(*torch.randn(2, 20, 2, dtype=torch.float64))
    z = q.rsample(20_000)
    torch.testing.assert_close(prior.log_prob(z), standard_log_prob(z))
    terms = q.log_prob(z) - prior.log_prob(z)
    error = terms.std(1) / z.shape[1] ** 0.5
    assert ((prior.kl(q, z) - StandardNormal().kl(q, z)).abs() < 4 * error).all()


def test_the_mixture_against_torchs_own():
    encoder = FixedEncoder(slope=2.0, shift=-0.5, logvar=-1.0).double()
    prior = VampPrior(encoder, torch.rand(5, 2)).double()
    parts = prior.components()
    mixture = torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(torch.ones(5, dtype=torch.float64)),
        torch.distributions.Independent(torch.distributions.Normal(parts.mu, (0.5 * parts.logvar).exp()), 1),
    )
    z = 2 * torch.randn(6, 3, 2, dtype=torch.float64)
    torch.testing.assert_close(prior.log_prob(z), mixture.log_prob(z))


def test_samples_have_the_mixtures_mean():
    prior = VampPrior(FixedEncoder(slope=3.0).double(), torch.rand(4, 2)).double()
    z = prior.sample((40_000, 2), torch.zeros((), dtype=torch.float64), torch.Generator().manual_seed(0))
    assert ((z.mean(0) - prior.components().mu.mean(0)).abs() < 4 * z.std(0) / 200).all()


def test_pseudo_inputs_do_not_move_the_encoders_statistics_and_train_through_it():
    encoder = FixedEncoder()
    prior = VampPrior(encoder, torch.rand(5, 2))
    vae = VAE(encoder, torch.nn.Linear(2, 2), prior).train()
    before = encoder.norm.running_mean.clone()
    vae.prior_log_prob(torch.zeros(3, 1, 2)).sum().backward()
    assert torch.equal(encoder.norm.running_mean, before) and encoder.training
    assert float(prior.logits.grad.abs().sum()) > 0 and float(encoder.slope.grad.abs()) > 0
    theta, phi = (list(map(id, half())) for half in (vae.decoder_parameters, vae.encoder_parameters))
    assert id(prior.logits) in theta and not set(theta) & set(phi)
    assert len(theta) + len(phi) == len(list(vae.parameters()))


def test_the_reported_kl_is_by_monte_carlo_under_another_prior():
    """KL(N(m, I) || N(0, I)) = m^2 / 2 a dimension, had through a VampPrior that equals N(0, I)."""
    vae = VAE(FixedEncoder(slope=0.0), torch.nn.Linear(2, 2), VampPrior(FixedEncoder(slope=0.0), torch.rand(1, 2)))
    q = DiagonalGaussian(torch.full((4000, 2), 1.0), torch.zeros(4000, 2))
    kl = mean_kl(vae, q, torch.Generator().manual_seed(0))
    assert kl == pytest.approx(1.0, abs=4 * math.sqrt(2 / 40_000)) and kl != 1.0


def test_free_nats_need_dimensions_with_a_kl_of_their_own():
    with pytest.raises(ValueError, match="free nats"):
        VAE(FixedEncoder(), torch.nn.Linear(2, 2), FlowPrior(2), free_nats=1.0)
