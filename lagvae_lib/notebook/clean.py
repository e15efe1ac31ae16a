"""Notebooks as they are committed: python -m lagvae_lib.notebook.clean notebooks/*.ipynb

JupyterLab writes the kernel's own display name into whatever it saves; a notebook that has it already is not changed by
opening and saving it. Execution adds times and splits what is printed into pieces: both go.
"""

import sys
from pathlib import Path

import nbformat

KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}


def cleaned(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The notebook, changed in place."""
    notebook.metadata["kernelspec"] = dict(KERNEL)
    for unwanted in ("papermill", "widgets"):
        notebook.metadata.pop(unwanted, None)
    for cell in notebook.cells:
        for unwanted in ("papermill", "execution"):
            cell.metadata.pop(unwanted, None)
        if cell.cell_type == "code":
            cell.outputs = _joined(cell.outputs)
    return notebook


def _joined(outputs: list) -> list:
    """Pieces of one stream that follow each other become one."""
    joined = []
    for output in outputs:
        last = joined[-1] if joined else None
        if last and last.output_type == output.output_type == "stream" and last.name == output.name:
            last.text += output.text
        else:
            joined.append(output)
    return joined


def main(paths: list[str]) -> None:
    """Clean these files in place."""
    for path in map(Path, paths):
        before = path.read_text(encoding="utf-8")
        text = nbformat.writes(cleaned(nbformat.reads(before, as_version=4))) + "\n"
        if text != before:
            path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
