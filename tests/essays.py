"""A notebook's code executed in this process, without a kernel: seconds instead of a minute."""

import json
import warnings
from pathlib import Path

import matplotlib.pyplot as plt

NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"


def execute(name: str, **parameters) -> dict:
    """The names that all code cells of `notebooks/<name>` leave, papermill's parameters put in; SystemExit ends it."""
    cells = [
        "".join(cell["source"])
        for cell in json.loads((NOTEBOOKS / name).read_text(encoding="utf-8"))["cells"]
        if cell["cell_type"] == "code"
    ]
    cells.insert(1, "\n".join(["# Parameters", *(f"{key} = {value!r}" for key, value in parameters.items())]))
    names = {"__name__": "__main__", "In": [""], "display": lambda *shown: None}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a window that Agg does not open
        for number, source in enumerate(cells):
            names["In"].append(source)
            try:
                exec(compile(source, f"{name}, code cell {number}", "exec"), names)
            except SystemExit:
                break
    plt.close("all")
    return names
