"""The released implementation (jxhe/vae-lagging-encoder) where the user has it: LAGVAE_RELEASED names a checkout.

None of it is copied here, and what is measured is its own modules by their own calls. Its image models have the paper's
shape only.
"""

import os
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import Tensor, nn

from benchmarks.shapes import IMAGES_PAPER, ImageShape, Shape

ASK = "LAGVAE_RELEASED names no checkout of jxhe/vae-lagging-encoder: no ratios to the released code"


def folder() -> Path | None:
    """The checkout, or None where none is named. Raises FileNotFoundError where it has no modules/vae.py."""
    named = os.environ.get("LAGVAE_RELEASED")
    if not named:
        return None
    if not (Path(named) / "modules" / "vae.py").exists():
        raise FileNotFoundError(f"LAGVAE_RELEASED={named}: no modules/vae.py there")
    return Path(named)


def has(shape: Shape | ImageShape) -> bool:
    """Whether the released code is at hand and has a model of this shape."""
    return folder() is not None and (isinstance(shape, Shape) or shape == IMAGES_PAPER)


def model(shape: Shape | ImageShape, device: str = "cpu") -> nn.Module:
    """The released VAE of this shape at its own initial parameters."""
    if str(folder()) not in sys.path:
        sys.path.insert(0, str(folder()))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it was written for PyTorch 1.0
        import modules

        args = SimpleNamespace(nz=shape.nz, device=torch.device(device), latent_feature_map=4)
        if isinstance(shape, ImageShape):
            return modules.VAE(modules.ResNetEncoderV2(args), modules.PixelCNNDecoderV2(args), args).to(device)
        args.ni, args.enc_nh, args.dec_nh = shape.embedding, shape.hidden, shape.hidden
        args.dec_dropout_in = args.dec_dropout_out = shape.dropout
        small, larger = _uniform(0.01), _uniform(0.1)
        encoder = modules.LSTMEncoder(args, shape.words, small, larger)
        return modules.VAE(encoder, modules.LSTMDecoder(args, range(shape.words), small, larger), args).to(device)


def _uniform(scale: float):
    return lambda parameter: nn.init.uniform_(parameter, -scale, scale)


def step(vae: nn.Module, x: Tensor, optimisers) -> None:
    """A joint gradient, clipped at 5, and a step of `optimisers`: what its scripts do in the loop."""
    vae.zero_grad()
    vae.loss(x, 1.0, nsamples=1)[0].mean(dim=-1).backward()
    torch.nn.utils.clip_grad_norm_(vae.parameters(), 5.0)
    for optimiser in optimisers:
        optimiser.step()


@torch.no_grad()
def importance_weighted(vae: nn.Module, x: Tensor, samples: int, chunk: int) -> Tensor:
    """Its bound on -log p(x), [B]; chunk: samples of one pass."""
    return vae.nll_iw(x, nsamples=samples, ns=chunk)
