"""Precision and determinism as settings: what they reach, what they leave alone, and how far the numbers move."""

from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from lagvae_lib.__main__ import _parser
from lagvae_lib.config.build import build_model
from lagvae_lib.config.identity import as_json, config_hash, same_configuration
from lagvae_lib.config.machine import choose_precision
from lagvae_lib.config.profiles import resolve
from lagvae_lib.data import loading
from lagvae_lib.data.text import END, PAD, START
from lagvae_lib.inference.gradients import clip
from lagvae_lib.metrics.nll import importance_weighted
from lagvae_lib.models import ops
from lagvae_lib.models.holding import for_norm_alone
from lagvae_lib.models.ops import linear_cross_entropy
from lagvae_lib.models.text import LSTMDecoder
from lagvae_lib.names import UnknownName
from lagvae_lib.notebook import parameters
from lagvae_lib.numerics import describe, exact, lower_dtype, numerics
from lagvae_lib.runs.speak import Words, vocabulary
from lagvae_lib.runs.train import trained_model
from lagvae_lib.sampling.text import prior_samples, sampled
from tests.test_images_runs import tiny as tiny_images
from tests.tiny import tiny_config, tiny_data


def test_a_precision_holds_inside_the_block_and_nowhere_else():
    before, deterministic = describe(), torch.are_deterministic_algorithms_enabled()
    for precision, tf32 in (("float32", False), ("tf32", True), ("bfloat16", True)):
        with numerics(precision, deterministic=True):
            inside = describe()
            assert [inside[f"tf32_{kind}"] for kind in ("matmul", "convolution", "recurrence")] == [tf32] * 3
            assert inside["deterministic"]
            with exact(torch.nn.Module()):
                assert not describe()["tf32_convolution"]
            assert describe() == inside
    assert describe() == before and torch.are_deterministic_algorithms_enabled() == deterministic
    with pytest.raises(UnknownName, match="did you mean 'bfloat16'"), numerics("bfloat"):
        pass
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        with numerics(deterministic=True):
            assert not torch.is_deterministic_algorithms_warn_only_enabled()
        assert torch.is_deterministic_algorithms_warn_only_enabled()
    finally:
        torch.use_deterministic_algorithms(deterministic)
    assert [lower_dtype(p) for p in ("float32", "tf32", "bfloat16")] == [None, None, torch.bfloat16]


def test_a_precision_is_part_of_a_runs_identity_and_old_records_are_of_float32(tmp_path, monkeypatch):
    config = tiny_config("vae")
    saved = as_json(config)
    assert saved.pop("precision") == "float32"
    assert same_configuration(saved, config)
    lower = replace(config, precision="bfloat16")
    assert not same_configuration(saved, lower)
    assert config_hash(lower) != config_hash(config)
    with pytest.raises(UnknownName, match="precision"):
        replace(config, precision="half")


@pytest.mark.parametrize("method", ["vae", "cnn-vae", "skip-vae", "autoregressive", "vampprior-2level", "vlae"])
def test_the_decoder_of_a_configuration_has_its_precision(method):
    images = method in ("vampprior-2level", "vlae")
    config = replace(tiny_images(method) if images else tiny_config(method), precision="bfloat16")
    data = loading.load("glyphs", config.data, profile="smoke") if images else tiny_data()
    found = [m.precision for m in build_model(config, data).modules() if hasattr(m, "precision")]
    assert found == [torch.bfloat16]


@pytest.mark.parametrize(
    ("dataset", "profile", "device", "here", "chosen"),
    [
        ("yelp", "scaled", "cpu", True, "float32"),
        ("yelp", "auto", "cuda", True, "float32"),
        ("yelp", "paper", "cpu", True, "bfloat16"),
        ("yelp", "paper", "cpu", False, "float32"),
        ("yahoo", "paper", "cuda:1", False, "tf32"),
        ("omniglot", "paper", "cuda", False, "tf32"),
        ("omniglot", "paper", "cpu", True, "float32"),
        ("synthetic", "paper", "cuda", True, "float32"),
    ],
)
def test_auto_takes_a_lower_precision_at_the_papers_size_alone(monkeypatch, dataset, profile, device, here, chosen):
    monkeypatch.setattr("lagvae_lib.config.machine.bfloat16_here", lambda: here)
    assert choose_precision("auto", dataset, profile, device) == chosen
    assert choose_precision("bfloat16", dataset, profile, device) == "bfloat16"
    with pytest.raises(UnknownName, match="auto, float32, tf32, bfloat16"):
        choose_precision("half", dataset, profile, device)


def test_notebooks_and_the_command_line_pass_it_on(monkeypatch):
    names = {
        "__annotations__": {"precision": str, "deterministic": bool, "device": str, "dataset": str, "profile": str}
    }
    names |= {"precision": "bfloat16", "deterministic": True, "device": "cpu", "dataset": "yelp", "profile": "smoke"}
    found, passed = parameters.settings(names), {}
    assert (found.precision, found.deterministic) == ("bfloat16", True)
    monkeypatch.setattr("lagvae_lib.runs.train.run_named", lambda *args, **options: passed.update(options))
    found.run("vae")
    assert (passed["precision"], passed["deterministic"]) == ("bfloat16", True)
    with pytest.raises(parameters.BadParameter, match="auto, float32, tf32, bfloat16"):
        parameters.settings(names | {"precision": "float16"})
    assert (
        parameters.settings({name: value for name, value in names.items() if name != "precision"}).precision
        == "float32"
    )
    args = _parser().parse_args(["run", "yelp", "vae", "--precision", "tf32", "--deterministic"])
    assert (args.precision, args.deterministic) == ("tf32", True)


# -- torch's recurrence beside ours ------------------------------------------------------------------------------------


def decoders(nz: int, skip: bool = False) -> list[LSTMDecoder]:
    made = []
    for recurrence in ("own", "torch"):
        torch.manual_seed(0)
        decoder = LSTMDecoder(50, nz, 12, 16, dropout=0.5, skip=skip)
        with torch.no_grad():
            for parameter in decoder.parameters():
                parameter.uniform_(-0.3, 0.3)
        decoder.recurrence = recurrence
        made.append(decoder)
    return made


@pytest.mark.parametrize(("nz", "skip", "training"), [(4, False, True), (4, True, False), (0, False, True)])
def test_torchs_recurrence_is_ours_to_1e_5_gradients_included(nz, skip, training):
    """The same dropout masks as well: both draw for the words first and for the outputs then."""
    x, found = torch.randint(4, 50, (6, 9)), []
    for decoder in decoders(nz, skip):
        decoder.train(training)
        torch.manual_seed(2)
        z = torch.randn(6, 1, nz, requires_grad=True) if nz else None
        value = decoder.log_prob(x, z)
        value.sum().backward()
        assert decoder.lstm.training == training
        gradients = {name: p.grad for name, p in decoder.named_parameters()} | ({"z": z.grad} if nz else {})
        found.append((value.detach(), gradients))
    torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-5, atol=1e-5)
    for name, gradient in found[0][1].items():
        torch.testing.assert_close(gradient, found[1][1][name], rtol=1e-5, atol=1e-5, msg=name)


def test_evaluation_by_torchs_recurrence_is_ours_however_few_pairs_fit(monkeypatch):
    x, (own, other) = torch.randint(4, 50, (5, 8)), (decoder.eval() for decoder in decoders(3))
    z = torch.randn(5, 7, 3)
    with torch.no_grad():
        expected = own.log_prob(x, z)
        assert expected.shape == (5, 7)
        for states in (2**26, 7 * 16 * 4, 1):
            monkeypatch.setattr("lagvae_lib.models.text.STATES", states)
            torch.testing.assert_close(other.log_prob(x, z), expected, rtol=1e-5, atol=1e-5)


# -- how far bfloat16 moves the numbers of trained weights -------------------------------------------------------------


def encoder_gradient(model, x) -> torch.Tensor:
    model.zero_grad()
    torch.manual_seed(1)
    model.loss(x, 1.0).loss.mean().backward()
    return torch.cat([p.grad.flatten() for p in model.encoder_parameters()])


@pytest.fixture(scope="module")
def weights():
    """Those of the recorded run with a code, and sentences that they write, so that no data are needed: [160, 32]."""
    config = resolve("yelp-small", "aggressive-anneal", "scaled", 0)
    model, generator = trained_model(config, Words(vocabulary(config))), torch.Generator().manual_seed(0)
    words = sampled(model.decoder, prior_samples(model, 160, generator), 30, 1, 1.0, generator, (PAD, START, END)).words
    return model, torch.cat([words, torch.full((len(words), 1), END)], dim=1).split(32)


def test_bfloat16_moves_the_encoder_gradient_by_a_hundredth_and_the_nll_by_less_than_a_fiftieth_of_a_nat(weights):
    model, batches = weights
    moved, nll = [], []
    for x in batches:
        gradients, model = [], model.train()
        for dtype in (None, torch.bfloat16):
            model.decoder.precision = dtype
            gradients.append(encoder_gradient(model, x))
        moved.append(float((gradients[1] - gradients[0]).norm() / gradients[0].norm()))
    model.eval()
    for dtype in (None, torch.bfloat16):
        model.decoder.precision = dtype
        generator = torch.Generator().manual_seed(3)
        nll.append(-float(torch.cat([importance_weighted(model, x, 20, generator) for x in batches]).mean()))
    model.decoder.precision = None
    assert 0 < max(moved) < 0.01, moved
    assert 0 < abs(nll[1] - nll[0]) < 0.02, nll


@pytest.mark.parametrize("limit", [0.5, 5.0])
def test_a_gradient_for_its_norm_alone_moves_the_encoders_step_by_less_than_a_thousandth(weights, monkeypatch, limit):
    """Whether it is clipped hard or hardly at all; and inside the block alone."""
    model, batches = weights
    monkeypatch.setattr(ops, "bfloat16_here", lambda: True)
    monkeypatch.setattr(ops, "LARGE", 0)
    model.train()
    for x in batches:
        steps, norms = [], []
        for block in (nullcontext(), for_norm_alone(model.decoder.parameters())):
            with block:
                encoder_gradient(model, x)
            norms.append(model.decoder.vocabulary.weight.grad.norm())
            clip([*model.parameters()], limit)
            steps.append(torch.cat([p.grad.flatten() for p in model.encoder_parameters()]))
        assert norms[0] != norms[1]  # it was another product
        assert 0 < (steps[1] - steps[0]).norm() < 1e-3 * steps[0].norm()
    assert not hasattr(model.decoder.vocabulary.weight, "for_norm")


def test_a_processor_without_bfloat16_and_small_weights_form_it_in_float32(weights, monkeypatch):
    model, (x, *_) = weights
    found = []
    for here, large in ((False, 0), (True, 2**30), (True, 0)):
        monkeypatch.setattr(ops, "bfloat16_here", lambda here=here: here)
        monkeypatch.setattr(ops, "LARGE", large)
        with for_norm_alone(model.decoder.parameters()):
            encoder_gradient(model, x)
        found.append(model.decoder.vocabulary.weight.grad)
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])


def test_the_loss_is_summed_in_float32_whatever_the_products_are_in():
    hidden, weight, target = torch.randn(40, 8), torch.randn(30, 8), torch.randint(30, (40,))
    found = linear_cross_entropy(hidden, weight, target, precision=torch.bfloat16)
    logits = (hidden.bfloat16() @ weight.bfloat16().t()).float()
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, F.cross_entropy(logits, target, reduction="none"))
