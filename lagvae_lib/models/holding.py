"""Holding parts of a model still for a while: its parameters, its running statistics, its mode."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from lagvae_lib.lazy import torch

if TYPE_CHECKING:
    from torch import nn


@contextmanager
def without_gradient(parameters: Iterable[nn.Parameter]) -> Iterator[None]:
    """Inside the block autograd computes nothing for `parameters`; what required a gradient before does so again."""
    held = [parameter for parameter in parameters if parameter.requires_grad]
    for parameter in held:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in held:
            parameter.requires_grad_(True)


@contextmanager
def for_norm_alone(parameters: Iterable[nn.Parameter]) -> Iterator[None]:
    """Inside the block gradients of `parameters` are wanted for their norm, and may be rough: `for_norm` says so."""
    held = list(parameters)
    for parameter in held:
        parameter.for_norm = True
    try:
        yield
    finally:
        for parameter in held:
            parameter.__dict__.pop("for_norm", None)  # one that is listed twice has been here before


@contextmanager
def without_statistics(model: nn.Module, parameters: Iterable[nn.Parameter]) -> Iterator[None]:
    """Inside the block BatchNorm layers whose statistics belong with `parameters` (`names_of`) leave them alone."""
    names = names_of(model, parameters)
    batch_norm = torch.nn.modules.batchnorm._BatchNorm  # what BatchNorm1d, 2d and 3d have in common
    layers = [
        layer
        for name, layer in model.named_modules()
        if isinstance(layer, batch_norm) and layer.track_running_stats and f"{name}.running_mean" in names
    ]
    for layer in layers:
        layer.track_running_stats = False
    try:
        yield
    finally:
        for layer in layers:
            layer.track_running_stats = True


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode inside the block; afterwards every layer is in the mode it was in."""
    held = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in held:
            module.training = True


def names_of(model: nn.Module, parameters: Iterable[nn.Parameter]) -> set[str]:
    """Names in `model.state_dict()` of `parameters` and of the buffers (running statistics) that belong with them.

    A buffer belongs with the parameters of its own module, or, where that has none, of the nearest module around it.
    """
    chosen = {id(parameter) for parameter in parameters}
    names = {name for name, parameter in model.named_parameters(remove_duplicate=False) if id(parameter) in chosen}
    for name, _ in model.named_buffers(remove_duplicate=False):
        path = name.split(".")[:-1]
        while path and next(model.get_submodule(".".join(path)).parameters(), None) is None:
            path.pop()
        if all(id(parameter) in chosen for parameter in model.get_submodule(".".join(path)).parameters()):
            names.add(name)
    return names
