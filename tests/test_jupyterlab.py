"""JupyterLab, started as `make lab` starts it, opens a notebook and runs it in a real browser.

LAGVAE_SCREENSHOTS names a folder that keeps the picture; otherwise it goes with the test's temporary folder.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOK = ROOT / "notebooks" / "01_elbo_derivation.ipynb"
TOKEN = "lagvae-test"
START_S, RUN_S, SHOW_S = 180, 600, 60  # seconds, on a machine whose cores are busy with something else

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
# Background networking and the like only look for hosts that a test machine need not reach.
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
MAKE_VARIABLES = ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES")

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here (Debian: apt-get install chromium)"),
    pytest.mark.skipif(shutil.which("make") is None, reason="no make on this machine"),
    pytest.mark.skipif(not NOTEBOOK.exists(), reason=f"{NOTEBOOK.name} has not been written yet"),
]


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def code_cells(path: Path) -> list:
    cells = nbformat.read(path, as_version=4).cells
    return [cell for cell in cells if cell.cell_type == "code" and cell.source.strip()]


def copy_without_outputs(folder: Path) -> Path:
    """The notebook, emptied, so that every output found later comes from this run."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    copy = folder / NOTEBOOK.name
    nbformat.write(notebook, copy)
    return copy


def environment(tmp_path: Path) -> dict[str, str]:
    """This process's, less make's own variables, with Jupyter's settings in the temporary folder."""
    env = {name: value for name, value in os.environ.items() if name not in MAKE_VARIABLES}
    env.update(JUPYTER_TOKEN=TOKEN, LAGVAE_PROFILE="smoke", OMP_NUM_THREADS="1")
    for variable in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR"):
        env[variable] = str(tmp_path / variable.lower())
    env["JUPYTERLAB_WORKSPACES_DIR"] = env["JUPYTERLAB_SETTINGS_DIR"] = str(tmp_path / "lab")
    show_every_cell(tmp_path / "lab")
    return env


def show_every_cell(settings: Path) -> None:
    """By default the page holds the cells in view alone, and which those are depends on when it was drawn."""
    file = settings / "@jupyterlab" / "notebook-extension" / "tracker.jupyterlab-settings"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps({"windowingMode": "none"}))


@contextmanager
def make_lab(folder: Path, tmp_path: Path):
    """`make lab` over `folder` on a free loopback port, no browser opened; yields the address."""
    port = free_port()
    options = f"--no-browser --ip=127.0.0.1 --port={port} --ServerApp.port_retries=0"
    options += f" --ServerApp.root_dir='{folder}'"
    command = ["make", "-C", str(ROOT), "lab", f"PY={sys.executable}", f"LAB_ARGS={options}"]
    log = tmp_path / "lab.log"
    with open(log, "w") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, env=environment(tmp_path), start_new_session=True)
    try:
        address = f"http://127.0.0.1:{port}"
        wait_for(lambda: answers(f"{address}/api/status"), START_S, lambda: log.read_text()[-3000:])
        yield address
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def wait_for(condition, seconds: float, report) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, report()
        time.sleep(0.5)


def ask(url: str):
    request = urllib.request.Request(url, headers={"Authorization": f"token {TOKEN}"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)


def answers(url: str) -> bool:
    try:
        return bool(ask(url))
    except OSError:
        return False


def is_idle(address: str) -> bool:
    sessions = ask(f"{address}/api/sessions")
    return bool(sessions) and all(s["kernel"]["execution_state"] == "idle" for s in sessions)


def executed(copy: Path) -> bool:
    """Has the last code cell run, or any failed? Read from the file that JupyterLab saves."""
    cells = code_cells(copy)
    failed = any(output.output_type == "error" for cell in cells for output in cell.outputs)
    return failed or cells[-1].execution_count is not None


def open_notebook(page, address: str, copy: Path) -> None:
    """Open it, and wait for its kernel: before that, Run All asks which one to take instead of running."""
    page.goto(f"{address}/lab/tree/{copy.name}?token={TOKEN}&reset", timeout=START_S * 1000)
    page.locator(".jp-NotebookPanel .jp-Cell").first.wait_for(timeout=START_S * 1000)
    wait_for(lambda: is_idle(address), START_S, lambda: "no idle kernel")
    toolbar = page.locator(".jp-NotebookPanel-toolbar")
    toolbar.locator(".jp-KernelName", has_text="Python 3").wait_for(timeout=START_S * 1000)
    toolbar.locator("[data-status='idle']").wait_for(timeout=START_S * 1000)


def run_all_cells(page, address: str, copy: Path) -> None:
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    select_kernel = page.locator(".jp-Dialog", has_text="Select Kernel").locator(".jp-mod-accept")

    def saved_and_executed() -> bool:
        page.wait_for_timeout(1000)
        if select_kernel.count():  # the page had not heard of its kernel yet
            select_kernel.click()
            return False
        assert not page.locator(".jp-Dialog").count(), page.locator(".jp-Dialog").inner_text()
        if not is_idle(address):
            return False
        page.keyboard.press("Control+s")
        page.wait_for_timeout(1000)
        return executed(copy)

    wait_for(saved_and_executed, RUN_S, lambda: f"not executed within {RUN_S} s")


def picture_path(tmp_path: Path) -> Path:
    folder = Path(os.environ.get("LAGVAE_SCREENSHOTS") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    return folder / "jupyterlab_01.png"


def test_lab_opens_and_runs_the_notebook(tmp_path):
    api = pytest.importorskip("playwright.sync_api", reason="Playwright for Python is not installed")
    folder = tmp_path / "notebooks"
    folder.mkdir()
    copy = copy_without_outputs(folder)
    with make_lab(folder, tmp_path) as address, api.sync_playwright() as playwright:
        browser = playwright.chromium.launch_persistent_context(
            tmp_path / "profile",
            executable_path=CHROMIUM,
            args=FLAGS,
            headless=True,
            viewport={"width": 1400, "height": 1000},
        )
        page = browser.pages[0]
        try:
            open_notebook(page, address, copy)
            run_all_cells(page, address, copy)
            prompts = page.locator(".jp-CodeCell .jp-InputPrompt")
            expected = [f"[{number}]:" for number in range(1, len(code_cells(copy)) + 1)]
            # The page may still be drawing what the kernel and the saved file already have
            api.expect(prompts).to_have_text(expected, timeout=SHOW_S * 1000)
        finally:
            page.screenshot(path=picture_path(tmp_path))
            browser.close()

    cells = code_cells(copy)
    assert not [output for cell in cells for output in cell.outputs if output.output_type == "error"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert [output for cell in cells for output in cell.outputs]
    assert picture_path(tmp_path).stat().st_size > 10_000
