"""The grammar stand-in: its probabilities are exact, so they are checked against enumeration."""

from itertools import pairwise, product

import numpy as np
import pytest

from lagvae_lib.data.grammar import Phrase, Slot, compile_grammar, grammar_corpus, review_grammar


@pytest.fixture(scope="module")
def tiny():
    """Ambiguous on purpose: "x x" can be said through phrase `a` twice over or through `b`."""
    slots = {
        "t": Slot(shared="x", depends_on="topic", own={"A": "a x", "B": "b"}, own_weight=0.6, other_weight=0.1),
        "s": Slot(depends_on="sentiment", own={"bad": "y", "good": "z x"}, own_weight=0.8, other_weight=0.2),
    }
    phrases = {
        "a": Phrase("{t}", {"b": 0.3, "c": 0.3, "END": 0.4}),
        "b": Phrase("x {s}", {"c": 0.5, "END": 0.5}),
        "c": Phrase("{s}", {"END": 1.0}),
    }
    return compile_grammar(phrases, {"a": 0.7, "b": 0.3}, slots, ("A", "B"), ("bad", "good"))


@pytest.fixture(scope="module")
def corpus():
    return grammar_corpus(800, 200, 1200, seed=3)


@pytest.fixture(scope="module")
def said(corpus):
    """The words of its test sentences."""
    return [corpus.vocab.decode(sentence) for sentence in corpus.splits["test"]]


def everything(grammar, longest):
    return [list(s) for n in range(1, longest + 1) for s in product(grammar.words, repeat=n)]


def by_paths(grammar, sentence, k):
    """p(x|class) by summing over every sequence of slots."""
    s = len(grammar.start)
    ids = [grammar.words.index(w) for w in sentence]
    total = 0.0
    for path in product(range(s), repeat=len(ids)):
        p = grammar.start[path[0]] * grammar.move[path[-1], s]
        p *= np.prod([grammar.emit[k, state, w] for state, w in zip(path, ids, strict=True)])
        total += p * np.prod([grammar.move[i, j] for i, j in pairwise(path)])
    return total


def test_tables_are_distributions(tiny):
    for grammar in (tiny, review_grammar()):
        for table in (grammar.start, grammar.move, grammar.emit):
            assert (table >= 0).all()
            np.testing.assert_allclose(table.sum(-1), 1.0, atol=1e-12)


def test_probabilities_of_all_sentences_sum_to_one(tiny):
    joint = np.exp(tiny.log_joint(everything(tiny, 4)))
    np.testing.assert_allclose(joint.sum(0), 0.25, atol=1e-12)
    assert np.exp(tiny.log_prob(everything(tiny, 3))).sum() < 0.999  # some sentences do have four words


def test_forward_algorithm_against_every_path(tiny):
    sentences = everything(tiny, 3)
    brute = np.array([[by_paths(tiny, s, k) for k in range(4)] for s in sentences]) / 4
    np.testing.assert_allclose(np.exp(tiny.log_joint(sentences)), brute, atol=1e-14)


def test_chunks_do_not_matter(tiny, monkeypatch):
    sentences = everything(tiny, 3)
    whole = tiny.log_joint(sentences)
    monkeypatch.setattr("lagvae_lib.data.grammar._CHUNK", 7)
    np.testing.assert_array_equal(tiny.log_joint(sentences), whole)


def test_information_against_enumeration(tiny):
    sentences = [s for s in everything(tiny, 4) if np.isfinite(tiny.log_prob([s])[0])]
    joint = np.exp(tiny.log_joint(sentences)).reshape(-1, 2, 2)
    drawn, _ = tiny.sample(4000, seed=1)
    for about, p in {"both": joint.reshape(-1, 4), "topic": joint.sum(2), "sentiment": joint.sum(1)}.items():
        independent = p.sum(1, keepdims=True) * p.sum(0, keepdims=True)
        exact = np.sum(p * np.log(np.where(p > 0, p, 1) / independent))
        estimate, error = tiny.information(drawn, about)
        assert 0 < error < 0.02 and abs(estimate - exact) < 4 * error


def test_samples_follow_the_probabilities(tiny):
    drawn, classes = tiny.sample(20_000, seed=0)
    sentences = [["x"], ["a"], ["x", "x"], ["x", "z"]]
    joint = np.exp(tiny.log_joint(sentences))
    for sentence, row in zip(sentences, joint, strict=True):
        for k, p in enumerate(row):
            seen = np.mean([s == sentence and c == k for s, c in zip(drawn, classes, strict=True)])
            assert abs(seen - p) <= 4 * np.sqrt(p * (1 - p) / len(drawn))


def test_impossible_sentences(tiny):
    assert np.isneginf(tiny.log_prob([["b", "b"], ["never"], []])).all()
    with pytest.raises(ValueError, match="probability 0"):
        tiny.posterior([["never"]])


def test_review_lengths_are_between_10_and_25():
    grammar = review_grammar()
    s, reach, lengths = len(grammar.start), grammar.start > 0, []
    for n in range(1, 40):
        if (grammar.move[reach, s] > 0).any():
            lengths.append(n)
        reach = (grammar.move[reach, :s] > 0).any(0)
    assert (lengths[0], lengths[-1]) == (10, 25) and not reach.any()


def test_posterior_is_calibrated(corpus, said):
    """Bayes: on average the true class has the probability that the posterior gives it."""
    posterior = review_grammar().posterior(said).reshape(-1, 8)
    np.testing.assert_allclose(posterior.sum(1), 1.0, atol=1e-12)
    labels = np.array(corpus.labels["test"])
    for k in range(8):
        excess = (labels == k) - posterior[:, k]
        assert abs(excess.mean()) < 4 * excess.std() / np.sqrt(len(excess))
    best = posterior.max(1)
    hit = (posterior.argmax(1) == labels) - best
    assert abs(hit.mean()) < 4 * np.sqrt(np.mean(best * (1 - best)) / len(best))


def test_information_identities(corpus, said):
    grammar = review_grammar()
    (both, error), (topic, _), (sentiment, _) = (grammar.information(said, a) for a in ("both", "topic", "sentiment"))
    assert max(topic, sentiment) < both < np.log(8) and 0.8 < topic < np.log(4) and 0.3 < sentiment < np.log(2)
    # I = E log p(x|class) - log p(x) at the class that drew x: another estimator of the same number.
    joint = grammar.log_joint(said)
    ratio = joint[np.arange(len(joint)), corpus.labels["test"]] + np.log(8) - grammar.log_prob(said)
    assert abs(ratio.mean() - both) < 4 * np.hypot(error, ratio.std() / np.sqrt(len(ratio)))


def test_corpus_is_exact_and_reproducible(corpus, said):
    assert corpus.stand_in and corpus.name == "grammar" and [len(v) for v in corpus.splits.values()] == [800, 200, 1200]
    assert set(corpus.vocab.words[4:]) == set(review_grammar().words)
    assert not any(3 in s for split in corpus.splits.values() for s in split)
    words, classes = review_grammar().sample(2200, seed=3)
    assert said == words[1000:] and corpus.labels["test"] == classes[1000:].tolist()
    assert grammar_corpus(800, 200, 1200, seed=3).sha256 == corpus.sha256
    assert grammar_corpus(800, 200, 1200, seed=4).sha256 != corpus.sha256
