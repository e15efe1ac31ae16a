"""Every notebook is listed in the README, run by `make test`, and committed as nbval and readers need it."""

import importlib.util
import re
from pathlib import Path

import nbformat
import pytest

from lagvae_lib.notebook import clean

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "notebooks"
NOTEBOOKS = sorted(FOLDER.rglob("*.ipynb"))
NOTEBOOKS = [path for path in NOTEBOOKS if ".ipynb_checkpoints" not in path.parts]
README = (ROOT / "README.md").read_text()

# A home, a temporary or a system folder, a drive: such a path tells where it ran, and nobody else has it.
FOLDERS = "home|Users|root|tmp|work|mnt|opt|usr|var|private"
MACHINE_PATH = re.compile(rf"(?<![\w.])(/({FOLDERS})/\w|[A-Za-z]:\\+Users)")

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)


def code_cells(path: Path) -> list:
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


def outputs(path: Path) -> list:
    return [output for cell in code_cells(path) for output in cell.outputs]


def text_of(output) -> str:
    """All that an output says in words: its stream, or the text, HTML and the like of its display."""
    if output.output_type == "stream":
        return output.text
    data = output.get("data", {})
    return "\n".join(str(value) for kind, value in data.items() if not kind.startswith("image/"))


def test_readme_lists_the_notebooks_that_exist_and_no_others():
    rows = re.findall(r"^\|\s*\[[^\]]+\]\(notebooks/([\w.-]+\.ipynb)\)\s*\|", README, re.MULTILINE)
    if not NOTEBOOKS:
        pytest.skip("no notebook has been written yet")
    assert rows == [path.name for path in NOTEBOOKS]


def test_make_test_executes_the_whole_folder():
    """nbval is given the folder, so that no list has to be kept; hence nothing may lie below it."""
    makefile = (ROOT / "Makefile").read_text()
    assert re.search(r"^TESTS \?= .*\bnotebooks$", makefile, re.MULTILINE)
    assert "--nbval-lax" in makefile and "--ignore" not in makefile and "--deselect" not in makefile
    assert all(path.parent == FOLDER for path in NOTEBOOKS)


@each_notebook
def test_is_valid_and_for_the_python3_kernel(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"


@each_notebook
def test_has_exactly_one_parameters_cell(path):
    tagged = [cell for cell in code_cells(path) if "parameters" in cell.metadata.get("tags", [])]
    assert len(tagged) == 1


@each_notebook
def test_was_executed_from_top_to_bottom_without_error(path):
    cells = [cell for cell in code_cells(path) if cell.source.strip()]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert outputs(path)
    assert not [output for output in outputs(path) if output.output_type == "error"]


@each_notebook
def test_has_an_output_that_nbval_compares(path):
    def checked(cell) -> bool:
        tags = cell.metadata.get("tags", [])
        return "nbval-check-output" in tags or "NBVAL_CHECK_OUTPUT" in cell.source

    cells = [cell for cell in code_cells(path) if checked(cell)]
    assert [cell for cell in cells if any(text_of(output).strip() for output in cell.outputs)]


@each_notebook
def test_hides_nothing_from_nbval(path):
    skipping = re.compile(r"nbval[-_](skip|ignore[-_]output|raises[-_]exception)", re.IGNORECASE)
    for cell in code_cells(path):
        assert not skipping.search(cell.source + " ".join(cell.metadata.get("tags", [])))


@each_notebook
def test_shows_no_svg(path):
    """nbval compares SVG as text, and it always differs."""
    assert not [output for output in outputs(path) if "image/svg+xml" in output.get("data", {})]


@each_notebook
def test_carries_no_metadata_of_a_run(path):
    """When it ran, for how long, under which file name: papermill and JupyterLab leave that behind."""
    notebook = nbformat.read(path, as_version=4)
    assert "papermill" not in notebook.metadata
    assert not [c for c in notebook.cells if {"papermill", "execution"} & set(c.metadata)]
    assert not [c for c in notebook.cells if "injected-parameters" in c.metadata.get("tags", [])]


@each_notebook
def test_shows_no_path_of_a_machine(path):
    for output in outputs(path):
        found = MACHINE_PATH.search(text_of(output))
        assert not found, f"{path.name} shows {text_of(output)[found.start() : found.start() + 60]!r}"


def markdown(path: Path) -> str:
    return "\n\n".join(cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "markdown")


@each_notebook
def test_no_output_comes_from_a_stand_in(path):
    assert not [output for output in outputs(path) if "A stand-in" in text_of(output)]


@each_notebook
def test_shows_no_log_of_training(path):
    """Runs are one folded table each; lines of progress are for who watches."""
    assert not [o for o in outputs(path) if re.search(r"epoch +\d+ +-ELBO", text_of(o))]


@each_notebook
def test_every_figure_has_alternative_text(path):
    figures = [output for output in outputs(path) if "image/png" in output.get("data", {})]
    assert not [output for output in figures if len(output.metadata.get("image/png", {}).get("alt", "")) < 30]


@each_notebook
def test_is_an_essay(path):
    """A question, links to the paper and the neighbours, what was seen (from records) and what not to conclude."""
    text, cells = markdown(path), nbformat.read(path, as_version=4).cells
    assert "**The question.**" in text and "not to conclude" in text
    assert "https://arxiv.org/abs/1901.05534" in text
    at = NOTEBOOKS.index(path)
    neighbours = [NOTEBOOKS[i].name for i in (at - 1, at + 1) if 0 <= i < len(NOTEBOOKS)]
    assert all(f"]({name})" in cells[0].source for name in neighbours)
    (heading,) = [i for i, c in enumerate(cells) if c.cell_type == "markdown" and "## What we saw" in c.source]
    assert cells[heading].source.rstrip().endswith("## What we saw")
    assert "display.saw(" in cells[heading + 1].source
    assert "nbval-check-output" in cells[heading + 1].metadata.get("tags", [])


@each_notebook
def test_has_three_exercises_with_folded_solutions(path):
    text = markdown(path)
    exercises = text[text.index("## Exercises") :]
    assert re.findall(r"^\*\*(\d)\.\*\*", exercises, re.MULTILINE) == ["1", "2", "3"]
    assert exercises.count("<details><summary>Solution</summary>\n\n") == exercises.count("</details>") == 3


@each_notebook
def test_links_lead_to_files_and_lines_that_exist(path):
    text = markdown(path)
    spec = importlib.util.spec_from_file_location("lines", ROOT / "docs" / "lines.py")
    lines = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(lines)
    assert lines.refreshed(text) == text, "python docs/lines.py"
    for target in re.findall(r"\]\((?!https?:|#)([^)\s#]+)", text):
        assert (FOLDER / target).exists(), target


@each_notebook
def test_saving_it_untouched_changes_nothing(path):
    """JupyterLab writes the kernel's own display name."""
    before = path.read_text()
    assert nbformat.writes(clean.cleaned(nbformat.reads(before, as_version=4))) == before.rstrip("\n")


@each_notebook
def test_cells_are_short(path):
    """Ten lines or fewer in the median (ruff breaks long calls); the longest are Algorithm 1 and lists of imports."""
    lengths = [len([line for line in cell.source.splitlines() if line.strip()]) for cell in code_cells(path)]
    assert sorted(lengths)[len(lengths) // 2] <= 10 and max(lengths) <= 30


@pytest.mark.parametrize("text", ["in /home/ada/lagvae", "'/root/x'", r"C:\Users\ada", "file:///tmp/a.png"])
def test_machine_paths_are_recognised(text):
    assert MACHINE_PATH.search(text)


@pytest.mark.parametrize("text", ["results/runs/paper", "nats/example", "1/2", "data/tmp/x", "p(x|z)/q(z|x)"])
def test_other_slashes_are_not(text):
    assert not MACHINE_PATH.search(text)
