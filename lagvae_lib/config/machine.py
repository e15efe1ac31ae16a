"""What a run is given besides its configuration: a seed and a device."""

import re

from lagvae_lib.data import family
from lagvae_lib.errors import BadValue
from lagvae_lib.lazy import torch
from lagvae_lib.names import choose

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


def device_named(device: str) -> str:
    """`device`, which need not be one of this machine: auto, cpu, cuda or cuda:<number>. Raises `UnknownName`."""
    return device if re.fullmatch(r"cuda:\d+", device) else choose(device, DEVICES, "device")
