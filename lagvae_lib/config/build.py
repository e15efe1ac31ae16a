"""From a configuration to a model: the one place that knows which networks a family of data sets uses."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from lagvae_lib.config.methods import Variant
from lagvae_lib.config.profiles import Config
from lagvae_lib.config.settings import ImageModelSettings, ModelSettings
from lagvae_lib.errors import BadValue
from lagvae_lib.models.dilated import DilatedDecoder
from lagvae_lib.models.images import PixelCNNDecoder, ResNetEncoder
from lagvae_lib.models.posteriors import wrapped
from lagvae_lib.models.priors import FlowPrior, StandardNormal, VampPrior
from lagvae_lib.models.text import LSTMDecoder, LSTMEncoder, Start
from lagvae_lib.models.two_level import TwoLevelDecoder, TwoLevelVAE
from lagvae_lib.models.vae import VAE, Autoregressive
from lagvae_lib.names import choose
from lagvae_lib.numerics import lower_dtype

LOCAL = (5, 3, 3)  # kernels of the VLAE's decoder: four rows above a pixel, so that z must tell the rest


def build_model(config: Config, data) -> nn.Module:
    """The untrained model of a run, its parameters drawn from torch's global random state; a decoder's `precision` is
    the configuration's."""
    model = _untrained(config, data)
    for module in model.modules():
        if hasattr(module, "precision"):
            module.precision = lower_dtype(config.precision)
    return model


def _untrained(config: Config, data) -> nn.Module:
    choose(config.method.model, ("vae", "autoregressive"), "model variant")
    images, sizes = isinstance(config.model, ImageModelSettings), config.model
    if config.method.model == "autoregressive":
        return Autoregressive(_pixelcnn(replace(sizes, nz=0)) if images else _lstm(replace(sizes, nz=0), data))
    variant = config.method.variant
    encoder = _resnet(sizes) if images else _lstm_encoder(sizes, variant, data)
    encoder = wrapped(encoder, variant.posterior, sizes.nz, variant.scale, variant.delta)
    decoder = _image_decoder(sizes, variant) if images else _text_decoder(sizes, variant, data)
    kind = TwoLevelVAE if variant.levels == 2 else VAE
    try:
        return kind(encoder, decoder, _prior(variant, sizes.nz, encoder, data), config.method.objective.free_nats)
    except ValueError as error:  # knobs of a method's name that do not go together
        raise BadValue(f"method {config.method.name!r}: {error}") from None


def _resnet(sizes: ImageModelSettings) -> ResNetEncoder:
    return ResNetEncoder(sizes.nz, (sizes.encoder,) * 3, sizes.last)


def _lstm_encoder(sizes: ModelSettings, variant: Variant, data) -> LSTMEncoder:
    # At the paper's small parameters the means of two sentences are 1e-5 apart. BatchNorm magnifies that, and its
    # gradient, a thousandfold, and at a rate of 1 the encoder saturates within an epoch. The released code of BN-VAE
    # leaves its encoder at torch's own parameters
    start = None if variant.posterior == "batch-norm" else _start(sizes)
    return LSTMEncoder(len(data.vocab), sizes.nz, sizes.embedding, sizes.hidden, start)


def _start(sizes: ModelSettings) -> Start:
    return Start(embeddings=sizes.embedding_range, forget_bias=sizes.forget_bias)


def _lstm(sizes: ModelSettings, data, skip: bool = False) -> LSTMDecoder:
    size = (sizes.nz, sizes.embedding, sizes.hidden)
    return LSTMDecoder(len(data.vocab), *size, sizes.dropout, skip, _start(sizes))


def _text_decoder(sizes: ModelSettings, variant: Variant, data) -> nn.Module:
    if variant.decoder == "dilated":
        return DilatedDecoder(len(data.vocab), sizes.nz, sizes.embedding, sizes.hidden, sizes.dropout)
    return _lstm(sizes, data, skip=variant.decoder == "skip")


def _pixelcnn(sizes: ImageModelSettings, skip: bool = False) -> PixelCNNDecoder:
    released = {"last_start": sizes.last_start, "count_unused": sizes.count_unused}
    maps = sizes.latent_maps if sizes.nz else 0
    return PixelCNNDecoder(sizes.nz, sizes.channels, sizes.kernels, maps, skip=skip, **released)


def _image_decoder(sizes: ImageModelSettings, variant: Variant) -> nn.Module:
    if variant.decoder == "local":
        return _pixelcnn(replace(sizes, kernels=LOCAL))
    if variant.levels == 1:
        return _pixelcnn(sizes, skip=variant.decoder == "skip")
    pixels = _pixelcnn(replace(sizes, nz=2 * sizes.nz))
    return TwoLevelDecoder(_features(sizes), pixels, sizes.nz, sizes.last)


def _features(sizes: ImageModelSettings) -> nn.Module:
    """The encoder's network up to the vector that mu and logvar are linear in."""
    encoder = _resnet(sizes)
    return nn.Sequential(encoder.blocks, encoder.rest)


def _prior(variant: Variant, nz: int, encoder: nn.Module, data) -> nn.Module:
    if variant.prior == "vamp":
        return VampPrior(encoder, _pseudo_inputs(data, variant.pseudo_inputs))
    return FlowPrior(nz) if variant.prior == "flow" else StandardNormal()


def _pseudo_inputs(data, count: int) -> Tensor:
    """[count, 1, H, W]: training images to begin with, some of them twice where there are too few."""
    grey = data.train.grey
    chosen = torch.randint(len(grey), (count,)) if count > len(grey) else torch.randperm(len(grey))[:count]
    return grey[chosen].unsqueeze(1)
