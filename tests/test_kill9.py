"""A few of the kills of tests/kill9.py, which makes a hundred."""

import subprocess
import sys
from pathlib import Path


def test_killed_runs_end_with_the_same_numbers():
    code = "from tests.kill9 import main; main(4, ('text, aggressive', 'text, pretraining'))"
    root = Path(__file__).resolve().parent.parent
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600, cwd=root)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    assert done.stdout.count("same numbers, nothing left behind") == 2
