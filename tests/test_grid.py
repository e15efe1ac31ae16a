"""The grid that the posterior mean space and the lag are measured on, and the trajectories through that space."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from lagvae_lib.config.profiles import resolve
from lagvae_lib.config.settings import DataSettings, ModelSettings
from lagvae_lib.data.loading import Data, predicted_words
from lagvae_lib.data.text import TextBatches, Vocab
from lagvae_lib.metrics import lag
from lagvae_lib.metrics.grid import STEP, GridPosterior, full_grid_posterior, grid_posterior, paper_grid
from lagvae_lib.models.gaussian import DiagonalGaussian, standard_log_prob
from lagvae_lib.models.text import LSTMDecoder, LSTMEncoder
from lagvae_lib.models.vae import VAE
from lagvae_lib.runs import trajectory

WORDS = 12
TOLERANCE = 2e-6  # means and log evidence, sparse against full grid, both of single-precision log-likelihoods


def model(spread: float | None = None, seed: int = 0) -> VAE:
    """A toy VAE in evaluation mode; `spread` replaces the initial weights of the decoder by U(-spread, spread)."""
    torch.manual_seed(seed)
    vae = VAE(LSTMEncoder(WORDS, 1, 6, 8), LSTMDecoder(WORDS, 1, 6, 8)).eval()
    if spread:
        for parameter in vae.decoder.parameters():
            torch.nn.init.uniform_(parameter, -spread, spread)
    return vae


def lines(n: int = 24, seed: int = 1) -> torch.Tensor:
    x = torch.randint(4, WORDS, (n, 8), generator=torch.Generator().manual_seed(seed))
    x[:, 0], x[:, -1] = 1, 2
    return x


def on_grid(log_density) -> GridPosterior:
    """The posterior on the paper's grid, in double precision, of unnormalised log densities of z, [N, G]."""
    grid = paper_grid(torch.float64)[:, 0]
    log_joint = log_density(grid)
    total = log_joint.logsumexp(1, keepdim=True)
    return GridPosterior(grid, log_joint - total, total[:, 0] + math.log(STEP))


def normal(mean: torch.Tensor, sd: torch.Tensor) -> GridPosterior:
    return on_grid(lambda grid: -0.5 * ((grid - mean[:, None]) / sd[:, None]).square())


def mixture(means: torch.Tensor, sds: torch.Tensor, weights: torch.Tensor) -> GridPosterior:
    """Of Gaussians: all [N, K]."""

    def log_density(grid):
        parts = -0.5 * ((grid - means[..., None]) / sds[..., None]).square() + (weights / sds).log()[..., None]
        return parts.logsumexp(1)

    return on_grid(log_density)


def uniform(*shape: int, low: float, high: float, seed: int = 0) -> torch.Tensor:
    draws = torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return low + (high - low) * draws


@pytest.mark.parametrize("spread", [None, 0.5, 1.0, 3.0])
@pytest.mark.parametrize("with_q", [False, True])
def test_sparse_grid_equals_the_full_one(spread, with_q):
    vae, x = model(spread), lines()
    q = DiagonalGaussian(torch.linspace(-3, 3, len(x))[:, None], torch.full((len(x), 1), -1.0)) if with_q else None
    sparse, full = grid_posterior(vae, x, q), full_grid_posterior(vae, x)
    if spread:
        assert full.mean().std() > 0.02  # the decoder does use z
    torch.testing.assert_close(sparse.mean(), full.mean(), rtol=0, atol=TOLERANCE)
    torch.testing.assert_close(sparse.sd(), full.sd(), rtol=0, atol=TOLERANCE)
    # A number of some 24 in single precision is rounded by 2e-6 itself
    torch.testing.assert_close(sparse.log_evidence, full.log_evidence, rtol=2e-7, atol=TOLERANCE)
    if with_q:
        gaps = [lag.gaps(posterior, q).lag for posterior in (sparse, full)]
        torch.testing.assert_close(*gaps, rtol=1e-4, atol=1e-4)


def test_seen_points_hold_all_of_the_posterior():
    posterior = grid_posterior(model(3.0), lines())
    seen = posterior.seen()
    assert len(seen.grid) < len(posterior.grid)
    torch.testing.assert_close(seen.log_weights.logsumexp(1), torch.zeros(24, dtype=torch.float64))
    torch.testing.assert_close(seen.mean(), posterior.mean(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("sd", [0.1, 0.3, 1.0])
def test_mean_of_a_gaussian_posterior_is_exact_on_the_grid(sd):
    mean = uniform(200, low=-3, high=3)
    assert (normal(mean, torch.full_like(mean, sd)).mean() - mean).abs().max() < 1e-6


@pytest.mark.parametrize(("sd", "least"), [(0.03, 1e-2), (0.05, 1e-3)])
def test_mean_of_a_narrow_posterior_is_not(sd, least):
    mean = uniform(200, low=-3, high=3)
    error = (normal(mean, torch.full_like(mean, sd)).mean() - mean).abs().max()
    assert least < error
    if sd >= 0.05:  # where the aliasing formula's first term is the whole error
        formula = 4 * math.pi * sd**2 / STEP * math.exp(-2 * math.pi**2 * sd**2 / STEP**2)
        assert error == pytest.approx(formula, rel=0.05)


@pytest.mark.parametrize("evaluate", [grid_posterior, full_grid_posterior])
def test_a_decoder_that_ignores_z_leaves_the_prior(evaluate):
    vae = model(1.0)
    with torch.no_grad():
        vae.decoder.z_to_cell.weight.zero_()
        vae.decoder.lstm.weight_ih_l0[:, -1].zero_()
    posterior = evaluate(vae, lines())
    assert posterior.mean().abs().max() < 1e-6
    assert (posterior.sd() - 1).abs().max() < 1e-5
    exact = vae.decoder.log_prob(lines(), torch.zeros(24, 1, 1))[:, 0].double()
    torch.testing.assert_close(posterior.log_evidence, exact, rtol=0, atol=1e-5)


@torch.no_grad()
def test_evidence_is_a_fine_quadrature():
    vae, x = model(1.5), lines(4)
    z = torch.arange(-8, 8, 0.004, dtype=torch.float64)[:, None]
    log_joint = vae.double().decoder.log_prob(x, z.expand(4, -1, 1)) + standard_log_prob(z)
    expected = log_joint.logsumexp(1) + math.log(0.004)
    torch.testing.assert_close(grid_posterior(vae.float(), x).log_evidence, expected, rtol=0, atol=1e-4)


@torch.no_grad()
def test_lag_is_what_the_elbo_lacks():
    """KL(q || p(z|x)) = log p(x) - ELBO, the ELBO by quadrature over q with the decoder called anew."""
    vae, x = model(1.5), lines(16)
    q = DiagonalGaussian(uniform(16, 1, low=-2, high=2).float(), uniform(16, 1, low=-2, high=0.5, seed=1).float())
    posterior = grid_posterior(vae, x, q)
    quantiles = torch.linspace(-6, 6, 241)
    weights = torch.softmax(-0.5 * quantiles.square(), 0)
    z = q.mu[..., None] + (0.5 * q.logvar).exp()[..., None] * quantiles[:, None]
    elbo = (vae.decoder.log_prob(x, z.view(16, -1, 1)) * weights).sum(1) - q.kl()
    torch.testing.assert_close(lag.gaps(posterior, q).lag, posterior.log_evidence - elbo.double(), rtol=0, atol=1e-3)


@pytest.mark.parametrize("evaluate", [grid_posterior, full_grid_posterior])
def test_training_mode_is_refused(evaluate):
    with pytest.raises(ValueError, match=r"model\.eval\(\)"):
        evaluate(model().train(), lines())


# -- the lag ---------------------------------------------------------------------------------------------------------


def test_kl_on_the_grid_is_the_closed_form():
    m1, m2 = uniform(100, low=-2, high=2), uniform(100, low=-2, high=2, seed=1)
    s1, s2 = uniform(100, low=0.15, high=1.5, seed=2), uniform(100, low=0.15, high=1.5, seed=3)
    exact = (s2 / s1).log() + (s1.square() + (m1 - m2).square()) / (2 * s2.square()) - 0.5
    torch.testing.assert_close(lag.kl_on_grid(normal(m2, s2), m1, s1), exact, rtol=1e-6, atol=1e-6)


def test_best_gaussian_is_exact_on_gaussian_posteriors():
    mean, sd = uniform(100, low=-2, high=2), uniform(100, low=0.15, high=1.2, seed=1)
    found, width, kl = lag.best_gaussian(normal(mean, sd), [(torch.zeros(100).double(), torch.ones(100).double())])
    torch.testing.assert_close(found, mean, rtol=0, atol=1e-5)
    torch.testing.assert_close(width, sd, rtol=0, atol=1e-5)
    assert kl.abs().max() < 1e-8


def random_mixtures(n: int = 200) -> GridPosterior:
    means, sds = uniform(n, 3, low=-2.5, high=2.5), uniform(n, 3, low=0.15, high=1.0, seed=1)
    return mixture(means, sds, uniform(n, 3, low=0.05, high=1, seed=2))


def test_best_gaussian_is_never_worse_than_a_start():
    posterior = random_mixtures()
    starts = [(uniform(200, low=-3, high=3, seed=s), uniform(200, low=0.15, high=1.5, seed=s + 9)) for s in (3, 4)]
    _, _, kl = lag.best_gaussian(posterior, starts)
    for mean, sd in starts:
        at_start = lag.kl_on_grid(posterior, mean, sd)
        assert (kl <= at_start).all() and (kl < at_start - 1e-3).any()


@pytest.mark.parametrize("distance", [0.6, 1.0, 1.5])
def test_best_gaussian_finds_what_a_search_finds(distance):
    two = torch.tensor([[-distance, distance]], dtype=torch.float64)
    posterior = mixture(two, torch.tensor([[0.35, 0.5]]).double(), torch.tensor([[0.3, 0.7]]).double())
    mean, sd = torch.meshgrid(torch.linspace(-2, 2, 81), torch.linspace(0.2, 1.2, 41), indexing="ij")
    pairs = mean.flatten().double(), sd.flatten().double()
    repeated = GridPosterior(posterior.grid, posterior.log_weights.expand(len(pairs[0]), -1), posterior.log_evidence)
    searched = lag.kl_on_grid(repeated, *pairs).min()
    q = (torch.tensor([distance]).double(), torch.tensor([0.3]).double())
    _, _, found = lag.best_gaussian(posterior, [q, (posterior.mean(), posterior.sd())])
    assert found.item() <= searched.item() + 1e-3
    assert found.item() > 0.005  # no Gaussian is bimodal


def test_gaps_add_up_and_are_not_negative():
    posterior = random_mixtures()
    q = DiagonalGaussian(uniform(200, 1, low=-3, high=3, seed=5), uniform(200, 1, low=-3, high=0.5, seed=6))
    total, amortisation, approximation = lag.gaps(posterior, q)
    torch.testing.assert_close(total, amortisation + approximation, rtol=0, atol=1e-12)
    assert amortisation.min() >= -1e-9 and approximation.min() >= 0
    # a q that is the best Gaussian has no amortisation gap left
    mean, sd, _ = lag.best_gaussian(posterior, [(posterior.mean(), posterior.sd())])
    best = lag.gaps(posterior, DiagonalGaussian(mean[:, None], 2 * sd.log()[:, None]))
    assert best.amortisation.median() < 1e-3


def test_measure_is_one_look_at_the_space():
    vae, x = model(1.0), lines()
    with torch.no_grad():
        looked = lag.measure(vae, x, vae.encode(x))
    posterior = full_grid_posterior(vae, x)
    assert looked["lag"] == pytest.approx(looked["amortisation"] + looked["approximation"], abs=1e-9)
    assert looked["log_evidence"] == pytest.approx(float(posterior.log_evidence.mean()), abs=1e-5)
    torch.testing.assert_close(looked["model_mean"], posterior.mean().float(), rtol=0, atol=1e-5)
    torch.testing.assert_close(looked["inference_mean"], vae.encode(x).mu[:, 0])


# -- trajectories ----------------------------------------------------------------------------------------------------


def toy_data() -> Data:
    """64 lines of one length over 12 words."""
    vocab = Vocab.from_counts({str(word): 1 for word in range(WORDS - 4)}, min_count=0)
    batches = TextBatches([vocab.encode(list(map(str, row))) for row in (lines(64)[:, 1:-1] - 4).tolist()], 8)
    return Data("synthetic", batches, batches, batches, "0" * 64, False, "made up", (), vocab, predicted_words)


def toy_config(method: str, seed: int = 0):
    config = resolve("synthetic", method, "smoke", seed)
    return replace(config, data=DataSettings(batch_size=8), model=ModelSettings(nz=1, embedding=6, hidden=8))


def test_each_aggressive_move_is_along_one_axis():
    path = trajectory.trace(toy_config("aggressive+fixed_steps=3"), toy_data(), steps=3)
    assert path.iteration.tolist() == [0, 0, 1, 1, 2, 2, 3] and path.updates == 3
    assert path.after_inner.tolist() == [False, True, False, True, False, True, False]
    assert path.model_mean.shape == path.inference_mean.shape == (7, trajectory.POINTS)
    for move, inner in enumerate(path.after_inner[1:]):
        still, moved = (
            (path.model_mean, path.inference_mean) if inner else (path.inference_mean, path.model_mean)
        )  # fmt: skip
        np.testing.assert_array_equal(still[move], still[move + 1])
        assert np.abs(moved[move] - moved[move + 1]).max() > 0


def test_plain_moves_are_along_both_axes():
    path = trajectory.trace(toy_config("vae"), toy_data(), steps=3)
    assert path.iteration.tolist() == [0, 1, 2, 3] and not path.after_inner.any()
    for values in (path.model_mean, path.inference_mean):
        assert (np.abs(np.diff(values, axis=0)).max(1) > 0).all()


def test_a_recorded_trajectory_is_read_and_one_of_another_configuration_replaced(own_folders, monkeypatch):
    first = trajectory.load_or_trace(toy_config("vae"), toy_data(), steps=2)
    assert trajectory.record_path(toy_config("vae")).exists()
    calls = []
    monkeypatch.setattr(trajectory, "trace", lambda config, *rest: calls.append(config) or first)
    again = trajectory.load_or_trace(toy_config("vae"), toy_data(), steps=2)
    for name, values in vars(first).items():
        np.testing.assert_array_equal(values, getattr(again, name))
    assert not calls
    trajectory.load_or_trace(toy_config("vae"), toy_data(), steps=3)
    assert len(calls) == 1
    trajectory.record_path(toy_config("vae")).write_bytes(b"PK damaged")
    trajectory.load_or_trace(toy_config("vae"), toy_data(), steps=2)
    assert len(calls) == 2


def test_a_trajectory_is_made_by_a_command_and_of_the_paper_s_moves_alone(own_folders, capsys):
    trajectory.main(["aggressive", "--profile", "smoke"])
    assert "4 decoder updates in" in capsys.readouterr().out
    with pytest.raises(ValueError, match="neither delay nor moves"):
        trajectory.main(["aggressive+moves=decoder", "--profile", "smoke"])


def test_a_trajectory_older_than_a_knob_is_read_while_the_knob_is_at_its_default(own_folders, monkeypatch):
    first = trajectory.load_or_trace(toy_config("vae"), toy_data(), steps=2)
    path = trajectory.record_path(toy_config("vae"))
    with np.load(path) as saved:
        values = dict(saved)
    decided_by = json.loads(str(values["config"]))
    del decided_by["method"]["lr"], decided_by["method"]["variant"]["levels"]
    np.savez(path, **(values | {"config": np.array(json.dumps(decided_by))}))
    monkeypatch.setattr(trajectory, "trace", lambda config, *rest: pytest.fail("traced anew"))
    again = trajectory.load_or_trace(toy_config("vae"), toy_data(), steps=2)
    assert (again.model_mean == first.model_mean).all()
