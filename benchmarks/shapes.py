"""Sizes that are measured, and the two implementations at such a size, with equal parameters."""

from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.textbook import TextbookVAE
from lagvae_lib.models.text import LSTMDecoder, LSTMEncoder
from lagvae_lib.models.vae import VAE
from lagvae_lib.profiles import TABLE


@dataclass(frozen=True)
class Shape:
    """A model's sizes and a batch's: `length` counts <s> and </s>, `words` the special words."""

    name: str
    words: int
    length: int
    batch: int
    nz: int
    embedding: int
    hidden: int
    dropout: float = 0.5


def _of_profile(name: str, family: str, profile: str, words: int, length: int) -> Shape:
    data, model = TABLE[family][profile].data, TABLE[family][profile].model
    return Shape(name, words, length, data.batch_size, model.nz, model.embedding, model.hidden, model.dropout)


PAPER = _of_profile("text, paper", "text", "paper", 20_000, 80)
SCALED = _of_profile("text, scaled", "text", "scaled", 2_004, 62)
TOY = _of_profile("toy", "toy", "paper", 1_004, 12)
TINY = Shape("text, tiny", words=50, length=7, batch=4, nz=3, embedding=6, hidden=8)
TINY_TOY = Shape("toy, tiny", words=30, length=5, batch=4, nz=1, embedding=5, hidden=6)


def sentences(shape: Shape, count: int | None = None, seed: int = 0) -> Tensor:
    """`count` sentences (default: a batch) of words drawn by Zipf's law, as <s> w ... w </s>, [count, length]."""
    generator = torch.Generator().manual_seed(seed)
    count = shape.batch if count is None else count
    frequency = 1 / torch.arange(1, shape.words - 3)
    x = 4 + torch.multinomial(frequency, count * shape.length, replacement=True, generator=generator)
    x = x.view(count, shape.length)
    x[:, 0], x[:, -1] = 1, 2
    return x


def library(shape: Shape, seed: int = 0, scale: float = 1.0) -> VAE:
    """The library's model at its initial parameters, times `scale`."""
    torch.manual_seed(seed)
    sizes = (shape.words, shape.nz, shape.embedding, shape.hidden)
    model = VAE(LSTMEncoder(*sizes), LSTMDecoder(*sizes, shape.dropout))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter *= scale
    return model


def informative(shape: Shape) -> VAE:
    """The library's model with a decoder that listens to z, so that p(z|x) is narrower than the prior."""
    model = library(shape)
    with torch.no_grad():
        for parameter, limit in ((model.decoder.z_to_cell.weight, 3.0), (model.decoder.vocabulary.weight, 1.5)):
            parameter.uniform_(-limit, limit)
    return model


def textbook(model: VAE, shape: Shape, copy: bool = True) -> TextbookVAE:
    """The textbook model with the parameters of `model`: a copy of them, or the very same tensors."""
    with torch.device("meta"):
        twin = TextbookVAE(shape.words, shape.nz, shape.embedding, shape.hidden, shape.dropout)
    values = {name: value.clone() if copy else value for name, value in model.state_dict().items()}
    twin.load_state_dict(values, assign=True)
    return twin
