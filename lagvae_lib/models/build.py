"""From a configuration to a model: the one place that knows which networks a family of data sets uses."""

from torch import nn

from lagvae_lib.models.images import PixelCNNDecoder, ResNetEncoder
from lagvae_lib.models.text import LSTMDecoder, LSTMEncoder
from lagvae_lib.models.vae import VAE, Autoregressive
from lagvae_lib.names import choose
from lagvae_lib.profiles import Config, ImageModelSettings, ModelSettings


def build_model(config: Config, data) -> nn.Module:
    """The untrained model of a run, its parameters drawn from torch's global random state."""
    images = isinstance(config.model, ImageModelSettings)
    builders = IMAGES if images else TEXT
    build = builders[choose(config.method.model, builders, "model variant")]
    return build(config.model) if images else build(config.model, len(data.vocab))


def _lstm_vae(sizes: ModelSettings, words: int) -> VAE:
    encoder = LSTMEncoder(words, sizes.nz, sizes.embedding, sizes.hidden)
    return VAE(encoder, LSTMDecoder(words, sizes.nz, sizes.embedding, sizes.hidden, sizes.dropout))


def _lstm_lm(sizes: ModelSettings, words: int) -> Autoregressive:
    return Autoregressive(LSTMDecoder(words, 0, sizes.embedding, sizes.hidden, sizes.dropout))


def _pixelcnn_vae(sizes: ImageModelSettings) -> VAE:
    encoder = ResNetEncoder(sizes.nz, (sizes.encoder,) * 3, sizes.last)
    return VAE(encoder, PixelCNNDecoder(sizes.nz, sizes.channels, sizes.kernels, sizes.latent_maps))


def _pixelcnn(sizes: ImageModelSettings) -> Autoregressive:
    return Autoregressive(PixelCNNDecoder(0, sizes.channels, sizes.kernels, 0))


TEXT = {"vae": _lstm_vae, "autoregressive": _lstm_lm}
IMAGES = {"vae": _pixelcnn_vae, "autoregressive": _pixelcnn}
