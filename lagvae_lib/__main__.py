"""Runs without a notebook: `python -m lagvae_lib run yelp aggressive-anneal --profile scaled --seed 0`."""

import argparse
import sys

from lagvae_lib import data, evidence, methods, profiles, report, runs, status, tables
from lagvae_lib.names import UnknownName


def main(arguments: list[str] | None = None) -> int:
    """Parse and do; bad names and missing data end with one line and exit status 2."""
    args = _parser().parse_args(arguments)
    try:
        args.do(args)
    except (UnknownName, data.DataError, runs.RunBusy, ValueError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m lagvae_lib", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="command")
    run = commands.add_parser("run", help="train and evaluate a run, go on with it, or show it if it is finished")
    _name_a_run(run)
    run.set_defaults(do=_run)
    check = commands.add_parser("ais", help="check a finished run's NLL by annealed importance sampling")
    _name_a_run(check)
    check.add_argument("--examples", type=int, default=evidence.EXAMPLES, help="of the test set, from all over it")
    check.add_argument("--steps", type=int, default=evidence.STEPS, help="temperatures")
    check.add_argument("--chains", type=int, default=evidence.CHAINS)
    check.set_defaults(do=_ais)
    written = commands.add_parser("tables", help="write every table and figure that the records give")
    written.add_argument("--profile", default="scaled", help=f"{', '.join(profiles.PROFILES)} (default: scaled)")
    written.set_defaults(do=_tables)
    listing = commands.add_parser("methods", help="list every method with its source")
    listing.set_defaults(do=_methods)
    return parser


def _name_a_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("dataset", help=f"{', '.join(data.NAMES)}, or a path to your own text or images")
    parser.add_argument(
        "method", help=f"{', '.join(methods.METHODS)}; changes as in aggressive+clip=separate or free-bits+aggressive"
    )
    parser.add_argument("--profile", default="auto", help=f"{', '.join(profiles.PROFILES)} (default: by the machine)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto", help="cpu, cuda, or auto")


def _ais(args: argparse.Namespace) -> None:
    config, loaded = runs.prepared(args.dataset, args.method, args.profile, args.seed)
    found = evidence.compare(config, loaded, runs.choose_device(args.device), args.examples, args.steps, args.chains)
    print("  ".join(f"{name} {value:.3f}" for name, value in found.items() if isinstance(value, float)))


def _tables(args: argparse.Namespace) -> None:
    for path in report.write(args.profile):
        print(path)
    status.update()


def _run(args: argparse.Namespace) -> None:
    record = runs.run_named(
        args.dataset, args.method, args.profile, args.seed, args.device, report=lambda line: print(line, flush=True)
    )
    shown = {name: record.metrics[name] for name in ("nll", "elbo", "kl", "mi", "au")}
    print("  ".join(f"{name} {value:.3f}" for name, value in shown.items()), f" in {record.folder}")


def _methods(args: argparse.Namespace) -> None:
    for method in methods.METHODS.values():
        labels = dict.fromkeys(tables.label(method.name, family == "images") for family in method.families)
        print(f"{method.name:20} {', '.join(labels):24} {', '.join(method.families):14} {method.source}")


if __name__ == "__main__":
    sys.exit(main())
