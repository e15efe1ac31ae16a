"""Decoding: beam search against brute force, sampling against probabilities, scores against `log_prob`."""

from functools import partial
from itertools import pairwise, product

import pytest
import torch
from scipy.stats import chisquare

from lagvae_lib.data.text import END, PAD, START, UNKNOWN, Vocab
from lagvae_lib.models.text import LSTMDecoder, LSTMEncoder
from lagvae_lib.models.vae import VAE
from lagvae_lib.sampling.text import (
    WORDS_ONLY,
    Decoded,
    beam,
    greedy,
    posterior_codes,
    prior_samples,
    sampled,
)

WORDS, NZ = 6, 2
DECODERS = {
    "greedy": greedy,
    "sampled": partial(sampled, generator=torch.Generator().manual_seed(1)),
    "cool": partial(sampled, temperature=0.5, generator=torch.Generator().manual_seed(2)),
    "beam": partial(beam, width=4),
}
each_decoder = pytest.mark.parametrize("decode", DECODERS.values(), ids=DECODERS)


def decoder_of(nz=NZ, words=WORDS, seed=0, scale=1.0):
    """A decoder whose probabilities are far from uniform."""
    torch.manual_seed(seed)
    decoder = LSTMDecoder(words, nz, 5, 7).eval()
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.normal_(0, scale)
    return decoder


def vae_of(seed=0):
    torch.manual_seed(seed)
    return VAE(LSTMEncoder(WORDS, NZ, 5, 7), decoder_of(seed=seed)).eval()


def every_sentence(length):
    """All id sequences that decoding may return: ended by </s> within `length` words, or cut there without one."""
    plain = [w for w in range(WORDS) if w not in (PAD, START, END)]
    for n in range(length):
        yield from ([START, *words, END] for words in product(plain, repeat=n))
    yield from ([START, *words] for words in product(plain, repeat=length))


@torch.no_grad()
def score(decoder, ids, z):
    return float(decoder.log_prob(torch.tensor([ids]), None if z is None else z.view(1, 1, -1)))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("nz", [NZ, 0])
def test_wide_beam_finds_the_most_probable_sentence(seed, nz):
    decoder, length = decoder_of(nz, seed=seed), 3
    z = torch.randn(2, nz) if nz else None
    found = beam(decoder, z, length, width=WORDS**length)
    for row, (sentence, log_prob) in enumerate(zip(found.sentences(), found.log_prob, strict=True)):
        scores = {tuple(s): score(decoder, s, z if z is None else z[row]) for s in every_sentence(length)}
        best = max(scores, key=scores.get)
        assert tuple(sentence.tolist()) == best
        assert float(log_prob) == pytest.approx(scores[best], abs=1e-5)


def test_a_narrow_beam_misses_it_for_some_codes():
    """So that the test above does need the width."""
    decoder, z = decoder_of(seed=1), torch.randn(40, NZ)
    narrow, wide = beam(decoder, z, 3, width=1).log_prob, beam(decoder, z, 3, width=WORDS**3).log_prob
    assert (wide >= narrow - 1e-6).all()
    assert (wide > narrow + 1e-3).any()


@pytest.mark.parametrize("nz", [NZ, 0])
def test_beam_of_one_is_greedy(nz):
    decoder, z = decoder_of(nz, seed=3, scale=0.7), torch.randn(20, nz) if nz else None
    one, expected = beam(decoder, z, 12, width=1), greedy(decoder, z, 12)
    torch.testing.assert_close(one.log_prob, expected.log_prob)
    assert [s.tolist() for s in one.sentences()] == [s.tolist() for s in expected.sentences()]


@each_decoder
@pytest.mark.parametrize("nz", [NZ, 0])
def test_score_is_log_prob_of_the_sentence(decode, nz):
    decoder, z = decoder_of(nz, scale=0.7), torch.randn(15, nz) if nz else None
    found = decode(decoder, z, 8, rows=15)
    assert len(found.words) == 15
    for row, (sentence, log_prob) in enumerate(zip(found.sentences(), found.log_prob, strict=True)):
        expected = score(decoder, sentence.tolist(), z if z is None else z[row])
        assert float(log_prob) == pytest.approx(expected, rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("decode", [greedy, DECODERS["sampled"]], ids=["greedy", "sampled"])
def test_words_only_leaves_out_unknown_words_and_nothing_else(decode):
    decoder, z = decoder_of(scale=0.7), torch.randn(15, NZ)
    with torch.no_grad():
        decoder.vocabulary.weight[UNKNOWN] *= 10  # by far the most probable word, half of the time
    assert (decode(decoder, z, 8).words == UNKNOWN).any()
    found = decode(decoder, z, 8, forbidden=WORDS_ONLY)
    assert not (found.words == UNKNOWN).any()
    for row, (sentence, log_prob) in enumerate(zip(found.sentences(), found.log_prob, strict=True)):
        assert float(log_prob) == pytest.approx(score(decoder, sentence.tolist(), z[row]), rel=1e-5, abs=1e-5)


@each_decoder
def test_rows_are_well_formed(decode):
    decoder = decoder_of(scale=0.3)
    with torch.no_grad():
        decoder.embed.weight[START] = 0
        decoder.vocabulary.weight[[PAD, START]] *= 30  # tempt it to emit what it must not
    found = decode(decoder, torch.randn(30, NZ), 6)
    lengths = set()
    for row in found.words.tolist():
        words = row[1 : row.index(END)] if END in row else row[1:]
        tail = row[row.index(END) + 1 :] if END in row else []
        assert row[0] == START and set(tail) <= {PAD}
        assert not {PAD, START} & set(words)
        lengths.add(len(words))
    assert found.words.shape[1] <= 7
    assert max(lengths) <= 6


@pytest.mark.parametrize("decode", [greedy, DECODERS["beam"]], ids=["greedy", "beam"])
def test_a_sentence_does_not_depend_on_its_neighbours(decode):
    decoder, z = decoder_of(scale=0.7), torch.randn(6, NZ)
    together = decode(decoder, z, 9)
    for row, code in enumerate(z):
        alone = decode(decoder, code[None], 9)
        assert alone.sentences()[0].tolist() == together.sentences()[row].tolist()
        torch.testing.assert_close(alone.log_prob[0], together.log_prob[row])


@pytest.mark.parametrize("temperature", [1.0, 0.6, 2.0])
def test_sampled_frequencies_match_the_probabilities(temperature):
    decoder, n, length = decoder_of(scale=0.5, seed=5), 6000, 2
    z, generator = torch.randn(1, NZ).expand(n, -1), torch.Generator().manual_seed(7)
    found = sampled(decoder, z, length, temperature=temperature, generator=generator)
    sentences = [tuple(s.tolist()) for s in found.sentences()]
    expected = {tuple(s): probability(decoder, s, z[:1], temperature) for s in every_sentence(length)}
    assert set(sentences) <= expected.keys()
    assert sum(expected.values()) == pytest.approx(1, abs=1e-5)
    # chi-square wants no tiny cells: they make one with the rarest of the others
    common = sorted((s for s, p in expected.items() if n * p >= 5), key=expected.get)[1:]
    counts, probabilities = [sentences.count(s) for s in common], [expected[s] for s in common]
    result = chisquare([*counts, n - sum(counts)], [n * p for p in (*probabilities, 1 - sum(probabilities))])
    assert result.pvalue > 1e-3


def test_at_a_temperature_of_nearly_nothing_the_most_probable_words_are_drawn():
    decoder, z = decoder_of(scale=0.7), torch.randn(6, NZ)
    found = sampled(decoder, z, 9, temperature=1e-40, generator=torch.Generator().manual_seed(0))
    assert found.words.tolist() == greedy(decoder, z, 9).words.tolist()


@torch.no_grad()
def probability(decoder, sentence, z, temperature):
    """Of a sentence under the tempered model without <pad> and <s>, word by word and by plain softmax."""
    h, c, bias = decoder.start(z, 1)
    total = 1.0
    for previous, word in pairwise(sentence):
        log_p, h, c = decoder.next_word(torch.tensor([previous]), h, c, bias)
        tempered = torch.softmax(log_p[0, 2:].double() / temperature, 0)  # ids 0 and 1 are <pad> and <s>
        total *= float(tempered[word - 2])
    return total


def test_sampling_repeats_with_its_generator():
    decoder, z = decoder_of(), torch.randn(5, NZ)
    first, again, other = (sampled(decoder, z, 9, generator=torch.Generator().manual_seed(s)).words for s in (1, 1, 2))
    assert first.tolist() == again.tolist() != other.tolist()


def test_a_cold_sample_is_greedy():
    decoder, z = decoder_of(), torch.randn(8, NZ)
    cold = sampled(decoder, z, 9, temperature=1e-4, generator=torch.Generator().manual_seed(0))
    assert cold.words.tolist() == greedy(decoder, z, 9).words.tolist()


def test_codes_are_the_posteriors():
    model, x = vae_of(), torch.tensor([[START, 4, 5, END], [START, 5, 4, END]])
    q = model.encode(x)
    assert torch.equal(posterior_codes(model, x), q.mu)
    drawn = posterior_codes(model, x, sample=True, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(drawn, q.rsample(1, generator=torch.Generator().manual_seed(3))[:, 0])


def test_prior_samples_are_standard_normal():
    z = prior_samples(vae_of(), 4000, torch.Generator().manual_seed(0))
    assert z.shape == (4000, NZ)
    torch.testing.assert_close(z.mean(0), torch.zeros(NZ), atol=0.07, rtol=0)
    torch.testing.assert_close(z.std(0), torch.ones(NZ), atol=0.05, rtol=0)


def test_text_of_what_was_decoded():
    vocab = Vocab.from_counts({"good": 2, "food": 1})
    found = Decoded(torch.tensor([[START, 4, 5, END], [START, UNKNOWN, END, PAD], [START, 5, 5, 4]]), torch.zeros(3))
    assert found.text(vocab) == ["good food", "<unk>", "food food good"]


@each_decoder
def test_training_mode_and_impossible_limits_are_refused(decode):
    decoder, z = decoder_of(), torch.randn(2, NZ)
    with pytest.raises(ValueError, match="max_tokens must be at least 1, not 0"):
        decode(decoder, z, 0)
    with pytest.raises(ValueError, match=r"eval\(\)"):
        decode(decoder.train(), z, 5)


def test_impossible_knobs_are_refused():
    decoder, z = decoder_of(), torch.randn(2, NZ)
    for temperature in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="temperature must be positive"):
            sampled(decoder, z, 5, temperature=temperature)
    with pytest.raises(ValueError, match="width must be at least 1"):
        beam(decoder, z, 5, width=0)
