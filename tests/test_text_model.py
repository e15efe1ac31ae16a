"""The text models against probability theory, a textbook implementation and themselves on another path."""

from dataclasses import replace
from itertools import product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from lagvae_lib.config.build import build_model
from lagvae_lib.config.profiles import resolve
from lagvae_lib.data.text import END, START
from lagvae_lib.metrics.nll import importance_weighted
from lagvae_lib.models.gaussian import DiagonalGaussian
from lagvae_lib.models.text import LSTMDecoder, LSTMEncoder
from lagvae_lib.models.vae import VAE, Autoregressive

WORDS, NZ, EMBEDDING, HIDDEN = 7, 3, 4, 5


def decoder_of(nz=NZ, words=WORDS, seed=0):
    """A decoder in double precision with parameters large enough for every part of it to matter."""
    torch.manual_seed(seed)
    decoder = LSTMDecoder(words, nz, EMBEDDING, HIDDEN).double().eval()
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.normal_(0, 0.7)
    return decoder


def vae_of(seed=0):
    encoder = LSTMEncoder(WORDS, NZ, EMBEDDING, HIDDEN).double()
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.normal_(0, 0.7)
    return VAE(encoder, decoder_of(seed=seed)).eval()


def sentences(rows, length):
    """Random words, all of one length, between <s> and </s>."""
    words = torch.randint(3, WORDS, (rows, length))
    return torch.cat([torch.full((rows, 1), START), words, torch.full((rows, 1), END)], dim=1)


def codes(rows, samples=1):
    return torch.randn(rows, samples, NZ, dtype=torch.float64)


class Textbook(nn.Module):
    """The decoder as the paper describes it, from torch's own parts: z beside the word in every step's input."""

    def __init__(self, decoder: LSTMDecoder):
        super().__init__()
        self.embed, self.lstm, self.vocabulary = decoder.embed, decoder.lstm, decoder.vocabulary
        self.z_to_cell = decoder.z_to_cell

    def log_prob(self, x, z):
        inputs, state = self.embed(x[:, :-1]), None
        if z is not None:
            inputs = torch.cat([inputs, z[:, None].expand(-1, inputs.shape[1], -1)], dim=2)
            c0 = self.z_to_cell(z)[None]
            state = (torch.tanh(c0), c0)
        hidden, _ = self.lstm(inputs.transpose(0, 1), state)
        log_p = F.log_softmax(self.vocabulary(hidden.transpose(0, 1)), dim=2)
        return log_p.gather(2, x[:, 1:, None]).sum((1, 2))


# -- it is a probability --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("nz", [NZ, 0])
@torch.no_grad()
def test_all_strings_have_probability_one(nz):
    """Identity 16, twice: over all V^T strings of T words, and over all that end by </s> or are cut at T words."""
    words, length = 5, 4
    decoder, z = decoder_of(nz, words), codes(1) if nz else None

    def total(strings):
        x = torch.tensor([[START, *s] for s in strings])
        return float(decoder.log_prob(x, None if z is None else z.expand(len(x), -1, -1)).exp().sum())

    everything = list(product(range(words), repeat=length))
    assert len(everything) == words**length
    assert total(everything) == pytest.approx(1, abs=1e-5)
    open_words = [w for w in range(words) if w != END]
    ended = sum(total([(*s, END) for s in product(open_words, repeat=n)]) for n in range(length))
    cut = total(list(product(open_words, repeat=length)))
    assert 0.01 < cut < 0.99
    assert ended + cut == pytest.approx(1, abs=1e-5)


@given(st.integers(1, 9), st.integers(0, 6), st.integers(1, 9), st.integers(1, 3))
@torch.no_grad()
def test_batching_never_changes_a_likelihood(rows, length, batch, samples):
    decoder, x, z = decoder_of(), sentences(rows, length), codes(rows, samples)
    whole = decoder.log_prob(x, z)
    parts = [decoder.log_prob(a, b) for a, b in zip(x.split(batch), z.split(batch), strict=True)]
    torch.testing.assert_close(torch.cat(parts), whole)
    assert whole.shape == (rows, samples)


@torch.no_grad()
def test_encoding_does_not_depend_on_the_batch():
    model, x = vae_of(), sentences(6, 4)
    whole, alone = model.encode(x), [model.encode(row[None]) for row in x]
    torch.testing.assert_close(torch.cat([q.mu for q in alone]), whole.mu)
    torch.testing.assert_close(torch.cat([q.logvar for q in alone]), whole.logvar)


# -- other ways to the same number ----------------------------------------------------------------------------------


@pytest.mark.parametrize("nz", [NZ, 0])
@pytest.mark.parametrize("weights", ["mean", "unequal"])
def test_equals_the_textbook_in_values_and_all_gradients(nz, weights):
    decoder, x = decoder_of(nz), sentences(5, 6)
    z = codes(5).requires_grad_() if nz else None
    weight = torch.full((5,), 0.2) if weights == "mean" else torch.rand(5)
    inputs = [*decoder.parameters(), *([z] if nz else [])]
    ours = decoder.log_prob(x, z)[:, 0]
    theirs = Textbook(decoder).log_prob(x, None if z is None else z[:, 0])
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=0)
    gradients = [torch.autograd.grad(v @ weight.double(), inputs) for v in (ours, theirs)]
    for ours, theirs in zip(*gradients, strict=True):
        assert theirs.norm() > 0
        assert (ours - theirs).norm() <= 1e-5 * theirs.norm()


@pytest.mark.parametrize("nz", [NZ, 0])
def test_training_path_equals_the_path_without_gradients(nz):
    decoder, x, z = decoder_of(nz).float(), sentences(4, 9), codes(4).float() if nz else None
    with_gradient = decoder.log_prob(x, z)
    assert with_gradient.requires_grad
    with torch.no_grad():
        torch.testing.assert_close(decoder.log_prob(x, z), with_gradient.detach(), rtol=1e-5, atol=0)


@pytest.mark.parametrize("gradient", [True, False])
def test_several_samples_equal_single_ones(gradient):
    decoder, x, z = decoder_of(), sentences(4, 5), codes(4, 3)
    with torch.set_grad_enabled(gradient):
        together = decoder.log_prob(x, z)
        alone = torch.cat([decoder.log_prob(x, z[:, k : k + 1]) for k in range(3)], dim=1)
    assert together.shape == (4, 3)
    torch.testing.assert_close(together, alone)
    assert together.std(1).min() > 0.01  # the samples do differ


@torch.no_grad()
def test_generation_walks_the_same_distribution():
    """`next_word` along a sentence adds up to `log_prob`."""
    decoder, x, z = decoder_of(), sentences(4, 5), codes(4)
    h, c, bias = decoder.start(z[:, 0], 4)
    total = torch.zeros(4, dtype=torch.float64)
    for previous, word in zip(x.t()[:-1], x.t()[1:], strict=True):
        log_p, h, c = decoder.next_word(previous, h, c, bias)
        torch.testing.assert_close(log_p.exp().sum(1), torch.ones(4, dtype=torch.float64))
        total += log_p.gather(1, word[:, None])[:, 0]
    torch.testing.assert_close(total, decoder.log_prob(x, z)[:, 0])


def test_language_model_is_the_decoder_without_z():
    decoder, x = decoder_of(nz=0), sentences(4, 5)
    model = Autoregressive(decoder)
    assert decoder.z_to_cell is None
    torch.testing.assert_close(model.log_prob(x), Textbook(decoder).log_prob(x, None))
    loss = model.loss(x, kl_weight=0.3)
    torch.testing.assert_close(loss.loss, -model.log_prob(x))
    assert not loss.kl.any()
    assert list(model.encoder_parameters()) == []
    assert len(list(model.decoder_parameters())) == len(list(model.parameters()))


# -- bounds ---------------------------------------------------------------------------------------------------------


class Prior(nn.Module):
    """An encoder that answers N(0, I) to everything."""

    def forward(self, x):
        zeros = torch.zeros(len(x), NZ, dtype=torch.float64)
        return DiagonalGaussian(zeros, zeros)


@pytest.mark.parametrize("k", [1, 3, 50])
@torch.no_grad()
def test_with_q_the_prior_and_a_deaf_decoder_the_bound_is_the_exact_likelihood(k):
    """Identity 14's second half: a fully collapsed VAE has the language model's exact NLL at any k."""
    deaf, x = decoder_of(), sentences(5, 4)
    deaf.z_to_cell.weight.zero_()
    deaf.lstm.weight_ih_l0[:, EMBEDDING:] = 0
    lm = decoder_of(nz=0)
    for name, parameter in lm.named_parameters():
        parameter.copy_(
            deaf.get_parameter(name)[:, :EMBEDDING] if name == "lstm.weight_ih_l0" else deaf.get_parameter(name)
        )
    bound = importance_weighted(VAE(Prior(), deaf), x, k, torch.Generator().manual_seed(0), chunk=20)
    torch.testing.assert_close(bound, Autoregressive(lm).log_prob(x), atol=1e-4, rtol=0)


@torch.no_grad()
def test_with_a_decoder_that_listens_it_is_not():
    """The test above can fail: one sample of the prior does not give the likelihood of a decoder that uses z."""
    model, x = VAE(Prior(), decoder_of()), sentences(5, 4)
    one, many = (importance_weighted(model, x, k, torch.Generator().manual_seed(0)) for k in (1, 2000))
    assert (one - many).abs().max() > 0.1


# -- shapes ---------------------------------------------------------------------------------------------------------


def test_encoder_shapes_and_initialisation():
    encoder = LSTMEncoder(WORDS, NZ, EMBEDDING, HIDDEN)
    q = encoder(sentences(4, 6))
    assert q.mu.shape == q.logvar.shape == (4, NZ)
    assert encoder.linear.bias is None
    assert encoder.embed.weight.abs().max() <= 0.1
    assert encoder.embed.weight.abs().max() > 0.01
    others = [p for name, p in encoder.named_parameters() if not name.startswith("embed")]
    assert max(p.detach().abs().max() for p in others) <= 0.01


def test_dropout_acts_in_training_only():
    decoder, x, z = decoder_of(), sentences(4, 6), codes(4)
    with torch.no_grad():
        assert torch.equal(decoder.log_prob(x, z), decoder.log_prob(x, z))
        decoder.train()
        assert not torch.equal(decoder.log_prob(x, z), decoder.log_prob(x, z))


PAPER_PARAMETERS = {
    "encoder.embed": 20_000 * 512,
    "encoder.lstm": 4 * 1024 * (512 + 1024) + 2 * 4 * 1024,
    "encoder.linear": 1024 * 2 * 32,
    "decoder.embed": 20_000 * 512,
    "decoder.lstm": 4 * 1024 * (512 + 32 + 1024) + 2 * 4 * 1024,
    "decoder.z_to_cell": 32 * 1024,
    "decoder.vocabulary": 1024 * 20_000,
}


def paper_model(method):
    """The paper's model at its full size, without its memory."""

    class Words:
        vocab = range(20_000)

    with torch.device("meta"):
        return build_model(resolve("yelp", method, "paper", 0), Words)


def test_paper_shape():
    """Section 5.1 and appendix: embedding 512, hidden 1024, z 32; no bias outside the LSTMs."""
    model = paper_model("vae")
    sizes = {name: sum(p.numel() for p in model.get_submodule(name).parameters()) for name in PAPER_PARAMETERS}
    assert sizes == PAPER_PARAMETERS
    assert sum(p.numel() for p in model.parameters()) == sum(PAPER_PARAMETERS.values())
    assert model.decoder.dropout.p == 0.5
    x = torch.zeros(32, 98, dtype=torch.long, device="meta")
    loss = model.loss(x, 1.0)
    assert [term.shape for term in loss] == [(32,)] * 3


def test_paper_shape_of_the_language_model():
    model = paper_model("autoregressive")
    lstm = 4 * 1024 * (512 + 1024) + 2 * 4 * 1024
    assert sum(p.numel() for p in model.parameters()) == 20_000 * 512 + lstm + 1024 * 20_000
    with torch.no_grad():
        assert model.log_prob(torch.zeros(32, 98, dtype=torch.long, device="meta")).shape == (32,)


def test_a_model_variant_that_does_not_exist_is_refused():
    config = resolve("yelp", "vae", "smoke", 0)
    with pytest.raises(ValueError, match="unknown model variant 'vea'; did you mean 'vae'"):
        build_model(replace(config, method=replace(config.method, model="vea")), None)
