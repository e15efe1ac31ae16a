"""What a notebook's own cells say about its parameters: which are declared, and what was put in from outside.

The source of a cell is the only witness that all versions of Python and all front ends share. `__annotations__` is
not: from Python 3.14 on a module's annotations are lazy, and IPython compiles a cell one statement at a time, so that
only the last is available. Nor can the kernel's names be used, since start-up files and a user's cells add theirs.
"""

import ast
from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass
from pathlib import Path

INJECTED = "# Parameters"  # the first line of the cell that papermill puts behind the one tagged `parameters`


@dataclass(frozen=True)
class Cells:
    """declared: parameters with an annotation in the parameters cell, in order. strays: what that cell, or papermill's
    after it, sets without one."""

    declared: tuple[str, ...]
    strays: tuple[str, ...]


def read(names: dict, known: Set[str]) -> Cells | None:
    """What the cells in a notebook's `globals()` say; None where there is no source to read.

    known: names of parameters. The parameters cell is the one run last that declares one of them: cells can be run in
    any order, and more than once.
    """
    sources = _sources(names)
    if sources is None:
        return None
    trees = [(source, tree) for source in sources if (tree := _parsed(source)) is not None]
    places = [i for i, (_, tree) in enumerate(trees) if known & set(_annotated(tree))]
    if not places:
        return Cells((), ())
    tree = trees[places[-1]][1]
    declared, strays = tuple(_annotated(tree)), [name for name in _assigned(tree) if name not in _loaded(tree)]
    for source, later in trees[places[-1] + 1 :]:
        if source.lstrip().startswith(INJECTED):
            strays += _assigned(later)
    return Cells(declared, tuple(name for name in dict.fromkeys(strays) if name not in declared))


def without_source(names: dict, known: Iterable[str]) -> Cells:
    """What is left where cells are executed without their source: the known names, and annotations of others."""
    annotated = names.get("__annotations__") or {}
    if callable(annotate := names.get("__annotate__")):  # Python 3.14
        annotated = annotate(1)
    declared = [name for name in known if name in names]
    others = (name for name in annotated if name in names and name not in declared)  # `del` leaves an annotation
    return Cells((*declared, *others), ())


def _sources(names: dict) -> list[str] | None:
    """IPython's history of cells, oldest first; else the file that is run, such as a notebook saved as a script."""
    if isinstance(history := names.get("In"), list) and any(history):  # nbval executes cells without keeping them
        return [source for source in history if isinstance(source, str)]
    try:
        return [Path(names["__file__"]).read_text(encoding="utf-8")]
    except (KeyError, TypeError, OSError, ValueError):
        return None


def _parsed(source: str) -> ast.Module | None:
    try:
        return ast.parse(source)
    except (SyntaxError, ValueError):  # a cell magic, a NUL: no cell of parameters
        return None


def _annotated(tree: ast.Module) -> Iterator[str]:
    """Names with an annotation at the top of a cell (`seed: int = 2`)."""
    for statement in tree.body:
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            yield statement.target.id


def _assigned(tree: ast.Module) -> list[str]:
    """Names that a cell's plain assignments set, hidden ones (`_x`) left out."""
    targets = [target for statement in tree.body if isinstance(statement, ast.Assign) for target in statement.targets]
    names = [node.id for target in targets for node in ast.walk(target) if _is_set(node)]
    return [name for name in names if not name.startswith("_")]


def _is_set(node: ast.AST) -> bool:
    return isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)


def _loaded(tree: ast.Module) -> set[str]:
    """Names that a cell reads itself: helpers, not parameters."""
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
