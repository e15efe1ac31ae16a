"""What a recorded text model says by itself: its weights and its vocabulary are enough, no data set is needed."""

import json
from math import inf
from typing import NamedTuple

import torch

from lagvae_lib.config.profiles import Config
from lagvae_lib.data.text import Vocab
from lagvae_lib.errors import BadValue
from lagvae_lib.runs.record import AGAIN, BadRecord, folder_of
from lagvae_lib.runs.train import NoWeights, trained_model
from lagvae_lib.sampling.text import WORDS_ONLY, greedy, prior_samples, sampled

LONGEST = 60  # words decoded where a profile does not cut documents


class Words(NamedTuple):
    """All that building a text model takes of its data."""

    vocab: Vocab


def vocabulary(config: Config) -> Vocab:
    """The words of a finished run, from `vocabulary.json` beside its weights. Raises `NoWeights` where it is absent."""
    path = folder_of(config) / "vocabulary.json"
    if not path.exists():
        raise NoWeights(f"{path} is not there: the run is to be trained first, by `python -m lagvae_lib run ...`")
    try:
        return Vocab(tuple(json.loads(path.read_text(encoding="utf-8"))))
    except (ValueError, TypeError):
        raise BadRecord(f"{path} is damaged; {AGAIN}") from None


@torch.no_grad()
def speak(config: Config, sentences: int = 5, temperature: float | None = None) -> list[str]:
    """Sentences of a finished text run, each from its own z ~ N(0, I) and without <unk>; the run's seed draws them.

    temperature: None takes the most probable word every time, so that only z tells one sentence from the next; a number
        draws words from p(word | before, z)^(1 / temperature). A model without z draws its words.
    Raises `BadValue` for what cannot speak so, `NoWeights` where the weights or the words are not at hand.
    """
    if sentences < 1:
        raise BadValue(f"sentences must be at least 1, not {sentences}")
    if temperature is not None and not 0 < temperature < inf:
        raise BadValue(f"temperature must be a positive number, not {temperature}; without one, nothing is drawn")
    if config.family == "images":
        raise BadValue(f"{config.dataset} holds images; only a model of text says something")
    if config.method.variant.decoder == "dilated":
        raise BadValue(f"{config.method.name} has no LSTM decoder, which writes word by word")
    vocab = vocabulary(config)
    model, generator = trained_model(config, Words(vocab)), torch.Generator().manual_seed(config.seed)
    words = (config.data.max_len or LONGEST) + 1
    if config.method.model == "autoregressive":
        return sampled(model.decoder, None, words, sentences, temperature or 1.0, generator, WORDS_ONLY).text(vocab)
    z = prior_samples(model, sentences, generator)
    if temperature is None:
        return greedy(model.decoder, z, words, forbidden=WORDS_ONLY).text(vocab)
    return sampled(model.decoder, z, words, 1, temperature, generator, WORDS_ONLY).text(vocab)
