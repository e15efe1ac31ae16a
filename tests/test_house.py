"""The house: imports point down, in no circle, and what needs no PyTorch imports none."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from lagvae_lib.paths import ROOT

LIBRARY = ROOT / "lagvae_lib"
# From the ground up. A room may import from itself and from what stands before it.
FLOORS = (
    ("errors", "lazy"),
    ("paths", "atomic"),
    ("names",),
    ("numerics",),
    ("data", "objectives", "schedule"),
    ("models",),
    ("sampling", "inference", "metrics"),
    ("training", "own"),
    ("config",),
    ("runs",),
    ("plots",),
    ("paper",),
    ("notebook",),
    ("__main__",),
)
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}


def room_of(path: Path) -> str:
    return path.relative_to(LIBRARY).parts[0].removesuffix(".py")


def rooms_imported(path: Path) -> set[str]:
    """Rooms whose modules a file imports, wherever in it; not those that it names for type checkers alone."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
            node.body = []
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "lagvae_lib":
            parts = node.module.split(".")[1:]
            found |= {parts[0]} if parts else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("lagvae_lib.")}
    return found


def arrows_up(imports: dict[str, set[str]]) -> list[str]:
    """Imports that do not point down: "room -> room"."""
    return sorted(f"{a} -> {b}" for a, of in imports.items() for b in of if a != b and FLOOR[b] >= FLOOR[a])


def imports_of_rooms() -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for path in LIBRARY.rglob("*.py"):
        if path != LIBRARY / "__init__.py":
            found.setdefault(room_of(path), set()).update(rooms_imported(path))
    return found


def test_every_room_has_a_floor_and_no_import_points_up():
    found = imports_of_rooms()
    assert set(found) == set(FLOOR)
    assert arrows_up(found) == []


def test_an_arrow_up_or_sideways_would_be_seen():
    assert arrows_up({"models": {"config", "names"}}) == ["models -> config"]
    assert arrows_up({"metrics": {"inference"}}) == ["metrics -> inference"]


def test_no_two_files_import_each_other_in_a_circle():
    modules = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in LIBRARY.rglob("*.py")}
    waiting, arrows = dict(modules), {}
    for name, path in modules.items():
        tree = ast.parse(path.read_text())
        named = [n for n in tree.body if isinstance(n, ast.ImportFrom) and (n.module or "").startswith("lagvae_lib")]
        targets = {n.module for n in named} | {f"{n.module}.{alias.name}" for n in named for alias in n.names}
        arrows[name] = {target for target in targets if target in modules and target != name}
    while ready := [name for name in waiting if not arrows[name] & set(waiting)]:
        for name in ready:
            del waiting[name]
    assert not waiting, f"a circle through {sorted(waiting)}"


@pytest.mark.parametrize(
    "code",
    [
        "import lagvae_lib.plots.records, lagvae_lib.plots.posterior_space",
        "from lagvae_lib.runs.record import Records; assert Records('scaled').of('yelp-small')",
        "import lagvae_lib.paper.report, lagvae_lib.paper.claims, lagvae_lib.paper.readme",
        "from lagvae_lib.__main__ import main; main(['methods'])",
        "from lagvae_lib.notebook import settings",
    ],
)
def test_what_needs_no_pytorch_imports_none(code):
    checked = f"import sys; {code}; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", checked], check=True, capture_output=True, cwd=ROOT)


def test_functions_and_files_stay_small():
    lengths = [
        node.end_lineno - node.lineno + 1
        for path in LIBRARY.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef)
    ]
    assert max(lengths) <= 46
    assert sorted(lengths)[len(lengths) // 2] <= 8
    assert sorted(lengths)[int(0.9 * len(lengths))] <= 20
    too_long = [path.name for path in LIBRARY.rglob("*.py") if path.read_text().count("\n") > 350]
    assert not too_long
