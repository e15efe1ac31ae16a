"""Sentences from a decoder (greedy, sampled, beam search), and the codes that they are decoded from.

A decoder here is `LSTMDecoder` or anything with its `start` and `next_word`. A score is log p(words|z) in nats under
the decoder as it is, although <pad> and <s> are never chosen: it equals `decoder.log_prob` of the same sentence.
All functions need the decoder in evaluation mode and raise ValueError otherwise: dropout would decode another model.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from lagvae_lib.data.text import END, PAD, START, UNKNOWN, Vocab
from lagvae_lib.models.gaussian import standard_noise
from lagvae_lib.models.vae import VAE

FORBIDDEN = (PAD, START)
WORDS_ONLY = (PAD, START, UNKNOWN)  # for sentences to be read: a small vocabulary's most probable word is often <unk>


class Decoded(NamedTuple):
    """words: ids [B, L] from <s> on, <pad> after </s>; a row that met the limit has no </s>. log_prob: [B], nats."""

    words: Tensor
    log_prob: Tensor

    def sentences(self) -> list[Tensor]:
        """Each row without its padding, as a model scores it."""
        return [row[row != PAD] for row in self.words]

    def text(self, vocab: Vocab) -> list[str]:
        """Each row as words between spaces."""
        return [" ".join(vocab.decode(row)) for row in self.words]


def greedy(
    decoder: nn.Module, z: Tensor | None, max_tokens: int, rows: int = 1, forbidden: Sequence[int] = FORBIDDEN
) -> Decoded:
    """The most probable word at every step.

    z: [B, nz], or None for a decoder without a latent variable, which then writes `rows` sentences.
    max_tokens: maximum number of words, </s> included. forbidden: ids that are never chosen, such as `WORDS_ONLY`.
    """
    return _generate(decoder, z, max_tokens, rows, lambda log_p: log_p.argmax(1), forbidden)


def sampled(
    decoder: nn.Module,
    z: Tensor | None,
    max_tokens: int,
    rows: int = 1,
    temperature: float = 1.0,
    generator: torch.Generator | None = None,
    forbidden: Sequence[int] = FORBIDDEN,
) -> Decoded:
    """Every word drawn from p(word | before, z)^(1 / temperature), normalised over all words but those forbidden.

    The score is that of the sentence at temperature 1. Raises ValueError unless the temperature is positive.
    """
    if not temperature > 0:
        raise ValueError(f"temperature must be positive, not {temperature}; `greedy` is its limit at 0")

    def draw(log_p: Tensor) -> Tensor:
        # the largest of log p + Gumbel noise is a draw from p; so one generator serves any device
        device = log_p.device if generator is None else generator.device
        waiting = torch.empty(log_p.shape, dtype=log_p.dtype, device=device).exponential_(generator=generator)
        return (log_p - temperature * waiting.log().to(log_p.device)).argmax(1)

    return _generate(decoder, z, max_tokens, rows, draw, forbidden)


@torch.no_grad()
def beam(decoder: nn.Module, z: Tensor | None, max_tokens: int, rows: int = 1, width: int = 10) -> Decoded:
    """The best of the `width` hypotheses kept at every step, by log-probability without any correction for length.

    Width 1 is `greedy`; a width of at least (number of words)^max_tokens finds the most probable sentence.
    Raises ValueError for a width below 1.
    """
    if width < 1:
        raise ValueError(f"width must be at least 1, not {width}")
    rows = _check(decoder, z, max_tokens, rows)
    h, c, share = decoder.start(z if z is None else z.repeat_interleave(width, 0), rows * width)
    words = torch.full((rows, width, 1), START, device=h.device)
    scores = h.new_full((rows, width), -torch.inf)
    scores[:, 0] = 0.0  # all hypotheses start alike: one of them is enough
    first = torch.arange(rows, device=h.device).unsqueeze(1) * width
    for _ in range(max_tokens):
        log_p, h, c = decoder.next_word(words[..., -1].flatten(), h, c, share)
        candidates = scores.unsqueeze(2) + _continuations(log_p, words[..., -1])
        scores, best = candidates.flatten(1).topk(width, dim=1)
        parent, word = best // log_p.shape[1], best % log_p.shape[1]
        words = torch.cat([words.gather(1, parent.unsqueeze(2).expand(-1, -1, words.shape[2])), word.unsqueeze(2)], 2)
        h, c = (state[(first + parent).flatten()] for state in (h, c))
        if (words[:, 0, -1, None] == words.new_tensor([END, PAD])).any(1).all():
            break  # scores only fall from here, so nothing overtakes a finished sentence that leads
    return Decoded(words[:, 0], scores[:, 0])


def _continuations(log_p: Tensor, last: Tensor) -> Tensor:
    """log p of the next word of each hypothesis, [B, width, V]; a finished one goes on with <pad> only, for free."""
    log_p = _allowed(log_p).view(*last.shape, -1)
    finished = ((last == END) | (last == PAD)).unsqueeze(2)
    padding = torch.full_like(log_p[0, 0], -torch.inf)
    padding[PAD] = 0.0
    return torch.where(finished, padding, log_p)


def _allowed(log_p: Tensor, forbidden: Sequence[int] = FORBIDDEN) -> Tensor:
    """`log_p` [B, V] with some words made impossible."""
    return log_p.index_fill(1, torch.tensor(forbidden, device=log_p.device), -torch.inf)


def _check(decoder: nn.Module, z: Tensor | None, max_tokens: int, rows: int) -> int:
    """The number of sentences, after checking what all ways of decoding ask for."""
    if decoder.training:
        raise ValueError("the decoder is in training mode: call eval() first, or dropout decodes another model")
    if max_tokens < 1:
        raise ValueError(f"max_tokens must be at least 1, not {max_tokens}")
    return rows if z is None else len(z)


@torch.no_grad()
def _generate(
    decoder: nn.Module,
    z: Tensor | None,
    max_tokens: int,
    rows: int,
    pick: Callable[[Tensor], Tensor],
    forbidden: Sequence[int],
) -> Decoded:
    rows = _check(decoder, z, max_tokens, rows)
    h, c, share = decoder.start(z, rows)
    words = [torch.full((rows,), START, device=h.device)]
    total, unfinished = h.new_zeros(rows), torch.ones(rows, dtype=torch.bool, device=h.device)
    for _ in range(max_tokens):
        log_p, h, c = decoder.next_word(words[-1], h, c, share)
        word = pick(_allowed(log_p, forbidden))
        total += torch.where(unfinished, log_p.gather(1, word.unsqueeze(1)).squeeze(1), 0.0)
        words.append(torch.where(unfinished, word, PAD))
        unfinished &= word != END
        if not unfinished.any():
            break
    return Decoded(torch.stack(words, dim=1), total)


# -- codes to decode ------------------------------------------------------------------------------------------------


def prior_samples(model: VAE, n: int, generator: torch.Generator | None = None) -> Tensor:
    """n codes z ~ N(0, I), [n, nz]."""
    parameter = next(model.decoder.parameters())
    return standard_noise((n, model.decoder.nz), parameter, generator)


@torch.no_grad()
def posterior_codes(model: VAE, x: Tensor, sample: bool = False, generator: torch.Generator | None = None) -> Tensor:
    """The codes of sentences x [B, T] under q(z|x), [B, nz]: the means, or one sample each."""
    q = model.encode(x)
    return q.rsample(1, generator=generator)[:, 0] if sample else q.mu
