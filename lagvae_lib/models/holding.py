"""Holding parts of a model still for a while: its parameters, its running statistics, its mode."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

BatchNorm = torch.nn.modules.batchnorm._BatchNorm  # what BatchNorm1d, 2d and 3d have in common


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
def without_statistics(model: nn.Module, parameters: Iterable[nn.Parameter]) -> Iterator[None]:
    """Inside the block BatchNorm layers that own one of `parameters` leave their running statistics alone."""
    chosen = {id(parameter) for parameter in parameters}
    layers = [
        layer
        for layer in model.modules()
        if isinstance(layer, BatchNorm) and layer.track_running_stats and id(layer.weight) in chosen
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
