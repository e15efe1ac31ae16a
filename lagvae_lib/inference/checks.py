"""What Algorithm 1 asks of a model, its optimisers and its batches, checked before it moves anything.

Whatever is wrong here would otherwise train without a word: theta would move in the inner loop, or a weight never.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from lagvae_lib.errors import BadValue, Diverged
from lagvae_lib.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

    from lagvae_lib.inference import Optimisers
    from lagvae_lib.models.vae import Loss, Trainable

METHODS = ("loss", "encoder_parameters", "decoder_parameters")


class BadModel(BadValue, TypeError):
    """A model, an optimiser or a batch that Algorithm 1 cannot use as it is; the message says what to change."""


def halves(model: Trainable) -> tuple[list, list]:
    """phi and theta. Raises BadModel unless they are two parts of the model that leave nothing over."""
    missing = [name for name in METHODS if not callable(getattr(model, name, None))]
    if missing:
        raise BadModel(f"{type(model).__name__} has no {missing[0]}(); Algorithm 1 needs {', '.join(METHODS)}")
    encoder, decoder = list(model.encoder_parameters()), list(model.decoder_parameters())
    for name, half in (("encoder", encoder), ("decoder", decoder)):
        if not half:
            raise BadModel(f"{name}_parameters() gives no parameter; there is nothing to move in that half")
    phi, theta = set(map(id, encoder)), set(map(id, decoder))
    if shared := _named(model, phi & theta):
        raise BadModel(
            f"{shared} is in encoder_parameters() and in decoder_parameters(), so that the inner loop would move the "
            "decoder; give each half a weight of its own"
        )
    every = {id(p) for p in model.parameters() if p.requires_grad} if hasattr(model, "parameters") else set()
    if left := _named(model, every - phi - theta):
        raise BadModel(
            f"{left} is neither in encoder_parameters() nor in decoder_parameters() and would never be trained; "
            "name it in one of them, or set requires_grad to False"
        )
    return encoder, decoder


def _named(model: Trainable, wanted: set[int]) -> str:
    """The names of parameters, by their ids, as the beginning of a sentence; "" for none."""
    if not wanted:
        return ""
    # without `remove_duplicate` a tied weight has all of its names
    pairs = model.named_parameters(remove_duplicate=False) if hasattr(model, "named_parameters") else ()
    names = [name for name, parameter in pairs if id(parameter) in wanted]
    return f"parameter {' = '.join(names)}" if len(wanted) == 1 and names else f"parameters {', '.join(names)}".strip()


def pair(optimisers: Optimisers) -> Optimisers:
    """The optimisers of the two halves. Raises BadModel for anything else, and for one that serves both."""
    found = tuple(getattr(optimisers, name, None) for name in ("encoder", "decoder"))
    if None in found:
        raise BadModel(
            f"a pair Optimisers(encoder_optimiser, decoder_optimiser) is needed, not {type(optimisers).__name__}: "
            "each half is moved while the other stands still"
        )
    if found[0] is found[1]:
        raise BadModel("one optimiser is given for both halves: make two, each of its half's parameters alone")
    return optimisers


def serves(optimiser: torch.optim.Optimizer, own: list, name: str, model: Trainable) -> None:
    """Raises BadModel where an optimiser holds parameters that are not its half's, or none of them."""
    held, mine = {id(p) for group in optimiser.param_groups for p in group["params"]}, set(map(id, own))
    if strange := _named(model, held - mine):
        raise BadModel(f"the {name}'s optimiser holds {strange}, which is not among {name}_parameters()")
    if not held & mine:
        raise BadModel(f"the {name}'s optimiser holds none of {name}_parameters(); make it of those of this model")


def loss_of(model: Trainable, x: object, kl_weight: float) -> Loss:
    """`model.loss`, checked for its form. Raises BadModel."""
    loss = model.loss(x, kl_weight)
    if not all(hasattr(loss, name) for name in ("loss", "reconstruction", "kl")):
        raise BadModel(
            f"model.loss() returned a {type(loss).__name__}; return lagvae_lib.Loss(loss, reconstruction, kl), "
            "three tensors [batch]"
        )
    for name in ("reconstruction", "kl"):
        if getattr(loss, name).ndim != 1:
            shape = tuple(getattr(loss, name).shape)
            raise BadModel(
                f"model.loss() gave a {name} of shape {shape}; one value for each example is needed, [batch]"
            )
    return loss


def finite(loss: Tensor | float, what: str) -> None:
    """Raises Diverged for a loss that is not a number."""
    value = float(loss.detach().mean()) if hasattr(loss, "detach") else loss
    if value != value or value in (float("inf"), float("-inf")):
        raise Diverged(f"the loss is {value} {what}")


def drawn(draw: Callable[[], object]) -> object:
    """A further batch. Raises BadModel where there is none left."""
    try:
        return draw()
    except StopIteration:
        raise BadModel(
            "draw() has run dry: an inner loop takes as many batches as it needs; give "
            "lagvae_lib.minibatches(loader), which begins again"
        ) from None
