"""What a training loop of one's own needs beside Algorithm 1: further minibatches, and the mutual information."""

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch

from lagvae_lib.inference.checks import BadModel
from lagvae_lib.metrics.mutual_information import paper_estimate
from lagvae_lib.models.holding import evaluating


def minibatches(loader: Iterable) -> Callable[[], Any]:
    """A way to draw batches without end, for `Batch(x, draw=...)`.

    loader: a DataLoader, which is gone through again and again (shuffle it), or a list of batches, of which one is
    chosen at random each time. What a batch is does not matter. Raises BadModel where there is nothing to draw.
    """
    _must_hold_batches(loader, "minibatches()")
    if isinstance(loader, Sequence):
        if not loader:
            raise BadModel("minibatches() was given an empty list")
        return lambda: loader[int(torch.randint(len(loader), ()))]
    if getattr(loader, "persistent_workers", False):
        loader = copy.copy(loader)  # else the loop over the loader would share its one iterator
        loader._iterator = None
    stream = None

    def draw() -> Any:
        nonlocal stream
        stream = stream or _forever(loader)
        try:
            return next(stream)
        except BaseException:  # it ended the generator; whoever goes on afterwards begins anew
            stream = None
            raise

    return draw


def _must_hold_batches(batches: object, what: str) -> None:
    """Raises BadModel for what would be gone through example by example, or not at all."""
    of_examples = isinstance(batches, (torch.Tensor, str, bytes, Mapping)) or hasattr(batches, "__array__")
    of_examples |= isinstance(batches, torch.utils.data.Dataset) and hasattr(batches, "__getitem__")
    if of_examples or not isinstance(batches, Iterable):
        raise BadModel(
            f"{what} was given a {type(batches).__name__}; give batches: a DataLoader, or a list such as x.split(50)"
        )


def _forever(loader: Iterable) -> Iterator:
    while True:
        batch = stop = object()
        for batch in loader:
            yield batch
        if batch is stop:
            raise BadModel(
                "minibatches() needs what can be gone through again, a DataLoader or a list: it is at its end"
            )


@torch.no_grad()
def mutual_information(model, batches: Iterable, generator: torch.Generator | None = None) -> float:
    """The paper's estimate of I_q(x; z), nats per example, which `Aggressive.epoch_end` compares from epoch to epoch.

    model: has `encode(x)`, which gives mu and logvar of q(z|x), [batch, nz] each, as a pair or as attributes. It is
    evaluated in evaluation mode and left in the mode that it was in. batches: of validation data, always the same.
    At collapse the estimate is noise around 0, and negative half of the time; it cannot pass the log of the batch size.
    Raises BadModel for a model without `encode`, or for no batches.
    """
    if not callable(getattr(model, "encode", None)):
        raise BadModel(
            f"{type(model).__name__} has no encode(x); let it return mu and logvar of q(z|x), [batch, nz] each"
        )
    _must_hold_batches(batches, "mutual_information()")
    with evaluating(model) if isinstance(model, torch.nn.Module) else nullcontext():
        pairs = [_moments(model.encode(x)) for x in batches]
    if not pairs:
        raise BadModel("mutual_information() was given no batches; a loader that is at its end cannot be used again")
    if max(len(part) for part, _ in pairs) == 1:
        raise BadModel("mutual_information() was given batches of one example, of which no estimate is above 0")
    mu, logvar = (torch.cat(parts) for parts in zip(*pairs, strict=True))
    generator = generator or torch.Generator().manual_seed(0)  # training's own random numbers stay what they are
    return paper_estimate(mu, logvar, [len(part) for part, _ in pairs], generator)


def _moments(q) -> tuple[torch.Tensor, torch.Tensor]:
    pair = (q.mu, q.logvar) if hasattr(q, "mu") and hasattr(q, "logvar") else q
    if not isinstance(pair, (tuple, list)) or len(pair) != 2 or not all(isinstance(p, torch.Tensor) for p in pair):
        raise BadModel(
            f"encode(x) returned a {type(q).__name__}; return the two tensors mu and logvar, [batch, nz] each"
        )
    mu, logvar = pair
    if mu.ndim != 2 or mu.shape != logvar.shape:
        shapes = f"{tuple(mu.shape)} and {tuple(logvar.shape)}"
        raise BadModel(f"encode(x) returned tensors of shape {shapes}; mu and logvar are [batch, nz] each")
    return mu, logvar
