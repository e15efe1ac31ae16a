"""What Algorithm 1 asks of a model, its optimisers and its batches, checked before it moves anything.

Whatever is wrong here would otherwise train without a word: theta would move in the inner loop, or a weight never.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cache
from numbers import Real
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
    encoder, decoder = _half(model, "encoder"), _half(model, "decoder")
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


def _half(model: Trainable, name: str) -> list:
    """The parameters of one half. Raises BadModel for none, for anything else, and where none of them can move."""
    given = getattr(model, f"{name}_parameters")()
    half = list(given) if hasattr(given, "__iter__") else [given]
    if not half:
        raise BadModel(f"{name}_parameters() gives no parameter; there is nothing to move in that half")
    if strange := [value for value in half if not isinstance(value, torch.Tensor)]:
        raise BadModel(
            f"{name}_parameters() gives a {type(strange[0]).__name__}; return module.parameters(), or a list"
        )
    if name == "encoder" and not any(p.requires_grad for p in half):
        raise BadModel("no parameter of encoder_parameters() has requires_grad: the inner loop could move nothing")
    return half


def _named(model: Trainable, wanted: set[int]) -> str:
    """The names of parameters, by their ids, as the beginning of a sentence; "" for none."""
    if not wanted:
        return ""
    # without `remove_duplicate` a tied weight has all of its names
    pairs = model.named_parameters(remove_duplicate=False) if hasattr(model, "named_parameters") else ()
    names = [name for name, parameter in pairs if id(parameter) in wanted]
    if not names:
        return "parameters that this model does not have (another model's, or of layers that were replaced)"
    return f"parameter {' = '.join(names)}" if len(wanted) == 1 else f"parameters {', '.join(names)}"


def pair(optimisers: Optimisers) -> Optimisers:
    """The optimisers of the two halves. Raises BadModel for anything else, and for one that serves both."""
    found = tuple(getattr(optimisers, name, None) for name in ("encoder", "decoder"))
    if None in found:
        raise BadModel(
            f"a pair Optimisers(encoder_optimiser, decoder_optimiser) is needed, not {type(optimisers).__name__}: "
            "each half is moved while the other stands still"
        )
    for optimiser in found:
        _steps(optimiser)
    if found[0] is found[1]:
        raise BadModel("one optimiser is given for both halves: make two, each of its half's parameters alone")
    return optimisers


def begun(state: object) -> None:
    """Raises BadModel for what is not the state that `begin` gives."""
    if not isinstance(state, dict) or "aggressive" not in state:
        raise BadModel(f"state is {state!r:.60}; give what begin() returned, the same dict at every step")


def _steps(optimiser: object) -> None:
    """Raises BadModel for what is no optimiser, or one whose step evaluates the loss itself (LBFGS)."""
    if isinstance(optimiser, type) or not hasattr(optimiser, "param_groups"):
        raise BadModel(f"{optimiser!r:.80} is no optimiser; give one such as torch.optim.SGD(parameters, lr=0.01)")
    if _needs_closure(type(optimiser)):
        raise BadModel(
            f"{type(optimiser).__name__} evaluates the loss several times in a step; Algorithm 1 needs an optimiser "
            "that takes one gradient, such as SGD or Adam"
        )


@cache
def _needs_closure(kind: type) -> bool:
    """Whether `step` cannot be called without a function; asked once for each kind, as a signature takes its time."""
    needed = [p for p in inspect.signature(kind.step).parameters.values() if p.default is p.empty and p.name != "self"]
    return any(p.kind is p.POSITIONAL_OR_KEYWORD for p in needed)


def serves(optimiser: torch.optim.Optimizer, own: list, name: str, model: Trainable) -> None:
    """Raises BadModel where an optimiser holds parameters that are not its half's, or lacks some that are to move."""
    held, mine = {id(p) for group in optimiser.param_groups for p in group["params"]}, set(map(id, own))
    if strange := _named(model, held - mine):
        raise BadModel(f"the {name}'s optimiser holds {strange}, which is not among {name}_parameters()")
    if left := _named(model, {id(p) for p in own if p.requires_grad} - held):
        raise BadModel(
            f"the {name}'s optimiser lacks {left}, which would never be trained; make it of all {name}_parameters()"
        )


def loss_of(model: Trainable, x: object, kl_weight: float) -> Loss:
    """`model.loss`, checked for its form. Raises BadModel."""
    loss = model.loss(x, kl_weight)
    if not all(hasattr(loss, name) for name in ("loss", "reconstruction", "kl")):
        raise BadModel(
            f"model.loss() returned a {type(loss).__name__}; return lagvae_lib.Loss(loss, reconstruction, kl), "
            "three tensors [batch]"
        )
    for name in ("reconstruction", "kl", "loss"):
        _one_for_each_example(name, getattr(loss, name), _length(loss.reconstruction))
    if not loss.loss.requires_grad:
        raise BadModel(
            "model.loss() gave a loss without a gradient: nothing on the way may be detached, under torch.no_grad() or "
            "torch.inference_mode()"
        )
    return loss


def reached(moving: list, name: str) -> None:
    """Raises BadModel after a backward pass that gave no gradient to any parameter of the half that is to move."""
    if all(parameter.grad is None for parameter in moving):
        raise BadModel(
            f"the loss has no gradient in {name}_parameters(), so that the inner loop would move nothing: z is to be "
            "drawn with the encoder's own mu and logvar (mu + sigma * noise), not from detached ones"
        )


def _length(value: object) -> int:
    return len(value) if getattr(value, "ndim", 0) else 1


def _one_for_each_example(name: str, value: object, examples: int) -> None:
    if not isinstance(value, torch.Tensor):
        raise BadModel(f"model.loss() gave a {name} that is a {type(value).__name__}; give a tensor [batch]")
    if value.ndim != 1 or len(value) != examples or not value.is_floating_point():
        raise BadModel(
            f"model.loss() gave a {name} of shape {tuple(value.shape)}, {value.dtype}; one real number for each "
            "example is needed, [batch]"
        )


def finite(loss: Tensor | float, what: str) -> None:
    """Raises Diverged for a loss that is not a number."""
    value = float(loss.detach().mean()) if hasattr(loss, "detach") else loss
    if value != value or value in (float("inf"), float("-inf")):
        raise Diverged(f"the loss is {value} {what}")


def drawn(draw: Callable[[], object]) -> object:
    """A further batch. Raises BadModel where there is none left."""
    if not callable(draw):
        raise BadModel(
            f"draw is a {type(draw).__name__}, which cannot be called; give lagvae_lib.minibatches(loader), or a "
            "function that returns a batch"
        )
    try:
        return draw()
    except StopIteration:
        raise BadModel(
            "draw() has run dry: an inner loop takes as many batches as it needs; give "
            "lagvae_lib.minibatches(loader), which begins again"
        ) from None


def counted(units: Callable[[object], int] | None, x: object, examples: int) -> float:
    """A batch's size. Raises BadModel for one that is not above 0."""
    if units is None:
        return max(examples, 1)
    if not callable(units):
        raise BadModel(
            f"units is {units!r:.40}; give a function of a batch that returns its size, or None for examples"
        )
    size = units(x)
    number = size.item() if getattr(size, "numel", lambda: 0)() == 1 else size
    if not isinstance(number, Real) or not number > 0:
        raise BadModel(f"units(x) is {size!r:.60}; a number above 0 is needed, such as that of the predicted words")
    return number
