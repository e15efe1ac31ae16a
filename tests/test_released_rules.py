"""Profile `paper` against what the released code does, point by point: its rules, told here in our own words."""

import math
import random

import pytest
import torch
from torch import nn

from lagvae_lib.config.build import build_model
from lagvae_lib.config.profiles import TABLE, resolve
from lagvae_lib.inference.aggressive import Aggressive
from lagvae_lib.inference.amortised import Amortised
from lagvae_lib.inference.gradients import clip, zero_grad
from lagvae_lib.models.causal import CausalConv
from lagvae_lib.models.images import PixelCNNDecoder
from lagvae_lib.models.ops import lower
from lagvae_lib.models.text import LSTMDecoder
from lagvae_lib.schedule import Progress, Schedule
from lagvae_lib.training import Trainer
from tests.tiny import tiny_config, tiny_data

PAPER = {"toy": "synthetic", "text": "yelp", "images": "omniglot"}

# -- images: what the norm counts, what the decoder begins with --------------------------------------------------------


def whole(conv: CausalConv, strict: bool) -> tuple[nn.Conv2d, torch.Tensor]:
    """The same convolution with a whole kernel, what is behind its mask set to zero, and that mask."""
    outputs, inputs, _, kernel = conv.weight.shape
    made = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False, dtype=conv.weight.dtype)
    mask = torch.ones(kernel, kernel)
    mask[kernel // 2, kernel // 2 + (not strict) :] = 0
    mask[kernel // 2 + 1 :] = 0
    with torch.no_grad():
        made.weight.zero_()[:, :, : kernel // 2 + 1] = conv.causal_weight()
    return made, mask


@pytest.mark.parametrize(("kernel", "strict"), [(3, False), (5, True), (7, False)])
def test_the_gradient_of_a_masked_weight_is_that_of_a_whole_kernel(kernel, strict):
    conv = CausalConv(2, 3, kernel, strict, count_unused=True).double()
    reference, mask = whole(conv, strict)
    inputs = [torch.randn(4, 2, 9, 9, dtype=torch.double, requires_grad=True) for _ in range(2)]
    inputs[1].data.copy_(inputs[0].data)
    weights = torch.randn(4, 3, 9, 9, dtype=torch.double)
    for layer, x in zip((conv, reference), inputs, strict=True):
        (layer(x).tanh() * weights).sum().backward()
    rows = kernel // 2 + 1
    torch.testing.assert_close(inputs[0].grad, inputs[1].grad)
    torch.testing.assert_close(conv.weight.grad, (reference.weight.grad * mask)[:, :, :rows])
    torch.testing.assert_close(conv.weight.unused.grad, reference.weight.grad * (1 - mask))
    assert conv.weight.unused.grad.abs().sum() > 0


def small_decoder(**options) -> PixelCNNDecoder:
    torch.manual_seed(0)
    return PixelCNNDecoder(3, 4, (5, 3, 3, 3), 2, size=9, **options).double()


def loss_of(decoder: PixelCNNDecoder) -> torch.Tensor:
    torch.manual_seed(1)
    x = (torch.rand(6, 1, 9, 9) < 0.3).double()
    return -decoder.log_prob(x, torch.randn(6, 1, 3, dtype=torch.double)).mean()


def test_the_released_norm_counts_masked_weights_and_changes_nothing_else():
    """The norm beside that of a decoder made of whole kernels, and what clipping by it leaves of a gradient."""
    counted, plain, kernels = small_decoder(count_unused=True), small_decoder(), small_decoder()
    for module in list(kernels.modules()):
        for name, conv in list(module.named_children()):
            if isinstance(conv, CausalConv):
                setattr(module, name, whole(conv, strict=name == "first")[0])
    losses = [loss_of(decoder) for decoder in (counted, plain, kernels)]
    for loss in losses:
        loss.backward()
    assert losses[0].item() == pytest.approx(losses[1].item()) == pytest.approx(losses[2].item())
    norm, without = (
        torch.linalg.vector_norm(torch.stack([p.grad.norm() for p in decoder.parameters()])).item()
        for decoder in (kernels, plain)
    )
    assert norm > 1.01 * without
    before = [parameter.grad.clone() for parameter in plain.parameters()]
    for mine, gradient in zip(counted.parameters(), before, strict=True):
        torch.testing.assert_close(mine.grad, gradient)
    limit = without / 2
    assert clip(list(counted.parameters()), limit)
    for mine, gradient in zip(counted.parameters(), before, strict=True):
        torch.testing.assert_close(mine.grad, gradient * limit / (norm + 1e-6))
    zero_grad(list(counted.parameters()))
    assert all(getattr(p, "unused", p).grad is None for p in counted.parameters())


def test_no_masked_gradient_is_formed_where_the_decoder_stands_still_or_at_lower_precision_fails():
    decoder = small_decoder(count_unused=True)
    for parameter in decoder.parameters():
        parameter.requires_grad_(False)
    x = torch.randn(2, 1, 9, 9, dtype=torch.double)
    decoder.first(x)
    assert not hasattr(decoder.first.weight, "unused")
    conv, image = CausalConv(2, 3, 5, count_unused=True), torch.randn(4, 2, 9, 9)
    grads = []
    for precision in (None, torch.bfloat16):
        conv.zero_grad()
        with lower(precision, image):
            out = conv(image)
        out.float().square().sum().backward()
        grads.append(conv.weight.grad.clone())
    torch.testing.assert_close(*grads, rtol=0.05, atol=0.5)


def test_the_decoders_last_hidden_layer_begins_at_torchs_own_scale():
    """Uniform in plus and minus 1/sqrt(64) at the paper's 64 channels, sd .072; He's normal weights have .177."""
    decoder = build_model(resolve("omniglot", "vae", "paper", 0), None).decoder
    assert decoder.last.weight.std().item() == pytest.approx(1 / math.sqrt(3 * 64), rel=0.03)
    assert decoder.last.weight.abs().max().item() <= 1 / 8
    he = PixelCNNDecoder(32).last.weight
    assert he.std().item() == pytest.approx(math.sqrt(2 / 64), rel=0.05)
    with pytest.raises(ValueError, match="last_start"):
        PixelCNNDecoder(2, last_start="xavier")


# -- the rate ----------------------------------------------------------------------------------------------------------


def released_rates(losses, rate, patience, decay_from, decays=5) -> list[float]:
    """The rate after each epoch: a bad one is above the reference, which any other replaces; so does a decay's."""
    rates, reference, bad = [], math.inf, 0
    for epoch, loss in enumerate(losses):
        if loss <= reference:
            reference, bad = loss, 0
        else:
            bad += 1
            if bad >= patience and epoch >= decay_from:
                reference, bad, rate, decays = loss, 0, rate / 2, decays - 1
        rates.append(rate)
        if not decays:
            break
    return rates


@pytest.mark.parametrize("family", PAPER)
def test_the_rate_of_profile_paper_falls_as_released_also_during_the_ramp(family):
    schedule, draw, met = TABLE[family]["paper"].schedule, random.Random(0), 0
    for _ in range(100):
        level = 100.0
        losses = [level := level - draw.expovariate(1) / (1 + epoch) + draw.gauss(0, 1) for epoch in range(200)]
        progress, rates = Progress(schedule.lr), []
        for epoch, loss in enumerate(losses[: schedule.max_epochs]):
            progress.after_epoch(schedule, loss, epoch, 10)
            rates.append(progress.lr)
            if progress.ended:
                break
        expected = released_rates(losses[: schedule.max_epochs], schedule.lr, schedule.patience, schedule.decay_from)
        assert rates == expected
        met += any(rate < schedule.lr for rate in rates[:10])
    assert (met > 0) == (family == "toy")  # text may not before epoch 15, images not before their 21st


# -- the ramp ----------------------------------------------------------------------------------------------------------


def test_the_ramp_of_text_counts_examples_and_not_batches():
    """Sentences of one length a batch make more batches than examples / batch size: 48 / 8 = 6."""
    config, data = tiny_config("vae-anneal"), tiny_data()
    batches = len(data.train)
    assert batches > 6 and config.method.objective.ramp == "examples"
    model = build_model(config, data)
    made = Trainer(
        model,
        data.train,
        data.valid,
        objective=config.method.objective,
        inference=Amortised(),
        schedule=Schedule(max_epochs=9),
        seed=0,
    )
    epochs = config.method.objective.anneal_epochs
    weights = [made._kl_weight(t) for t in range(1, 30)]
    assert weights[:6] == pytest.approx([0.1 + 0.9 * t / (6 * epochs) for t in range(1, 7)])
    assert weights[6 * int(epochs) - 1] == 1.0 > weights[6 * int(epochs) - 2]
    assert Schedule(epoch_updates=5).ramp_epoch_length(48, 8) == 5
    assert {resolve(name, "vae-anneal", "paper", 0).method.objective.ramp for name in ("yelp", "synthetic")} == {
        "examples"
    }
    assert resolve("omniglot", "vae-anneal", "paper", 0).method.objective.ramp == "batches"
    assert resolve("yelp", "vae-anneal+ramp=batches", "paper", 0).method.objective.ramp == "batches"


# -- the aggressive stage ----------------------------------------------------------------------------------------------


def epochs_of_stage(algorithm: Aggressive, path: list[float]) -> int:
    state = algorithm.begin()
    for epoch, mi in enumerate(path, start=1):
        if not algorithm.epoch_end(state, mi)["aggressive"]:
            return epoch
    return len(path) + 1


def released_stage(path: list[float], reference: float, best: bool, patience: int) -> int:
    """The epoch that ends the stage: the `patience`-th whose MI is below the previous one's, or the best one's."""
    below = 0
    for epoch, mi in enumerate(path, start=1):
        if mi < reference:
            below += 1
            if below == patience:
                return epoch
        if not best or mi >= reference:
            reference = mi
    return len(path) + 1


@pytest.mark.parametrize(("family", "first"), [("text", 0.0), ("toy", -1.0), ("images", 0.0)])
def test_the_stage_of_profile_paper_ends_with_the_released_epoch(family, first):
    algorithm, draw = resolve(PAPER[family], "aggressive", "paper", 0).method.inference, random.Random(1)
    assert algorithm.first_reference == first
    images, differ = family == "images", 0
    for _ in range(200):
        path = [0.02 * epoch + draw.gauss(0, 0.05) for epoch in range(30)]
        ours = epochs_of_stage(algorithm, path)
        assert ours == released_stage(path, first, images, 5 if images else 1)
        differ += ours != released_stage(path, -math.inf, images, 5 if images else 1)
    assert (differ > 20) == (family != "toy")  # what the first epoch is compared with decides where MI is near 0


def test_images_the_fifth_epoch_below_the_best_ends_the_stage_and_not_the_sixth():
    algorithm = resolve("omniglot", "aggressive", "paper", 0).method.inference
    assert epochs_of_stage(algorithm, [2.0, 1.0, 1.5, 1.9, 2.1, 2.0, 1.0, 3.0]) == 7
    assert epochs_of_stage(algorithm, [-0.1, 1.0, 0.5, 0.5, 0.5, 0.5]) == 6  # the first is below 0, so it counts


# -- what departs, and is said -----------------------------------------------------------------------------------------


def test_the_last_word_of_the_vocabulary_is_trained_here():
    """The released code takes it for padding (index -1), and leaves its embedding as it was drawn."""
    decoder = LSTMDecoder(9, 2, 4, 4)
    x = torch.tensor([[1, 8, 8, 2]])
    decoder.log_prob(x, torch.randn(1, 1, 2)).sum().backward()
    assert decoder.embed.weight.grad[8].abs().sum() > 0


@pytest.mark.parametrize("family", PAPER)
def test_every_profile_says_what_it_takes(family):
    """The released rules everywhere but in one: text at small scale has a ramp of its own length."""
    paper = TABLE[family]["paper"]
    for name, profile in TABLE[family].items():
        assert (profile.schedule.reference, profile.schedule.decay_in_ramp) == ("decay", True), name
        assert profile.first_reference == paper.first_reference, name
        assert profile.ramp == ("batches" if family == "text" and name in ("quick", "scaled") else paper.ramp), name
        if family == "images":
            assert (profile.model.count_unused, profile.model.last_start) == (True, "torch"), name
