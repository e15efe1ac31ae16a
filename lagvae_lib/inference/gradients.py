"""What every strategy does with gradients: forget them, clip them, and detach the loss that they came from.

A parameter may have an `unused` beside it, whose gradient moves nothing but counts in the norm (`models.causal`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lagvae_lib.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

    from lagvae_lib.models.vae import Loss


def zero_grad(parameters: list[torch.nn.Parameter]) -> None:
    """Forget all gradients."""
    for parameter in [*parameters, *_unused(parameters)]:
        parameter.grad = None


def clip(parameters: list[torch.nn.Parameter], max_norm: float) -> Tensor:
    """Scale the gradients of `parameters` to a joint norm of at most `max_norm`; returns whether they passed it."""
    held = [tensor for tensor in (*parameters, *_unused(parameters)) if tensor.grad is not None]
    norm = torch.nn.utils.get_total_norm([tensor.grad for tensor in held])
    if norm.device.type != "cpu" or not norm + 1e-6 <= max_norm:  # else the factor is 1, which a GPU had to wait to see
        torch.nn.utils.clip_grads_with_norm_(held, max_norm, norm)
    return norm > max_norm


def share(count: Tensor, steps: int = 1) -> float | Tensor:
    """count / steps: a number where it is at hand, a tensor where a GPU would have to be waited for."""
    return float(count) / steps if count.device.type == "cpu" else count.double() / steps


def _unused(parameters: list[torch.nn.Parameter]) -> list[Tensor]:
    return [parameter.unused for parameter in parameters if hasattr(parameter, "unused")]


def means(loss: Loss) -> Loss:
    """A batch's mean loss, cut from its graph; of a user's own kind too, which may hold more than the three terms."""
    from lagvae_lib.models.vae import Loss  # torch, which commands that train nothing do without

    return Loss(*(getattr(loss, name).detach().mean() for name in Loss._fields))
