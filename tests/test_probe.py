"""The linear probe against cases whose information is known."""

import numpy as np
import pytest

from lagvae_lib.metrics.probe import linear_probe


def test_labels_that_the_means_do_not_know_are_not_read():
    draws = np.random.default_rng(0)
    found = linear_probe(draws.normal(size=(2000, 4)), draws.integers(0, 5, 2000))
    assert abs(found.nats) < 0.01 and found.entropy == pytest.approx(np.log(5), abs=0.01)
    assert abs(found.accuracy - 0.2) < 0.05


def test_labels_that_the_means_spell_out_are_read_whole():
    labels = np.arange(600) % 3
    means = 20.0 * np.eye(3)[labels] + np.random.default_rng(1).normal(size=(600, 3))
    found = linear_probe(means, labels)
    assert found.accuracy == 1.0 and found.majority == pytest.approx(1 / 3)
    assert np.log(3) - 0.05 < found.nats <= np.log(3)


def test_two_gaussians_give_the_information_between_them():
    """x ~ N(+-d, 1): I(x; label) = log 2 - E log(1 + exp(-2 d x)), x ~ N(d, 1), by numerical integration."""
    draws, d = np.random.default_rng(2), 1.0
    labels = draws.integers(0, 2, 20_000)
    means = (2 * labels[:, None] - 1) * d + draws.normal(size=(20_000, 1))
    grid = np.linspace(-9, 11, 20_001)
    density = np.exp(-0.5 * (grid - d) ** 2) / np.sqrt(2 * np.pi)
    exact = np.log(2) - np.trapezoid(density * np.logaddexp(0, -2 * d * grid), grid)
    assert linear_probe(means, labels).nats == pytest.approx(exact, abs=0.015)


@pytest.mark.parametrize("labels", [np.zeros(50), np.r_[np.zeros(47), np.ones(3)]])
def test_too_few_labels_are_refused(labels):
    with pytest.raises(ValueError, match="two labels with at least 5 examples each"):
        linear_probe(np.zeros((50, 2)), labels)
