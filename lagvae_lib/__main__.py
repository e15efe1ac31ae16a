"""Runs without a notebook: `python -m lagvae_lib run yelp aggressive-anneal --profile scaled --seed 0`."""

import argparse
import errno
import os
import sys
from contextlib import suppress

from lagvae_lib import paths
from lagvae_lib.config.machine import choose_device
from lagvae_lib.config.methods import METHODS, find, label
from lagvae_lib.config.profiles import PROFILES
from lagvae_lib.data import NAMES, with_label_column
from lagvae_lib.errors import UserError
from lagvae_lib.names import choose
from lagvae_lib.numerics import PRECISIONS

# What an operating system refuses, and what the user can do about it; any other OSError is shown as Python words it
ADVICE = {
    errno.EROFS: "that place is read-only: name another by LAGVAE_RESULTS or LAGVAE_DATA",
    errno.EACCES: "there is no permission to use it: name another place by LAGVAE_RESULTS or LAGVAE_DATA",
    errno.EPERM: "there is no permission to use it: name another place by LAGVAE_RESULTS or LAGVAE_DATA",
    errno.ENOSPC: "the disk is full: make room, and give the same command again to go on",
    errno.EDQUOT: "the quota is used up: make room, and give the same command again to go on",
    errno.EFBIG: "a file may not grow so large here: make room, and give the same command again to go on",
    errno.ENOTDIR: "a part of that path is a file: name another place by LAGVAE_RESULTS or LAGVAE_DATA",
}


def main(arguments: list[str] | None = None) -> int:
    """Parse and do. What the user can mend ends with one line and exit status 2; a traceback is a fault of the code."""
    _write_whatever_the_terminal_can()
    args = _parser().parse_args(arguments)
    try:
        args.do(args)
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        _forget_output()  # `methods | head`: the reader has seen enough; a run that is not finished is another matter
        return _ended("nobody reads the output; the same command goes on") if args.do is _run else 0
    except (UserError, OSError, MemoryError) as error:
        return _ended(_in_words(error))
    except KeyboardInterrupt:
        return _ended("interrupted; the same command goes on from the last checkpoint", 130)
    return 0


def _write_whatever_the_terminal_can() -> None:
    """Replace letters that the terminal's encoding does not have (β in cp1252) instead of failing at them."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")


def _forget_output() -> None:
    """What could not be written is not to be tried again when the interpreter ends."""
    with suppress(OSError, ValueError, AttributeError):  # there may be no such stream
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _ended(line: str, status: int = 2) -> int:
    try:
        sys.stdout.flush()
    except (OSError, AttributeError):
        _forget_output()
    with suppress(OSError):  # nobody may be there to read it
        print(f"error: {line}", file=sys.stderr)
    return status


def _in_words(error: BaseException) -> str:
    if isinstance(error, MemoryError):
        return "there is not enough memory; take a smaller profile, or less data"
    if not isinstance(error, OSError):
        return str(error)
    reason = ADVICE.get(error.errno, error.strerror or str(error))
    return reason if error.filename is None else f"{paths.absolute(error.filename)}: {reason}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m lagvae_lib", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="command")
    run = commands.add_parser("run", help="train and evaluate runs, go on with them, or show those that are finished")
    _name_a_run(run, several=True)
    run.add_argument("--deterministic", action="store_true", help="the same bits each time on CUDA too, slower")
    run.set_defaults(do=_run)
    check = commands.add_parser("ais", help="check a finished run's NLL by annealed importance sampling")
    _name_a_run(check)
    check.add_argument("--examples", type=int, default=50, help="of the test set, from all over it (default: 50)")
    check.add_argument("--steps", type=int, default=50, help="temperatures (default: 50)")
    check.add_argument("--chains", type=int, default=8, help="per example (default: 8)")
    check.set_defaults(do=_ais)
    speaker = commands.add_parser("speak", help="sentences of a finished text run, each from its own z ~ N(0, I)")
    _name_a_run(speaker, profile="scaled", device=False)
    speaker.add_argument("--sentences", type=int, default=5)
    speaker.add_argument(
        "--temperature", type=float, help="draw the words; without it, the most probable one each time"
    )
    speaker.set_defaults(do=_speak)
    written = commands.add_parser("tables", help="write every table and figure that the records give")
    written.add_argument("--profile", default="scaled", help=f"{', '.join(PROFILES)} (default: scaled)")
    written.set_defaults(do=_tables)
    listing = commands.add_parser("methods", help="list every method with its source")
    listing.set_defaults(do=_methods)
    return parser


def _name_a_run(
    parser: argparse.ArgumentParser, profile: str = "auto", several: bool = False, device: bool = True
) -> None:
    parser.add_argument("dataset", help=f"{', '.join(NAMES)}, or a path to your own text or images")
    parser.add_argument(
        "method",
        help=f"{', '.join(METHODS)}; {'several with commas; ' if several else ''}changes as in aggressive+window=10 or "
        "free-bits+aggressive",
    )
    parser.add_argument(
        "--label-column", help="of your own text: the column, by number or name, that is a label and no text"
    )
    parser.add_argument("--profile", default=profile, help=f"{', '.join(PROFILES)} (default: {profile})")
    parser.add_argument("--seed", type=int, default=0)
    if device:
        parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, ..., or auto (default)")
    parser.add_argument("--precision", default="auto", help=f"{', '.join(PRECISIONS)}, or auto (default)")


# Each command imports what it needs itself: to list names takes no PyTorch.


def _ais(args: argparse.Namespace) -> None:
    from lagvae_lib.runs.ais_check import compare
    from lagvae_lib.runs.train import prepared

    device = choose_device(args.device, args.dataset)
    precision = _precision(args, [args.method], device)
    config, loaded = prepared(_dataset(args), args.method, args.profile, args.seed, precision)
    found = compare(config, loaded, device, args.examples, args.steps, args.chains)
    print("  ".join(f"{name} {value:.3f}" for name, value in found.items() if isinstance(value, float)))


def _speak(args: argparse.Namespace) -> None:
    from lagvae_lib.config.profiles import resolve
    from lagvae_lib.data import is_file, resolve_name
    from lagvae_lib.runs.speak import speak
    from lagvae_lib.runs.train import prepared

    precision = _precision(args, [args.method], choose_device("auto", args.dataset))  # part of the run's name
    names = (args.method, choose(args.profile, PROFILES, "profile"), args.seed, precision)
    if is_file(args.dataset):  # whose record is named by what is in the file
        config, _ = prepared(_dataset(args), *names)
    else:
        config = resolve(resolve_name(args.dataset, args.profile), *names)
    print("\n".join(speak(config, args.sentences, args.temperature)))


def _tables(args: argparse.Namespace) -> None:
    from lagvae_lib.paper import readme, report
    from lagvae_lib.runs.record import Records

    records = Records(choose(args.profile, PROFILES, "profile"))
    for path in report.write(records):
        print(path)
    if not paths.CHECKOUT:  # an installed library has no README to bring up to date
        return
    if readme.shows(records):
        readme.update(records)
    else:
        print(
            f"README.md is left as it is: it shows profile {readme.PROFILE} of {paths.ROOT / 'results'}",
            file=sys.stderr,
        )


def _precision(args: argparse.Namespace, methods: list[str], device: str) -> str:
    from lagvae_lib.runs.record import settled_precision

    return settled_precision(args.precision, args.dataset, methods, [args.seed], args.profile, device)


def _dataset(args: argparse.Namespace) -> str:
    return with_label_column(args.dataset, args.label_column)


def _run(args: argparse.Namespace) -> None:
    from lagvae_lib.runs.record import on_record
    from lagvae_lib.runs.train import loaded, prepared, run

    device, said = choose_device(args.device, args.dataset), None
    methods = [name.strip() for name in args.method.split(",") if name.strip()]
    for method in methods or [args.method]:
        _can_be_run(_dataset(args), method, args.profile, args.seed)
    for method in methods or [args.method]:
        names = (_dataset(args), method, args.profile, args.seed, _precision(args, [method], device))
        if found := on_record(*names):
            record = loaded(found, _line)
        else:
            config, data = prepared(*names)
            if data.name != said:
                _say_what_the_data_are(data)
            said = data.name
            record = run(config, data, device, _line, deterministic=args.deterministic)
        if not record.metrics.get("provenance", {}).get("git"):
            print("record: git names no commit here, so it does not say which code made it", file=sys.stderr)
        shown = {name: record.metrics[name] for name in ("nll", "elbo", "kl", "mi", "au")}
        prefix = f"{method}: " if len(methods) > 1 else ""
        print(prefix + "  ".join(f"{name} {value:.3f}" for name, value in shown.items()), f" in {record.folder}")


def _can_be_run(dataset: str, method: str, profile: str, seed: int) -> None:
    """Raises the error of a method that does not exist, or not for such data, before another has trained for hours."""
    from lagvae_lib.config.profiles import resolve
    from lagvae_lib.data import is_file

    if is_file(dataset):  # which kind of data it holds is seen when it is loaded
        find(method)
    else:
        resolve(dataset, method, "smoke" if profile == "auto" else profile, seed)


def _line(text: str) -> None:
    print(text, flush=True)


def _say_what_the_data_are(data) -> None:
    """Sizes and notes, on stderr: stdout is for the numbers."""
    sizes = ", ".join(f"{name} {getattr(data, name).examples:,}" for name in ("train", "valid", "test"))
    stand_in = " (a stand-in)" if data.stand_in else ""
    print(f"data: {data.name}{stand_in}, {data.family}: {sizes}", file=sys.stderr)
    for note in data.notes:
        print(f"data: {note}", file=sys.stderr, flush=True)


def _methods(args: argparse.Namespace) -> None:
    for method in METHODS.values():
        labels = dict.fromkeys(label(method.name, family) for family in method.families)
        print(f"{method.name:20} {', '.join(labels):24} {', '.join(method.families):18} {method.source}")


if __name__ == "__main__":
    sys.exit(main())
