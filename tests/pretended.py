"""Tensors that pretend to be on a GPU, for a machine without one: they say `cuda:0` and compute on the processor.

Inside `gpu()` a tensor that is moved to, or made on, "cuda:0" becomes a `Pretended`. An operation that mixes it with a
processor's tensor is an error, as on a GPU (single numbers excepted), and so is `.numpy()`. What a GPU computes
differently, or in another order, is not pretended: nothing is learned here of cuDNN or of speed.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from unittest import mock

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

CUDA = torch.device("cuda:0")
MOVES = (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default)


class Pretended(torch.Tensor):
    """`inner` holds the values."""

    @staticmethod
    def __new__(cls, inner, requires_grad=False):
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            inner.shape,
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device="meta",
            requires_grad=requires_grad,
        )
        made.inner = inner
        return made

    @property
    def device(self):
        return CUDA

    @property
    def is_cuda(self):
        return True

    def __repr__(self):
        return f"Pretended({self.inner})"

    @property
    def is_meta(self):
        return False

    def tolist(self):
        return self.inner.tolist()

    def __deepcopy__(self, memo):
        return Pretended(self.inner.clone()).requires_grad_(self.requires_grad)

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return dispatch(func, args, kwargs or {})


def inner(value):
    return value.inner if isinstance(value, Pretended) else value


def shapes(tensors) -> list[tuple]:
    return [tuple(tensor.shape) for tensor in tensors]


def is_gpu(device) -> bool:
    return torch.device(device).type in ("cuda", "meta")  # what C++ asks a `Pretended` for is "meta"


def dispatch(func, args, kwargs):
    """Compute on the processor what is wholly on one side, and say on which side the result is."""
    tensors = [t for t in torch.utils._pytree.tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)]
    there = [t for t in tensors if isinstance(t, Pretended)]
    here = [t for t in tensors if not isinstance(t, Pretended) and t.ndim]
    device = kwargs.get("device")
    if func is torch.ops.aten._local_scalar_dense.default:
        return func(*tree_map(inner, args))
    if there and here and func not in MOVES and "index" not in func.__name__:
        raise RuntimeError(f"{func}: tensors on cuda:0 and on cpu, shapes here {shapes(here)}, there {shapes(there)}")
    moved = is_gpu(device) if device is not None else bool(there)
    if func is torch.ops.aten.copy_.default:
        moved = isinstance(args[0], Pretended)
    plain_kwargs = {key: tree_map(inner, value) for key, value in kwargs.items()}
    if device is not None:
        plain_kwargs["device"] = torch.device("cpu")
    out = func(*tree_map(inner, args), **plain_kwargs)
    known = {id(t.inner): t for t in there}  # what is changed in place stays the same tensor
    return tree_map(lambda t: known.get(id(t), Pretended(t)) if moved and isinstance(t, torch.Tensor) else t, out)


class _Mode(TorchDispatchMode):
    """Sees the functions that make a tensor out of none, and those that move a processor's."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return dispatch(func, args, kwargs or {})


class Generator(torch.Generator):
    """One of any device, which draws on the processor."""

    def __new__(cls, device="cpu"):
        return super().__new__(cls, "cpu")


@contextmanager
def gpu(count: int = 1) -> Iterator[None]:
    """Inside the block torch finds `count` GPUs, and tensors moved to the first pretend to be there."""
    state = {"seed": torch.zeros(16, dtype=torch.uint8)}
    patches = {
        "torch.cuda._lazy_init": lambda: None,
        "torch.cuda.is_available": lambda: True,
        "torch.cuda.device_count": lambda: count,
        "torch.cuda.get_device_name": lambda device=None: "Pretended GPU",
        "torch.cuda.synchronize": lambda device=None: None,
        "torch.cuda.current_device": lambda: 0,
        "torch.cuda.get_rng_state": lambda device=None: state["seed"].clone(),
        "torch.cuda.set_rng_state": lambda new, device=None: state.update(seed=new.clone()),
        "torch.cuda.manual_seed": lambda seed: state.update(seed=torch.full((16,), seed % 251, dtype=torch.uint8)),
        "torch.backends.cudnn.is_acceptable": lambda tensor: False,
        "torch.Generator": Generator,
        "torch.cuda.device": lambda device: ExitStack(),
    }
    with ExitStack() as stack:
        for name, stand_in in patches.items():
            stack.enter_context(mock.patch(name, stand_in))
        stack.enter_context(_Mode())
        yield
