"""The sweep: its plan has what the paper's tables need, and the Snakefile trains what has no record, nothing else."""

import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import yaml

from lagvae_lib import data
from lagvae_lib.config.identity import as_json
from lagvae_lib.config.methods import for_family
from lagvae_lib.config.profiles import PROFILES, resolve
from lagvae_lib.data import loading, sources
from lagvae_lib.names import UnknownName
from lagvae_lib.paper import plan, published
from lagvae_lib.paper.plan import Planned

ROOT = Path(__file__).resolve().parent.parent
ELSEWHERE = {"sa-vae-anneal-kim2018"}  # quoted by the paper from another publication
PAPER_SETS = {"yelp": ("text", "Table 1"), "yahoo": ("text", "Table 1"), "omniglot": ("images", "Table 2")}


def members(profile: str, dataset: str, **filters) -> set[tuple[str, int]]:
    """(method, seed) of the runs on a data set."""
    return {(run.method, run.seed) for run in plan.plan(profile, [dataset], **filters)}


def base(method: str) -> str:
    return method.split("+")[0]


# -- the plan -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("profile", PROFILES)
def test_no_run_is_planned_twice_and_every_one_has_a_configuration_and_a_notebook(profile):
    runs_ = plan.plan(profile)
    assert max(Counter(runs_).values()) == 1
    assert max(Counter(run.record for run in runs_).values()) == 1
    for run in runs_:
        config = resolve(run.dataset, run.method, run.profile, run.seed)
        assert config.dataset == data.resolve_name(run.dataset, run.profile) == run.dataset
        assert (ROOT / "notebooks" / run.notebook).is_file()
        assert run.record.parts[-5:-2] == (run.profile, run.dataset, run.method)


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("dataset", ["yelp", "omniglot"])
def test_every_row_of_the_papers_table_is_planned(profile, dataset):
    found = {base(method) for method, seed in members(profile, dataset) if seed == 0}
    assert found >= set(published.methods(dataset)) - ELSEWHERE
    assert found == set(for_family(PAPER_SETS[dataset][0]))


def test_a_scaled_sweep():
    assert len(plan.plan("scaled")) == (18 + 4 * 5 + 5) + (18 + 4 * 5) + (20 + 2 * 5) + (18 + 4 * 2)
    five = {"autoregressive", "vae", "vae-anneal", "aggressive", "aggressive-anneal"}
    for dataset, seeds in (("yelp", 5), ("yahoo", 5), ("omniglot", 3)):
        again = {(method, seed) for method in five for seed in range(1, seeds)}
        assert {(method, seed) for method, seed in members("scaled", dataset) if seed} == again
    first = {method for method, seed in members("scaled", "yahoo") if not seed}
    assert {base(method) for method in first} == set(for_family("text"))
    assert {run.dataset for run in plan.plan("scaled")} == {"yelp-small", "yahoo-small", "omniglot-28", "synthetic"}


def test_the_papers_sweep():
    counts = Counter(run.dataset for run in plan.plan("paper"))
    assert counts == {"yelp": 18 * 5 + 5, "yahoo": 18 * 5, "omniglot": 20 * 5, "synthetic": 18 + 4 * 2}
    for dataset, (family, _) in PAPER_SETS.items():
        every = {(method, seed) for method in for_family(family) for seed in range(5)}
        assert members("paper", dataset) >= every
    assert {run.profile for run in plan.plan("paper")} == {"paper"}


@pytest.mark.parametrize(("profile", "other"), [("smoke", 10), ("quick", 15), ("scaled", 15), ("paper", 10)])
def test_table_4_is_on_yelp_alone(profile, other):
    knobs = [f"fixed_steps={n}" for n in (10, 30, 50, 70)] + [f"window={other}"]
    table = {run for run in plan.plan(profile) if "Table 4" in run.tables}
    ours = "aggressive-anneal" if profile == "scaled" else "aggressive"
    assert {run.method for run in table} == {ours, *(f"{ours}+{knob}" for knob in knobs)}
    assert {(run.dataset, run.seed) for run in table} == {(data.resolve_name("yelp", profile), 0)}
    assert resolve("yelp", "aggressive", profile, 0).method.inference.window == 25 - other


@pytest.mark.parametrize("dataset", ["yelp", "omniglot", "synthetic"])
def test_sa_vae_has_a_smaller_budget_in_a_scaled_sweep_only(dataset):
    def names(profile):
        return {run.method for run in plan.plan(profile, [dataset]) if base(run.method).startswith("sa-vae")}

    assert names("scaled") == {f"{name}+steps=5+max_epochs=15" for name in ("sa-vae", "sa-vae-anneal")}
    assert names("paper") == names("smoke") == {"sa-vae", "sa-vae-anneal"}
    (run,) = plan.plan("scaled", [dataset], ["sa-vae"])  # asked for by its plain name
    config = resolve(run.dataset, run.method, run.profile, run.seed)
    assert (config.method.inference.steps, config.schedule.max_epochs) == (5, 15)


def test_the_toy_of_a_scaled_sweep_is_the_papers():
    toy = plan.plan("scaled", ["synthetic"])
    assert {run.profile for run in toy} == {"paper"}
    assert {run.notebook for run in toy} == {"02_synthetic.ipynb"}
    again = {(method, seed) for method in ("vae", "aggressive") for seed in range(1, 5)}
    assert {(run.method, run.seed) for run in toy if run.seed} == again


@pytest.mark.parametrize(("dataset", "table"), [(name, table) for name, (_, table) in PAPER_SETS.items()])
def test_each_run_says_which_table_it_belongs_to(dataset, table):
    for run in plan.plan("scaled", [dataset]):
        row = base(run.method) in published.methods(dataset) and not re.search("fixed|window", run.method)
        assert (table in run.tables) == row
        assert ("Table 3" in run.tables) == (row and base(run.method) in ("vae", "sa-vae", "aggressive"))
        assert run.tables


def test_every_method_has_its_first_seed_before_any_has_its_second():
    seeds = [run.seed for run in plan.plan("paper", ["omniglot"])]
    assert seeds == sorted(seeds)


def test_a_small_sweep():
    found = plan.plan("smoke", ["yelp-small", "omniglot"], ["vae"], [1, 0])
    assert found == [Planned(name, "vae", "smoke", k) for name in ("yelp-small", "omniglot-28") for k in (0, 1)]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"profile": "scalled"}, r"unknown profile 'scalled'; did you mean 'scaled'\? Valid: smoke, quick"),
        ({"datasets": ["yelpp"]}, r"'yelpp'; did you mean 'yelp'\? Valid: synthetic, yelp"),
        ({"datasets": ["glyphs"]}, r"unknown dataset in the plan .*Valid: yelp-small, yahoo-small, omniglot-28, syn"),
        ({"methods": ["sa-vea"]}, r"unknown method 'sa-vea'; did you mean 'sa-vae'\? Valid: autoregressive, vae"),
        ({"methods": ["vae+kl_weight=2"]}, r"unknown method in the plan of profile scaled 'vae\+kl_weight=2'"),
        ({"seeds": [7]}, r"unknown seed in the plan of profile scaled '7'\. Valid: 0, 1, 2"),
    ],
)
def test_a_bad_name_is_refused_with_the_valid_ones(asked, message):
    with pytest.raises(UnknownName, match=message):
        plan.plan(**{"profile": "scaled"} | asked)


def test_a_combination_that_is_not_planned_is_refused():
    with pytest.raises(ValueError, match=r"no run of all of them together: dataset yelp-small; method vlae"):
        plan.plan("scaled", ["yelp"], ["vlae"])


def test_a_stand_in_takes_the_place_of_what_cannot_be_had(monkeypatch):
    real = loading.load

    def offline(dataset, settings, *, profile):
        if dataset.endswith("-small"):
            if profile == "scaled":
                raise sources.MissingData("cannot be had")
            dataset = "grammar"
        return real(dataset, settings, profile=profile)

    monkeypatch.setattr(loading, "load", offline)
    found = plan.at_hand(plan.plan("smoke", ["yelp", "yahoo"], ["vae"]))
    assert found == [Planned("grammar", "vae", "smoke", seed) for seed in range(5)]  # yahoo's is yelp's
    with pytest.raises(sources.MissingData):
        plan.at_hand(plan.plan("scaled", ["yelp"]))


@pytest.mark.parametrize("name", sorted(set(plan.NOTEBOOKS.values())))
def test_the_notebooks_have_the_parameters_that_they_are_given(name):
    notebook = json.loads((ROOT / "notebooks" / name).read_text())
    (cell,) = [cell for cell in notebook["cells"] if "parameters" in cell["metadata"].get("tags", [])]
    declared = dict(re.findall(r"^(\w+): (\w+) =", "".join(cell["source"]), re.MULTILINE))
    run = next(run for run in plan.plan("scaled") if run.notebook == name)
    words = plan.parameters(run, "cpu")
    given = {key: (flag, value) for flag, key, value in zip(words[::3], words[1::3], words[2::3], strict=True)}
    assert given.keys() <= declared.keys()
    assert {key: {"-p": "int", "-r": "str"}[flag] for key, (flag, _) in given.items()}.items() <= declared.items()
    assert (given["methods"][1], given["profile"][1], given["device"][1]) == (run.method, run.profile, "cpu")


def test_what_a_notebook_trains_on_a_gpu_is_what_the_sweep_waits_for(tmp_path, monkeypatch):
    """Or a finished run of another precision than float32 would be planned, and trained, again."""
    monkeypatch.setenv("LAGVAE_RESULTS", str(tmp_path))
    asked = {"profile": "paper", "datasets": "yelp", "methods": "vae", "seeds": "0", "device": "cuda"}
    (run,), _ = plan.configured(asked)
    words = plan.parameters(run, "cuda")
    assert words[words.index("precision") + 1] == run.precision == "tf32"
    folder = tmp_path / "runs/paper/yelp/vae/seed0"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(as_json(resolve("yelp", "vae", "paper", 0, "tf32"))))
    (folder / "checkpoint.pt").touch()
    assert plan.configured(asked)[0][0].record == folder / "metrics.json"
    assert plan.configured(asked | {"precision": "float32"})[0][0].record.parent != folder
    with pytest.raises(ValueError, match=r"float64.* Valid: auto, float32"):
        plan.configured(asked | {"precision": "float64"})


# -- the Snakefile --------------------------------------------------------------------------------------------------


def test_the_configuration_of_snakemake():
    asked = {"profile": "scaled", "datasets": "yelp,synthetic", "methods": ["vae", "sa-vae"], "seeds": 0}
    runs, device = plan.configured(asked | {"device": "cpu"})
    assert device == "cpu"
    assert runs == plan.plan("scaled", ["yelp", "synthetic"], ["vae", "sa-vae"], [0])
    assert plan.configured({}) == (plan.plan("scaled"), "auto")
    assert plan.configured({"datasets": None, "seeds": "0, 1"})[0] == plan.plan("scaled", seeds=[0, 1])


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"profile": "scalled"}, r"unknown profile 'scalled'; did you mean 'scaled'\? Valid: "),
        ({"methods": "vae,agressive"}, r"unknown method 'agressive'; did you mean 'aggressive'\? Valid: "),
        ({"seeds": "0,two"}, r"seeds must be whole numbers with commas, not '0,two'"),
        ({"device": "gpu"}, r"unknown device 'gpu'.* Valid: auto, cpu, cuda"),
        ({"method": "vae"}, r"unknown config key 'method'; did you mean 'methods'\? Valid: profile, datasets"),
    ],
)
def test_a_bad_configuration_is_refused_with_the_valid_one(config, message):
    with pytest.raises(ValueError, match=message):
        plan.configured(config)


def snakemake(folder: Path, *config: str) -> subprocess.CompletedProcess:
    """A dry run with its own working folder; a start takes seconds, so tests make few."""
    command = [sys.executable, "-m", "snakemake", "--dry-run", "--snakefile", str(ROOT / "Snakefile")]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command += ["--directory", str(folder), "--config", *config]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def listed(done: subprocess.CompletedProcess) -> set[str]:
    """The runs that a dry run would make."""
    assert done.returncode == 0, done.stderr
    said = done.stdout + done.stderr
    return set(re.findall(r"^    output: \S*/results/runs/(\S+)/metrics\.json \(update\)$", said, re.MULTILINE))


def finish(run: Planned, mtime: float | None = None) -> None:
    """A finished run, as far as a sweep looks."""
    run.record.parent.mkdir(parents=True)
    run.record.write_text("{}")
    if mtime is not None:
        os.utime(run.record, (mtime, mtime))


def test_a_dry_run_lists_the_missing_records_and_no_others(own_folders):
    done = plan.plan("scaled", ["yelp"], ["vae", "aggressive-anneal", "aggressive-anneal+fixed_steps=10"])
    for run in done:
        finish(run)
    expected = {"/".join(run.record.parts[-5:-1]) for run in plan.plan("scaled") if run not in done}
    assert len(expected) == 137 - 11
    assert listed(snakemake(own_folders, "profile=scaled")) == expected


def test_a_notebook_that_was_edited_since_lists_nothing_new(own_folders):
    first, second = plan.plan("smoke", ["synthetic"], ["vae"], [0, 1])
    finish(first, mtime=1e9)  # older than any notebook
    asked = ("profile=smoke", "datasets=synthetic", "methods=vae", "seeds=0,1")
    assert listed(snakemake(own_folders, *asked)) == {f"smoke/synthetic/vae/seed{second.seed}"}


def test_a_bad_name_is_one_clear_error(own_folders):
    done = snakemake(own_folders, "methods=agressive")
    assert done.returncode != 0
    said = done.stdout + done.stderr
    assert said.count("unknown method 'agressive'; did you mean 'aggressive'? Valid: autoregressive, vae") == 1
    assert "Traceback" not in said


def test_both_workflow_profiles_trust_the_records():
    """Without these a finished run could be deleted, or trained again."""
    needed = {"keep-incomplete": True, "ignore-incomplete": True, "nolock": True, "rerun-triggers": "mtime"}
    for name in ("default", "slurm"):
        found = yaml.safe_load((ROOT / "profiles" / name / "config.yaml").read_text())
        assert needed.items() <= found.items()
