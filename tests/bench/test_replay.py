"""The replay bench measures what it says, refuses contenders that read other data, and compares as its table says."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from rich.console import Console

from offbeat.bench import replay, replay_own
from offbeat.bench.peers import catalogue
from offbeat.bench.peers.drivers import replay_driver as driver
from offbeat.bench.peers.measure import RunFailed
from offbeat.bench.replay import MEASURES, PEERS, DriverRun, as_table, available_memory, bench_replay, make_rows, notes
from offbeat.cli import main
from offbeat.errors import UserError

REAL_DRIVERS = catalogue.DRIVERS
FRAMES = np.random.default_rng(0).integers(0, 256, (driver.STREAMS * driver.BLOCK, driver.SIZE, driver.SIZE), np.uint8)
SILENT = SimpleNamespace(write=lambda **_: None)

REPORTS = """
import json, sys
batch = {batch} if "--variant={variant}" in sys.argv else 0.4
measured = dict(held=9000, fill_rows_per_s=1.0, append_rows_per_s=100.0 / batch, transitions_s=batch, draw_s=0.1,
    assemble_s=0.2, update_s=0.1, sequences_s=None, bytes_per_transition=7000.0, pss_bytes=2**30, rss_bytes=2**30)
print(json.dumps(dict(version="1.5", torch="", workload="reporting")), flush=True)
print(json.dumps(dict(filled=3)), flush=True)
print(json.dumps(dict(result=measured)), flush=True)
"""
DIES = "raise SystemExit('no such buffer')"
HANGS = "import time; time.sleep(60)"


class Naive:
    """A contender that keeps one stream's frames in a list of arrays and draws anything."""

    period, steps = len(FRAMES), driver.N_STEPS

    def __init__(self, sequence_rows=driver.BURN_IN + driver.LENGTH + driver.TAIL):
        self.capacity, self.held, self.sequence_rows = 2000, 1900, sequence_rows
        self.rng, self.frames, self.calls = np.random.default_rng(0), np.zeros((0, *FRAMES.shape[1:]), np.uint8), []

    def allocate(self):
        self.calls.append("allocate")

    def append(self):
        self.frames = np.concatenate([self.frames, FRAMES])
        self.calls.append("append")

    def prepare(self):
        self.calls.append("prepare")

    def _stacks(self, rows):
        return self.frames[rows[..., None] + np.arange(driver.STACK)]

    def sample(self):
        rows = self.rng.integers(0, 1000, driver.BATCH)
        return self._stacks(rows), self._stacks(rows + self.steps), rows

    def draw(self):
        return self.rng.integers(0, 1000, driver.BATCH)

    def update(self, names, priority):
        assert names.shape == priority.shape == (driver.BATCH,)

    def sample_sequences(self):
        rows = self.rng.integers(0, 1000, driver.SEQUENCES)
        return self._stacks(rows + np.arange(self.sequence_rows)[:, None]), rows

    def update_sequences(self, names, priority):
        assert names.shape == priority.shape == (driver.SEQUENCES,)


@pytest.fixture
def venv(tmp_path):
    """A virtual environment as far as the benchmark looks at it."""
    (tmp_path / "venv" / "bin").mkdir(parents=True)
    (tmp_path / "venv" / "bin" / "python").symlink_to(sys.executable)
    return tmp_path / "venv"


@pytest.fixture
def drivers(tmp_path, monkeypatch):
    """A folder for drivers that need no peer, as the benchmark's own."""
    folder = tmp_path / "drivers"
    folder.mkdir()
    monkeypatch.setattr(catalogue, "DRIVERS", folder)
    return folder


def test_offbeat_is_measured_over_a_full_store():
    own = replay_own.Own(SimpleNamespace(transitions=6000), FRAMES)
    result = driver.measure(own, FRAMES, 0.05, SILENT)
    assert own.store.head.min() > own.layout.ring  # it overwrites, as in a long run
    assert 6000 <= result["held"] < 6000 + driver.STREAMS * driver.BLOCK
    assert all(value > 0 for name, value in result.items() if name != "bytes_per_transition")
    assert result["transitions_s"] == pytest.approx(sum(result[f"{part}_s"] for part in ("draw", "assemble", "update")))
    frames = own.store.arrays["observation/observation"].nbytes
    assert frames / result["held"] < 1.5 * driver.SIZE**2  # each frame once
    if driver.memory()["pss"]:
        assert result["pss_bytes"] > frames


def test_rates_and_parts_are_those_of_the_clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(driver.time, "perf_counter", lambda: now[0])

    def takes(*durations):
        left = list(durations)

        def call():
            now[0] += left.pop(0) if len(left) > 1 else left[0]

        return call

    took = driver.clock({"slow": takes(9.0, 9.0, 1.0, 2.0, 30.0), "fast": takes(0.5)}, 1.0)
    assert took == {"slow": 2.0, "fast": 0.5}  # the warm-up does not count; the median of three


def test_a_store_is_filled_before_it_is_measured():
    naive = Naive()
    driver.measure(naive, FRAMES, 0.0, SILENT)
    first = naive.calls.index("prepare")
    assert naive.calls[:first] == ["allocate", *["append"] * 5]  # 2,000 rows and a block of 640 in blocks of 640


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda seen: seen[:, ::-1], "frames of stacks"),
        (lambda seen: np.roll(seen, 1, 0), "next observations"),
        (lambda seen: seen ^ 1, "not the frames that were appended"),
        (lambda seen: seen[:100], r"expected uint8\[512, 4, 84, 84\], got uint8\[100"),
        (lambda seen: seen.astype(np.float32), "got float32"),
    ],
)
def test_a_contender_that_reads_other_data_is_refused(change, message):
    naive = Naive()
    for _ in range(4):
        naive.append()
    driver.check(naive, FRAMES)
    sample = naive.sample

    def wrong():
        seen, following, rows = sample()
        return change(seen), following, rows

    naive.sample = wrong
    with pytest.raises(ValueError, match=message):
        driver.check(naive, FRAMES)


def test_sequences_must_have_all_rows_and_the_right_order():
    naive = Naive(sequence_rows=driver.LENGTH)
    for _ in range(4):
        naive.append()
    with pytest.raises(ValueError, match="expected 125 rows or one more, got 80"):
        driver.check(naive, FRAMES)
    naive = Naive()
    for _ in range(4):
        naive.append()
    sequences = naive.sample_sequences
    naive.sample_sequences = lambda: (sequences()[0][::-1], None)
    with pytest.raises(ValueError, match="rows of sequences"):
        driver.check(naive, FRAMES)


def test_memory_is_what_the_process_holds():
    before = driver.memory()
    if not before["pss"]:
        pytest.skip("the system does not tell")
    held = np.ones(2**25, np.uint8)
    after = driver.memory()
    for name in before:
        assert after[name] - before[name] > 0.9 * held.nbytes


def test_a_whole_comparison(drivers, venv, monkeypatch, tmp_path, capsys):
    (drivers / "drive_cpprb.py").write_text(REPORTS.format(batch=0.2, variant="one-step"))
    (drivers / "drive_torchrl.py").write_text(DIES)

    def rows(venvs, transitions, seconds):
        made = make_rows(venvs, transitions, seconds)
        made[0].script = drivers / "drive_own.py"
        return made

    (drivers / "drive_own.py").write_text(REPORTS.format(batch=0.1, variant="").replace('"--variant=" in', "True or"))
    monkeypatch.setattr(replay, "make_rows", rows)
    file = tmp_path / "report.json"
    bench_replay(dict.fromkeys(PEERS, str(venv)), transitions=10_000, seconds=0.1, rounds=2, file=file)
    written = json.loads(file.read_text())
    lines = {line["name"]: line for line in written["rows"]}
    assert list(lines) == ["offbeat", "cpprb (n-step)", "cpprb (one-step)", "TorchRL (frames)", "TorchRL (stacks)"]
    assert written["fastest_peer"]["transitions_s"] == "cpprb (one-step)"
    assert written["fastest_peer"]["append_rows_per_s"] == "cpprb (one-step)"
    assert written["fastest_peer"]["sequences_s"] is None
    assert lines["offbeat"]["ratio"]["transitions_s"] == pytest.approx(2)
    assert lines["offbeat"]["ratio"]["append_rows_per_s"] == pytest.approx(2)
    assert lines["cpprb (n-step)"]["ratio"]["transitions_s"] == pytest.approx(0.5)
    assert lines["offbeat"]["values"]["transitions_s"] == [0.1, 0.1]
    assert lines["TorchRL (frames)"]["error"] == "it ended with exit code 1"
    printed = capsys.readouterr().out
    assert "TorchRL (stacks) failed: it ended with exit code 1; its last lines:\n  no such buffer" in printed
    assert "held 9,000 transitions: fewer than asked for, which favours it" in printed
    assert printed.count("round 2 of 2") == 3  # what failed is not started again
    assert "offbeat took 1.00 GiB in all; 1,000,000 transitions may take 8 GiB" in printed


def test_table_shows_medians_ranges_and_ratios():
    def line(name, values, error=None):
        return {
            "name": name,
            "peer": name != "offbeat",
            "values": {"transitions_s": values} if values else {},
            "ratio": {measure.name: 1.5 if values else None for measure in MEASURES},
            "error": error,
            "output": [],
        }

    report = {
        "transitions": 10_000,
        "threads": 2,
        "rows": [line("offbeat", [0.003, 0.001, 0.002]), line("broken", [], "it hangs")],
    }
    console = Console(width=80)
    with console.capture() as captured:
        console.print(as_table(report))
    text = [row.split() for row in captured.get().splitlines()]
    assert ["offbeat", "2.00", "1.00–3.00", "1.50"] in text
    assert ["broken", "failed"] in text and ["offbeat", "-"] in text


@pytest.mark.slow
def test_a_driver_that_is_silent_hangs(tmp_path, monkeypatch):
    (tmp_path / "drive.py").write_text(HANGS)
    monkeypatch.setattr(replay, "LONGEST_SILENCE_S", 0.5)
    with (
        pytest.raises(RunFailed, match=r"no report for 0\.5 s"),
        DriverRun(Path(sys.executable), tmp_path / "drive.py", []) as run,
    ):
        run.result()


def test_a_driver_that_reports_and_ends_at_once_is_heard(tmp_path):
    (tmp_path / "drive.py").write_text(REPORTS.format(batch=0.1, variant="x"))
    with DriverRun(Path(sys.executable), tmp_path / "drive.py", []) as run:
        assert run.result()["held"] == 9000
        assert run.about()["version"] == "1.5"


def test_what_cannot_run_is_refused_first(venv, tmp_path, monkeypatch, capsys):
    with pytest.raises(UserError, match="--transitions=9999 is out of range; allowed: 10000 or more"):
        make_rows({}, 9999, 1.0)
    with pytest.raises(UserError, match=r"--torchrl .*nowhere: no virtual environment .*docs/replay.md"):
        make_rows({"torchrl": str(tmp_path / "nowhere")}, 10_000, 1.0)
    monkeypatch.setattr(replay, "available_memory", lambda: 2**30)
    with pytest.raises(UserError, match=r"takes 7.2 GiB, but 1.0 GiB are free; use 13\d{4} or fewer"):
        make_rows({}, 1_000_000, 1.0)
    assert main(["bench", "replay", "impala-atari"]) == 2
    assert main(["bench", "replay", "--learner.batch_size", "8"]) == 2
    assert main(["bench", "replay", "--transitions", "many"]) == 2
    error = capsys.readouterr().err
    assert "got 'impala-atari'" in error and "got '--learner.batch_size'" in error and "'many' is not a number" in error


def test_available_memory_is_less_than_all_of_it():
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert 0 <= available_memory() < total


def test_notes_name_versions_and_what_was_held():
    line = {"name": "TorchRL (frames)", "peer": True, "version": "0.14", "torch": "2.13", "workload": "work"}
    line |= {"values": {"held": [10_000, 10_000]}, "error": None, "output": []}
    text = "\n".join(notes({"transitions": 10_000, "rows": [line], "load_average": 0.5}))
    assert "TorchRL (frames) 0.14, torch 2.13: work; held 10,000 transitions\n" in text


@pytest.mark.parametrize("peer", [*PEERS, None])
def test_drivers_import_only_python_and_numpy(peer):
    tree = ast.parse((REAL_DRIVERS / (f"drive_{peer}.py" if peer else "replay_driver.py")).read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            assert all(name.split(".")[0] in {*sys.stdlib_module_names, "numpy"} for name in names)


@pytest.mark.parametrize("peer", PEERS)
def test_a_driver_without_its_peer_names_it(peer):
    if importlib.util.find_spec(peer):
        pytest.skip(f"{peer} is installed here")
    with DriverRun(Path(sys.executable), REAL_DRIVERS / f"drive_{peer}.py", ["--transitions=10000"]) as run:
        with pytest.raises(RunFailed, match="exit code 1") as failure:
            run.result()
        assert run.about()["version"] == "" and run.about()["workload"]
    assert f"ModuleNotFoundError: No module named '{peer}'" in failure.value.output[-1]
