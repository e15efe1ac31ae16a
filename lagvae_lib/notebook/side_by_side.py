"""Training several runs at once, one process per core, with one line of progress for each.

Each process is `python -m lagvae_lib run ...`, so that a run that is interrupted here goes on from its checkpoint like
any other, in a notebook or on the command line.
"""

import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from html import escape


@dataclass(frozen=True)
class Job:
    """A run by its names, as `python -m lagvae_lib run` takes them."""

    dataset: str
    method: str
    profile: str
    seed: int
    device: str = "cpu"
    precision: str = "float32"
    deterministic: bool = False

    @property
    def command(self) -> list[str]:
        """The process that makes it."""
        options = ["--profile", self.profile, "--seed", str(self.seed), "--device", self.device]
        options += ["--precision", self.precision] + ["--deterministic"] * self.deterministic
        return [sys.executable, "-m", "lagvae_lib", "run", self.dataset, self.method, *options]


class TrainingFailed(RuntimeError):
    """A training process ended with an error; the message is its own."""


class Board:
    """One line per run, each run's newest. shown: the display that is kept up to date, None outside notebooks."""

    def __init__(self, names: Sequence[str]):
        self.lines = dict.fromkeys(names, "")
        self.shown = None

    def update(self, name: str, line: str) -> None:
        """Show `line` as the newest of the run called `name`."""
        self.lines[name] = line
        if self.shown is not None:
            self.shown.update(self)

    def __repr__(self) -> str:
        width = max(map(len, self.lines), default=0)
        return "\n".join(f"{name:{width}}  {line}".rstrip() for name, line in self.lines.items())

    def _repr_html_(self) -> str:
        return f"<pre>{escape(repr(self))}</pre>"


def train(jobs: Sequence[Job], board: Board, workers: int | None = None) -> None:
    """Make the runs of all jobs, `workers` at a time: by default one per core, and one on a GPU.

    Raises `TrainingFailed` with the first process's own message; the other processes are stopped, and what they have
    done is in their checkpoints.
    """
    processes: list[subprocess.Popen] = []
    at_once = workers or (_cores() if all(job.device == "cpu" for job in jobs) else 1)
    with ThreadPoolExecutor(min(at_once, len(jobs)) or 1) as pool:
        running = [pool.submit(_follow, job, board, processes) for job in jobs]
        try:
            for future in running:
                future.result()
        except BaseException:  # an interrupt from the keyboard too
            pool.shutdown(wait=False, cancel_futures=True)
            for process in processes:
                process.terminate()
            raise


def _cores() -> int:
    """Cores that this process may use, which in a container can be fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _follow(job: Job, board: Board, processes: list[subprocess.Popen]) -> None:
    """Run one job to its end, handing on every line that it prints."""
    environment = (
        os.environ
        | {"PYTHONIOENCODING": "utf-8"}
        | ({"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"} if job.device == "cpu" else {})
    )
    process = subprocess.Popen(
        job.command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, encoding="utf-8"
    )
    processes.append(process)
    last = error = ""
    for line in process.stdout:
        last = line.strip() or last
        error = f"{error}\n{line.rstrip()}" if error else line.strip() if line.startswith("error:") else ""
        board.update(job.method, last)
    if process.wait():
        raise TrainingFailed(f"{job.method}: {error or last}")
