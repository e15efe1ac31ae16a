"""What a run is given besides its configuration, a seed and a device, and the precision that suits the device."""

import re

from lagvae_lib.data import family
from lagvae_lib.errors import BadValue
from lagvae_lib.lazy import torch
from lagvae_lib.names import choose
from lagvae_lib.numerics import PRECISIONS, bfloat16_here

DEVICES = ("auto", "cpu", "cuda")  # or one of several, cuda:1
SEEDS = 1_000_000_000


def check_seed(seed: int) -> int:
    """`seed` itself. Raises BadValue for one that torch does not take, or that names no folder that a table reads."""
    if not 0 <= seed < SEEDS:
        raise BadValue(f"seeds must be 0 or more and below {SEEDS:,}, not {seed}")
    return seed


def choose_device(device: str, dataset: str | None = None) -> str:
    """`device` itself, or for "auto" the GPU if there is one, except for the toy, whose batches keep no GPU busy.

    Raises BadValue for an unknown or absent device.
    """
    device_named(device)
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device == "auto":
        return "cuda" if gpus and (dataset is None or family(dataset) != "toy") else "cpu"
    here = ["auto", "cpu"] + (["cuda"] if gpus else []) + [f"cuda:{number}" for number in range(gpus)]
    if device not in here:
        found = f"{gpus} GPU{'s' * (gpus != 1)}" if gpus else "no GPU"
        raise BadValue(f"device {device!r} is asked for, but torch finds {found} here; valid here: {', '.join(here)}")
    return device


def choose_precision(precision: str, dataset: str, profile: str, device: str) -> str:
    """`precision` itself, or for "auto" the fastest that is known to leave the results alone, see `numerics`.

    That is float32 wherever runs are compared with the committed records (all profiles but `paper`), for the toy, and
    for images on a processor, whose NLL bfloat16 moves by .3 nats. Text at `paper` takes bfloat16 on a processor that
    multiplies in it, and both take tf32 on a GPU. Raises `UnknownName`.
    """
    choose(precision, ("auto", *PRECISIONS), "precision")
    kind = family(dataset)
    if precision != "auto" or profile != "paper" or kind == "toy":
        return "float32" if precision == "auto" else precision
    if device.startswith("cuda"):
        return "tf32"
    return "bfloat16" if kind == "text" and bfloat16_here() else "float32"


def device_named(device: str) -> str:
    """`device`, which need not be one of this machine: auto, cpu, cuda or cuda:<number>. Raises `UnknownName`."""
    return device if re.fullmatch(r"cuda:\d+", device) else choose(device, DEVICES, "device")
