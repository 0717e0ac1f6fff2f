"""Peers are followed by what they count, ended with all that they started, and compared as the table says."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from rich.console import Console

from offbeat.bench.peers import catalogue, measure, process, report
from offbeat.bench.peers.catalogue import (
    PEERS,
    TASKS,
    find_python,
    game_of,
    has_network,
    make_plan,
    task_config,
    variants,
)
from offbeat.bench.peers.drivers.peer_torsos import nature_torso, residual_torso
from offbeat.bench.peers.measure import Point, RunFailed, Sample, reach
from offbeat.bench.peers.process import PeerRun
from offbeat.bench.peers.report import Row, as_table, bench_peers, notes, run_rounds
from offbeat.cli import main
from offbeat.config.run_config import apply_overrides, load_preset
from offbeat.envs.base import EnvUnavailable
from offbeat.errors import UserError
from offbeat.networks.torsos import Torso
from offbeat.types import ArraySpec

REAL_DRIVERS = catalogue.DRIVERS

COUNTS = """
import time
from importlib import import_module
counter = import_module("peer_counter").Counter("pytest", "counting", "thoughts")
print("noise on standard output", flush=True)
start = time.monotonic()
while True:
    counter.frames(round(1000 * (time.monotonic() - start)))
    time.sleep(0.001)
"""
HANGS = """
import signal, subprocess, sys, time
signal.signal(signal.SIGINT, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
print("\\x1b[31mwaiting for", child.pid, file=sys.stderr, flush=True)
time.sleep(60)
"""
STALLS = """
import time
from importlib import import_module
import_module("peer_counter").Counter("pytest", "stalling", "thoughts").frames(7)
time.sleep(60)
"""
DIES = "raise SystemExit('no such game')"


@pytest.fixture
def drivers(tmp_path, monkeypatch):
    """A folder of drivers that need no peer, as the benchmark's own."""
    folder = tmp_path / "drivers"
    folder.mkdir()
    shutil.copy(REAL_DRIVERS / "peer_counter.py", folder)
    for name, text in (("sb3", COUNTS), ("sample_factory", HANGS), ("rllib", DIES), ("stalls", STALLS)):
        (folder / f"drive_{name}.py").write_text(text)
    monkeypatch.setattr(catalogue, "DRIVERS", folder)
    monkeypatch.setattr(measure, "WARM_UP_S", 0.1)
    monkeypatch.setattr(measure, "LOOK_S", 0.02)
    monkeypatch.setattr(process, "STOP_S", 0.3)
    monkeypatch.setattr(process, "REST_S", 0.3)
    monkeypatch.setattr(PeerRun, "patience_s", 20.0)
    return folder


@pytest.fixture
def venv(tmp_path):
    """A virtual environment as far as the benchmark looks at it."""
    (tmp_path / "venv" / "bin").mkdir(parents=True)
    (tmp_path / "venv" / "bin" / "python").symlink_to(sys.executable)
    return tmp_path / "venv"


def start(drivers, name):
    return PeerRun(Path(sys.executable), drivers / f"drive_{name}.py", ["--task", "cartpole"])


def runs(pid):
    """Whether a process of that number exists."""
    with suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False


def test_the_rate_is_that_of_the_counter_by_its_own_clock(drivers):
    with start(drivers, "sb3") as live:
        sample = measure.measure(live, 0.6)
        about = live.about()
        pid = live._process.pid
    assert sample.frames_per_s == pytest.approx(1000, rel=0.01)
    assert about["workload"] == "counting" and about["version"] == pytest.__version__
    assert sample.start_s > 0
    if os.path.exists("/proc/self/smaps_rollup"):
        assert sample.memory_bytes > 2**20 and sample.cores_used > 0
    assert not runs(pid)


def test_a_peer_that_hangs_is_ended_with_its_children(drivers, monkeypatch):
    monkeypatch.setattr(PeerRun, "patience_s", 1.0)
    with pytest.raises(RunFailed, match="no counter for 1 s") as failure, start(drivers, "sample_factory") as live:
        measure.measure(live, 0.1)
    [line] = failure.value.output
    assert line.startswith("waiting for")
    deadline = time.monotonic() + 10
    while runs(int(line.split()[-1])) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not runs(int(line.split()[-1])) and not runs(live._process.pid)


def test_a_peer_whose_counter_stops_hangs(drivers, monkeypatch):
    monkeypatch.setattr(PeerRun, "patience_s", 1.0)
    with pytest.raises(RunFailed, match="stood at 7 for 1 s"), start(drivers, "stalls") as live:
        measure.measure(live, 0.1)


def test_a_peer_that_dies_says_why(drivers):
    with pytest.raises(RunFailed, match="exit code 1") as failure, start(drivers, "rllib") as live:
        measure.measure(live, 0.1)
    assert failure.value.output == ["no such game"]


def test_ctrl_c_ends_the_peer(drivers):
    def press(live):
        reach(live, 0.0)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), start(drivers, "sb3") as live:
        press(live)
    assert not runs(live._process.pid) and not Path(live._folder.name).exists()


def test_a_peer_ends_when_the_benchmark_is_killed(drivers):
    program = f"""
import sys, time
from pathlib import Path
from offbeat.bench.peers.measure import reach
from offbeat.bench.peers.process import PeerRun
with PeerRun(Path(sys.executable), Path({str(drivers / "drive_sb3.py")!r}), []) as live:
    reach(live, 0.0)
    print(live._process.pid, live._folder.name, flush=True)
    time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as parent:
        pid, folder = parent.stdout.readline().split()
        assert runs(int(pid))
        parent.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 20
    while runs(int(pid)) and time.monotonic() < deadline:
        time.sleep(0.02)
    shutil.rmtree(folder)  # nobody was left to remove it
    assert not runs(int(pid))


class Scripted:
    """A run whose counter is a list."""

    patience_s = 5.0

    def __init__(self, points):
        self.points = points

    def point(self):
        return self.points.pop(0) if len(self.points) > 1 else self.points[0]


def test_reach_waits_for_a_counter_late_enough(monkeypatch):
    monkeypatch.setattr(measure, "LOOK_S", 0.0)
    monkeypatch.setattr(measure, "SELDOM_S", 0.0)
    points = [None, Point(3.0, 10), Point(3.0, 10), Point(4.5, 20), Point(6.0, 30)]
    assert reach(Scripted(list(points)), float("-inf")) == Point(3.0, 10)
    assert reach(Scripted(list(points)), 4.6) == Point(6.0, 30)


@pytest.mark.slow
def test_a_whole_comparison(drivers, venv, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(PeerRun, "patience_s", 4.0)
    monkeypatch.setattr(report, "OffbeatRun", lambda config: start(drivers, "sb3"))
    plan = make_plan(
        dict.fromkeys(PEERS, str(venv)), task="cartpole", game="", preset="", options=[("learner.precision", "bf16")]
    )
    bench_peers(plan, seconds=0.5, rounds=2, file=tmp_path / "report.json")
    written = json.loads((tmp_path / "report.json").read_text())
    rows = {(row["name"], row["precision"]): row for row in written["rows"]}
    assert written["fastest_peer"] == "Stable-Baselines3" and written["frame_skip"] == 1
    assert list(rows) == [
        ("Stable-Baselines3", "fp32"),
        ("Sample Factory", "fp32"),
        ("RLlib", "fp32"),
        ("offbeat", "bf16"),
        ("offbeat", "fp32"),
    ]
    for key, row in rows.items():
        failed = key[0] in ("Sample Factory", "RLlib")
        assert len(row["frames_per_s"]) == (0 if failed else 2)
        assert (row["ratio"] is None) if failed else row["ratio"] == pytest.approx(1, rel=0.02)
    printed = capsys.readouterr().out
    assert "RLlib failed: it ended with exit code 1; its last lines:\n  no such game" in printed
    assert "Sample Factory failed: no counter for 4 s" in printed
    assert printed.count("round 2 of 2") == 3  # what failed is not started again


def test_every_other_round_runs_backwards(monkeypatch):
    order = []

    class Idle(Scripted):
        def __enter__(self):
            return self

        def __exit__(self, *_):
            return None

    def row(name):
        return Row(name, True, {"precision": "fp32"}, lambda: order.append(name) or Idle([]))

    monkeypatch.setattr(report, "measure", lambda live, seconds: Sample(1.0, 1.0, 1, 1.0))
    run_rounds([row("a"), row("b"), row("c")], 1.0, 3, Console(quiet=True))
    assert "".join(order) == "abccbaabc"


def test_table_and_notes_show_medians_ratios_and_failures():
    def row(name, rates, ratio, error=None):
        samples = [Sample(rate, 1.5, 2**30, 3.0) for rate in rates]
        about = {"version": "1.2", "torch": "2.9", "workload": "work", "counts": "frames", "compile": False}
        return {"name": name, "peer": True, "precision": "fp32", **about, **report.columns(samples)} | {
            "ratio": ratio,
            "error": error,
            "output": ["gone"] if error else [],
        }

    data = {
        "task": "atari",
        "game": "Pong",
        "frame_skip": 4,
        "device": "cpu",
        "machine": {"cores": 2},
        "fastest_peer": "Stable-Baselines3",
        "same_network": False,
        "load_average": 0.5,
        "rows": [row("Stable-Baselines3", [40000.0, 10000.0, 30000.0], 1.0), row("broken", [], None, "it hangs")],
    }
    console = Console(width=80)
    with console.capture() as captured:
        console.print(as_table(data))
    first, second = [line.split() for line in captured.get().splitlines() if line.strip()][-2:]
    assert first == ["Stable-Baselines3", "1.2", "fp32", "30,000", "10,000–40,000", "1.00", "1.50", "1.00"]
    assert second == ["broken", "1.2", "fp32", "failed"]
    text = "\n".join(notes(data))
    assert "broken failed: it hangs; its last lines:\n  gone" in text and "another network" in text


def test_the_plan_refuses_what_cannot_run(venv, tmp_path):
    def plan(venvs, **changed):
        return make_plan(venvs, **({"task": "atari", "game": "", "preset": ""} | changed))

    sb3 = {"sb3": str(venv)}
    with pytest.raises(UserError, match="at least one peer: --sb3 VENV, --sample-factory VENV"):
        plan({})
    with pytest.raises(UserError, match=r"--sample-factory .*does not exist"):
        plan({"sample_factory": str(tmp_path / "nowhere")})
    with pytest.raises(UserError, match="unknown task 'atary'; did you mean 'atari'"):
        plan(sb3, task="atary")
    with pytest.raises(UserError, match="--rllib has no task 'minatar'; it has: atari, atari-deep, cartpole"):
        plan({"rllib": str(venv)}, task="minatar")
    with pytest.raises(UserError, match="'Pong' does not belong to task 'cartpole'"):
        plan(sb3, task="cartpole", game="Pong")
    with pytest.raises(EnvUnavailable, match="Pnog"):
        plan(sb3, game="Pnog")
    assert plan(sb3, game="ALE/MsPacman-v5").game == "MsPacman"
    assert plan(sb3, task="minatar", game="space_invaders").game == "space_invaders"


def test_the_command_checks_its_line(capsys):
    assert main(["bench", "peers", "--sb3", "/nowhere", "--rounds", "none"]) == 2
    assert main(["bench", "peers", "impala-atari"]) == 2
    error = capsys.readouterr().err
    assert "/nowhere/bin/python does not exist" in error and "takes only options, got 'impala-atari'" in error


def test_find_python_is_that_of_the_environment(venv):
    assert find_python("sb3", str(venv)) == venv / "bin" / "python"


@pytest.mark.parametrize("task", TASKS)
def test_each_task_has_the_peers_network_and_a_row_in_float32(task):
    preset, config = load_preset(TASKS[task].preset), task_config(TASKS[task])
    game_of(task, config.env.id)
    assert has_network(config, TASKS[task])
    assert has_network(preset, TASKS[task]) == (task != "atari-deep")  # elsewhere the preset is measured as it is
    other = ("agent.dueling", True) if task == "atari-dqn" else ("agent.core", "lstm")
    assert not has_network(apply_overrides(config, [other]), TASKS[task])
    fast = apply_overrides(config, [("learner.precision", "bf16")])
    assert [run.learner.precision for run in variants(fast)] == ["bf16", "fp32"]
    assert len(variants(variants(fast)[1])) == 1


def test_the_tasks_network_lies_under_the_options_and_only_over_its_own_preset(venv):
    def plan(preset="", options=()):
        return make_plan({"sb3": str(venv)}, task="atari-deep", game="", preset=preset, options=options)

    [config, *_] = plan().configs
    assert (config.preset, config.agent.torso, config.agent.core) == ("impala-atari", "resnet", "none")
    assert config.learner.unroll_length == load_preset("impala-atari").learner.unroll_length
    assert plan().same_network
    changed = plan(options=[("agent.feature_size", "128"), ("learner.unroll_length", "20")])
    assert changed.configs[0].agent.feature_size == 128 and changed.configs[0].learner.unroll_length == 20
    assert not changed.same_network
    assert not plan("impala-atari").same_network
    assert plan("impala-atari-deep").configs[0].agent.core == "lstm"


@pytest.mark.parametrize(
    ("task", "build", "channels"), [("atari", nature_torso, 64), ("atari-deep", residual_torso, 32)]
)
def test_torsos_of_drivers_compute_what_offbeats_do(task, build, channels):
    theirs, network = build(4), TASKS[task].network
    ours = Torso({"frame": ArraySpec((4, 84, 84), "uint8")}, network["torso"], feature_size=network["feature_size"])
    with torch.no_grad():
        for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            assert mine.shape == other.shape
            mine.copy_(other)
        weight = ours.image_layer.weight  # sees channels last, theirs first
        weight.copy_(weight.unflatten(1, (channels, -1)).transpose(1, 2).flatten(1))
        frames = torch.randint(0, 256, (1, 3, 4, 84, 84), dtype=torch.uint8)
        torch.testing.assert_close(ours({"frame": frames})[0], theirs(frames[0] / 255))


@pytest.mark.parametrize("peer", PEERS)
def test_drivers_import_only_what_python_has(peer):
    tree = ast.parse((REAL_DRIVERS / f"drive_{peer}.py").read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            assert all(name.split(".")[0] in sys.stdlib_module_names for name in names)


@pytest.mark.parametrize(
    ("peer", "package"), [("sb3", "stable_baselines3"), ("sample_factory", "sample_factory"), ("rllib", "ray")]
)
def test_a_driver_without_its_peer_names_it(peer, package):
    if importlib.util.find_spec(package):
        pytest.skip(f"{package} is installed here")
    with start(REAL_DRIVERS, peer) as live:
        with pytest.raises(RunFailed, match="exit code 1") as failure:
            measure.measure(live, 0.1)
        about = live.about()
    assert about["version"] == "" and about["workload"]
    assert "ModuleNotFoundError: No module named" in failure.value.output[-1]


@pytest.mark.slow
def test_offbeat_is_measured_as_its_peers_are(drivers, venv, monkeypatch):
    plan = make_plan({"sb3": str(venv)}, task="cartpole", game="", preset="", options=[("learner.precision", "bf16")])
    rows = bench_peers(plan, seconds=2.0, rounds=1)["rows"]
    assert [row["error"] for row in rows] == [None] * 3
    assert all(row["memory_bytes"][0] > 2**22 and row["frames_per_s"][0] > 0 for row in rows)
