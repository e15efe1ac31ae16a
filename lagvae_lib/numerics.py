"""At what precision a device computes, and whether it gives the same bits twice: settings of a run.

    precision   on a GPU                                              on a processor
    float32     IEEE single precision everywhere                      the same
    tf32        products, convolutions and recurrences of float32     float32: there is nothing to switch
                numbers with 10 bits of mantissa
    bfloat16    tf32, and in bfloat16: the products with the          the same in bfloat16
                vocabulary and the decoder's convolutions

Never lowered, whatever the setting: parameters and their updates, sums of losses, the softmax, KL and MI (float64), the
toy's grid, importance weights' sums, and SA-VAE's differences of gradients (`exact`), which divide by 1e-5. The
recurrence is not in bfloat16 either: with the weights of Aggressive + anneal on Yelp (`scaled`) the products with the
vocabulary move the encoder's gradient by .4% to .7%, the decoder's recurrence by 1% to 5%, the encoder's by 2% to 3%.

One product is in bfloat16 at every setting, where the processor has it and the vocabulary is large: the gradient of the
output layer's weights under joint clipping in the inner loop. It is wanted for its norm alone (`models.holding`), and
moves the encoder's step by less than a thousandth. A precision is part of a run's identity (`Config.precision`);
whether it is deterministic is not.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from lagvae_lib.lazy import torch
from lagvae_lib.names import choose

if TYPE_CHECKING:
    from torch import nn

PRECISIONS = ("float32", "tf32", "bfloat16")


def lower_dtype(precision: str) -> torch.dtype | None:
    """What the decoder's `precision` is to be: bfloat16, or None for that of its parameters."""
    return torch.bfloat16 if choose(precision, PRECISIONS, "precision") == "bfloat16" else None


def bfloat16_here() -> bool:
    """Whether this processor multiplies in bfloat16; others do it in software, several times slower than float32."""
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


@contextmanager
def numerics(precision: str = "float32", deterministic: bool = False) -> Iterator[None]:
    """Inside the block GPUs multiply float32 numbers as `precision` says; afterwards as before.

    deterministic: on CUDA only kernels that give the same bits each time, slower; an operation that has none raises
    RuntimeError. A processor with a fixed number of threads gives them in any case. Raises `UnknownName`.
    """
    choose(precision, PRECISIONS, "precision")
    debug, benchmark = torch.get_deterministic_debug_mode(), torch.backends.cudnn.benchmark
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it when it is first used
        torch.use_deterministic_algorithms(True)
        torch.backends.cudnn.benchmark = False
    try:
        with _float32_products("ieee" if precision == "float32" else "tf32"):
            yield
    finally:
        torch.set_deterministic_debug_mode(debug)
        torch.backends.cudnn.benchmark = benchmark


@contextmanager
def exact(model: nn.Module) -> Iterator[None]:
    """Inside the block `model` computes in the precision of its parameters, TF32 excluded."""
    held = {module: module.precision for module in model.modules() if getattr(module, "precision", None) is not None}
    for module in held:
        module.precision = None
    try:
        with _float32_products("ieee"):
            yield
    finally:
        for module, precision in held.items():
            module.precision = precision


@contextmanager
def _float32_products(how: str) -> Iterator[None]:
    backends = torch.backends.cuda.matmul, torch.backends.cudnn.conv, torch.backends.cudnn.rnn
    before = [backend.fp32_precision for backend in backends]
    for backend in backends:
        backend.fp32_precision = how
    try:
        yield
    finally:
        for backend, value in zip(backends, before, strict=True):
            backend.fp32_precision = value


def describe() -> dict:
    """What a record says of the precision in force: TF32 by kind of product, and determinism."""
    return {
        "tf32_matmul": torch.backends.cuda.matmul.fp32_precision == "tf32",
        "tf32_convolution": torch.backends.cudnn.conv.fp32_precision == "tf32",
        "tf32_recurrence": torch.backends.cudnn.rnn.fp32_precision == "tf32",
        "deterministic": torch.are_deterministic_algorithms_enabled(),
    }
