"""The set-up files agree: pyproject.toml, environment.yml, the lock, CITATION.cff, pre-commit, CI."""

import re
import subprocess
import tomllib
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# These come with a CUDA build of torch, never from the lock.
CUDA = re.compile(r"^(nvidia|triton|cuda)", re.IGNORECASE)


def declared() -> dict[str, str]:
    """Package -> range, of pyproject.toml with its extras."""
    extras = PROJECT["optional-dependencies"].values()
    return ranges(PROJECT["dependencies"] + [line for extra in extras for line in extra])


def ranges(lines: list[str]) -> dict[str, str]:
    requirements = [Requirement(line) for line in lines]
    return {canonicalize_name(r.name): str(r.specifier) for r in requirements}


def locked() -> dict[str, str]:
    """Package -> version, of requirements.lock; every line must be an exact pin."""
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    pins = [re.fullmatch(r"([\w.-]+)==([\w.]+)", line) for line in lines if not line.startswith("#")]
    assert all(pins), "requirements.lock holds a line that is not NAME==VERSION"
    return {canonicalize_name(pin[1]): pin[2] for pin in pins}


def closure(names: list[str]) -> set[str]:
    """`names` and all that they need on this machine, as their installed metadata say."""
    found, waiting = set(), [Requirement(name) for name in names]
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        key = (name, frozenset(requirement.extras))
        if key in found or CUDA.match(name):
            continue
        found.add(key)
        for line in distribution(name).requires or []:
            needed = Requirement(line)
            environments = [{"extra": extra} for extra in ("", *requirement.extras)]
            if needed.marker is None or any(needed.marker.evaluate(e) for e in environments):
                waiting.append(needed)
    return {name for name, _ in found}


def test_environment_yml_says_what_pyproject_says():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    (from_pip,) = [entry["pip"] for entry in environment if isinstance(entry, dict)]
    assert from_pip[-1] == "-e ."
    assert ranges(from_pip[:-1]) == declared()
    assert f"python{PROJECT['requires-python']}" in environment


def test_lock_lies_within_the_ranges():
    pins = locked()
    for name, specifier in declared().items():
        assert name in pins, f"{name} is not in requirements.lock: make lock"
        assert pins[name] in SpecifierSet(specifier), f"{name}=={pins[name]}: make lock"


def test_lock_names_every_package_that_is_needed():
    try:
        needed = closure(list(declared()))
    except PackageNotFoundError as missing:
        pytest.skip(f"not installed here, so its needs are unknown: {missing}")
    assert needed <= set(locked()), "make lock"


def test_lock_pins_torch_and_no_cuda():
    pins = locked()
    assert pins["torch"] == "2.13.0"
    assert not [name for name in pins if CUDA.match(name)]
    assert "://" not in (ROOT / "requirements.lock").read_text()


def test_build_needs_are_locked():
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    for name, specifier in ranges(build).items():
        assert locked()[name] in SpecifierSet(specifier)


def test_citation_has_the_version_of_pyproject():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert Version(citation["version"]) == Version(PROJECT["version"])
    assert citation["license"] == PROJECT["license"]


def test_precommit_uses_the_locked_ruff():
    repos = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    (ruff,) = [repo for repo in repos if repo["repo"].endswith("ruff-pre-commit")]
    assert ruff["rev"] == "v" + locked()["ruff"]
    assert all(set(hook["types_or"]) == {"python", "pyi", "jupyter"} for hook in ruff["hooks"])


def test_ci_runs_make_test():
    script = ROOT / ".ci" / "run"
    assert script.read_text().rstrip().endswith("exec make test")
    assert subprocess.run(["bash", "-n", script]).returncode == 0


def test_readme_names_every_make_target():
    makefile = (ROOT / "Makefile").read_text()
    targets = re.findall(r"^([a-z-]+):.*## ", makefile, re.MULTILINE)
    readme = (ROOT / "README.md").read_text()
    assert {"run", "test"} <= set(targets)
    assert not [target for target in targets if f"`make {target}`" not in readme]
