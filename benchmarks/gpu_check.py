"""`make gpu-check`: what only a machine with a GPU can tell, in one report, `results/bench/gpu-check.json`.

Profile `paper` on generated batches of its shape (20,000 words, 97 tokens; 28 x 28 images), for each precision: how far
loss and encoder gradient move from float32 at the initial parameters, one aggressive update, plain updates, memory, and
the hours of a run of about the paper's length (`UPDATES`). Beside them cuDNN's recurrence against ours and, where
LAGVAE_RELEASED names a checkout, the released code on the same card.
"""

import argparse
import time
from collections.abc import Callable

import torch

from benchmarks import measure, released, shapes
from benchmarks.cases import AnyShape
from lagvae_lib import atomic, paths
from lagvae_lib.config.machine import choose_device
from lagvae_lib.inference import Batch, Optimisers
from lagvae_lib.inference.aggressive import Aggressive
from lagvae_lib.inference.amortised import Amortised
from lagvae_lib.models.vae import VAE
from lagvae_lib.numerics import PRECISIONS, lower_dtype, numerics
from lagvae_lib.runs.provenance import machine

PLAIN = 200
# Of an epoch, and epochs of the aggressive stage and after it; the epochs are round numbers near the released logs'
UPDATES = {"text": (100_000 / 32, 3, 30), "images": (22_345 / 50, 10, 200)}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu_check", description=__doc__.split("\n\n")[0])
    parser.add_argument("--device", default="cuda", help="cpu, to try this command itself")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: tests the check, says nothing of speed")
    parser.add_argument("--plain", type=int, default=PLAIN, help="plain updates (default: 200)")
    arguments = parser.parse_args()
    device = choose_device(arguments.device)
    pair = (shapes.TINY, shapes.TINY_IMAGES) if arguments.quick else (shapes.PAPER, shapes.IMAGES_PAPER)
    record = {"machine": measure.machine() | machine(device), "torch": torch.__version__}
    print(f"{record['machine']['device']}; {released.folder() or released.ASK}")
    for kind, shape in zip(UPDATES, pair, strict=True):
        record[kind] = report(kind, shape, device, arguments.plain)
        for name, values in record[kind].items():
            print(f"{kind:7} {name:10} " + "  ".join(f"{key} {value:.4g}" for key, value in values.items()), flush=True)
    record["recurrence"] = recurrence(pair[0], device)
    print(f"cuDNN's recurrence and ours, largest relative difference: {record['recurrence']:.1e}")
    atomic.write_json(paths.results_dir() / "bench" / "gpu-check.json", record)


def report(kind: str, shape: AnyShape, device: str, plain: int) -> dict[str, dict[str, float]]:
    """By precision, and for the released code where it is at hand."""
    rows, x = {}, shapes.inputs(shape).to(device)
    exact = None
    for precision in PRECISIONS:
        model = shapes.library(shape).to(device)
        model.decoder.precision = lower_dtype(precision)
        with numerics(precision):
            found = gradient(model, x)
            exact = found if exact is None else exact
            rows[precision] = moved(found, exact) | library(kind, shape, model, x, plain)
    if released.has(shape):
        rows["released"] = theirs(shape, x, device, plain)
    return rows


def gradient(model: VAE, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean loss and the encoder's gradient, by the same noise and masks each time."""
    torch.manual_seed(0)
    model.zero_grad()
    loss = model.loss(x, 1.0).loss.mean()
    loss.backward()
    return loss.detach(), torch.cat([p.grad.flatten() for p in model.encoder_parameters()])


def moved(found: tuple, exact: tuple) -> dict[str, float]:
    """How far the loss (nats) and the encoder's gradient (relative) are from float32's."""
    return {
        "loss moved": float((found[0] - exact[0]).abs()),
        "encoder gradient moved": float((found[1] - exact[1]).norm() / exact[1].norm()),
    }


def library(kind: str, shape: AnyShape, model: VAE, x: torch.Tensor, plain: int) -> dict[str, float]:
    """One aggressive update, plain ones, and the hours of a run of the paper's length that these make."""
    both = Optimisers(*(shape.optimiser(half.parameters()) for half in (model.encoder, model.decoder)))
    batch, algorithm = Batch(x, lambda: x), Aggressive()
    Amortised().step(model, batch, both, {})  # what is made on first use is not timed
    aggressive, memory = timed(lambda: algorithm.step(model, batch, both, algorithm.begin()), x)
    simple, _ = timed(lambda: [Amortised().step(model, batch, both, {}) for _ in range(plain)], x)
    updates, stage, rest = UPDATES[kind]
    hours = updates * (stage * aggressive + rest * simple / plain) / 3600
    return {"aggressive ms": 1e3 * aggressive, "plain ms": 1e3 * simple / plain, "MiB": memory, "hours": hours}


def theirs(shape: AnyShape, x: torch.Tensor, device: str, plain: int) -> dict[str, float]:
    """Plain updates of the released code."""
    vae = released.model(shape, device)
    both = [shape.optimiser(half.parameters()) for half in (vae.encoder, vae.decoder)]
    released.step(vae, x, both)
    seconds, memory = timed(lambda: [released.step(vae, x, both) for _ in range(plain)], x)
    return {"plain ms": 1e3 * seconds / plain, "MiB": memory}


def timed(work: Callable[[], object], x: torch.Tensor) -> tuple[float, float]:
    """Seconds of the work, and the GPU memory at its height in MiB (0 on a processor)."""
    cuda = x.device.type == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats(x.device)
        torch.cuda.synchronize(x.device)
    start = time.perf_counter()
    work()
    if cuda:
        torch.cuda.synchronize(x.device)
    return time.perf_counter() - start, torch.cuda.max_memory_allocated(x.device) / measure.MIB if cuda else 0.0


def recurrence(shape: AnyShape, device: str) -> float:
    """Largest relative difference of any gradient between torch's recurrence and ours, in IEEE float32."""
    found, x = [], shapes.inputs(shape).to(device)
    with numerics("float32"):
        for kind in ("own", "torch"):
            model = shapes.library(shape).to(device)
            model.decoder.recurrence = kind
            gradient(model, x)
            found.append([parameter.grad for parameter in model.parameters()])
    return max(float((a - b).norm() / a.norm()) for a, b in zip(*found, strict=True))


if __name__ == "__main__":
    main()
