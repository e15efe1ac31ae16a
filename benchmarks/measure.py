"""Time by alternation in one process, peak memory in a process of its own."""

import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import torch

from benchmarks.cases import Case

FLAGS = ("avx2", "fma", "avx512f", "avx512_bf16", "avx512_fp16", "amx_bf16", "asimd", "bf16", "sve")
MIB = 1 << 20


def times(case: Case) -> dict[str, dict[str, float]]:
    """Median seconds of one unit of work by variant, wall and processor: A B C, A B C, ... after one run unmeasured."""
    works = {variant: case.build(case.shape, variant) for variant in case.variants}
    for work in works.values():
        work()
    taken = {variant: [] for variant in works}
    for _ in range(case.repeats):
        for variant, work in works.items():
            wall, cpu = time.perf_counter(), time.process_time()
            work()
            taken[variant].append((time.perf_counter() - wall, time.process_time() - cpu))
    return {variant: _medians(pairs, case.units(variant)) for variant, pairs in taken.items()}


def _medians(pairs: list[tuple[float, float]], per_call: int) -> dict[str, float]:
    wall, cpu = (statistics.median(column) / per_call for column in zip(*pairs, strict=True))
    return {"seconds": wall, "cpu_seconds": cpu}


def peak_memory(case: Case, variant: str) -> float:
    """MiB by which one run of the work raises this process's peak above what model and data take."""
    work = case.build(case.shape, variant)
    before = _peak()
    work()
    return (_peak() - before) / MIB


def _peak() -> int:
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def memory_apart(index: int, variant: str, options: Iterable[str]) -> float:
    """`peak_memory` in a process of its own. Call it while this one is small: a child inherits its parent's peak."""
    command = [sys.executable, "-m", "benchmarks", "--memory", str(index), variant, *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"measuring the memory of {variant!r} failed:\n{done.stderr}")
    return float(done.stdout)


def machine() -> dict:
    """What the times depend on, without saying whose machine it is."""
    return {
        "torch": torch.__version__,
        "python": platform.python_version(),
        "architecture": platform.machine(),
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "processor_flags": _flags(),
        "bfloat16_in_hardware": bool({"avx512_bf16", "amx_bf16", "bf16"} & set(_flags())),
    }


def _flags() -> list[str]:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    present = next((set(line.split()) for line in lines if line.lower().startswith(("flags", "features"))), set())
    return [flag for flag in FLAGS if flag in present]
