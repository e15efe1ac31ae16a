"""The stand-in for real text: reviews from a small probabilistic grammar whose truth is known exactly.

A sentence has a hidden class (topic, sentiment). Given the class, it comes from a right-linear grammar: a
chain of slots, each of which emits one word and moves on to the next. So log p(x), p(class|x) and the
information between sentence and class are exact sums (the forward algorithm), whatever a trained model says.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product

import numpy as np

from lagvae_lib.data.corpora import SPLITS, Corpus, content_hash
from lagvae_lib.data.text import Vocab

_CHUNK = 1000  # sentences at once: bounds the memory of the forward algorithm


@dataclass(frozen=True)
class Slot:
    """Words that a slot may emit: `own[key]` of the topic or sentiment that it depends on, and shared ones.

    depends_on: "topic", "sentiment" or None. own_weight: probability of the words of the sentence's own key;
    other_weight: of those of all the other keys together; the shared words have the rest. Within a list the
    k-th word is chosen in proportion to 1/k.
    """

    shared: str = ""
    depends_on: str | None = None
    own: dict[str, str] = field(default_factory=dict)
    own_weight: float = 0.0
    other_weight: float = 0.0

    def distribution(self, key: str | None) -> dict[str, float]:
        """word -> probability in a sentence whose topic (or sentiment) is `key`."""
        parts = [
            (self.own_weight if k == key else self.other_weight / (len(self.own) - 1), w) for k, w in self.own.items()
        ]
        parts.append((1.0 - self.own_weight - self.other_weight, self.shared))
        probability: Counter[str] = Counter()
        for weight, words in parts:
            ranks = {word: 1.0 / k for k, word in enumerate(words.split(), 1)}
            for word, share in ranks.items():
                probability[word] += weight * share / sum(ranks.values())
        return {word: p for word, p in probability.items() if p > 0}


@dataclass(frozen=True)
class Phrase:
    """A run of words and {slots}, and the probabilities of the phrases that may follow ("END" ends)."""

    pattern: str
    following: dict[str, float]


@dataclass(frozen=True, eq=False)
class Grammar:
    """The compiled grammar. K classes (topic-major), S slot positions, W words; all arrays float64.

    start [S]; move [S, S + 1], the last column ending the sentence; emit [K, S, W]. Classes are uniform.
    """

    topics: tuple[str, ...]
    sentiments: tuple[str, ...]
    words: tuple[str, ...]
    start: np.ndarray
    move: np.ndarray
    emit: np.ndarray

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of their numbers: topic * len(sentiments) + sentiment."""
        return tuple(f"{t} {s}" for t, s in product(self.topics, self.sentiments))

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {word: i for i, word in enumerate(self.words)}

    def sample(self, n: int, seed: int) -> tuple[list[list[str]], np.ndarray]:
        """`n` sentences as words, and their classes [n]."""
        rng = np.random.default_rng(seed)
        classes = rng.integers(len(self.classes), size=n)
        state = _draw(np.tile(self.start, (n, 1)), rng)
        sentences: list[list[str]] = [[] for _ in range(n)]
        active = np.arange(n)
        while len(active):
            for i, word in zip(active, _draw(self.emit[classes[active], state[active]], rng), strict=True):
                sentences[i].append(self.words[word])
            state[active] = _draw(self.move[state[active]], rng)
            active = active[state[active] < len(self.start)]
        return sentences, classes

    def log_joint(self, sentences: Sequence[Sequence[str]]) -> np.ndarray:
        """log p(x, class) [N, K] in nats, the sentence's end included; -inf for the impossible."""
        parts = [self._forward(sentences[i : i + _CHUNK]) for i in range(0, len(sentences), _CHUNK)]
        return np.concatenate(parts) - np.log(len(self.classes))

    def _forward(self, sentences: Sequence[Sequence[str]]) -> np.ndarray:
        """log p(x|class) [N, K], by the forward algorithm over all sentences of a chunk at once."""
        emit = np.moveaxis(self.emit, 2, 0)  # [W, K, S]
        emit = np.concatenate([emit, np.zeros_like(emit[:1])])  # one more row: words the grammar does not have
        lengths = np.array([len(s) for s in sentences])
        words = np.full((len(sentences), max(lengths.max(), 1)), len(self.words))
        for row, sentence in zip(words, sentences, strict=True):
            row[: len(sentence)] = [self._ids.get(word, len(self.words)) for word in sentence]
        # Plain probabilities do: a sentence of 25 words has about 1e-40, far above the smallest float64.
        alpha = self.start * emit[words[:, 0]]  # [N, K, S]
        total = alpha @ self.move[:, -1]
        for t in range(1, words.shape[1]):
            alpha = (alpha @ self.move[:, :-1]) * emit[words[:, t]]
            total = np.where((lengths > t)[:, None], alpha @ self.move[:, -1], total)
        with np.errstate(divide="ignore"):
            return np.log(total)

    def log_prob(self, sentences: Sequence[Sequence[str]]) -> np.ndarray:
        """log p(x) [N], in nats per example: no model's expected log-likelihood is higher."""
        return np.logaddexp.reduce(self.log_joint(sentences), axis=1)

    def posterior(self, sentences: Sequence[Sequence[str]]) -> np.ndarray:
        """p(topic, sentiment | x) [N, topics, sentiments]. Raises ValueError for an impossible sentence."""
        joint = self.log_joint(sentences)
        log_p = np.logaddexp.reduce(joint, axis=1, keepdims=True)
        if np.isneginf(log_p).any():
            raise ValueError("a sentence has probability 0 under the grammar: it has no posterior")
        return np.exp(joint - log_p).reshape(-1, len(self.topics), len(self.sentiments))

    def information(self, sentences: Sequence[Sequence[str]], about: str = "both") -> tuple[float, float]:
        """I(x; class) in nats and its standard error, from sentences drawn from the grammar.

        H(class) and each sentence's posterior entropy are exact; only the mean over sentences is sampled.
        about: "both", "topic" or "sentiment".
        """
        axes = {"both": (), "topic": (2,), "sentiment": (1,)}[about]
        p = self.posterior(sentences).sum(axis=axes).reshape(len(sentences), -1)
        entropy = -np.sum(p * np.log(np.where(p > 0, p, 1.0)), axis=1)
        error = entropy.std(ddof=1) / np.sqrt(len(entropy))
        return float(np.log(p.shape[1]) - entropy.mean()), float(error)


def _draw(probabilities: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One index from each row of `probabilities` [N, M]."""
    cumulative = np.cumsum(probabilities, axis=1)
    return (cumulative <= rng.random((len(cumulative), 1)) * cumulative[:, -1:]).sum(axis=1)


def compile_grammar(
    phrases: dict[str, Phrase],
    start: dict[str, float],
    slots: dict[str, Slot],
    topics: tuple[str, ...],
    sentiments: tuple[str, ...],
) -> Grammar:
    """Lay the phrases out as one chain of slot positions. `start`: probabilities of the first phrase."""
    positions = [(name, word) for name, phrase in phrases.items() for word in phrase.pattern.split()]
    first = {name: next(i for i, (n, _) in enumerate(positions) if n == name) for name in phrases}
    first["END"] = len(positions)
    begin, move = np.zeros(len(positions)), np.zeros((len(positions), len(positions) + 1))
    for name, p in start.items():
        begin[first[name]] = p
    for i, (name, _) in enumerate(positions):
        if i + 1 < len(positions) and positions[i + 1][0] == name:
            move[i, i + 1] = 1.0
        else:
            for following, p in phrases[name].following.items():
                move[i, first[following]] = p
    tables = [
        [_emission(word, slots, {"topic": t, "sentiment": s}) for _, word in positions]
        for t, s in product(topics, sentiments)
    ]
    words = tuple(sorted({word for table in tables for distribution in table for word in distribution}))
    emit = np.array([[[d.get(word, 0.0) for word in words] for d in table] for table in tables])
    return Grammar(topics, sentiments, words, begin, move, emit)


def _emission(word: str, slots: dict[str, Slot], hidden: dict[str, str]) -> dict[str, float]:
    if not word.startswith("{"):
        return {word: 1.0}
    slot = slots[word[1:-1]]
    return slot.distribution(hidden.get(slot.depends_on))


TOPICS = ("restaurant", "hotel", "garage", "cinema")
SENTIMENTS = ("bad", "good")

SLOTS = {
    "place": Slot(
        shared="place one company",
        depends_on="topic",
        own={
            "restaurant": "restaurant diner cafe bistro pizzeria",
            "hotel": "hotel motel inn resort hostel",
            "garage": "garage workshop dealer carwash station",
            "cinema": "cinema theatre drive-in playhouse multiplex",
        },
        own_weight=0.55,
        other_weight=0.05,
    ),
    "thing": Slot(
        shared="service price experience music",
        depends_on="topic",
        own={
            "restaurant": "food pizza soup steak salad dessert coffee menu",
            "hotel": "room bed pool lobby shower breakfast view towel",
            "garage": "repair engine brake tyre invoice estimate oil paint",
            "cinema": "film screen sound popcorn seat ticket plot trailer",
        },
        own_weight=0.60,
        other_weight=0.08,
    ),
    "person": Slot(
        shared="manager owner staff lady",
        depends_on="topic",
        own={
            "restaurant": "waiter chef bartender hostess",
            "hotel": "receptionist maid porter concierge",
            "garage": "mechanic technician salesman driver",
            "cinema": "usher cashier actor director",
        },
        own_weight=0.60,
        other_weight=0.05,
    ),
    "quality": Slot(
        shared="fine okay ordinary simple average",
        depends_on="sentiment",
        own={
            "good": "great good amazing excellent lovely perfect wonderful pleasant",
            "bad": "bad terrible awful poor horrible dirty disappointing mediocre",
        },
        own_weight=0.65,
        other_weight=0.10,
    ),
    "manner": Slot(
        shared="quiet busy young tall",
        depends_on="sentiment",
        own={"good": "friendly helpful kind patient attentive", "bad": "rude slow careless angry dishonest"},
        own_weight=0.70,
        other_weight=0.08,
    ),
    "verdict": Slot(
        shared="remember mention",
        depends_on="sentiment",
        own={"good": "recommend love enjoy", "bad": "avoid hate regret"},
        own_weight=0.80,
        other_weight=0.05,
    ),
    "adverb": Slot(shared="very really so quite rather truly"),
    "time": Slot(shared="yesterday today again twice recently tonight"),
    "relative": Slot(shared="wife husband friend sister brother boss"),
}

_SECOND = {"and_thing": 0.3, "but_person": 0.4, "close": 0.1, "verdict": 0.1, "tip": 0.1}
_LAST = {"close": 0.4, "verdict": 0.35, "tip": 0.25}
PHRASES = {
    "at": Phrase("at this {place} ,", {"thing": 0.5, "person": 0.5}),
    "visit": Phrase("we visited this {place} {time} .", {"thing": 0.6, "person": 0.4}),
    "taken": Phrase("my {relative} took me to the {place} .", {"thing": 0.6, "person": 0.4}),
    "thing": Phrase("the {thing} was {adverb} {quality}", _SECOND),
    "person": Phrase("the {person} seemed {adverb} {manner}", _SECOND),
    "and_thing": Phrase("and the {thing} looked {quality} too", _LAST),
    "but_person": Phrase("while the {person} was {manner} to us", _LAST),
    "close": Phrase(".", {"END": 1.0}),
    "verdict": Phrase(". i {verdict} it .", {"END": 1.0}),
    "tip": Phrase(". {verdict} it !", {"END": 1.0}),
}


def review_grammar() -> Grammar:
    """The grammar of the stand-in: four topics, two sentiments, sentences of 10 to 25 words."""
    return compile_grammar(PHRASES, {"at": 0.3, "visit": 0.4, "taken": 0.3}, SLOTS, TOPICS, SENTIMENTS)


def grammar_corpus(n_train: int = 10_000, n_valid: int = 1000, n_test: int = 1000, seed: int = 0) -> Corpus:
    """Sentences drawn independently from `review_grammar`. Every word of the grammar has its id."""
    grammar = review_grammar()
    sizes = dict(zip(SPLITS, (n_train, n_valid, n_test), strict=True))
    sentences, classes = grammar.sample(sum(sizes.values()), seed)
    splits, labels = {}, {}
    for split, size in sizes.items():
        splits[split], sentences = sentences[:size], sentences[size:]
        labels[split], classes = classes[:size].tolist(), classes[size:]
    # Words that train happens to lack keep their place, or the truth about a test sentence would be lost.
    counts = {word: 0 for word in grammar.words} | Counter(w for s in splits["train"] for w in s)
    vocab = Vocab.from_counts(counts, min_count=0)
    encoded = {split: [vocab.encode(s) for s in splits[split]] for split in SPLITS}
    return Corpus(
        name="grammar",
        vocab=vocab,
        splits=encoded,
        labels=labels,
        sha256=content_hash(vocab, encoded),
        stand_in=True,
        source=f"drawn from the project's own grammar, seed {seed}",
        notes=("artificial reviews: a stand-in for real text, to show that everything works",),
    )
