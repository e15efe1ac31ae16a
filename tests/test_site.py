"""The site: built from what is committed, without a network, and read in a real browser.

LAGVAE_SCREENSHOTS names a folder that keeps the pictures; otherwise they go with the test's temporary folder.
"""

import os
import shutil
import subprocess
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
NOTEBOOKS = sorted(ROOT.glob("notebooks/*.ipynb"))
PAGES = ["index", "explorer", "own_vae", "api", *(f"notebooks/{path.stem}" for path in NOTEBOOKS)]
LARGEST_MB = 60

for package in ("sphinx", "myst_nb", "sphinx_book_theme", "plotly"):
    pytest.importorskip(package, reason=f"no {package} here (pip install -e '.[site]')")


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    target = tmp_path_factory.mktemp("site")
    if ready := os.environ.get("LAGVAE_SITE"):  # one that has just been built
        return Path(ready)
    done = subprocess.run([sys.executable, ROOT / "docs" / "build.py", target], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return target


@pytest.fixture(scope="module")
def address(site):
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *of):
            """A test prints nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("no Chromium here (Debian: apt-get install chromium)")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield opened
        opened.close()


@pytest.fixture
def page(browser, request):
    width = getattr(request, "param", 1280)
    opened = browser.new_page(viewport={"width": width, "height": 900})
    opened.set_default_timeout(120_000)
    opened.failed = []
    opened.on("requestfailed", lambda request: opened.failed.append(request.url))
    opened.on("response", lambda answer: answer.status >= 400 and opened.failed.append(answer.url))
    opened.on("pageerror", lambda error: opened.failed.append(str(error)))
    yield opened
    opened.close()


def keep(page, name: str, tmp_path: Path) -> None:
    folder = Path(os.environ.get("LAGVAE_SCREENSHOTS") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=folder / f"site-{name}.png")


def test_all_pages_are_there_and_it_is_small(site):
    assert not [name for name in PAGES if not (site / f"{name}.html").exists()]
    served = [p for p in site.rglob("*") if p.is_file() and ".doctrees" not in p.parts]
    assert sum(p.stat().st_size for p in served) / 2**20 < LARGEST_MB
    assert (site / "_static" / "explorer-data.js").stat().st_size / 2**20 < 3


def test_the_librarys_lines_are_on_the_site(site):
    text = (site / "notebooks" / "02_synthetic.html").read_text()
    assert '<a href="../_modules/lagvae_lib/inference/aggressive.html#Aggressive.inner_loop">' in text
    assert (
        'id="Aggressive.inner_loop"' in (site / "_modules" / "lagvae_lib" / "inference" / "aggressive.html").read_text()
    )


@pytest.mark.parametrize("page", [1280, 400], indirect=True, ids=["desktop", "phone"])
@pytest.mark.parametrize("name", PAGES)
def test_pages_open_without_a_failed_request_and_fit(page, address, name, tmp_path):
    page.goto(f"{address}/{name}.html", wait_until="load")
    page.wait_for_timeout(500)
    assert page.failed == []
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth + 1")
    keep(page, f"{name.replace('/', '-')}-{page.viewport_size['width']}", tmp_path)


def test_formulas_are_typeset_without_another_host(page, address):
    page.goto(f"{address}/notebooks/01_elbo_derivation.html", wait_until="load")
    page.wait_for_selector("mjx-container")
    page.wait_for_function("MathJax.startup.promise.then(() => true)")
    assert page.locator("mjx-container").count() > 50
    assert page.locator("mjx-merror").count() == 0
    assert page.failed == []


def test_figures_have_alternative_text(page, address):
    page.goto(f"{address}/notebooks/02_synthetic.html", wait_until="load")
    alts = page.eval_on_selector_all(".bd-article .output img:not([id])", "found => found.map(img => img.alt)")
    assert len(alts) > 5 and not [alt for alt in alts if len(alt) < 20]


def test_the_slider_moves_the_points(page, address, tmp_path):
    page.goto(f"{address}/explorer.html", wait_until="load")
    page.wait_for_selector("#explorer-space .point", state="attached")

    def spread() -> float:
        """Of the vertical coordinates drawn."""
        return page.evaluate(
            "(y => Math.max(...y) - Math.min(...y))(document.getElementById('explorer-space').data[0].y)"
        )

    assert spread() < 0.2  # at the start
    page.evaluate("s => { s.value = 15; s.dispatchEvent(new Event('input')); }", page.query_selector("#explorer-step"))
    assert spread() > 1 and page.locator("#explorer-at").inner_text() == "3,000"
    assert "follows the model" in page.locator("#explorer-says").inner_text()
    keep(page, "explorer-3000", tmp_path)
    page.select_option("#explorer-method", label="VAE")
    assert spread() < 0.2 and "does not follow" in page.locator("#explorer-says").inner_text()
    page.click("#explorer-next")
    assert page.locator("#explorer-at").inner_text() == "3,200"
    page.click("#explorer-play")
    page.wait_for_function("document.getElementById('explorer-at').value !== '3,200'")
    assert page.failed == []
