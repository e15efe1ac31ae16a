"""Run by python314.mjs inside CPython 3.14: every notebook's first two cells, one statement at a time as IPython does.

The packages that the check of parameters imports and does not use are stubbed; the last line is the answer.
"""

import ast
import glob
import json
import os
import sys
import types

for name in ("numpy", "pandas", "platformdirs", "torch"):
    sys.modules[name] = types.ModuleType(name)
sys.modules["torch"].cuda = types.SimpleNamespace(is_available=lambda: False)
sys.modules["platformdirs"].user_data_path = lambda name: None
sys.modules["numpy"].ndarray = sys.modules["pandas"].DataFrame = object
sys.path.insert(0, "/checkout")
os.environ["LAGVAE_PROFILE"] = "smoke"


def run(cells):
    """The names of a module `__main__` after these cells, with IPython's history in `In`."""
    names = types.ModuleType("__main__").__dict__
    names["In"] = [""]
    for source in cells:
        names["In"].append(source)
        for statement in ast.parse(source).body:
            exec(compile(ast.Module([statement], []), "cell", "exec"), names)
    return names


said = [sys.version.split()[0]]
for path in sorted(glob.glob("/checkout/notebooks/*.ipynb")):
    with open(path, encoding="utf-8") as f:
        cells = ["".join(cell["source"]) for cell in json.load(f)["cells"] if cell["cell_type"] == "code"]
    check = cells[1].split("\nSEEDS")[0].split("\nWHOSE")[0]
    assert "__annotations__" not in run(cells[:1])
    assert run([cells[0], "# Parameters", check])["settings"].values
    try:
        run([cells[0], "# Parameters\nsead = 2", check])
    except ValueError as error:
        said.append(type(error).__name__)
" ".join(said)
