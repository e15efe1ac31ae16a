"""`python -m benchmarks`: check that both implementations agree, measure them, print the ratios, write a record."""

import argparse
import contextlib
from dataclasses import asdict
from itertools import product

import torch

from benchmarks import cases, equality, measure, released, shapes
from benchmarks.cases import RELEASED, TEXTBOOK, Case
from lagvae_lib import atomic, paths

ITERATIONS, EPOCHS, AGGRESSIVE_EPOCHS = 1000, 50, 5  # the toy's, in outer iterations an epoch
INNER_STEPS = 40  # of an outer iteration, about what the toy's runs need
LOOK_EVERY = 200
PARTS = ("text", "images", "toy")


def main() -> None:
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    every = cases.quick() if arguments.quick else cases.full()
    chosen = [cases.with_released(case) for case in every if arguments.only in case.shape.name]
    if arguments.memory:
        index, variant = arguments.memory
        print(measure.peak_memory(chosen[int(index)], variant))
        return
    options = [f"--threads={arguments.threads}", *(["--quick"] if arguments.quick else [])]
    options += [f"--only={arguments.only}"] if arguments.only else []
    # Memory first, while this process is small
    rows = [{**_identity(case), "memory": _memories(i, case, options)} for i, case in enumerate(chosen)]
    differences = _equal(arguments.quick, arguments.only)
    print(f"Released code: {released.folder()}" if released.folder() else f"{released.ASK}.")
    for case, row in zip(chosen, rows, strict=True):
        row["times"] = measure.times(case)
        _print(case, row)
    record = {"machine": measure.machine(), "released": released.folder() is not None}
    record |= {"differences": differences, "cases": rows}
    if arguments.only in shapes.TOY.name:
        record["toy_run"] = _toy_run(rows)
        _print_toy_run(record["toy_run"])
    part = f"-{arguments.only}" if arguments.only else ""
    name = f"{'quick' if arguments.quick else 'cpu'}-{arguments.threads}-threads{part}.json"
    atomic.write_json(paths.results_dir() / "bench" / name, record)
    print(f"\nwritten to bench/{name} in the results folder")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="tiny sizes: tests the benchmark, says nothing of speed")
    parser.add_argument("--threads", type=int, default=1, help="torch's threads (default: 1)")
    parser.add_argument("--only", default="", choices=PARTS, help="a part of the cases, with a record of its own")
    parser.add_argument("--memory", nargs=2, metavar=("CASE", "VARIANT"), help=argparse.SUPPRESS)
    return parser.parse_args()


def _identity(case: Case) -> dict:
    return {"case": case.name, "shape": asdict(case.shape), "repeats": case.repeats, "aims": dict(case.aims)}


def _memories(index: int, case: Case, options: list[str]) -> dict[str, float]:
    return {variant: measure.memory_apart(index, variant, options) for variant in case.variants if case.memory}


def _equal(quick: bool, only: str) -> dict:
    """Differences at initial parameters and, words, at five times those; raises where they are more than rounding."""
    words = [shapes.TINY] if quick else [shapes.PAPER, shapes.SCALED]
    toy = shapes.TINY_TOY if quick else shapes.TOY
    pictures = [shapes.TINY_IMAGES] if quick else [shapes.IMAGES_PAPER, shapes.IMAGES_SCALED]
    found = {}
    for shape, scale in product((*words, toy), (1.0, 5.0)):
        if only in shape.name:
            name = f"{shape.name}, parameters x{scale:g}"
            found[name] = equality.check(equality.training(shape, scale) | equality.evaluation(shape, scale=scale))
    for shape in pictures:
        if only in shape.name:
            values = equality.training(shape) | equality.evaluation(shape) | equality.pixels(shape)
            found[shape.name] = equality.check(values, shape.tolerance)
    for name, make in (("prior", shapes.library), ("narrower", shapes.informative)):
        if only in toy.name:
            found[f"{toy.name}, posteriors on the grid, {name}"] = equality.check(equality.grid(make(toy), toy))
    print("Relative differences from the textbook's values (dropout on, same masks); bfloat16 is meant to differ:")
    for name, values in found.items():
        print(f"  {name}: " + "; ".join(f"{key} {value:.0e}" for key, value in values.items()))
    if not measure.machine()["bfloat16_in_hardware"]:
        print("This processor has no bfloat16 products: the lower precision cannot be faster here.")
    return found


def _print(case: Case, row: dict) -> None:
    reference, aims = row["times"][TEXTBOOK], dict(case.aims)
    print(f"\n{case.shape.name}: {case.name} (medians of {case.repeats})")
    other = row["times"].get(RELEASED)
    beside = f"{'released':>10}" if other else ""
    print(f"  {'':22}{'ms':>10}{'cpu ms':>10}{'speed-up':>10}{'of cpu':>8}{'aim':>6}{'peak MiB':>10}{beside}")
    for variant, taken in row["times"].items():
        wall, cpu = (reference[clock] / taken[clock] for clock in ("seconds", "cpu_seconds"))
        milliseconds = f"{1e3 * taken['seconds']:10.2f}{1e3 * taken['cpu_seconds']:10.2f}"
        aim = f"{aims[variant]:.1f}" if variant in aims else ""
        memory = f"{row['memory'][variant]:.0f}" if variant in row["memory"] else ""
        beside = f"{other['seconds'] / taken['seconds']:9.2f}x" if other else ""
        print(f"  {variant:22}{milliseconds}{wall:9.2f}x{cpu:7.2f}x{aim:>6}{memory:>10}{beside}", flush=True)


def _toy_run(rows: list[dict]) -> dict:
    """Seconds of the toy's aggressive run, composed of its parts' times: `AGGRESSIVE_EPOCHS` of inner and outer steps,
    plain steps to the end, a look at the posteriors every `LOOK_EVERY` iterations, of a decoder that listens, which is
    the dearer kind. Validation is left out."""
    toy = {row["case"].split(" at ")[0]: row["times"] for row in rows if row["shape"].get("nz") == 1}
    looks = ITERATIONS * EPOCHS // LOOK_EVERY
    composed = {}
    for name, clip, grid in ((TEXTBOOK, TEXTBOOK, TEXTBOOK), ("library", cases.JOINT, "library")):
        inner, outer = (toy[f"{step} step"][clip]["seconds"] for step in ("inner", "outer"))
        aggressive = ITERATIONS * AGGRESSIVE_EPOCHS * (INNER_STEPS * inner + outer)
        plain = ITERATIONS * (EPOCHS - AGGRESSIVE_EPOCHS) * toy["plain step"][clip]["seconds"]
        composed[name] = {"training": aggressive + plain, "looks": looks * toy[cases.LISTENING][grid]["seconds"]}
    return composed


def _print_toy_run(composed: dict) -> None:
    print(f"\ntoy: a whole aggressive run, composed: {EPOCHS} epochs of {ITERATIONS} iterations, {AGGRESSIVE_EPOCHS}")
    print(f"  aggressive with {INNER_STEPS} inner steps each, a look every {LOOK_EVERY}; without validation")
    for name, parts in composed.items():
        reference = composed[TEXTBOOK]
        ratio = sum(reference.values()) / sum(parts.values())
        alone = reference["training"] / parts["training"]
        seconds = f"training {parts['training']:6.0f} s, looks {parts['looks']:6.0f} s"
        print(f"  {name:10} {seconds}: {ratio:.2f}x as fast (aim 3.0), {alone:.2f}x without the looks")


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):
        main()
