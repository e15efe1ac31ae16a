"""From a configuration to a model: the one place that knows which networks a family of data sets uses."""

from torch import nn

from lagvae_lib.models.text import LSTMDecoder, LSTMEncoder
from lagvae_lib.models.vae import VAE, Autoregressive
from lagvae_lib.names import choose
from lagvae_lib.profiles import Config


def build_model(config: Config, data) -> nn.Module:
    """The untrained model of a run, its parameters drawn from torch's global random state."""
    return BUILDERS[choose(config.method.model, BUILDERS, "model variant")](config, len(data.vocab))


def _lstm_vae(config: Config, words: int) -> VAE:
    sizes = config.model
    encoder = LSTMEncoder(words, sizes.nz, sizes.embedding, sizes.hidden)
    return VAE(encoder, LSTMDecoder(words, sizes.nz, sizes.embedding, sizes.hidden, sizes.dropout))


def _lstm_lm(config: Config, words: int) -> Autoregressive:
    sizes = config.model
    return Autoregressive(LSTMDecoder(words, 0, sizes.embedding, sizes.hidden, sizes.dropout))


BUILDERS = {"vae": _lstm_vae, "autoregressive": _lstm_lm}
