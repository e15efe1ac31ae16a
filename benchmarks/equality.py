"""Both implementations must compute the same before their times mean anything."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from benchmarks import shapes, textbook
from benchmarks.shapes import ImageShape, Shape
from lagvae_lib.metrics.grid import grid_posterior, paper_grid
from lagvae_lib.metrics.nll import importance_weighted
from lagvae_lib.models.holding import without_gradient
from lagvae_lib.models.vae import VAE
from lagvae_lib.sampling.images import sample

TOLERANCE = 1e-5  # of text; BatchNorm over tens of layers leaves images a digit less


def relative(got: Iterable[Tensor], expected: Iterable[Tensor]) -> float:
    """|got - expected| / |expected| of two lists of tensors taken as two long vectors."""
    pairs = [(a.double().flatten(), b.double().flatten()) for a, b in zip(got, expected, strict=True)]
    a, b = torch.cat([a for a, _ in pairs]), torch.cat([b for _, b in pairs])
    return float((a - b).norm() / b.norm())


def _gradients(model, x: Tensor, seed: int) -> Tensor:
    """Losses [B] with the dropout masks and the noise of `seed`; gradients of their mean are left in the model."""
    torch.manual_seed(seed)
    model.zero_grad()
    loss = model.loss(x, 0.7)
    loss = loss if isinstance(loss, Tensor) else loss.loss
    loss.mean().backward()
    return loss.detach()


def _of(module: nn.Module) -> list[Tensor]:
    return [parameter.grad for parameter in module.parameters()]


def training(shape: Shape | ImageShape, scale: float = 1.0, seed: int = 1) -> dict[str, float]:
    """Relative differences of losses and gradients, dropout on: one seed gives both the same masks and noise.

    "encoder, separate": with the decoder frozen. "encoder, bfloat16": of the lower precision, not a matter of equality.
    scale: initial parameters times this.
    """
    model, x = shapes.library(shape, scale=scale), shapes.inputs(shape)
    reference = shapes.textbook(model, shape)
    if hasattr(model.decoder, "dropout"):
        reference.decoder.dropout = model.decoder.dropout  # for the same masks; both use it at the same two places
    expected, loss = _gradients(reference, x, seed), _gradients(model, x, seed)
    differences = {"loss": relative([loss], [expected])}
    differences["encoder"] = relative(_of(model.encoder), _of(reference.encoder))
    differences["decoder"] = relative(shape.decoder_gradients(model, reference), _of(reference.decoder))
    with without_gradient(model.decoder.parameters()):
        _gradients(model, x, seed)
        differences["encoder, separate"] = relative(_of(model.encoder), _of(reference.encoder))
        model.decoder.precision = torch.bfloat16
        _gradients(model, x, seed)
        differences["encoder, bfloat16"] = relative(_of(model.encoder), _of(reference.encoder))
    return differences


def evaluation(shape: Shape | ImageShape, samples: int = 4, scale: float = 1.0) -> dict[str, float]:
    """Relative difference of the importance-weighted bounds from the same noise."""
    model, x = shapes.library(shape, scale=scale).eval(), shapes.inputs(shape)
    reference = shapes.textbook(model, shape).eval()
    expected = textbook.importance_weighted(reference, x, samples, torch.Generator().manual_seed(2), chunk=2)
    bound = importance_weighted(model, x, samples, torch.Generator().manual_seed(2), chunk=3)
    model.decoder.precision = torch.bfloat16
    low = importance_weighted(model, x, samples, torch.Generator().manual_seed(2), chunk=3)
    return {"bound": relative([bound], [expected]), "bound, bfloat16": relative([low], [expected])}


def grid(model: VAE, shape: Shape, sentences: int = 16) -> dict[str, float]:
    """The largest total variation between the posteriors of a sentence, and the largest difference of means.

    The library's are interpolated where they are negligible; the textbook's are sums of logarithms in single precision,
    which alone leaves a relative error of some 1e-5 in each weight.
    """
    model, x = model.eval(), shapes.inputs(shape, sentences)
    log_weights, mean = textbook.grid_posterior(shapes.textbook(model, shape).eval(), x, paper_grid()[:, 0])
    posterior = grid_posterior(model, x)
    variation = 0.5 * (posterior.log_weights.exp() - log_weights.double().exp()).abs().sum(1)
    return {"variation": float(variation.max()), "mean": float((posterior.mean() - mean).abs().max())}


@torch.no_grad()
def pixels(shape: ImageShape, images: int = 20, rows: int = 2) -> dict[str, float]:
    """The share of pixels that differ between images drawn with the same random numbers, in the first rows."""
    model = shapes.library(shape).eval()
    decoder, generator = shapes.textbook(model, shape).decoder.eval(), torch.Generator().manual_seed(3)
    z, uniforms = torch.randn(images, shape.nz, generator=generator), torch.rand(images, 28, 28, generator=generator)
    expected = decoder.sample(z, uniforms, rows * 28)
    drawn = sample(model.decoder, z, uniforms=uniforms)
    return {"pixels": float((expected != drawn)[:, :, :rows].float().mean())}


EXACT = ("loss", "encoder", "decoder", "encoder, separate", "bound", "variation", "mean", "pixels")


def check(differences: dict[str, float], tolerance: float = TOLERANCE) -> dict[str, float]:
    """Raise AssertionError where two values that should be equal differ by more than `tolerance`."""
    wrong = {name: value for name, value in differences.items() if name in EXACT and not value <= tolerance}
    if wrong:
        raise AssertionError(f"the implementations differ by more than {tolerance}: {wrong}")
    return differences
