"""Runs: loaded when finished, resumed bit for bit after SIGKILL wherever it falls, never half-written."""

import json
import os
import signal
import subprocess
import sys
import textwrap
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from filelock import FileLock

from lagvae_lib.config.identity import as_json, config_hash
from lagvae_lib.runs import provenance, record, train
from tests.tiny import tiny_config, tiny_data

TIMES = ("seconds", "cpu_seconds", "provenance")


@pytest.fixture(autouse=True)
def results(tmp_path, monkeypatch):
    monkeypatch.setenv("LAGVAE_RESULTS", str(tmp_path / "results"))
    return tmp_path / "results"


def numbers(run):
    """All of a record that must not depend on when or how often it was interrupted."""
    metrics = {key: value for key, value in run.metrics.items() if key not in TIMES}
    history = run.history.drop(columns="seconds")
    return json.dumps(metrics, sort_keys=True), history.to_csv(), run.dynamics.to_csv()


def test_record_is_complete_and_a_finished_run_is_loaded(results):
    config, data = tiny_config("aggressive-anneal"), tiny_data()
    first = train.run(config, data)
    assert {"dataset", "method", "profile", "seed", "nll", "elbo", "kl", "mi", "au"} <= first.metrics.keys()
    assert {"aggressive", "plain", "evaluation", "test"} >= first.metrics["seconds"].keys() - {"other"}
    assert first.metrics["provenance"]["data_sha256"] == data.sha256
    assert len(first.history) == 3
    assert first.folder == results / "runs/smoke/tiny/aggressive-anneal/seed0"
    stamps = {path: path.stat().st_mtime_ns for path in first.folder.iterdir()}
    lines = []
    again = train.run(config, data, report=lines.append)
    assert numbers(again) == numbers(first)
    assert len(lines) == 1 and "loaded" in lines[0]
    assert {path: path.stat().st_mtime_ns for path in first.folder.iterdir()} == stamps
    assert not list(first.folder.glob("checkpoint.pt"))


def test_the_record_counts_generator_updates_by_the_length_of_their_inner_loop():
    run = train.run(tiny_config("aggressive-anneal"), tiny_data())
    counts = {int(steps): times for steps, times in run.metrics["inner_counts"].items()}
    stage = run.history[run.history["aggressive"]]
    updates = stage["iteration"].diff().fillna(stage["iteration"].iloc[0])
    assert sum(counts.values()) == updates.sum()
    assert sum(steps * times for steps, times in counts.items()) == pytest.approx(
        (updates * stage["inner_steps"]).sum()
    )
    assert "inner_counts" not in train.run(tiny_config("vae"), tiny_data()).metrics


def test_another_configuration_is_another_run():
    config, data = tiny_config("vae"), tiny_data()
    first = train.run(config, data)
    changed = replace(config, schedule=replace(config.schedule, lr=0.5))
    second = train.run(changed, data)
    assert second.folder.name == f"seed0-{config_hash(changed)}"
    assert numbers(second) != numbers(first)
    assert record.folder_of(config) == first.folder


def test_a_cap_that_a_run_never_met_makes_no_other_run():
    """Its schedule ended it before; a run at its cap, or one that has not ended, is another at another cap."""
    config = tiny_config("vae")
    capped = train.run(config, tiny_data())
    assert capped.ended == "cap" and capped.metrics["epochs"] == config.schedule.max_epochs == len(capped.history)
    larger, smaller = (
        replace(config, schedule=replace(config.schedule, max_epochs=capped.metrics["epochs"] + more))
        for more in (5, -1)
    )
    assert record.folder_of(larger) != capped.folder
    path = capped.folder / "metrics.json"
    path.write_text(json.dumps(capped.metrics | {"ended": "schedule"}))
    assert record.folder_of(larger) == record.folder_of(config) == capped.folder != record.folder_of(smaller)
    other = replace(larger, schedule=replace(larger.schedule, patience=1 + larger.schedule.patience))
    assert record.folder_of(other) != capped.folder
    path.unlink()
    (capped.folder / "checkpoint.pt").touch()
    assert record.folder_of(larger) != capped.folder


def test_a_start_that_was_abandoned_keeps_no_place():
    """A run goes to `seed<k>-<hash>` because of another run there, not because of one that never was."""
    config = tiny_config("vae")
    other = replace(config, schedule=replace(config.schedule, lr=0.5))
    folder = record.folder_of(other)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(as_json(other)))
    assert record.folder_of(config) == folder
    with FileLock(folder / record.LOCK):  # at work, before its first checkpoint
        assert record.folder_of(config) != folder
    (folder / "checkpoint.pt").touch()
    assert record.folder_of(config) != folder


def test_a_place_that_another_run_took_meanwhile_is_left_to_it(monkeypatch):
    """Two processes choose an empty folder at once, and the second waits for the first."""
    config, data = tiny_config("vae"), tiny_data()
    other = replace(config, schedule=replace(config.schedule, lr=0.5))
    folder, held = record.folder_of(config), train._held

    @contextmanager
    def taken_before(place, report):
        with held(place, report):
            if place == folder:
                (folder / "config.json").write_text(json.dumps(as_json(other)))
                (folder / "checkpoint.pt").touch()
            yield

    monkeypatch.setattr(train, "_held", taken_before)
    assert train.run(config, data).folder == folder.with_name(f"seed0-{config_hash(config)}")
    assert record.read_config(folder) == as_json(other) and not (folder / "metrics.json").exists()


def test_a_record_names_the_code_that_trained_it(monkeypatch):
    """And not a commit made while it trained."""
    monkeypatch.setattr(provenance, "_git", lambda *command: "before")
    monkeypatch.setattr(train.Trainer, "load_best", lambda self: monkeypatch.setattr(provenance, "_git", lambda *c: ""))
    assert train.run(tiny_config("vae"), tiny_data()).metrics["provenance"]["git"] == "before"


def test_what_is_evaluated_is_the_selected_model(monkeypatch, results):
    config, data = tiny_config("vae"), tiny_data()
    expected = numbers(train.run(config, data))
    fit = train.Trainer.fit

    def and_spoilt(self, after_iteration):
        fit(self, after_iteration)
        with torch.no_grad():
            for parameter in self.model.parameters():
                parameter.zero_()

    monkeypatch.setattr(train.Trainer, "fit", and_spoilt)
    monkeypatch.setenv("LAGVAE_RESULTS", str(results / "again"))
    assert numbers(train.run(config, data)) == expected


def test_a_seed_decides_the_model_the_order_and_the_noise_whatever_was_drawn_before(monkeypatch):
    data, made, evaluated = tiny_data(), {}, train.evaluate
    seeds = []

    def evaluate(model, batches, generator, *args, **kwargs):
        seeds.append(generator.initial_seed())
        return evaluated(model, batches, generator, *args, **kwargs)

    monkeypatch.setattr(train, "evaluate", evaluate)
    for seed, before in ((0, 7), (0, 8), (1, 7)):
        torch.manual_seed(before)
        trainer = train.trainer_of(tiny_config("vae", seed), data, "cpu")
        made[seed, before] = trainer, torch.rand(1), trainer.train.order(trainer.order_generator)
    (a, first, order), (b, second, other_order), (c, third, _) = made.values()
    flat = [torch.cat([p.flatten() for p in trainer.model.parameters()]) for trainer in (a, b, c)]
    assert torch.equal(flat[0], flat[1]) and not torch.equal(flat[0], flat[2])
    assert first == second != third and order == other_order
    train.trainer_of(tiny_config("skip-vae"), data, "cpu")  # its initialisation draws more
    assert torch.rand(1) == first
    for seed in (0, 1):
        train.run(tiny_config("vae", seed), data)
    assert seeds == [train.noise(seed, train.FINAL, 0).initial_seed() for seed in (0, 1)] and len(set(seeds)) == 2


def test_a_record_without_one_of_its_files_or_its_provenance(results):
    config, data = tiny_config("vae"), tiny_data()
    made, lines = train.run(config, data), []
    metrics = {key: value for key, value in made.metrics.items() if key != "provenance"}
    (made.folder / "metrics.json").write_text(json.dumps(metrics))
    train.run(config, data, report=lines.append)
    assert "commit unknown" in lines[0]
    (made.folder / "history.csv").unlink()
    with pytest.raises(record.BadRecord, match=r"lacks history.csv; delete that folder"):
        record.load(made.folder)


def test_what_the_machine_refuses_is_not_the_checkpoint_s_fault(results, monkeypatch):
    (results / "checkpoint.pt").parent.mkdir(parents=True)
    monkeypatch.setattr(type(results), "read_bytes", lambda path: (_ for _ in ()).throw(PermissionError("denied")))
    with pytest.raises(PermissionError, match="denied"):
        train.resume(SimpleNamespace(load_state_dict=print), results / "checkpoint.pt")


def test_a_knob_that_came_later_makes_no_other_run_at_its_default():
    config = tiny_config("aggressive")
    folder = record.folder_of(config)
    folder.mkdir(parents=True)
    saved = config.as_dict()
    del saved["evaluation"]["iw_examples"], saved["method"]["inference"]["max_steps"]
    (folder / "config.json").write_text(json.dumps(saved))
    (folder / "checkpoint.pt").touch()
    assert record.folder_of(config) == folder
    for changed in (
        replace(config, evaluation=replace(config.evaluation, iw_examples=5)),
        replace(config, evaluation=replace(config.evaluation, probe=5)),
    ):
        assert record.folder_of(changed) == folder.with_name(f"seed0-{config_hash(changed)}")
    (folder / "config.json").write_text(json.dumps(saved | {"unheard_of": 1}))
    assert record.folder_of(config) != folder


def test_numbers_do_not_depend_on_the_number_of_threads(monkeypatch, tmp_path):
    data, records = tiny_data(), []
    before = torch.get_num_threads()
    for threads in (1, 2):
        monkeypatch.setenv("LAGVAE_RESULTS", str(tmp_path / str(threads)))
        torch.set_num_threads(threads)
        records.append(train.run(tiny_config("aggressive"), data))
        assert torch.get_num_threads() == threads
        assert records[-1].metrics["provenance"]["threads"] == 1
    torch.set_num_threads(before)
    assert numbers(records[0]) == numbers(records[1])


def test_seeds_differ_and_repeat():
    data = tiny_data()
    first, second = (train.run(tiny_config("vae", seed), data) for seed in (0, 1))
    assert first.metrics["nll"] != second.metrics["nll"]
    os.rename(first.folder, first.folder.with_name("kept"))
    assert numbers(train.run(tiny_config("vae", 0), data)) == numbers(first)


def test_one_process_at_a_time():
    config, data = tiny_config("vae"), tiny_data()
    with train._held(record.folder_of(config)), pytest.raises(record.RunBusy, match="another process"):
        train.run(config, data)


PAUSED = """
    import sys
    import torch
    from lagvae_lib.runs import train
    from tests.tiny import tiny_config, tiny_data

    def pause(line):
        # hold the run until the test says to go on
        print("in the middle", flush=True)
        sys.stdin.readline()

    torch.set_num_threads(1)
    train.run(tiny_config("aggressive-anneal"), tiny_data(), report=pause, checkpoint_seconds=0.0)
"""


@pytest.fixture
def holder(results):
    """A process that holds a run in the middle."""
    environment = os.environ | {"LAGVAE_RESULTS": str(results), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(PAUSED)],
        env=environment | {"PYTHONPATH": str(Path(__file__).resolve().parent.parent)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "in the middle\n"
    yield process
    process.kill()
    process.communicate()


@pytest.mark.parametrize("end", ["it finishes", "it is killed"])
def test_a_sweep_waits_for_a_process_that_holds_the_run(end, holder, monkeypatch, uninterrupted):
    config, data, lines = tiny_config("aggressive-anneal"), tiny_data(), []
    with pytest.raises(record.RunBusy, match="wait for it or stop it"):
        train.run(config, data)

    def report(line):
        lines.append(line)
        if "waiting for it to end" in line:
            holder.kill() if end == "it is killed" else holder.communicate("\n" * 10)

    monkeypatch.setenv("LAGVAE_WAIT", "1")
    assert numbers(train.run(config, data, report=report)) == uninterrupted
    assert "waiting for it to end" in lines[0]
    if end == "it finishes":
        assert [line.split()[0] for line in lines[1:]] == ["loaded"]
    else:
        assert "resumed at epoch" in lines[1]


KILLED = """
    import os, signal, sys
    from pathlib import Path
    import torch
    from lagvae_lib import training
    from lagvae_lib.inference import aggressive
    from lagvae_lib.metrics import evaluate
    from lagvae_lib.runs import train
    from tests.tiny import tiny_config, tiny_data

    torch.set_num_threads(1)
    calls = 0

    def deadly(function, call, before=lambda *a: None):
        # kill this process in the middle of the given call
        def wrapped(*args, **kwargs):
            global calls
            calls += 1
            if calls == call:
                before(*args)
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **kwargs)
        return wrapped

    honest = Path.write_bytes

    def half_written(path, content):
        honest(path, content[: len(content) // 2])

    where, call = sys.argv[1], int(sys.argv[2])
    if where == "inner loop":
        aggressive.clip = deadly(aggressive.clip, call)
    elif where == "evaluation":
        training.validate = deadly(training.validate, call)
    elif where == "final evaluation":
        evaluate.importance_weighted_curve = deadly(evaluate.importance_weighted_curve, call)
    elif where == "checkpoint":
        kill = deadly(honest, call, half_written)
        Path.write_bytes = lambda path, content: (kill if "checkpoint" in path.name else honest)(path, content)
    train.run(tiny_config("aggressive-anneal"), tiny_data(), report=print, checkpoint_seconds=0.0)
"""


def in_process(where, call, results):
    environment = os.environ | {"LAGVAE_RESULTS": str(results), "OMP_NUM_THREADS": "1"}
    root = Path(__file__).resolve().parent.parent
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(KILLED), where, str(call)],
        cwd=root,
        env=environment | {"PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    results = tmp_path_factory.mktemp("uninterrupted")
    done = in_process("nowhere", 0, results)
    assert done.returncode == 0, done.stderr
    return numbers(record.load(results / "runs/smoke/tiny/aggressive-anneal/seed0"))


@pytest.mark.parametrize(
    ("where", "call"),
    [("inner loop", 45), ("inner loop", 300), ("evaluation", 2), ("final evaluation", 1), ("checkpoint", 3)],
)
def test_sigkill_then_the_same_numbers(where, call, results, uninterrupted):
    killed = in_process(where, call, results)
    assert killed.returncode == -signal.SIGKILL
    folder = results / "runs/smoke/tiny/aggressive-anneal/seed0"
    assert not (folder / "metrics.json").exists()
    resumed = in_process("nowhere", 0, results)
    assert resumed.returncode == 0, resumed.stderr
    assert "resumed at epoch" in resumed.stdout
    assert numbers(record.load(folder)) == uninterrupted


def test_a_damaged_checkpoint_is_refused_with_what_to_do(results):
    config = tiny_config("vae")
    folder = record.folder_of(config)
    folder.mkdir(parents=True)
    (folder / "checkpoint.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(record.BadCheckpoint, match="delete it to start the run again"):
        train.run(config, tiny_data())


def test_a_loss_that_is_not_a_number_stops_the_run():
    config = tiny_config("vae")
    with pytest.raises(FloatingPointError, match="iteration"):
        train.run(replace(config, schedule=replace(config.schedule, lr=1e30)), tiny_data())


def test_trained_model_gives_the_recorded_metrics():
    config, data = tiny_config("autoregressive"), tiny_data()
    record = train.run(config, data)
    model = train.trained_model(config, data)
    with torch.no_grad():
        nll = -torch.cat([model.log_prob(x) for x in data.test]).mean()
    assert float(nll) == pytest.approx(record.metrics["nll"], abs=0.01)  # half precision


def test_weights_of_earlier_settings_are_read_from_their_runs_own_folder():
    config, data = tiny_config("vae"), tiny_data()
    run = train.run(config, data)
    later = replace(config, schedule=replace(config.schedule, lr=0.5 * config.schedule.lr))
    with pytest.raises(train.NoWeights):
        train.trained_model(later, data)
    own, found = train.trained_model(config, data), train.trained_model(later, data, folder=run.folder)
    assert all(torch.equal(value, own.state_dict()[name]) for name, value in found.state_dict().items())
