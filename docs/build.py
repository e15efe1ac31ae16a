"""Build the site: python docs/build.py [folder], by default build/site/html. Needs the extra `site` and no network.

The notebooks, the READMEs and the records are staged under build/site/src, where links between them become links
between pages, and links to lines of the library lead to its source on the site.
"""

import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
sys.path.insert(0, str(ROOT))
sys.path.insert(0, str(DOCS))

import explorer  # noqa: E402
import nbformat  # noqa: E402

CODE = re.compile(r"\[`([\w.]+)`\]\(\.\./lagvae_lib/([\w/]+)\.py#L\d+\)")
LINK = re.compile(r"(!?)\[([^\]]+)\]\((?!https?:|#)([^)\s]+)\)")
PAGES = {
    "README.md": "readme.md",
    "results/README.md": "results.md",
    "data/README.md": "data.md",
    "docs/own_vae.md": "own_vae.md",
}


def stage(source: Path) -> None:
    """Fill `source` with everything that Sphinx reads."""
    shutil.rmtree(source, ignore_errors=True)
    shutil.copytree(DOCS, source, ignore=shutil.ignore_patterns("__pycache__", "build.py", "lines.py", "explorer.py"))
    (source / "notebooks").mkdir()
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        notebook(path, source / "notebooks" / path.name)
    for path, page in PAGES.items():
        (source / page).write_text(linked((ROOT / path).read_text(), ROOT / path, source / page))
    shutil.copytree(ROOT / "results" / "figures", source / "_static" / "figures")
    (source / "api.md").write_text(api())
    explorer.write(source / "_static")


def notebook(path: Path, target: Path) -> None:
    """A notebook with its links rewritten, and the cells that only import folded."""
    found = nbformat.read(path, as_version=4)
    for cell in found.cells:
        if cell.cell_type == "markdown":
            code = CODE.sub(r'<a href="../_modules/lagvae_lib/\2.html#\1"><code>\1</code></a>', cell.source)
            cell.source = linked(code, path, target)
        elif "import matplotlib" in cell.source or "import pandas" in cell.source:
            cell.metadata["tags"] = [*cell.metadata.get("tags", []), "hide-input"]
        for output in cell.get("outputs", []):
            _with_alternative(output)
    nbformat.write(found, target)


def _with_alternative(output) -> None:
    """A figure as HTML, because MyST-NB leaves out the alternative text that is in its metadata."""
    alt = output.get("metadata", {}).get("image/png", {}).get("alt")
    if alt:
        image = "".join(output.data["image/png"].split())
        output.data = {"text/html": f'<img alt="{alt}" src="data:image/png;base64,{image}">'}


def linked(text: str, path: Path, page: Path) -> str:
    """Links of a Markdown text as they are on the site; to files that the site does not have, the words alone."""
    return LINK.sub(lambda link: _link(*link.groups(), path.parent, page), text)


def _link(image: str, words: str, target: str, folder: Path, page: Path) -> str:
    name, _, anchor = target.partition("#")
    inside = (folder / name).resolve()
    inside = inside.relative_to(ROOT).as_posix() if inside.is_relative_to(ROOT) else name
    up = "../" if page.parent.name == "notebooks" else ""
    if inside.startswith("results/figures/"):
        address = f"{up}_static/figures/{Path(inside).name}"
        return f'<img src="{address}" alt="{words}">' if image else f'<a href="{address}">{words}</a>'
    place = inside if inside.startswith("notebooks/") and inside.endswith(".ipynb") else PAGES.get(inside)
    return f"[{words}]({up}{place}{'#' * bool(anchor)}{anchor})" if place else words


def api() -> str:
    """The page of the library's interface: every module that has public names, from its docstrings."""
    modules = sorted((ROOT / "lagvae_lib").rglob("*.py"))
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in modules]
    parts = ["# The library's interface\n\nFrom the docstrings; every name leads to its source.\n"]
    for folder in dict.fromkeys(name.split(".")[1] if name.count(".") > 1 else "" for name in names):
        members = [n for n in names if (n.split(".")[1] if n.count(".") > 1 else "") == folder]
        parts.append(f"## {folder or 'lagvae_lib'}\n")
        for name in (member for member in members if not member.endswith("__main__")):
            parts.append(f"### {name}\n\n```{{eval-rst}}\n.. automodule:: {name}\n```\n")
    return "\n".join(parts)


def main(target: Path) -> int:
    """Stage and build; says how long it took and how large it is."""
    start, source = time.perf_counter(), ROOT / "build" / "site" / "src"
    stage(source)
    options = ["-q", "-b", "html", "-j", "2", "-d", source.parent / "doctrees"]  # what only Sphinx reads is not served
    status = subprocess.call([sys.executable, "-m", "sphinx", *options, source, target], cwd=ROOT)
    size = sum(path.stat().st_size for path in target.rglob("*") if path.is_file()) / 2**20
    print(f"{target / 'index.html'}: {time.perf_counter() - start:.0f} s, {size:.1f} MB")
    return status


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).resolve() if sys.argv[1:] else ROOT / "build" / "site" / "html"))
