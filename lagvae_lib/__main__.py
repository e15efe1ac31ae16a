"""Runs without a notebook: `python -m lagvae_lib run yelp aggressive-anneal --profile scaled --seed 0`."""

import argparse
import sys

from lagvae_lib import data, methods, profiles, runs
from lagvae_lib.names import UnknownName


def main(arguments: list[str] | None = None) -> int:
    """Parse and do; bad names and missing data end with one line and exit status 2."""
    args = _parser().parse_args(arguments)
    try:
        args.do(args)
    except (UnknownName, data.DataError, runs.RunBusy, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m lagvae_lib", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="command")
    run = commands.add_parser("run", help="train and evaluate a run, go on with it, or show it if it is finished")
    run.add_argument("dataset", help=f"{', '.join(data.NAMES)}, or a path to a text file")
    run.add_argument("method", help=f"{', '.join(methods.METHODS)}; knobs as in aggressive+clip=separate")
    run.add_argument("--profile", default="auto", help=f"{', '.join(profiles.PROFILES)} (default: by the machine)")
    run.add_argument("--seed", type=int, default=0)
    run.add_argument("--device", default="auto", help="cpu, cuda, or auto")
    run.set_defaults(do=_run)
    listing = commands.add_parser("methods", help="list every method with its source")
    listing.set_defaults(do=_methods)
    return parser


def _run(args: argparse.Namespace) -> None:
    record = runs.run_named(
        args.dataset, args.method, args.profile, args.seed, args.device, report=lambda line: print(line, flush=True)
    )
    shown = {name: record.metrics[name] for name in ("nll", "elbo", "kl", "mi", "au")}
    print("  ".join(f"{name} {value:.3f}" for name, value in shown.items()), f" in {record.folder}")


def _methods(args: argparse.Namespace) -> None:
    for method in methods.METHODS.values():
        print(f"{method.name:20} {method.label:18} {method.source}")


if __name__ == "__main__":
    sys.exit(main())
