"""Finding, verifying and downloading data files, against a server on this machine."""

import hashlib
import os
import socket
import threading
import time
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from lagvae_lib.data import sources
from lagvae_lib.data.sources import SOURCES, DataError, MissingData, Source, SourceFile, fetch
from lagvae_lib.names import UnknownName
from lagvae_lib.paths import mirror_dir

CONTENT = b"one document\nanother one\n" * 50


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        body = {"/good": CONTENT, "/short": CONTENT[:99], "/wrong": CONTENT[::-1], "/cut": CONTENT}.get(self.path)
        if self.path == "/silent":
            time.sleep(1.0)
        if body is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[:500] if self.path == "/cut" else body)

    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def server():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LAGVAE_DATA", str(tmp_path / "cache"))
    monkeypatch.delenv("LAGVAE_DATA_MIRROR", raising=False)
    monkeypatch.setenv("NO_PROXY", "*")
    return tmp_path / "cache"


def register(monkeypatch, url=None, **content):
    content = content or {"sha256": hashlib.sha256(CONTENT).hexdigest(), "size": len(CONTENT)}
    file = SourceFile("train", "train.txt", url=url, mirror="elsewhere/t.txt", **content)
    source = Source("tiny", (file,), origin="a test", by_hand="ask the author", licence="none")
    monkeypatch.setitem(SOURCES, "tiny", source)


def left(folder):
    return sorted(p.name for p in folder.rglob("*") if p.is_file())


def place(path, content=CONTENT):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_registry_is_complete():
    for name, source in SOURCES.items():
        assert source.name == name and source.licence and source.by_hand and source.origin
        for file in source.files:
            # images are checked by what is in their files (data/images.py)
            checked = (file.sha256 and len(file.sha256) == 64 and file.size) or file.lines
            assert checked or name.startswith("omniglot")
            assert file.url is None or file.url.startswith("https://")


def test_download_is_verified_and_kept(cache, server, monkeypatch):
    register(monkeypatch, f"{server}/good")
    path = fetch("tiny")["train"]
    assert path == cache / "tiny" / "train.txt" and path.read_bytes() == CONTENT
    register(monkeypatch, f"{server}/missing")
    assert fetch("tiny")["train"] == path  # from the cache: that address would fail


@pytest.mark.parametrize(
    ("page", "says"),
    [
        ("short", "cut short"),
        ("wrong", "wrong content"),
        ("missing", "404"),
        ("cut", "IncompleteRead|cut short"),
        ("silent", "timed out"),
    ],
)
def test_failed_download_leaves_nothing(cache, server, monkeypatch, page, says):
    monkeypatch.setattr(sources, "TIMEOUT", (0.3, 0.3))
    register(monkeypatch, f"{server}/{page}")
    with pytest.raises(MissingData, match=says) as error:
        fetch("tiny")
    assert left(cache) == []
    assert "Three ways" in str(error.value) and "ask the author" in str(error.value)


def test_no_network_fails_quickly(cache, monkeypatch):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        register(monkeypatch, f"http://127.0.0.1:{unused.getsockname()[1]}/good")
        start = time.monotonic()
        with pytest.raises(MissingData, match="could not be fetched"):
            fetch("tiny")
    assert time.monotonic() - start < 10 and left(cache) == []


def test_cache_that_cannot_be_written(tmp_path, server, monkeypatch, cache):
    place(tmp_path / "cache", b"a file where the folder should be")
    register(monkeypatch, f"{server}/good")
    with pytest.raises(MissingData, match="could not be fetched into"):
        fetch("tiny")


@pytest.mark.parametrize("folder", ["tiny/train.txt", "elsewhere/t.txt"])
def test_mirror_is_used_in_place(cache, tmp_path, monkeypatch, folder):
    register(monkeypatch)
    file = place(tmp_path / "mirror" / folder)
    monkeypatch.setenv("LAGVAE_DATA_MIRROR", str(tmp_path / "mirror"))
    assert fetch("tiny") == {"train": file} and not cache.exists()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty"),
        (CONTENT[:-1], "cut short"),
        (CONTENT[:-1] + b"!", "sha256"),
        (CONTENT * 2, "sha256"),
    ],
)
def test_a_wrong_file_is_an_error_not_a_reason_to_download(cache, server, monkeypatch, content, says):
    register(monkeypatch, f"{server}/good")
    path = place(cache / "tiny" / "train.txt", content)
    with pytest.raises(DataError, match=says) as error:
        fetch("tiny")
    assert not isinstance(error.value, MissingData)
    assert str(path) in str(error.value) and "remove it" in str(error.value)
    assert path.read_bytes() == content


def test_a_folder_in_place_of_the_file(cache, monkeypatch):
    register(monkeypatch)
    (cache / "tiny" / "train.txt").mkdir(parents=True)
    with pytest.raises(DataError, match="is not a file"):
        fetch("tiny")


@pytest.mark.parametrize(("lines", "good"), [(100, True), (99, False), (101, False)])
def test_line_count_is_the_check_where_no_hash_is_known(cache, monkeypatch, lines, good):
    register(monkeypatch, lines=lines)
    place(cache / "tiny" / "train.txt", CONTENT[:-1])  # the last line need not be ended
    if good:
        assert fetch("tiny")
    else:
        with pytest.raises(DataError, match=f"100 lines where {lines}"):
            fetch("tiny")


@pytest.mark.parametrize(
    ("name", "archive"),
    [("yelp", "1FT49oLNV8syhmGXEgiK6XTjEfMNqqEJJ"), ("yahoo", "13azGlTuGdzWLCmgDmQPmvb_jcexVWX7i")],
)
def test_full_sets_are_never_downloaded(cache, name, archive):
    with pytest.raises(MissingData, match=archive) as error:
        fetch(name)
    assert str(cache / name) in str(error.value) and "LAGVAE_DATA_MIRROR" in str(error.value)


def test_full_set_with_one_file_missing_names_it(cache):
    place(cache / "yelp" / "valid.txt")
    with pytest.raises(MissingData, match=r"train.txt, test.txt not found"):
        fetch("yelp")


def test_unknown_source(cache):
    with pytest.raises(UnknownName, match="yelp-small"):
        fetch("yelp-smal")


@pytest.mark.skipif(mirror_dir() is None, reason="LAGVAE_DATA_MIRROR is not set")
@pytest.mark.parametrize("name", ["synthetic", "yelp-small", "yahoo-small"])
def test_the_real_mirror_has_the_registered_files(name, monkeypatch, tmp_path):
    monkeypatch.setenv("LAGVAE_DATA", str(tmp_path))
    source = SOURCES[name]
    if not all((mirror_dir() / (f.mirror or f"{name}/{f.name}")).exists() for f in source.files):
        pytest.skip(f"this mirror has no {name}")
    # Without an address nothing can come from elsewhere.
    monkeypatch.setitem(SOURCES, name, replace(source, files=tuple(replace(f, url=None) for f in source.files)))
    assert set(fetch(name)) == {f.key for f in source.files} and os.listdir(tmp_path) == []
