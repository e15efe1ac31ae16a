"""Sizes that are measured, and the two implementations at such a size, with equal parameters."""

import copy
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from benchmarks import textbook_images
from benchmarks.textbook import Decoder, Encoder, TextbookVAE
from lagvae_lib.config.profiles import TABLE
from lagvae_lib.config.settings import ImageModelSettings
from lagvae_lib.models.images import PixelCNNDecoder, ResNetEncoder
from lagvae_lib.models.text import LSTMDecoder, LSTMEncoder
from lagvae_lib.models.vae import VAE


@dataclass(frozen=True)
class Shape:
    """A text model's sizes and a batch's: `length` counts <s> and </s>, `words` the special words."""

    name: str
    words: int
    length: int
    batch: int
    nz: int
    embedding: int
    hidden: int
    dropout: float = 0.5
    tolerance: float = 1e-5

    def library(self) -> VAE:
        """The library's model at its initial parameters."""
        sizes = (self.words, self.nz, self.embedding, self.hidden)
        return VAE(LSTMEncoder(*sizes), LSTMDecoder(*sizes, self.dropout))

    def inputs(self, count: int, generator: torch.Generator) -> Tensor:
        """Sentences of words drawn by Zipf's law, as <s> w ... w </s>, [count, length]."""
        frequency = 1 / torch.arange(1, self.words - 3)
        x = 4 + torch.multinomial(frequency, count * self.length, replacement=True, generator=generator)
        x = x.view(count, self.length)
        x[:, 0], x[:, -1] = 1, 2
        return x

    def textbook(self, model: VAE) -> TextbookVAE:
        """The textbook model with the very parameters of `model`."""
        sizes = (self.words, self.nz, self.embedding, self.hidden)
        with torch.device("meta"):
            twin = TextbookVAE(Encoder(*sizes), Decoder(*sizes, self.dropout))
        twin.load_state_dict(model.state_dict(), assign=True)
        return twin

    def optimiser(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """The one that the paper trains this model with."""
        return torch.optim.SGD(parameters, lr=1.0)

    def decoder_gradients(self, model: VAE, like: TextbookVAE) -> list[Tensor]:
        """Gradients of `model`'s decoder in the order and layout of the textbook's."""
        return [parameter.grad for parameter in model.decoder.parameters()]


@dataclass(frozen=True)
class ImageShape:
    """An image model's sizes and a batch's; images of 28x28."""

    name: str
    batch: int
    model: ImageModelSettings
    tolerance: float = 1e-4

    @property
    def nz(self) -> int:
        return self.model.nz

    def library(self) -> VAE:
        """The library's model at its initial parameters, its BatchNorm with the statistics of a batch."""
        s = self.model
        model = VAE(
            ResNetEncoder(s.nz, (s.encoder,) * 3, s.last),
            PixelCNNDecoder(s.nz, s.channels, s.kernels, s.latent_maps),
        )
        norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
        momenta = [norm.momentum for norm in norms]
        for norm in norms:
            norm.momentum = 1.0
        with torch.no_grad():
            model.loss(self.inputs(min(self.batch, 20), torch.Generator().manual_seed(0)))
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        return model

    def inputs(self, count: int, generator: torch.Generator) -> Tensor:
        """Images with ink in about one pixel of eight, in patches, [count, 1, 28, 28]."""
        coarse = torch.rand(count, 1, 7, 7, generator=generator)
        grey = nn.functional.interpolate(coarse, size=(28, 28), mode="bilinear")
        return (grey > 0.7).float()

    def textbook(self, model: VAE) -> TextbookVAE:
        """The textbook model with a copy of the parameters of `model`."""
        s = self.model
        twin = TextbookVAE(
            textbook_images.Encoder(s.nz, s.encoder, s.last),
            textbook_images.Decoder(s.nz, s.channels, s.kernels, s.latent_maps),
        )
        twin.encoder.load_state_dict(model.encoder.state_dict())
        textbook_images.load(twin.decoder, model.decoder.state_dict())
        return twin

    def optimiser(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """The one that the paper trains this model with."""
        return torch.optim.Adam(parameters, lr=1e-3)

    def decoder_gradients(self, model: VAE, like: TextbookVAE) -> list[Tensor]:
        """Gradients of `model`'s decoder in the order and layout of the textbook's."""
        return textbook_images.gradients(model.decoder, like.decoder)


def _text(name: str, family: str, profile: str, words: int, length: int) -> Shape:
    data, model = TABLE[family][profile].data, TABLE[family][profile].model
    return Shape(name, words, length, data.batch_size, model.nz, model.embedding, model.hidden, model.dropout)


def _images(profile: str) -> ImageShape:
    values = TABLE["images"][profile]
    return ImageShape(f"images, {profile}", values.data.batch_size, values.model)


PAPER = _text("text, paper", "text", "paper", 20_000, 80)
SCALED = _text("text, scaled", "text", "scaled", 1_004, 52)
TOY = _text("toy", "toy", "paper", 1_004, 12)
IMAGES_PAPER, IMAGES_SCALED = _images("paper"), _images("scaled")
TINY = Shape("text, tiny", words=50, length=7, batch=4, nz=3, embedding=6, hidden=8)
TINY_TOY = Shape("toy, tiny", words=30, length=5, batch=4, nz=1, embedding=5, hidden=6)
TINY_IMAGES = ImageShape(
    "images, tiny", 4, ImageModelSettings(nz=3, encoder=4, last=8, kernels=(5, 3, 3, 3, 3), channels=4, latent_maps=2)
)


def inputs(shape: Shape | ImageShape, count: int | None = None, seed: int = 0) -> Tensor:
    """`count` examples (default: a batch)."""
    return shape.inputs(shape.batch if count is None else count, torch.Generator().manual_seed(seed))


def library(shape: Shape | ImageShape, seed: int = 0, scale: float = 1.0) -> VAE:
    """The library's model at its initial parameters, times `scale`."""
    torch.manual_seed(seed)
    model = shape.library()
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


def textbook(model: VAE, shape: Shape | ImageShape) -> TextbookVAE:
    """The textbook model with a copy of the parameters of `model`."""
    return shape.textbook(copy.deepcopy(model))
