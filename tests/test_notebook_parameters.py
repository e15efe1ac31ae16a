"""A notebook's parameters: wrong names, types and values stop it, with the valid ones in the message."""

import subprocess
import sys
import types
from pathlib import Path

import nbformat
import pytest

from lagvae_lib import notebook
from lagvae_lib.config.methods import METHODS
from lagvae_lib.config.profiles import PROFILES
from lagvae_lib.notebook import BadParameter

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "notebooks"
DEFAULTS = {"dataset": "yelp", "methods": "vae,aggressive", "seed": 0, "profile": "smoke", "device": "cpu"}


def parameters(**changes):
    """What `globals()` holds after the parameters cell of a notebook with papermill's values put in."""
    return {"__annotations__": {name: type(value) for name, value in DEFAULTS.items()}, **DEFAULTS, **changes}


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


def test_what_a_kernel_has_beside_the_parameters_is_ignored():
    others = {"notebook": notebook, "types": types, "_": 1, "_i1": "seed = 2", "__name__": "__main__"}
    shell = {"In": [], "Out": {}, "exit": print, "quit": print, "get_ipython": print, "open": open}
    assert notebook.settings(parameters(**others, **shell)).seed == 0


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
        ({"seed": -1}, r"seeds must be 0 or more, not -1"),
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
        ({"methods": ["vae"]}, r"parameter 'methods' must be str, not \['vae'\] \(list\)"),
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
    names = {"__annotations__": {"seeds": str}, "seeds": "0, 2"}
    assert notebook.settings(names).seeds == (0, 2)
    with pytest.raises(BadParameter, match="whole numbers with commas, not '0;2'"):
        notebook.settings(names | {"seeds": "0;2"})


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
    names = {"__annotations__": {"seed": int}, "seed": 2}
    notebook.settings(names)
    names |= {"rows": [1, 2], "seed": 3}
    assert notebook.settings(names).seed == 3
    names["seed"] = "three"
    with pytest.raises(notebook.BadParameter, match="seed"):
        notebook.settings(names)
