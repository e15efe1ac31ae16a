"""Nats of a known class in a code, where the truth is a formula."""

import math

import pytest
import torch

from lagvae_lib.metrics.known_information import class_information
from lagvae_lib.models.gaussian import DiagonalGaussian


def coded(distance: float, n: int = 600) -> tuple[DiagonalGaussian, torch.Tensor]:
    """Two classes of n/2 examples, means `distance` apart, unit variance, and their one-hot posteriors."""
    classes = torch.arange(n) % 2
    mu = (classes[:, None] - 0.5).double() * distance
    return DiagonalGaussian(mu, torch.zeros_like(mu)), torch.nn.functional.one_hot(classes, 2)


def between(distance: float) -> float:
    """I(z; class) of two unit Gaussians by quadrature."""
    z = torch.linspace(-12, 12, 20_001).double()
    p = torch.stack([torch.exp(-0.5 * (z - c) ** 2) / math.sqrt(2 * math.pi) for c in (-distance / 2, distance / 2)])
    return float(torch.trapezoid(torch.xlogy(p, p / p.mean(0)).mean(0), z))


@pytest.mark.parametrize("distance", [1.0, 3.0])
def test_it_is_the_information_of_two_gaussians(distance):
    found = class_information(*coded(distance), torch.Generator().manual_seed(0))
    assert found == pytest.approx(between(distance), abs=0.04)


def test_a_code_that_tells_the_class_has_its_entropy_and_one_that_tells_nothing_has_none():
    assert class_information(*coded(40.0), torch.Generator().manual_seed(0)) == pytest.approx(math.log(2), abs=1e-6)
    assert class_information(*coded(0.0), torch.Generator().manual_seed(0)) == pytest.approx(0, abs=0.01)
