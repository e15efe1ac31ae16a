"""What each other method promises, held against the models: free bits, BN-, delta-, Skip- and CNN-VAE, two levels."""

import math
from dataclasses import replace

import pytest
import torch

from lagvae_lib.config.build import build_model
from lagvae_lib.config.methods import find
from lagvae_lib.config.profiles import resolve
from lagvae_lib.inference.aggressive import Aggressive
from lagvae_lib.metrics.active_units import active_units, variance_of_means
from lagvae_lib.models.dilated import DilatedDecoder
from lagvae_lib.models.gaussian import DiagonalGaussian
from lagvae_lib.models.posteriors import BatchNormalisedMean, RateFloor, largest_variance
from lagvae_lib.runs import train
from lagvae_lib.sampling import images as pixels
from tests.test_images_runs import tiny as tiny_images
from tests.tiny import tiny_config, tiny_data


class Raw(torch.nn.Module):
    """An encoder whose output is its input: [B, 2 nz] -> mu, logvar."""

    def forward(self, x):
        return DiagonalGaussian(*x.chunk(2, dim=1))


def images(method, **sizes):
    config = tiny_images(method)
    return replace(config, model=replace(config.model, **sizes))


class Grey:
    """What `build_model` asks of image data."""

    class train:
        grey = torch.rand(12, 28, 28)


# -- free bits ---------------------------------------------------------------------------------------------------------


def test_no_free_bits_is_the_elbo_and_more_only_raise_the_loss():
    data = tiny_data()
    model, x = build_model(tiny_config("vae"), data), data.train.get(0, None)
    q = DiagonalGaussian(torch.tensor([[0.1, 3.0]]).expand(len(x), -1), torch.zeros(len(x), 2))  # KLs .005 and 4.5
    noise = torch.randn(len(x), 1, 2)
    plain = model.eval().loss_at(x, q, 1.0, noise)
    torch.testing.assert_close(plain.loss, plain.reconstruction + q.kl())
    model.free_nats = 3.0
    hinged = model.loss_at(x, q, 1.0, noise)
    expected = torch.maximum(q.kl_per_dim(), torch.tensor(1.5)).sum(1)  # 3 nats over 2 dimensions
    torch.testing.assert_close(hinged.loss, plain.reconstruction + expected)
    torch.testing.assert_close(hinged.kl, q.kl())  # what is reported is the KL itself


def test_free_nats_reach_the_model_and_stop_the_gradient_of_a_small_kl():
    model = build_model(tiny_config("free-bits"), tiny_data())
    assert model.free_nats == find("free-bits").objective.free_nats > 0
    assert find("pretrain-free-bits").objective.free_nats == find("free-bits").objective.free_nats
    mu = torch.full((1, 2), 0.1, requires_grad=True)
    x = tiny_data().train.get(0, None)[:1]
    loss = model.eval().loss_at(x, DiagonalGaussian(mu, torch.zeros(1, 2)), 1.0, torch.zeros(1, 1, 2))
    regulariser = loss.loss - loss.reconstruction
    assert torch.autograd.grad(regulariser.sum(), mu, allow_unused=True)[0].abs().max() == 0


# -- BN-VAE and delta-VAE ----------------------------------------------------------------------------------------------


def test_batch_normalised_means_make_every_unit_active_whatever_they_say():
    """AU is all units by construction, also where the encoder is nearly constant; so AU proves nothing here."""
    wrapped = BatchNormalisedMean(Raw(), 3, 0.6)
    x = torch.cat([1 + 0.05 * torch.randn(512, 3), torch.zeros(512, 3)], dim=1)
    for _ in range(100):  # the running statistics arrive
        q = wrapped.train()(x)
    torch.testing.assert_close(q.mu.std(0, correction=0), torch.full((3,), 0.6), rtol=3e-3, atol=0)
    assert q.kl().mean().item() >= 3 / 2 * 0.6**2 - 3e-3
    assert active_units(variance_of_means([Raw()(x).mu])) == 0
    assert active_units(variance_of_means([wrapped.eval()(x).mu])) == 3
    assert not wrapped.norm.weight.requires_grad and wrapped.norm.bias.requires_grad


def test_a_batch_of_one_is_normalised_by_the_running_statistics():
    wrapped = BatchNormalisedMean(Raw(), 2, 0.5).train()
    wrapped(torch.randn(64, 4))
    x = torch.randn(1, 4)
    alone = wrapped(x).mu
    torch.testing.assert_close(alone, wrapped.eval()(x).mu)


def test_the_fixed_scale_is_no_parameter_that_training_moves():
    config = replace(tiny_config("bn-vae", epochs=1), dataset="tiny")
    data = tiny_data()
    trainer = train.trainer_of(config, data, "cpu")
    trainer.fit()
    assert trainer.model.encoder.norm.weight.tolist() == pytest.approx([0.6, 0.6])


def test_the_encoder_begins_where_batch_norm_can_normalise_it():
    """At the paper's small initial parameters the variance of its means is far below BatchNorm's eps."""
    data = tiny_data()
    x = max((data.train.get(i, None) for i in range(len(data.train))), key=len)
    normalised = build_model(tiny_config("bn-vae"), data).train().encoder(x).mu
    assert float(normalised.std(0, correction=0).min().detach()) > 0.9 * 0.6
    plain = build_model(tiny_config("vae"), data).encoder(x).mu
    assert float(plain.std(0, correction=0).max().detach()) < 1e-5**0.5


@pytest.mark.parametrize("delta", [0.01, 1.0, 12.0])
def test_the_kl_never_falls_below_delta(delta):
    nz = 4
    wrapped, extreme = (
        RateFloor(Raw(), nz, delta),
        torch.cat([torch.zeros(201, nz), torch.linspace(-90, 90, 201)[:, None].expand(-1, nz)], 1),
    )
    kl = wrapped(extreme).kl()
    assert float(kl.min()) >= delta * (1 - 1e-5)
    assert float(kl[-1]) == pytest.approx(delta, rel=1e-5)  # the floor is reached, where the variance is largest
    assert float(wrapped(torch.randn(500, 2 * nz) * 3).kl().min()) >= delta * (1 - 1e-5)


@pytest.mark.parametrize("nats", [1e-6, 0.3, 5.0])
def test_the_largest_variance_solves_its_equation(nats):
    v = largest_variance(nats)
    assert 0 < v < 1
    assert 0.5 * (v - 1 - math.log(v)) == pytest.approx(nats, rel=1e-6)
    with pytest.raises(ValueError, match="0 nats or more"):
        largest_variance(-1.0)
    with pytest.raises(ValueError, match="give a lower delta"):
        largest_variance(1000.0)


# -- Skip-VAE and CNN-VAE ----------------------------------------------------------------------------------------------


def without_lstm_path(decoder):
    """Cut z off the LSTM, so that it can only reach the words past it."""
    with torch.no_grad():
        decoder.z_to_cell.weight.zero_()
        decoder.lstm.weight_ih_l0[:, decoder.embedding_size :] = 0
    return decoder.eval()


def test_z_reaches_the_words_past_the_lstm():
    data = tiny_data()
    x = data.train.get(0, None)
    z = torch.randn(len(x), 3, 2)
    plain, skip = (without_lstm_path(build_model(tiny_config(m), data).decoder) for m in ("vae", "skip-vae"))
    with torch.no_grad():
        assert torch.equal(plain.log_prob(x, z), plain.log_prob(x, -z))
        assert not torch.equal(skip.log_prob(x, z), skip.log_prob(x, -z))


def test_the_ways_of_scoring_agree_with_a_skip():
    data = tiny_data()
    decoder = build_model(tiny_config("skip-vae"), data).decoder.eval()
    with torch.no_grad():
        decoder.z_to_output.weight.mul_(50)
        decoder.vocabulary.weight.mul_(50)
    x = data.train.get(0, None)
    z = torch.randn(len(x), 3, 2)
    with torch.no_grad():
        stepwise = decoder.log_prob(x, z)
    torch.testing.assert_close(decoder.log_prob(x, z), stepwise)
    h, c, share = decoder.start(z[:, 0], len(x))
    total = torch.zeros(len(x))
    for previous, word in zip(x.t()[:-1], x.t()[1:], strict=True):
        log_p, h, c = decoder.next_word(previous, h, c, share)
        total += log_p.gather(1, word[:, None])[:, 0]
    torch.testing.assert_close(total, stepwise[:, 0])


def test_a_pixelcnn_with_skips_scores_and_draws_alike_in_all_ways():
    decoder = build_model(images("skip-vae"), Grey()).decoder
    x, z = (torch.rand(3, 1, 28, 28) < 0.3).float(), torch.randn(3, 2, 3)
    decoder.train().logits(x.repeat(2, 1, 1, 1), z.flatten(0, 1))  # BatchNorm's statistics move off their start
    decoder.eval()
    folded = decoder.log_prob(x, z)
    whole = torch.stack([decoder.log_prob(x, z[:, k : k + 1])[:, 0] for k in range(2)], 1).detach()
    with torch.no_grad():
        torch.testing.assert_close(decoder.log_prob(x, z), whole, rtol=1e-5, atol=1e-3)
        cut = decoder.z_to_layers.weight.clone()
        decoder.z_to_layers.weight.zero_()
        assert (decoder.log_prob(x, z) - folded).abs().min() > 1e-3
        decoder.z_to_layers.weight.copy_(cut)
    uniforms = torch.rand(3, 28, 28)
    assert torch.equal(
        pixels.sample(decoder, z[:, 0], uniforms=uniforms), pixels.sample_naive(decoder, z[:, 0], uniforms)
    )


def dilated(words=7, dropout=0.0):
    return DilatedDecoder(words, 3, 4, 6, dropout).double()


def test_a_dilated_convolution_knows_nothing_of_the_future():
    decoder, words, z = dilated().eval(), torch.randint(7, (2, 12)), torch.randn(2, 3, dtype=torch.float64)
    before = decoder.hidden(words, z)
    for t in range(12):
        changed = words.clone()
        changed[:, t] = (changed[:, t] + 1) % 7
        difference = (decoder.hidden(changed, z) - before).abs().sum((0, 2))
        assert (difference[:t] == 0).all() and difference[t] > 0
        reach = difference.nonzero().max() - t
        assert reach <= 2 * (1 + 2 + 4)


def test_dilated_probabilities_of_all_strings_sum_to_one():
    decoder, z = dilated(words=3).eval(), torch.randn(1, 1, 3, dtype=torch.float64)
    strings = torch.cartesian_prod(*[torch.arange(3)] * 4)
    x = torch.cat([torch.zeros(len(strings), 1, dtype=torch.long), strings], 1)
    total = decoder.log_prob(x, z.expand(len(x), -1, -1)).exp().sum().item()
    assert total == pytest.approx(1, abs=1e-9)


def test_samples_of_a_sentence_are_scored_as_copies_of_it():
    decoder, x = dilated().eval(), torch.randint(7, (4, 6))
    z = torch.randn(4, 5, 3, dtype=torch.float64)
    with torch.no_grad():
        together = decoder.log_prob(x, z)
    torch.testing.assert_close(together, torch.cat([decoder.log_prob(x, z[:, k : k + 1]) for k in range(5)], 1))


def test_the_papers_cnn_has_its_widths_and_adam():
    config = resolve("yelp", "cnn-vae", "paper", 0)
    assert (config.schedule.optimiser, config.schedule.lr) == ("adam", 1e-3)
    decoder = DilatedDecoder(50, config.model.nz, config.model.embedding, config.model.hidden)
    assert (decoder.blocks[0].narrow.out_channels, decoder.blocks[0].widen.out_channels) == (512, 1024)
    assert [block.causal.dilation for block in decoder.blocks] == [(1,), (2,), (4,)]


# -- two levels, and Algorithm 1 with any of them ----------------------------------------------------------------------


def test_two_levels_bound_the_same_evidence_as_both_written_out():
    """The decoder's one-sample estimate plus log p(z2) - log q(z2|x) is the importance weight of (z1, z2)."""
    model = build_model(images("vampprior-2level"), Grey()).eval()
    x, z2 = (torch.rand(2, 1, 28, 28) < 0.3).float(), torch.randn(2, 1, 3)
    decoder = model.decoder
    torch.manual_seed(5)
    with torch.no_grad():
        estimate = decoder.log_prob(x, z2)[:, 0]
        torch.manual_seed(5)
        q = DiagonalGaussian(*decoder.inference(torch.cat([decoder.features(x), z2[:, 0]], 1)).chunk(2, 1))
        p = DiagonalGaussian(*decoder.generative(z2[:, 0]).chunk(2, 1))
        z1 = q.mu + (0.5 * q.logvar).exp() * torch.randn(2, 1, 3)[:, 0]
        own = torch.distributions.Normal(p.mu, (0.5 * p.logvar).exp()).log_prob(z1).sum(1)
        spent = torch.distributions.Normal(q.mu, (0.5 * q.logvar).exp()).log_prob(z1).sum(1)
        likelihood = decoder.pixels.log_prob(x, torch.cat([z1, z2[:, 0]], 1)[:, None])[:, 0]
    torch.testing.assert_close(estimate, likelihood + own - spent)


def test_two_levels_share_out_all_parameters():
    model = build_model(images("vampprior-2level"), Grey())
    phi, theta = (set(map(id, half())) for half in (model.encoder_parameters, model.decoder_parameters))
    assert not phi & theta and phi | theta == set(map(id, model.parameters()))
    assert set(map(id, model.decoder.inference.parameters())) <= phi


@pytest.mark.parametrize("name", ["free-bits", "bn-vae", "delta-vae", "skip-vae", "cyclical", "vampprior", "vlae"])
def test_any_of_them_can_be_fitted_aggressively(name):
    method = find(f"{name}+aggressive+window=10")
    plain = find(name)
    assert isinstance(method.inference, Aggressive) and method.inference.window == 10
    assert (method.objective, method.variant) == (plain.objective, plain.variant)
    assert method.label == f"{plain.label} (aggressive, window 10)"


@pytest.mark.parametrize("name", ["autoregressive", "sa-vae", "aggressive"])
def test_what_has_no_amortised_q_cannot(name):
    with pytest.raises(ValueError, match=r"\+aggressive"):
        find(f"{name}+aggressive")


def test_a_method_for_other_data_is_refused_with_those_that_fit():
    with pytest.raises(
        ValueError, match=r"'cnn-vae' is for toy and text, and 'omniglot' is images; valid here: autoregressive"
    ):
        resolve("omniglot", "cnn-vae", "smoke", 0)
    with pytest.raises(ValueError, match=r"'vlae' is for images, and 'synthetic' is toy"):
        resolve("synthetic", "vlae", "smoke", 0)


def test_knobs_of_objective_and_variant():
    method = find("bn-vae+scale=0.4+kl_weight=0.5")
    assert (method.variant.scale, method.objective.kl_weight) == (0.4, 0.5)
    assert find("free-bits+free_nats=2").objective.free_nats == 2.0


def test_knobs_of_the_optimisation():
    config = resolve("yelp-small", "sa-vae+steps=5+step_size=0.5+max_epochs=15+lr=0.25", "scaled", 0)
    assert (config.method.inference.steps, config.method.inference.step_size) == (5, 0.5)
    assert (config.schedule.max_epochs, config.schedule.lr) == (15, 0.25)
    assert config.method.label == "SA-VAE (steps 5, step size 0.5, max epochs 15, lr 0.25)"
    assert resolve("yelp-small", "vae+optimiser=adam", "scaled", 0).schedule.optimiser == "adam"
    with pytest.raises(ValueError, match="sgd, adam"):
        resolve("yelp-small", "vae+optimiser=adamw", "scaled", 0)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("vae+max_epochs=0", "max_epochs must be at least 1, not 0"),
        ("vae+lr=-1", r"lr must be above 0, not -1\.0"),
        ("vae+lr=nan", r"'lr=nan' in the method's name: 'nan' is not a finite number"),
        ("vae+lr=inf", "'inf' is not a finite number"),
        ("vae+kl_weight=nan", "'nan' is not a finite number"),
        ("vae+kl_weight=-1", r"kl_weight must be at least 0, not -1\.0"),
        ("aggressive+max_norm=-1", r"max_norm must be above 0, not -1\.0"),
        ("aggressive+max_steps=5", "max_steps must be at least the window of 15, not 5"),
        ("bn-vae+scale=0", r"scale must be above 0, not 0\.0"),
        ("sa-vae+momentum=1", r"momentum must be at least 0 and below 1, not 1\.0"),
        ("vae+delta=5", "delta has no effect without posterior=floor"),
        ("delta-vae+posterior=gaussian+delta=5", "delta has no effect without posterior=floor"),
        ("vae+scale=0.4", "scale has no effect without posterior=batch-norm"),
        ("vae+pseudo_inputs=4", "pseudo_inputs has no effect without prior=vamp"),
        ("vae+start=0.5", "start has no effect without anneal_epochs"),
        ("autoregressive+decoder=skip", "a model without z has no use for decoder"),
        ("autoregressive+kl_weight=0.5", "a model without z has no use for kl_weight"),
        ("aggressive+fixed_steps=10+window=5", "fixed_steps leaves nothing to window"),
        ("vampprior-2level+decoder=local", "a model of two levels has the decoder standard alone, not 'local'"),
    ],
)
def test_an_impossible_value_is_refused_with_the_valid_range(name, message):
    with pytest.raises(ValueError, match=message):
        resolve("yelp", name, "paper", 0)
