"""The image models: what a pixel may depend on, sums of probabilities, and that the fast ways are the slow one."""

from itertools import product

import pytest
import torch

from benchmarks import textbook_images
from lagvae_lib.models.images import CausalConv, PixelCNNDecoder, ResNetEncoder
from lagvae_lib.models.vae import VAE, Autoregressive
from lagvae_lib.sampling.images import complete, sample, sample_naive

SIZE, NZ = 6, 2


def decoder(
    nz: int = NZ, size: int = SIZE, kernels=(5, 3, 3, 3, 3), seed: int = 0, channels: int = 8
) -> PixelCNNDecoder:
    """A small decoder in evaluation mode whose BatchNorm statistics and weights are not those of the start."""
    torch.manual_seed(seed)
    made = PixelCNNDecoder(nz, channels=channels, kernels=kernels, latent_maps=3, size=size)
    with torch.no_grad():
        for name, value in made.named_buffers():
            if "running" in name:
                value.uniform_(0.3, 1.5)
        for parameter in (p for n, p in made.named_parameters() if "norm" in n):
            parameter.uniform_(-0.5, 1)
        made.logit.weight *= 0.3
    return made.eval()


def images(count: int, size: int = SIZE, seed: int = 0) -> torch.Tensor:
    return (torch.rand(count, 1, size, size, generator=torch.Generator().manual_seed(seed)) < 0.4).float()


def codes(*shape: int, seed: int = 5) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def uniforms(count: int, size: int = SIZE, seed: int = 3) -> torch.Tensor:
    return torch.rand(count, size, size, generator=torch.Generator().manual_seed(seed))


def twin(model: PixelCNNDecoder) -> textbook_images.Decoder:
    """The textbook's decoder, whole kernels under whole masks, with the same values and in the same mode."""
    kernels = [model.first.weight.shape[3], *(block.causal.weight.shape[3] for block in model.blocks)]
    maps = model.maps.weight.shape[1] if model.nz else 0
    made = textbook_images.Decoder(model.nz, model.logit.weight.shape[1], kernels, maps, model.size)
    textbook_images.load(made, model.state_dict())
    return made.to(model.logit.weight.dtype).train(model.training)


@pytest.mark.parametrize("nz", [0, NZ])
def test_no_pixel_depends_on_itself_or_a_later_one(nz):
    model, x = decoder(nz).double(), images(1).double().requires_grad_()
    logits = model.logits(x, codes(1, nz).double() if nz else None).flatten()
    depends = torch.stack([torch.autograd.grad(v, x, retain_graph=True)[0].flatten() for v in logits]) != 0
    assert not depends.triu().any()
    assert depends.sum() > 0.9 * len(depends) * (len(depends) - 1) / 2
    # where two residual paths cancel, a gradient of zero proves nothing: move each pixel too
    for i in range(SIZE * SIZE):
        other = x.detach().clone()
        other.view(-1)[i] = 1 - other.view(-1)[i]
        changed = (model.logits(other, codes(1, nz).double() if nz else None).flatten() - logits).abs() > 1e-12
        assert not changed[: i + 1].any()


def test_every_pixel_depends_on_z():
    model, z = decoder().double(), codes(1, NZ).double().requires_grad_()
    for value in model.logits(images(1).double(), z).flatten():
        assert torch.autograd.grad(value, z, retain_graph=True)[0].abs().max() > 0


@pytest.mark.parametrize("nz", [0, NZ])
def test_probabilities_of_all_small_images_sum_to_one(nz):
    model = decoder(nz, size=3)
    every = torch.tensor(list(product((0.0, 1.0), repeat=9))).view(-1, 1, 3, 3)
    for seed in range(3):
        z = codes(1, 1, nz, seed=seed).expand(512, 1, nz) if nz else None
        with torch.no_grad():
            assert abs(model.log_prob(every, z).exp().sum().item() - 1) < 1e-5


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("nz", [0, NZ])
def test_log_prob_and_gradients_are_the_textbooks(nz, training):
    model, x = decoder(nz).double().train(training), images(7).double()
    other, before = twin(model), model.first_norm.running_mean.clone()
    z = [codes(7, 1, nz).double().requires_grad_() if nz else None for _ in range(2)]
    expected, value = -other.nll(x, z[0][:, 0] if nz else None), model.log_prob(x, z[1])[:, 0]
    torch.testing.assert_close(value, expected, rtol=1e-10, atol=1e-10)
    (expected.sum() + value.sum()).backward()
    gradients = zip(textbook_images.gradients(model, other), other.parameters(), strict=True)
    pairs = [(got, parameter.grad) for got, parameter in gradients] + ([(z[1].grad, z[0].grad)] if nz else [])
    for got, of_the_textbook in pairs:
        assert (got - of_the_textbook).norm() <= 1e-9 * of_the_textbook.norm() + 1e-10
    statistics = {
        name: values
        for name, values in textbook_images.under_textbook_names(model.state_dict(), other).items()
        if "running" in name
    }
    torch.testing.assert_close(statistics, {name: other.state_dict()[name] for name in statistics})
    assert training != torch.equal(model.first_norm.running_mean, before)


@pytest.mark.parametrize("nz", [0, NZ])
def test_without_gradients_the_folded_network_is_the_same(nz):
    model, x = decoder(nz), images(5)
    z = codes(5, 40, nz) if nz else None  # more pairs than are seen at once
    other = twin(model)
    with torch.no_grad():
        got = model.log_prob(x, z)
        expected = torch.stack([-other.nll(x, z[:, k] if nz else None) for k in range(40 if nz else 1)], dim=1)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)
    assert got.shape == (5, 40 if nz else 1)
    with_gradient = model.log_prob(x, z)
    assert with_gradient.requires_grad
    torch.testing.assert_close(with_gradient.detach(), got, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_many_samples_are_the_same_one_by_one():
    model, x, z = decoder(), images(3), codes(3, 13, NZ)
    one_by_one = torch.cat([model.log_prob(x, z[:, k : k + 1]) for k in range(13)], dim=1)
    torch.testing.assert_close(model.log_prob(x, z), one_by_one, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("gradient", [True, False])
def test_lower_precision_is_close_and_answers_in_the_precision_of_the_data(gradient):
    model, x, z = decoder(), images(5), codes(5, 3, NZ)
    with torch.set_grad_enabled(gradient):
        exact = model.log_prob(x, z)
        model.precision = torch.bfloat16
        lower = model.log_prob(x, z)
    assert lower.dtype == torch.float32 and not torch.equal(lower, exact)
    assert (lower - exact).norm() < 0.02 * exact.norm()


def test_every_layer_is_dense_and_channels_last_in_training():
    """BatchNorm's backward pass is several times slower on anything else."""
    model, seen = decoder(channels=4).train(), []
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    model.log_prob(images(4), codes(4, 1, NZ))
    assert len(seen) == 2 + 3 * len([*model.blocks, *model.skips])
    assert all(value.is_contiguous(memory_format=torch.channels_last) for value in seen)


def test_masked_weights_stay_zero_and_get_no_gradient():
    model = decoder().train()
    optimiser = torch.optim.Adam(model.parameters(), lr=0.1)
    masked = [m for m in model.modules() if isinstance(m, CausalConv)]
    for _ in range(3):
        optimiser.zero_grad()
        (-model.log_prob(images(8), codes(8, 1, NZ)).mean()).backward()
        for conv in masked:
            hidden = (conv.mask == 0).expand_as(conv.weight)
            assert hidden.any() and not conv.weight.grad[hidden].any() and conv.weight.grad[~hidden].any()
        optimiser.step()
    for conv in masked:
        assert not conv.weight[(conv.mask == 0).expand_as(conv.weight)].any()


@pytest.mark.parametrize("nz", [0, NZ])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_cached_sampling_is_naive_sampling_pixel_for_pixel(nz, seed):
    model, z = decoder(nz, seed=seed), codes(9, nz) if nz else None
    u = uniforms(9, seed=seed)
    cached = sample(model, z, uniforms=u)
    assert torch.equal(cached, sample_naive(model, z, u))
    assert 0.05 < cached.mean() < 0.95 and not torch.equal(cached[0], cached[1])


@pytest.mark.parametrize("nz", [0, NZ])
def test_completion_keeps_what_is_given_and_draws_the_rest(nz):
    model, x, z, u = decoder(nz), images(4), codes(4, nz) if nz else None, uniforms(4)
    given = x.clone()
    done = complete(model, x, z, 3, uniforms=u)
    assert torch.equal(done[:, :, :3], x[:, :, :3])
    assert torch.equal(done, sample_naive(model, z, u, x, 3))
    assert torch.equal(complete(model, x, z, 0, uniforms=u), sample(model, z, uniforms=u))
    assert torch.equal(x, given)


def test_samples_follow_the_model():
    """Frequencies of all 16 images of 2x2 against their probabilities."""
    model, count = decoder(0, size=2, kernels=(3, 3, 3, 3)), 20_000
    every = torch.tensor(list(product((0.0, 1.0), repeat=4))).view(-1, 1, 2, 2)
    with torch.no_grad():
        p = model.log_prob(every, None)[:, 0].exp()
    drawn = sample(model, None, count, torch.Generator().manual_seed(0))
    codes_of = (drawn.flatten(1) @ torch.tensor([8.0, 4, 2, 1])).long()
    frequency = torch.bincount(codes_of, minlength=16) / count
    assert ((frequency - p).abs() <= 4.5 * (p * (1 - p) / count).sqrt() + 1e-6).all()


def test_sampling_in_training_mode_is_refused():
    with pytest.raises(ValueError, match=r"model\.eval\(\)"):
        sample(decoder().train(), codes(2, NZ))
    with pytest.raises(ValueError, match=r"model\.eval\(\)"):
        sample_naive(decoder().train(), codes(2, NZ), uniforms(2))
    with pytest.raises(ValueError, match=r"model\.eval\(\)"):
        complete(decoder().train(), images(2), codes(2, NZ), 3)
    with pytest.raises(ValueError, match="count"):
        sample(decoder(0), None)


@pytest.mark.parametrize("gradient", [True, False])
def test_a_latent_variable_too_many_or_missing_is_refused(gradient):
    x = images(2)
    with torch.set_grad_enabled(gradient):
        for model, z in ((decoder(), None), (decoder(0), codes(2, 1, NZ)), (decoder(), codes(2, 1, NZ + 1))):
            with pytest.raises(ValueError, match="dimensions"):
                model.log_prob(x, z)
    with pytest.raises(ValueError, match="dimensions"):
        sample(decoder(), None, 2)


def test_the_first_layer_begins_with_equal_weights_for_image_and_latent_maps():
    model = PixelCNNDecoder(32)
    kept = model.first.weight[(model.first.mask == 1).expand_as(model.first.weight)]
    for weight in (kept, model.maps.weight):
        assert weight.std().item() == pytest.approx((2 / (49 * 64)) ** 0.5, rel=0.1)


def test_sizes_of_the_paper():
    encoder, full = ResNetEncoder(32), PixelCNNDecoder(32)
    assert [len(full.blocks), len(full.skips)] == [12, 11]
    assert full.first.weight.shape == (64, 1, 4, 7) and full.maps.weight.shape == (64, 4, 7, 7)
    assert full.z_to_maps.weight.shape == (4 * 28 * 28, 32)
    assert encoder.rest[0].weight.shape == (512, 64, 4, 4) and encoder.linear.weight.shape == (64, 512)
    assert encoder(images(2, 28)).mu.shape == (2, 32)


@pytest.mark.parametrize("training", [True, False])
def test_nothing_is_left_on_the_processor(training):
    """On torch's meta device any hidden transfer or fixed device is an error."""
    with torch.device("meta"):
        model = VAE(ResNetEncoder(32), PixelCNNDecoder(32)).train(training)
        x = torch.zeros(50, 1, 28, 28)
    loss = model.loss(x).loss
    loss.mean().backward()
    assert loss.device.type == "meta" and all(p.grad.device.type == "meta" for p in model.parameters())
    with torch.no_grad():
        assert model.decoder.log_prob(x, torch.zeros(50, 3, 32, device="meta")).shape == (50, 3)


def test_the_baseline_has_an_exact_likelihood():
    model = Autoregressive(decoder(0))
    loss = model.loss(images(3))
    torch.testing.assert_close(loss.loss, -model.log_prob(images(3)), rtol=1e-5, atol=1e-5)
    assert not loss.kl.any()
