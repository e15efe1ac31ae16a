"""Whether two results folders hold the same records: `python tests/slurm/compare.py WHOLE INTERRUPTED`.

Metrics without times and provenance, history without its seconds, and the dynamics must be equal to the last digit.
"""

import json
import sys
from pathlib import Path

import pandas as pd

TIMES = ("seconds", "cpu_seconds", "provenance")


def numbers(folder: Path) -> tuple:
    """All of a record that must not depend on when, where or how often it was interrupted."""
    metrics = json.loads((folder / "metrics.json").read_text())
    history = pd.read_csv(folder / "history.csv", dtype=str).drop(columns="seconds").to_csv()
    dynamics = folder / "dynamics.csv"
    return (
        {key: value for key, value in metrics.items() if key not in TIMES},
        history,
        dynamics.read_text() if dynamics.exists() else "",
    )


def records(results: Path) -> dict[str, Path]:
    """Name of a record -> its folder."""
    return {str(path.parent.relative_to(results)): path.parent for path in sorted(results.glob("runs/**/metrics.json"))}


def main(whole: str, interrupted: str) -> int:
    """Print one line a record; the exit status is 1 where any differs or is missing."""
    first, second = records(Path(whole)), records(Path(interrupted))
    equal = {name: name in first and name in second for name in first | second}
    for name in equal:
        equal[name] = equal[name] and numbers(first[name]) == numbers(second[name])
        print(f"{'same' if equal[name] else 'DIFFERENT'}  {name}")
    return 0 if equal and all(equal.values()) else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
