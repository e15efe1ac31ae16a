"""The command line: one line and status 2 for whatever the user can mend, and a run that can go on afterwards."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from lagvae_lib import __main__, atomic
from lagvae_lib.__main__ import main
from tests.own import lines, write

pytestmark = pytest.mark.usefixtures("own_folders")


@pytest.fixture
def notes(tmp_path):
    return write(tmp_path / "notes.txt", lines(60))


def one_line(capsys, *arguments):
    """The line that a command ends with; its status is 2."""
    assert main(list(arguments)) == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("error: ")
    return last


def process(*arguments, **environment):
    command = [sys.executable, "-m", "lagvae_lib", *arguments]
    return subprocess.run(command, capture_output=True, env=os.environ | environment, timeout=300)


def folder(results, name="notes"):
    return next(results.glob(f"runs/smoke/{name}-*/vae/seed0"))


def test_a_run_says_what_the_data_are_and_ends_with_its_numbers(notes, capsys):
    assert main(["run", notes, "vae,autoregressive", "--profile", "smoke"]) == 0
    shown = capsys.readouterr()
    assert "train 48, valid 6, test 6" in shown.err and "0 of 60 documents repeat" in shown.err
    assert [line.split(":")[0] for line in shown.out.splitlines() if "nll" in line] == ["vae", "autoregressive"]
    assert shown.err.count("documents repeat") == 1  # loaded, and said, once for both


@pytest.mark.parametrize("profile", [["--profile", "smoke"], []])
def test_a_run_on_record_is_shown_without_its_data(capsys, monkeypatch, profile):
    monkeypatch.setenv("LAGVAE_PROFILE", "smoke")  # what "auto" means
    assert main(["run", "grammar", "vae", *profile]) == 0
    numbers = capsys.readouterr().out.splitlines()[-1]
    monkeypatch.setattr("lagvae_lib.runs.train.load_data", None)
    assert main(["run", "grammar", "vae", *profile]) == 0
    first, last = capsys.readouterr().out.splitlines()
    assert first.startswith("loaded ") and last == numbers


def test_a_diverged_loss_names_a_lower_rate(capsys):
    said = one_line(capsys, "run", "grammar", "vae+lr=1000000", "--profile", "smoke")
    assert "the loss is nan at iteration" in said and said.endswith("such as vae+lr=100000")
    assert "'nan' is not a finite number" in one_line(capsys, "run", "grammar", "vae+lr=nan", "--profile", "smoke")


def test_seeds_that_no_table_reads_are_refused(capsys):
    assert "seeds must be 0 or more" in one_line(capsys, "run", "grammar", "vae", "--profile", "smoke", "--seed", "-1")


def test_a_damaged_checkpoint_record_or_weights(notes, capsys, own_folders):
    assert main(["run", notes, "vae", "--profile", "smoke"]) == 0
    run = folder(own_folders / "results")
    kept = {file.name: file.read_bytes() for file in run.iterdir() if file.is_file()}
    for name in ("metrics.json", "config.json", "history.csv"):
        (run / name).write_bytes(b"\xff{")
        assert "delete that folder" in one_line(capsys, "run", notes, "vae", "--profile", "smoke")
        (run / name).write_bytes(kept[name])
    (run / "metrics.json").write_text("{}")
    assert "lacks dataset, method" in one_line(capsys, "run", notes, "vae", "--profile", "smoke")
    (run / "metrics.json").write_bytes(kept["metrics.json"])
    (run / "weights.safetensors").write_bytes(b"no weights")
    assert "weights.safetensors is damaged" in one_line(capsys, "ais", notes, "vae", "--profile", "smoke")
    (run / "metrics.json").unlink()
    (run / "checkpoint.pt").write_bytes(os.urandom(500))
    said = one_line(capsys, "run", notes, "vae", "--profile", "smoke")
    assert "checkpoint.pt cannot be resumed" in said and "weights_only" not in said
    (run / "checkpoint.pt").unlink()
    assert main(["run", notes, "vae", "--profile", "smoke"]) == 0
    again, before = (json.loads(text) for text in ((run / "metrics.json").read_text(), kept["metrics.json"]))
    assert again["nll"] == before["nll"]


def test_a_full_disk_ends_in_one_line_and_the_run_goes_on_afterwards(notes, own_folders):
    script = f"ulimit -f 20; exec {sys.executable} -m lagvae_lib run {notes} vae --profile smoke"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=300)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].endswith("make room, and give the same command again to go on")
    assert not list(own_folders.rglob("*.tmp"))
    assert main(["run", notes, "vae", "--profile", "smoke"]) == 0


def test_results_that_cannot_be_written_name_the_way_out(notes, capsys, monkeypatch):
    monkeypatch.setenv("LAGVAE_RESULTS", "/proc/nowhere")
    said = one_line(capsys, "run", notes, "vae", "--profile", "smoke")
    assert said.startswith("error: /proc/nowhere")


def test_the_toy_needs_no_file(monkeypatch, capsys):
    """On a read-only data folder it is generated each time."""
    from lagvae_lib.data import synthetic

    def refuse(path, text):
        raise OSError(30, "Read-only file system", str(path))

    monkeypatch.setattr(synthetic, "write_text", refuse)
    monkeypatch.setattr(synthetic, "generate", lambda: synthetic.torch.zeros(synthetic.PAPER.lines, 10).long())
    assert len(synthetic.synthetic_corpus().train) == 16_000


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "latin-1"])
def test_methods_are_listed_in_any_encoding(encoding):
    done = process("methods", PYTHONIOENCODING=encoding)
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) == len(__main__.METHODS)


def test_a_closed_or_a_full_output():
    for target, status in (("| head -n 1 >/dev/null; exit ${PIPESTATUS[0]}", 0), (">/dev/full", 2), (">&-", 0)):
        done = subprocess.run(
            ["bash", "-c", f"{sys.executable} -m lagvae_lib methods {target}"],
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == status, (target, done.stderr)
        assert "Traceback" not in done.stderr and "Exception" not in done.stderr


def test_a_fault_of_the_code_keeps_its_traceback(monkeypatch):
    def broken(args):
        raise RuntimeError("a bug")

    monkeypatch.setattr(__main__, "_methods", broken)
    with pytest.raises(RuntimeError, match="a bug"):
        main(["methods"])


def test_installed_without_a_checkout_tables_are_written_without_a_readme(monkeypatch, own_folders, capsys):
    from lagvae_lib import paths
    from lagvae_lib.paper import report

    monkeypatch.setattr(paths, "CHECKOUT", False)
    monkeypatch.setattr(report, "write", lambda records: [own_folders / "results" / "tables" / "x.csv"])
    assert main(["tables", "--profile", "smoke"]) == 0


def test_an_oserror_names_the_file_that_was_asked_for(tmp_path):
    with pytest.raises(OSError) as error:
        atomic.write_bytes(tmp_path / ("x" * 300), b"")
    assert error.value.filename.endswith("x" * 300)


def test_own_images_from_the_command_line(tmp_path, capsys):
    from tests.own import drawings

    np.save(tmp_path / "mine.npy", drawings(40))
    assert "'cnn-vae' is for toy and text" in one_line(
        capsys, "run", str(tmp_path / "mine.npy"), "cnn-vae", "--profile", "smoke"
    )


@pytest.mark.parametrize(
    ("method", "says"),
    [
        ("vae+prior=vamp", "prior 'vamp' is made for images, not for text"),
        ("vae+levels=2", "levels 2 is made for images"),
        ("vae+decoder=local", "decoder 'local' is made for images"),
        ("free-bits+prior=flow", "free nats are shared out"),
    ],
)
def test_knobs_that_do_not_go_together_are_refused(capsys, method, says):
    assert says in one_line(capsys, "run", "grammar", method, "--profile", "smoke")


@pytest.mark.parametrize(
    ("later", "says"), [("agressive", "'agressive'"), ("vlae", "'vlae'"), ("aggressive+window=0", "window")]
)
def test_a_later_method_that_cannot_be_run_is_refused_before_the_first_is_trained(capsys, own_folders, later, says):
    assert later.split("+")[-1].split("=")[0] in one_line(
        capsys, "run", "grammar", f"vae,{later}", "--profile", "smoke"
    )
    assert not list(own_folders.rglob("metrics.json"))


def test_a_record_without_a_commit_says_so(notes, capsys, monkeypatch):
    monkeypatch.setattr("lagvae_lib.runs.provenance._git", lambda *arguments: None)
    assert main(["run", notes, "vae", "--profile", "smoke"]) == 0
    assert "git names no commit here" in capsys.readouterr().err


@pytest.mark.parametrize("given", [("--examples", "0"), ("--examples", "1"), ("--steps", "1"), ("--chains", "-1")])
def test_an_ais_check_of_nothing_is_refused(capsys, given):
    assert f"{given[0][2:]} must be at least" in one_line(capsys, "ais", "grammar", "vae", "--profile", "smoke", *given)


def test_a_text_model_speaks_without_its_data(notes, capsys, own_folders, monkeypatch):
    assert main(["run", notes, "vae", "--profile", "smoke"]) == 0
    assert main(["speak", notes, "vae", "--profile", "smoke"]) == 0  # a file of one's own is known by what is in it
    assert main(["run", "grammar", "vae,autoregressive,cnn-vae", "--profile", "smoke"]) == 0
    said = [
        ["speak", "grammar", "vae", "--profile", "smoke", "--sentences", "3", *more]
        for more in ((), ("--temperature", "1"))
    ]
    capsys.readouterr()
    monkeypatch.setattr("lagvae_lib.data.loading.load", None)  # nothing may ask for data from here on
    spoken = []
    for arguments in (*said, said[1]):
        assert main(arguments) == 0
        spoken.append(capsys.readouterr().out.splitlines())
    words = set(json.loads(next(own_folders.glob("results/runs/smoke/*/vae/seed0/vocabulary.json")).read_text()))
    words -= {"<pad>", "<s>", "</s>", "<unk>"}
    assert all(len(lines) == 3 and {w for line in lines for w in line.split()} <= words for lines in spoken)
    assert spoken[1] == spoken[2] != spoken[0]  # drawn by the run's seed
    assert main(["speak", "grammar", "autoregressive", "--profile", "smoke", "--sentences", "2"]) == 0
    assert len(set(capsys.readouterr().out.splitlines())) == 2
    for more, why in (
        (("vae", "--sentences", "0"), "sentences must be at least 1"),
        (("vae", "--temperature", "0"), "temperature must be a positive number"),
        (("cnn-vae",), "no LSTM decoder"),
        (("vae", "--seed", "5"), "vocabulary.json is not there"),
    ):
        assert why in one_line(capsys, "speak", "grammar", *more, "--profile", "smoke")
    with pytest.raises(SystemExit):
        main(["speak", "grammar", "vae", "--device", "cpu"])  # it would change nothing
    assert "holds images" in one_line(capsys, "speak", "omniglot", "vae", "--profile", "smoke")
    next(own_folders.glob("results/runs/smoke/*/vae/seed0/vocabulary.json")).write_text('["a"]')
    assert "vocabulary.json is damaged" in one_line(capsys, "speak", "grammar", "vae", "--profile", "smoke")


def test_an_ais_check_of_a_run_that_was_never_trained_says_so(capsys):
    said = one_line(capsys, "ais", "grammar", "vae", "--profile", "smoke", "--seed", "77")
    assert said.endswith(
        "weights.safetensors is not there: the run is to be trained first, by `python -m lagvae_lib run ...`"
    )


def test_documents_that_are_alike_where_the_profile_cuts_them(tmp_path, capsys):
    rows = ["the same words " * 8 + str(i) for i in range(60)]
    said = one_line(capsys, "run", write(tmp_path / "alike.txt", rows), "vae", "--profile", "smoke")
    assert "once documents are cut to 12 words; take a profile that cuts later" in said


def test_knobs_that_are_refused_by_their_own_class_end_in_one_line(capsys):
    said = one_line(capsys, "run", "grammar", "aggressive+inner_test=gain+window=1", "--profile", "smoke")
    assert "at least 2 steps" in said


def test_tables_of_other_records_leave_the_checkout_s_pages_as_they_are(capsys):
    """Of another folder or profile: README shows the committed evidence."""
    from lagvae_lib import paths

    pages = [paths.ROOT / "README.md", paths.ROOT / "results" / "README.md"]
    before = [page.read_bytes() for page in pages]
    for profile in ("scaled", "smoke"):
        assert main(["tables", "--profile", profile]) == 0
        assert "README.md is left as it is: it shows profile scaled of" in capsys.readouterr().err
    assert [page.read_bytes() for page in pages] == before


def test_the_checkout_s_own_records_are_what_its_pages_show(monkeypatch):
    from lagvae_lib.paper import readme
    from lagvae_lib.runs.record import Records

    monkeypatch.delenv("LAGVAE_RESULTS")
    assert readme.shows(Records("scaled")) and not readme.shows(Records("quick"))
