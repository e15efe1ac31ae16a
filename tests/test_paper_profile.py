"""Profile `paper` can't be trained here; that its steps ask for nothing but their own device can be seen on `meta`.

Torch's meta device has shapes and no values: a hidden transfer, or a tensor made on the processor, is an error there.
"""

from itertools import product

import pytest
import torch

from lagvae_lib.config.build import build_model
from lagvae_lib.config.profiles import resolve
from lagvae_lib.data.loading import Data
from lagvae_lib.data.text import SPECIAL, Vocab
from lagvae_lib.metrics.nll import log_weights
from lagvae_lib.models.gaussian import DiagonalGaussian
from lagvae_lib.models.holding import without_gradient

YELP = Vocab((*SPECIAL, *map(str, range(19_993))))  # as many words as the paper's
BATCHES = {
    "yelp": (torch.zeros(32, 98, dtype=torch.long), YELP),
    "omniglot": (torch.zeros(50, 1, 28, 28), None),
}


METHODS = ("aggressive", "autoregressive", "free-bits", "bn-vae", "delta-vae", "skip-vae")


@pytest.mark.parametrize(("dataset", "method"), [*product(BATCHES, METHODS), ("yelp", "cnn-vae"), ("omniglot", "vlae")])
def test_steps_at_the_papers_shape_stay_on_their_device(dataset, method):
    x, vocab = BATCHES[dataset]
    data = Data(dataset, (), (), (), "", False, "", (), vocab, len)
    with torch.device("meta"):
        model, x = build_model(resolve(dataset, method, "paper", 0), data), x.to("meta")
        learned = [p for p in model.parameters() if p.requires_grad]
        halves = {"encoder": list(model.encoder_parameters()), "decoder": list(model.decoder_parameters())}
        for frozen in ([], *halves.values()):
            if len(frozen) == len(list(model.parameters())):
                continue
            with without_gradient(frozen):
                model.loss(x, 1.0).loss.mean().backward()
            left = {id(p) for p in frozen}
            assert all(p.grad.is_meta for p in learned if id(p) not in left)
            assert all(p.grad is None for p in frozen)
            model.zero_grad()
        if halves["encoder"]:
            q = model.eval().encode(x)
            weights = log_weights(model, x, 3, q=DiagonalGaussian(q.mu.detach(), q.logvar.detach()))
            assert weights.shape == (len(x), 3) and weights.is_meta
