"""The worth of a code, on a model in which it is known."""

import pytest
import torch

from lagvae_lib.metrics.reliance import reliance
from lagvae_lib.models.linear_gaussian import LinearGaussian, LinearVAE

LINE = LinearGaussian(torch.tensor([[1.6], [0.8]]).double(), torch.tensor(0.8).double(), torch.zeros(2).double())


def test_own_codes_are_worth_their_distance():
    x, _ = LINE.sample(40, torch.Generator().manual_seed(0))
    model = LinearVAE(LINE, LINE.optimal_encoder())
    found = reliance(model, x.split(20), examples=40)
    mu = LINE.optimal_encoder()(x).mu
    other = torch.cat([part.roll(1, 0) for part in mu.split(20)])
    by_hand = [float(LINE.log_prob(x, code[:, None]).mean()) for code in (mu, other)]
    assert (found.own, found.other) == (pytest.approx(by_hand[0]), pytest.approx(by_hand[1]))
    assert found.worth == found.own - found.other > 1


def test_a_decoder_that_ignores_z_gives_no_worth():
    mute = LinearGaussian(torch.zeros(2, 1).double(), LINE.noise, LINE.mean)
    x, _ = LINE.sample(20, torch.Generator().manual_seed(0))
    assert reliance(LinearVAE(mute, LINE.optimal_encoder()), [x]).worth == 0


def test_batches_of_one_are_refused():
    with pytest.raises(ValueError, match="two examples"):
        reliance(LinearVAE(LINE, LINE.optimal_encoder()), [torch.zeros(1, 2).double()])
