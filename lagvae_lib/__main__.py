"""Runs without a notebook: `python -m lagvae_lib run yelp aggressive-anneal --profile scaled --seed 0`."""

import argparse
import sys

from lagvae_lib.config.methods import METHODS, label
from lagvae_lib.config.profiles import PROFILES, choose_device
from lagvae_lib.data import NAMES
from lagvae_lib.data.sources import DataError
from lagvae_lib.names import UnknownName, choose
from lagvae_lib.numerics import PRECISIONS
from lagvae_lib.runs.record import RunBusy


def main(arguments: list[str] | None = None) -> int:
    """Parse and do; bad names and missing data end with one line and exit status 2."""
    args = _parser().parse_args(arguments)
    try:
        args.do(args)
    except BrokenPipeError:  # `methods | head`: the reader has seen enough
        sys.stderr.close()
        return 0
    except (UnknownName, DataError, RunBusy, ValueError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m lagvae_lib", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="command")
    run = commands.add_parser("run", help="train and evaluate a run, go on with it, or show it if it is finished")
    _name_a_run(run)
    run.add_argument("--deterministic", action="store_true", help="the same bits each time on CUDA too, slower")
    run.set_defaults(do=_run)
    check = commands.add_parser("ais", help="check a finished run's NLL by annealed importance sampling")
    _name_a_run(check)
    check.add_argument("--examples", type=int, default=50, help="of the test set, from all over it (default: 50)")
    check.add_argument("--steps", type=int, default=50, help="temperatures (default: 50)")
    check.add_argument("--chains", type=int, default=8, help="per example (default: 8)")
    check.set_defaults(do=_ais)
    written = commands.add_parser("tables", help="write every table and figure that the records give")
    written.add_argument("--profile", default="scaled", help=f"{', '.join(PROFILES)} (default: scaled)")
    written.set_defaults(do=_tables)
    listing = commands.add_parser("methods", help="list every method with its source")
    listing.set_defaults(do=_methods)
    return parser


def _name_a_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("dataset", help=f"{', '.join(NAMES)}, or a path to your own text or images")
    parser.add_argument(
        "method", help=f"{', '.join(METHODS)}; changes as in aggressive+clip=separate or free-bits+aggressive"
    )
    parser.add_argument("--profile", default="auto", help=f"{', '.join(PROFILES)} (default: by the machine)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, ..., or auto (default)")
    parser.add_argument("--precision", default="float32", help=f"{', '.join(PRECISIONS)} (default: float32)")


# Each command imports what it needs itself: to list names takes no PyTorch.


def _ais(args: argparse.Namespace) -> None:
    from lagvae_lib.runs.ais_check import compare
    from lagvae_lib.runs.train import prepared

    config, loaded = prepared(args.dataset, args.method, args.profile, args.seed, args.precision)
    found = compare(config, loaded, choose_device(args.device, args.dataset), args.examples, args.steps, args.chains)
    print("  ".join(f"{name} {value:.3f}" for name, value in found.items() if isinstance(value, float)))


def _tables(args: argparse.Namespace) -> None:
    from lagvae_lib.paper import readme, report
    from lagvae_lib.runs.record import Records

    records = Records(choose(args.profile, PROFILES, "profile"))
    for path in report.write(records):
        print(path)
    readme.update(records)


def _run(args: argparse.Namespace) -> None:
    from lagvae_lib.runs.train import run_named

    record = run_named(
        args.dataset,
        args.method,
        args.profile,
        args.seed,
        args.device,
        report=lambda line: print(line, flush=True),
        precision=args.precision,
        deterministic=args.deterministic,
    )
    shown = {name: record.metrics[name] for name in ("nll", "elbo", "kl", "mi", "au")}
    print("  ".join(f"{name} {value:.3f}" for name, value in shown.items()), f" in {record.folder}")


def _methods(args: argparse.Namespace) -> None:
    for method in METHODS.values():
        labels = dict.fromkeys(label(method.name, family) for family in method.families)
        print(f"{method.name:20} {', '.join(labels):24} {', '.join(method.families):18} {method.source}")


if __name__ == "__main__":
    sys.exit(main())
