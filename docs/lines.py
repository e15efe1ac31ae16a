"""Point the essays' links into the library at the lines where the names are defined: python docs/lines.py [--check].

A link reads [`Aggressive.inner_loop`](../lagvae_lib/inference/aggressive.py#L81). The file must define that
name; the number of the line follows the code.
"""

import ast
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LINK = re.compile(r"\[`(?P<name>[\w.]+)`\]\(\.\./(?P<path>lagvae_lib/[\w/]+\.py)#L(?P<line>\d+)\)")


def line_of(path: Path, name: str) -> int:
    """The line of a function, class or method (`Class.method`). Raises LookupError where the file has no such name."""
    body = ast.parse(path.read_text()).body
    for part in name.split("."):
        named = [node for node in body if getattr(node, "name", None) == part]
        if not named:
            raise LookupError(f"{path.relative_to(ROOT)} defines no {name}")
        body = getattr(named[0], "body", [])
    return named[0].lineno


def refreshed(text: str) -> str:
    """The text of a notebook with every link's line as it is now."""
    return LINK.sub(lambda link: _link(link["name"], link["path"]), text)


def _link(name: str, path: str) -> str:
    return f"[`{name}`](../{path}#L{line_of(ROOT / path, name)})"


def main(check: bool) -> int:
    """Rewrite the notebooks, or with `check` only say which have stale links; the number of those."""
    stale = 0
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        before = path.read_text()
        after = refreshed(before)
        stale += before != after
        if before != after:
            print(f"{'stale' if check else 'refreshed'}: {path.relative_to(ROOT)}")
            if not check:
                path.write_text(after)
    return stale


if __name__ == "__main__":
    found = main("--check" in sys.argv[1:])
    sys.exit(found if "--check" in sys.argv[1:] else 0)
