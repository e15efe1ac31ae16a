"""A notebook's parameters: wrong names, types and values stop it, with the valid ones in the message."""

import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from lagvae_lib import notebook
from lagvae_lib.config.methods import METHODS
from lagvae_lib.config.profiles import PROFILES
from lagvae_lib.data.sources import MissingData
from lagvae_lib.notebook import BadParameter, released

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "notebooks"


CELL = """dataset: str = "yelp"  # yelp, yahoo, or a path
methods: str = "vae,aggressive"  # with commas
seed: int = 0  # 0, 1, 2, ...
profile: str = "smoke"  # auto, smoke, quick, scaled, paper
device: str = "cpu"  # auto, cpu, cuda"""


def kernel(*cells):
    """What `globals()` holds in a kernel after these cells: their names, and their sources in IPython's `In`."""
    names = {"In": [""], "get_ipython": print, "Out": {}}
    for cell in cells:
        names["In"].append(cell)
        exec(compile(cell, "cell", "exec"), names)
        names.pop("__annotations__", None)  # on Python 3.14 a kernel has none
    return names


def parameters(**changes):
    """The names after the parameters cell of a notebook and the cell in which papermill puts `changes`."""
    lines = [f"{name} = {value!r}" for name, value in changes.items()]
    return kernel(CELL, *(["\n".join(["# Parameters", *lines])] if lines else []))


# -- the check itself -----------------------------------------------------------------------------------------------


def test_good_parameters_are_settled():
    settings = notebook.settings(parameters(methods=" vae, aggressive+window=10 ,", seed=3))
    assert settings.methods == ("vae", "aggressive+window=10")
    assert (settings.dataset, settings.seeds, settings.seed) == ("yelp", (3,), 3)
    assert (settings.profile, settings.device) == ("smoke", "cpu")
    assert settings.values["methods"] == " vae, aggressive+window=10 ,"


def test_auto_is_decided_by_the_environment(monkeypatch):
    monkeypatch.setenv("LAGVAE_PROFILE", "quick")
    assert notebook.settings(parameters(profile="auto")).profile == "quick"
    monkeypatch.setenv("LAGVAE_PROFILE", "quik")
    with pytest.raises(BadParameter, match="LAGVAE_PROFILE 'quik'; did you mean 'quick'"):
        notebook.settings(parameters(profile="auto"))


def test_names_that_no_cell_of_parameters_sets_are_ignored():
    """Start-up files, cells of one's own, the notebook's imports: none of them is a parameter."""
    before = "import os\nfrom pathlib import Path\nfor dirname, _, filenames in os.walk('nowhere'):\n    print(dirname)"
    imports = "from itertools import pairwise\nimport numpy as np\nrows = [1, 2]"
    names = kernel(before, CELL, imports) | {"Path2": Path, "walked": 1}  # the last two: from a start-up file
    assert notebook.settings(names).seed == 0
    assert notebook.settings(kernel(imports, CELL, CELL)).seed == 0


def test_a_misspelt_parameter_in_the_parameters_cell_itself_is_refused():
    for typo in ("sead = 3", "sead: int = 3", "seed_ = 3"):
        with pytest.raises(BadParameter, match=r"unknown parameter 'se\w+'; did you mean 'seed'"):
            notebook.settings(kernel(f"{CELL}\n{typo}"))
    renamed = CELL.replace("methods", "metods")
    with pytest.raises(BadParameter, match="'metods'; did you mean 'methods'"):
        notebook.settings(kernel(renamed))
    assert notebook.settings(kernel(renamed, CELL)).methods == ("vae", "aggressive")  # corrected, without a restart


def test_a_typo_added_after_a_first_check_is_seen():
    names = kernel(CELL)
    notebook.settings(names)
    with pytest.raises(BadParameter, match="unknown parameter 'sead'; did you mean 'seed'"):
        notebook.settings(kernel(CELL, "settings = 1", f"{CELL}\nsead = 3", "settings = 2"))


def test_a_helper_in_the_parameters_cell_is_no_parameter():
    assert notebook.settings(kernel("home = '~/texts'\n" + CELL.replace('"yelp"', "home + '/a.txt'"))).dataset


def test_without_the_parameters_cell_nothing_is_assumed():
    for names in ({}, kernel("import os"), kernel("seed = 3"), {"__name__": "__main__"}):
        with pytest.raises(BadParameter, match="run the parameters cell first"):
            notebook.settings(names)


def test_a_parameter_of_another_notebook_is_refused():
    with pytest.raises(BadParameter, match=r"unknown parameter 'seeds'; did you mean 'seed'\? Valid: dataset"):
        notebook.settings(parameters(seeds="0,1"))
    with pytest.raises(BadParameter, match="'seed' and 'seeds' exclude each other"):
        notebook.settings(kernel(f"{CELL}\nseeds: str = '0,1'"))


def test_a_notebook_saved_as_a_script_is_read_from_its_file(tmp_path):
    script = tmp_path / "own.py"
    script.write_text(f"{CELL}\nsead = 2\n")
    with pytest.raises(BadParameter, match="'sead'"):
        notebook.settings({"__file__": str(script)} | kernel(CELL) | {"In": None})


def test_cells_without_any_source_are_read_by_the_known_names():
    names = {}
    exec(CELL, names)
    assert notebook.settings(names).methods == ("vae", "aggressive")
    exec("metods: str = 'vae'", names)
    with pytest.raises(BadParameter, match="'metods'; did you mean 'methods'"):
        notebook.settings(names)
    exec("del metods", names)
    assert notebook.settings(names).methods == ("vae", "aggressive")


@pytest.mark.parametrize(
    ("given", "methods", "seed"),
    [
        ({"methods": ["vae", "aggressive"]}, ("vae", "aggressive"), 0),
        ({"methods": ("vae",), "seed": "2"}, ("vae",), 2),
        ({"methods": "vae,vae, aggressive"}, ("vae", "aggressive"), 0),
    ],
)
def test_yaml_s_natural_spellings(given, methods, seed):
    found = notebook.settings(parameters(**given))
    assert (found.methods, found.seed) == (methods, seed)


def test_an_error_is_shown_as_one_line():
    from IPython.core.interactiveshell import InteractiveShell

    with pytest.raises(BadParameter) as error:
        notebook.settings(parameters(sead=2))
    assert error.value._render_traceback_() == [f"BadParameter: {error.value}"]
    shell = InteractiveShell()
    shown = []
    shell._showtraceback = lambda kind, value, lines: shown.extend(lines)
    shell.run_cell(CELL, store_history=True)
    shell.run_cell("# Parameters\nsead = 2", store_history=True)
    shell.run_cell("from lagvae_lib import notebook\nsettings = notebook.settings(globals())", store_history=True)
    assert len(shown) == 1
    assert shown[0].startswith("BadParameter: unknown parameter 'sead'; did you mean 'seed'")
    shell.run_cell("# Parameters\ndel sead", store_history=True)
    shell.run_cell(CELL, store_history=True)
    assert shell.run_cell("settings = notebook.settings(globals())", store_history=True).success


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"sead": 2},
            r"unknown parameter 'sead'; did you mean 'seed'\? Valid: dataset, methods, seed, profile, device",
        ),
        ({"zzz": 2}, r"unknown parameter 'zzz'\. Valid: dataset"),
        ({"seed": "two"}, r"parameter 'seed' must be int, not 'two' \(str\)"),
        ({"seed": True}, r"parameter 'seed' must be int, not True \(bool\)"),
        ({"seed": 2.0}, r"parameter 'seed' must be int, not 2.0 \(float\)"),
        ({"seed": None}, r"parameter 'seed' must be int, not None"),
        ({"seed": -1}, r"seeds must be 0 or more and below 1,000,000,000, not -1"),
        ({"seed": 10**18}, r"seeds must be 0 or more"),
        ({"dataset": None}, r"parameter 'dataset' must be str, not None"),
        ({"profile": "huge"}, r"unknown profile 'huge'.* Valid: auto, smoke, quick, scaled, paper"),
        ({"profile": "Quick"}, r"did you mean 'quick'"),
        ({"profile": 1}, r"parameter 'profile' must be str, not 1"),
        ({"dataset": "yelpp"}, r"unknown data set .*'yelpp'; did you mean 'yelp'\? Valid: synthetic, yelp, yahoo"),
        (
            {"methods": "vae,agressive"},
            r"unknown method 'agressive'; did you mean 'aggressive'\? Valid: autoregressive",
        ),
        ({"methods": "aggressive+widnow=3"}, r"unknown knob of aggressive 'widnow'; did you mean 'window'"),
        ({"methods": "aggressive+window=ten"}, r"'ten' is not a number"),
        ({"methods": " , "}, r"parameter 'methods' names no method; valid are autoregressive, vae"),
        ({"methods": ["vae", 1]}, r"parameter 'methods' must be str .* or a list of str, not \['vae', 1\] \(list\)"),
        ({"methods": []}, r"parameter 'methods' names no method"),
        ({"device": "gpu"}, r"unknown device 'gpu'.* Valid: auto, cpu, cuda"),
    ],
)
def test_bad_parameters_are_refused_with_the_valid_ones(changes, message):
    with pytest.raises(BadParameter, match=message):
        notebook.settings(parameters(**changes))


def test_every_valid_name_is_in_the_message():
    for changes, valid in (({"methods": "x"}, METHODS), ({"profile": "x"}, PROFILES)):
        with pytest.raises(BadParameter) as error:
            notebook.settings(parameters(**changes))
        assert all(name in str(error.value) for name in valid)


def test_seeds_as_a_list():
    def seeds(value):
        return notebook.settings(kernel(f"seeds: str = {value!r}")).seeds

    assert seeds("0, 2") == seeds([0, 2]) == seeds(["0", "2"]) == seeds("0,2,2") == (0, 2)
    assert seeds(0) == (0,)
    for bad in ("0;2", "", [], "-"):
        with pytest.raises(BadParameter, match="whole numbers with commas"):
            seeds(bad)


def test_a_notebook_can_stop_without_an_error(capsys):
    with pytest.raises(SystemExit) as stopped:  # papermill takes status 0 for a good end
        notebook.stop("nothing to compare")
    assert stopped.value.code == 0
    assert capsys.readouterr().out == "nothing to compare\n"


# -- in the notebooks -----------------------------------------------------------------------------------------------


def code_cells(path):
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


each_notebook = pytest.mark.parametrize("path", sorted(FOLDER.glob("*.ipynb")), ids=lambda path: path.stem)


@each_notebook
def test_parameters_are_declared_one_a_line_and_checked_before_anything_else(path):
    """papermill lists only lines `name: str = default  # help`, and puts its own cell after them."""
    first, second = code_cells(path)[:2]
    assert "parameters" in first.metadata.tags
    for line in first.source.splitlines():
        name, kind, rest = line.partition(":")[0], line.partition(": ")[2].split(" =")[0], line.partition("= ")[2]
        assert name.isidentifier()
        assert kind in ("str", "int", "float", "bool")
        assert rest.count("  # ") == 1
        assert "=" not in rest
    assert second.source.startswith("from lagvae_lib import notebook\n\nsettings = notebook.settings(globals())")


@each_notebook
def test_defaults_are_valid(path, monkeypatch):
    monkeypatch.setenv("LAGVAE_PROFILE", "smoke")
    names = {}
    exec(code_cells(path)[0].source, names)
    assert notebook.settings(names).values


@pytest.fixture(scope="module")
def papermill(tmp_path_factory):
    """Run a notebook with one parameter; returns the exit status and all that was said."""
    folder = tmp_path_factory.mktemp("papermill")

    def run(name, value):
        command = [sys.executable, "-m", "papermill", str(FOLDER / "03_yelp.ipynb"), str(folder / "out.ipynb")]
        command += ["-p", name, value, "--no-progress-bar"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=180, cwd=folder)
        return done.returncode, done.stdout + done.stderr

    return run


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("sead", "2", "Valid: dataset, methods, seed, profile, device"),
        ("seed", "two", "parameter 'seed' must be int, not 'two' (str)"),
        ("profile", "huge", "Valid: auto, smoke, quick, scaled, paper"),
        ("dataset", "yelpp", "did you mean 'yelp'? Valid: synthetic, yelp, yahoo"),
        ("methods", "agressive", "did you mean 'aggressive'? Valid: autoregressive, vae, vae-anneal"),
    ],
)
def test_papermill_stops(papermill, name, value, says):
    """The last line names what is valid, so that nobody has to read the traceback above it."""
    status, output = papermill(name, value)
    assert status != 0
    last = [line for line in output.splitlines() if line.strip()][-1]
    assert last.startswith("BadParameter: ")
    assert says in last


def test_the_cell_can_be_run_again_when_the_notebook_has_variables_of_its_own():
    names = kernel("seed: int = 2")
    notebook.settings(names)
    names |= {"rows": [1, 2], "seed": 3}
    assert notebook.settings(names).seed == 3
    names["seed"] = "three"
    with pytest.raises(notebook.BadParameter, match="seed"):
        notebook.settings(names)


def test_cells_that_are_executed_without_being_kept_are_read_from_their_names():
    names = kernel(CELL)
    assert notebook.settings(names | {"In": [""]}).profile == "smoke"  # as nbval executes them
    with pytest.raises(BadParameter, match="run the parameters cell first"):
        notebook.settings({"In": [""]})


def test_what_reads_and_writes_falls_back_to_a_live_profile_where_the_data_of_the_records_are_missing(monkeypatch):
    def missing(dataset, wanted, *, profile):
        if profile != "quick":
            raise MissingData("not here")

    scaled = notebook.settings(parameters(profile="scaled"))
    monkeypatch.setattr(released, "load_data", lambda *_, **__: None)
    assert released.at_hand(scaled) is scaled
    monkeypatch.setattr(released, "load_data", missing)
    assert released.at_hand(scaled) == scaled.live() and scaled.live().profile == "quick"
