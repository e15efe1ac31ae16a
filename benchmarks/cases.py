"""What is measured: each case gives, for every variant of a piece of work, a function that does it once."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from benchmarks import released, shapes, textbook
from benchmarks.shapes import ImageShape, Shape
from lagvae_lib.inference import Batch, Optimisers
from lagvae_lib.inference.aggressive import Aggressive
from lagvae_lib.inference.amortised import Amortised
from lagvae_lib.metrics.grid import grid_posterior, paper_grid
from lagvae_lib.metrics.nll import importance_weighted
from lagvae_lib.models.images import SIZE
from lagvae_lib.models.vae import VAE
from lagvae_lib.sampling.images import sample

TEXTBOOK, RELEASED = "textbook", "released"
JOINT, SEPARATE, JOINT_LOW, SEPARATE_LOW = "joint", "separate", "joint, bfloat16", "separate, bfloat16"
Work = Callable[[], object]
AnyShape = Shape | ImageShape


@dataclass(frozen=True)
class Case:
    """`build(shape, variant)` gives the work of one variant; the first variant is the one that others are compared to.

    repeats: rounds, in each of which every variant runs once. per_call: units of work in one run, of each variant where
    they differ; seconds are given for one. aims: the ratios aimed at, by variant. memory: whether peak memory is
    measured, in a process for each variant.
    """

    name: str
    build: Callable[[AnyShape, str], Work]
    shape: AnyShape
    variants: tuple[str, ...]
    repeats: int = 7
    per_call: int | dict[str, int] = 1
    aims: tuple[tuple[str, float], ...] = ()
    memory: bool = True

    def units(self, variant: str) -> int:
        """Units of work in one run of a variant."""
        return self.per_call[variant] if isinstance(self.per_call, dict) else self.per_call


def inner(shape: AnyShape, variant: str, steps: int = 1) -> Work:
    """Steps of the encoder: Algorithm 1's inner loop. The textbook's clip costs the same over either half."""
    return _training(shape, variant, lambda a, m, b, o: a.inner_loop(m, b, o.encoder), "encoder", steps)


def outer(shape: AnyShape, variant: str, steps: int = 1) -> Work:
    """A step of the decoder after the inner loop."""

    def work(algorithm, model, batch, optimisers):
        for _ in range(steps):
            algorithm.decoder_step(model, batch, optimisers.decoder)

    return _training(shape, variant, work, "decoder", steps)


def plain(shape: AnyShape, variant: str, steps: int = 1) -> Work:
    """Joint steps of encoder and decoder: what training is made of after the aggressive stage."""

    def work(_, model, batch, optimisers):
        for _ in range(steps):
            Amortised().step(model, batch, optimisers, {})

    return _training(shape, variant, work, "both", steps)


def _training(shape: AnyShape, variant: str, work: Callable, moved: str, steps: int) -> Work:
    model, x = shapes.library(shape), shapes.inputs(shape)
    if variant == RELEASED:
        model = released.model(shape)
    if variant == TEXTBOOK:
        model = shape.textbook(model)
    both = Optimisers(*(shape.optimiser(half.parameters()) for half in (model.encoder, model.decoder)))
    used = {"encoder": both[:1], "decoder": both[1:], "both": both}[moved]
    if variant == RELEASED:
        return lambda: [released.step(model, x, used) for _ in range(steps)]
    if variant == TEXTBOOK:
        return lambda: [textbook.training_step(model, x, used, model.parameters()) for _ in range(steps)]
    clip, _, precision = variant.partition(", ")
    model.decoder.precision = torch.bfloat16 if precision else None
    algorithm = Aggressive(clip=clip, fixed_steps=steps)
    return lambda: work(algorithm, model, Batch(x, lambda: x), both)


def evaluation(shape: AnyShape, variant: str, samples: int = 50, chunk: int = 50) -> Work:
    """The importance-weighted bound of one batch. `chunk` is the textbook's: its activations must fit into memory."""
    model, x = shapes.library(shape).eval(), shapes.inputs(shape)
    if variant == RELEASED:
        model = released.model(shape).eval()
        return lambda: released.importance_weighted(model, x, samples, chunk)
    if variant == TEXTBOOK:
        model = shape.textbook(model).eval()
        return lambda: textbook.importance_weighted(model, x, samples, chunk=chunk)
    model.decoder.precision = torch.bfloat16 if variant == "bfloat16" else None
    return lambda: importance_weighted(model, x, samples)


def drawing(shape: ImageShape, variant: str, images: int = 100, pixels: int = SIZE**2) -> Work:
    """`images` images pixel by pixel; the textbook draws the first `pixels` of each, every one of which costs alike."""
    model = shapes.library(shape).eval()
    generator = torch.Generator().manual_seed(1)
    z = torch.randn(images, shape.nz, generator=generator)
    uniforms = torch.rand(images, SIZE, SIZE, generator=generator)
    if variant == TEXTBOOK:
        decoder = shape.textbook(model).decoder.eval()
        return lambda: decoder.sample(z, uniforms, pixels)
    return lambda: sample(model.decoder, z, uniforms=uniforms)


def look(shape: Shape, variant: str, sentences: int = 500, make: Callable[[Shape], VAE] = shapes.library) -> Work:
    """Both coordinates of `sentences` points of Figure 2: E[z|x] on the grid, and the mean of q(z|x).

    At the initial parameters log p(x|z) is smooth, the least work for the library; of a decoder that listens to z
    (`shapes.informative`) it looks at more points, several times the work. The textbook's work is always the same.
    """
    model, x = make(shape).eval(), shapes.inputs(shape, sentences)
    if variant == TEXTBOOK:
        model = shape.textbook(model).eval()
        return lambda: (textbook.grid_posterior(model, x, paper_grid()[:, 0])[1], _textbook_mean(model, x))

    def work():
        with torch.no_grad():
            q = model.encode(x)
        return grid_posterior(model, x, q).mean(), q.mu[:, 0]

    return work


@torch.no_grad()
def _textbook_mean(model: textbook.TextbookVAE, x: Tensor) -> Tensor:
    return model.encoder(x)[0][:, 0]


def _with(build: Callable, **fixed) -> Callable[[AnyShape, str], Work]:
    return lambda shape, variant: build(shape, variant, **fixed)


STEPS_AND_BOUNDS = ("inner step", "outer step", "plain step", "IW evaluation")  # what the released code is measured on


def with_released(case: Case) -> Case:
    """The case with the released code among its variants, where there is a checkout and it has that shape."""
    if not case.name.startswith(STEPS_AND_BOUNDS) or not released.has(case.shape):
        return case
    per_call = case.per_call if isinstance(case.per_call, int) else case.per_call | {RELEASED: 1}
    return replace(case, variants=(TEXTBOOK, RELEASED, *case.variants[1:]), per_call=per_call)


LISTENING = "listening decoder: look"
CLIPS = (TEXTBOOK, JOINT, SEPARATE)
ALL = (TEXTBOOK, JOINT, SEPARATE, JOINT_LOW, SEPARATE_LOW)
INNER_AIMS = ((JOINT_LOW, 2.0), (SEPARATE_LOW, 2.5))
IMAGE_AIMS = ((JOINT_LOW, 2.0), (SEPARATE_LOW, 3.0))
IW = (TEXTBOOK, "library")
IW_LOW = (*IW, "bfloat16")
IW_AIM = (("library", 1.5),)
PIXELS = {TEXTBOOK: 4, "library": SIZE**2}  # drawn in one run; the textbook's 784 passes would take minutes


def _drawing(shape: ImageShape, images: int = 100) -> Case:
    build = _with(drawing, images=images, pixels=PIXELS[TEXTBOOK])
    return Case(f"{images} images, one pixel of each", build, shape, IW, 7, PIXELS, (("library", 100.0),))


def full() -> list[Case]:
    """The cases of `make bench`."""
    paper, scaled, toy = shapes.PAPER, shapes.SCALED, shapes.TOY
    pictures, small_pictures = shapes.IMAGES_PAPER, shapes.IMAGES_SCALED
    return [
        Case("inner step", inner, paper, ALL, aims=INNER_AIMS),
        Case("outer step", outer, paper, CLIPS),
        Case("IW evaluation, 4 samples", _with(evaluation, samples=4, chunk=4), paper, IW_LOW, aims=IW_AIM),
        Case("inner step", _with(inner, steps=5), scaled, ALL, per_call=5, aims=INNER_AIMS),
        Case("outer step", _with(outer, steps=5), scaled, CLIPS, per_call=5),
        Case("IW evaluation, 50 samples", evaluation, scaled, IW_LOW, aims=IW_AIM),
        Case("inner step", inner, pictures, ALL, aims=IMAGE_AIMS),
        Case("outer step", outer, pictures, CLIPS),
        Case("IW evaluation, 4 samples", _with(evaluation, samples=4, chunk=4), pictures, IW, aims=IW_AIM),
        _drawing(pictures),
        Case("inner step", _with(inner, steps=3), small_pictures, ALL, per_call=3, aims=IMAGE_AIMS),
        Case("outer step", _with(outer, steps=3), small_pictures, CLIPS, per_call=3),
        Case("IW evaluation, 20 samples", _with(evaluation, samples=20, chunk=10), small_pictures, IW, aims=IW_AIM),
        _drawing(small_pictures),
        Case("inner step", _with(inner, steps=50), toy, CLIPS, 15, 50),
        Case("outer step", _with(outer, steps=50), toy, CLIPS, 15, 50),
        Case("plain step", _with(plain, steps=50), toy, (TEXTBOOK, JOINT), 15, 50),
        Case("IW evaluation, 500 samples", _with(evaluation, samples=500), toy, IW),
        Case("look at 500 posteriors", look, toy, IW, aims=(("library", 10.0),)),
        Case(f"{LISTENING} at 500 posteriors", _with(look, make=shapes.informative), toy, IW),
    ]


def quick() -> list[Case]:
    """The same kinds of case, so small that they say nothing about speed."""
    text, toy, pictures = shapes.TINY, shapes.TINY_TOY, shapes.TINY_IMAGES
    cases = [
        Case("inner step", inner, text, ALL, 2),
        Case("outer step", outer, text, CLIPS, 2),
        Case("IW evaluation, 6 samples", _with(evaluation, samples=6, chunk=4), text, IW_LOW, 2),
        Case("inner step", inner, pictures, ALL, 2),
        Case("outer step", outer, pictures, CLIPS, 2),
        Case("IW evaluation, 6 samples", _with(evaluation, samples=6, chunk=4), pictures, IW, 2),
        replace(_drawing(pictures, images=2), repeats=2),
        Case("inner step", _with(inner, steps=2), toy, CLIPS, 2, 2),
        Case("outer step", _with(outer, steps=2), toy, CLIPS, 2, 2),
        Case("plain step", _with(plain, steps=2), toy, (TEXTBOOK, JOINT), 2, 2),
        Case("look at 8 posteriors", _with(look, sentences=8), toy, IW, 2),
        Case(f"{LISTENING} at 8 posteriors", _with(look, sentences=8, make=shapes.informative), toy, IW, 2),
    ]
    return [replace(case, memory=case.name == "plain step") for case in cases]
