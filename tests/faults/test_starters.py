"""What environments start has the default signals, in every process that an environment may be made in."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.command import alive, running, saved, training
from tests.faults.starters import LOG

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads the masks from /proc")
SLOW = pytest.mark.slow
SHORT = ("--total-frames", "200", "--evaluation.at-end", "true")
ENGINES = {
    "local": (),
    "lockstep": ("--deterministic", "true"),
    "inline": ("--engine", "inline"),
}


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where environments say what they start."""
    monkeypatch.setenv(LOG, str(tmp_path / "started.txt"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([os.getcwd(), os.environ.get("PYTHONPATH", "")]))
    yield tmp_path / "started.txt"
    for word, pid, *_ in map(str.split, (tmp_path / "started.txt").read_text().splitlines()):
        if word == "started" and alive(int(pid)):
            os.kill(int(pid), signal.SIGKILL)


def check_ended(log: Path) -> None:
    """All that was started had its signals, ended when it was told to, and is gone."""
    lines = [line.split() for line in log.read_text().splitlines()]
    started = {int(pid): held for word, pid, *held in lines if word == "started"}
    closed = {int(pid): float(held[0]) for word, pid, *held in lines if word == "closed"}
    assert started
    assert {pid: held for pid, held in started.items() if held} == {}, "signals that are ignored or blocked"
    assert [pid for pid in started if alive(pid)] == []
    assert set(closed) == set(started)
    assert max(closed.values()) < 5, "close() waited for a process that it had told to end"


@pytest.mark.parametrize(
    ("engine", "kind"),
    [
        ("inline", "Starter"),
        ("local", "Starter"),
        ("lockstep", "Forker"),
        pytest.param("inline", "Forker", marks=SLOW),
        pytest.param("local", "Forker", marks=SLOW),
        pytest.param("lockstep", "Starter", marks=SLOW),
        pytest.param("local", "vector", marks=SLOW),
    ],
)
def test_what_an_environment_starts_in_a_run_ends_when_it_is_told_to(
    engine: str, kind: str, tmp_path: Path, log: Path
) -> None:
    with training(tmp_path, "--env", f"tests.faults.starters:{kind}", *SHORT, *ENGINES[engine]) as command:
        assert command.wait() == 0, command.output
        assert "was killed" not in command.output
    check_ended(log)


@pytest.mark.parametrize("kind", ["Starter", pytest.param("Forker", marks=SLOW), pytest.param("vector", marks=SLOW)])
def test_what_an_environment_starts_in_a_check_or_an_evaluation_ends(kind: str, tmp_path: Path, log: Path) -> None:
    env = f"tests.faults.starters:{kind}"
    with running("envs", "check", env, "--seconds", "1", folder=tmp_path) as command:
        assert command.wait() == 0, command.output
    check_ended(log)
    with training(tmp_path, "--env", env, *SHORT) as command:
        assert command.wait() == 0, command.output
    for name in ("eval", "record"):
        log.write_text("")
        with running(name, str(tmp_path / "run"), "--env", env, "--episodes", "2", folder=tmp_path) as command:
            assert command.wait() == 0, command.output
        check_ended(log)


@pytest.mark.parametrize(
    ("engine", "kind"),
    [
        ("local", "Starter"),
        pytest.param("local", "Forker", marks=SLOW),
        pytest.param("local", "vector", marks=SLOW),
        pytest.param("lockstep", "Starter", marks=SLOW),
    ],
)
def test_ctrl_c_leaves_what_roles_started_to_their_environments(
    engine: str, kind: str, tmp_path: Path, log: Path
) -> None:
    """A terminal tells the whole group; an environment whose server died of it would end the run in an error."""
    options = ("--checkpoint.every-updates", "20", *ENGINES[engine])
    with training(tmp_path, "--env", f"tests.faults.starters:{kind}", *options) as command:
        command.until(lambda: saved(tmp_path), "a checkpoint")
        command.press_ctrl_c()
        assert command.wait() == 0, command.output
        assert "stopped (SIGINT) and saved" in command.output
        assert "Traceback" not in command.output
    check_ended(log)


def test_what_a_hanging_role_started_ends_with_it(tmp_path: Path, log: Path) -> None:
    options = ("--env", "tests.faults.starters:Stuck", "--actor.hang-timeout-s", "2", "--actor.max-restarts", "1")
    with training(tmp_path, *options) as command:
        assert command.wait() == 1, command.output
        assert "replaced (1 of at most 1 times)" in command.output
    pids = [int(line.split()[1]) for line in log.read_text().splitlines()]
    assert len(pids) >= 9, "one that was looked at, and four of each actor"
    assert [pid for pid in pids if alive(pid)] == []
