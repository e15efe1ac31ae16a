"""Where a record's numbers come from: code, data, versions, machine."""

import platform
import subprocess
import time

import numpy as np
import torch

from lagvae_lib import paths
from lagvae_lib.data.loading import Data
from lagvae_lib.numerics import describe


def code_version() -> dict:
    """The commit that this process runs, asked for before the long part: a commit made meanwhile is not what ran."""
    return {"git": _git("rev-parse", "HEAD"), "modified": bool(_git("status", "--porcelain", "--", "lagvae_lib"))}


def provenance(data: Data, device: str) -> dict:
    """What a number can be traced back to, beside the code (`code_version`)."""
    return {
        "data": data.name,
        "data_source": data.source,
        "data_sha256": data.sha256,
        "stand_in": data.stand_in,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        **machine(device),
        **describe(),
        "threads": torch.get_num_threads(),
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def machine(device: str) -> dict:
    """The device by name and, of a GPU, what drives it; of a processor, which instructions torch uses on it."""
    if not device.startswith("cuda"):
        return {"device": platform.machine(), "instructions": torch.backends.cpu.get_cpu_capability()}
    return {
        "device": torch.cuda.get_device_name(device),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "driver": _output("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"),
    }


def _git(*arguments: str) -> str | None:
    return _output("git", "-C", str(paths.ROOT), *arguments) if paths.CHECKOUT else None  # or it is another project's


def _output(*command: str) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None  # not a checkout, or no such program: the record then says null
    return done.stdout.strip()
