"""Roles in processes: commands, what goes over the pipe, threads, signals."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from offbeat.checkpoint import CheckpointError
from offbeat.runtime import making, process
from offbeat.runtime.ports import Stopped
from offbeat.runtime.process import THREAD_VARIABLES, Link, RoleProcess, native_threads, serve, signals_held
from offbeat.runtime.spans import TraceConfig
from tests.runtime.parts import small_config, small_world


class Host:
    """Does nothing and says so."""

    def __init__(self, rounds: int = 3, fails_at: int = -1, error: type[Exception] = RuntimeError) -> None:
        self.rounds, self.fails_at, self.error = rounds, fails_at, error
        self.posted = 0
        self.closed = False

    def steps(self) -> Iterator[None]:
        for number in range(self.rounds):
            if number == self.fails_at:
                raise self.error("no luck")
            yield

    def post(self) -> None:
        self.posted += 1

    def advance(self) -> dict[str, Any]:
        return {"finished": False}

    def evaluate(self, number: int, point: dict[str, float]) -> dict[str, Any]:
        return {"number": number, "point": point}

    def save(self, folder: Path) -> dict[str, Any]:
        if folder.name == "full":
            raise CheckpointError("the disk is full")
        return {"folder": str(folder)}

    def close(self) -> None:
        self.closed = True


class Ends:
    """Both ends of a role's pipe, in this process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, host: Host) -> None:
        here, there = multiprocessing.Pipe()
        self.link = Link(there)
        self.parent = RoleProcess.__new__(RoleProcess)  # only the talking half: nothing is spawned
        self.parent.pipe, self.parent.role = here, "learner"
        self.parent.error = self.parent.result = None
        self.parent.finished = self.parent.busy = False
        self.world: Any = SimpleNamespace(stopped=lambda: False, config=SimpleNamespace(trace=TraceConfig()))
        monkeypatch.setattr(making, "make_host", lambda *arguments, **options: host)

    def serve(self, role: str = "learner", lockstep: bool = False) -> None:
        """The child's part."""
        serve(self.world, role, self.link, lockstep, 0, None)

    def told(self) -> list[tuple[str, dict[str, Any]]]:
        """What has arrived."""
        return list(self.parent.read())


def test_commands_are_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    host = Host()
    ends = Ends(monkeypatch, host)
    answers = []
    for name, arguments in (
        ("hello", {}),
        ("advance", {}),
        ("evaluate", {"number": 3, "point": {"frames": 7}}),
        ("save", {"folder": "/somewhere"}),
        ("save", {"folder": "/full"}),
    ):
        ends.parent.command(name, **arguments)
        assert ends.parent.busy
        ends.parent.pipe.send_bytes(b'{"command": "stop"}')
        ends.serve(lockstep=True)
        assert ends.told() == []
        assert not ends.parent.busy
        answers.append(ends.parent.result)
    assert answers == [
        {}, {"finished": False}, {"number": 3, "point": {"frames": 7}}, {"folder": "/somewhere"},
        {"error": "the disk is full"},
    ]  # fmt: skip
    assert host.closed


def test_a_free_role_runs_to_its_end_and_then_takes_orders(monkeypatch: pytest.MonkeyPatch) -> None:
    host = Host(rounds=3)
    ends = Ends(monkeypatch, host)
    looks = iter([False] * 2 + [True])
    ends.world.stopped = lambda: next(looks)
    ends.link.write("episode", {"return": 2.0})
    ends.serve()
    assert ends.told() == [("episode", {"return": 2.0})]
    assert ends.parent.finished
    assert host.posted == 3
    assert host.closed


def test_a_free_role_stops_between_two_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    host = Host(rounds=10**9)
    ends = Ends(monkeypatch, host)
    ends.parent.command("save", folder="/x")
    ends.parent.pipe.send_bytes(b'{"command": "stop"}')
    ends.serve()
    assert ends.told() == []
    assert ends.parent.result == {"folder": "/x"}
    assert not ends.parent.finished
    assert host.posted == 2
    assert host.closed


def test_a_learner_that_failed_can_still_save(monkeypatch: pytest.MonkeyPatch) -> None:
    ends = Ends(monkeypatch, Host(fails_at=0))
    ends.parent.command("save", folder="/x")
    ends.parent.pipe.send_bytes(b'{"command": "stop"}')
    with pytest.raises(SystemExit):
        ends.serve()
    assert ends.told() == []
    assert "RuntimeError: no luck" in (ends.parent.error or "")
    assert ends.parent.result == {"folder": "/x"}


@pytest.mark.parametrize(("role", "error"), [("actor-0", RuntimeError), ("learner", Stopped)])
def test_other_failures_end_the_process(role: str, error: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    ends = Ends(monkeypatch, Host(fails_at=0, error=error))
    with pytest.raises(error, match="no luck"):
        ends.serve(role)


def test_a_dead_process_is_no_error_of_its_parent(monkeypatch: pytest.MonkeyPatch) -> None:
    ends = Ends(monkeypatch, Host())
    ends.link._pipe.close()
    ends.parent.command("hello")
    assert not ends.parent.busy
    assert ends.told() == []


@pytest.mark.parametrize(("code", "text"), [(-9, "was killed by SIGKILL"), (3, "ended with exit code 3")])
def test_deaths_are_told_in_words(code: int, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ends = Ends(monkeypatch, Host())
    ends.parent.process = SimpleNamespace(exitcode=code)  # type: ignore[assignment]
    assert ends.parent.death() == text


def test_children_start_with_their_number_of_threads() -> None:
    before = dict(os.environ)
    with native_threads(5):
        assert [os.environ[name] for name in THREAD_VARIABLES] == ["5"] * len(THREAD_VARIABLES)
    assert dict(os.environ) == before


def test_signals_are_held_while_a_child_starts() -> None:
    received: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: received.append(number))
    try:
        with signals_held():
            os.kill(os.getpid(), signal.SIGTERM)
            assert received == []
            assert signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ())
        assert received == [signal.SIGTERM]
        assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_real_role_works_shows_its_stack_and_ends(tmp_path: Path) -> None:
    world = small_world(tmp_path, small_config(engine="local"))
    role = RoleProcess(world, "learner", lockstep=True)
    try:
        role.command("hello")
        while role.result is None and role.alive():
            role.pipe.poll(1.0)
            assert list(role.read()) == []
        assert role.result == {}
        assert world.params.store.version() == 0, "it has published its first weights"
        assert "in _take_orders" in role.stack(wait_s=20.0)
        os.kill(role.process.pid or 0, signal.SIGTERM)  # the parent's business
        os.kill(role.process.pid or 0, signal.SIGINT)
        role.command("advance")
        while role.result is None and role.alive():
            role.pipe.poll(1.0)
            assert list(role.read()) == []
        assert role.result == {"finished": False, "updates": 0, "agent_steps": 0}
        role.command("stop")
        assert role.join(20.0)
        assert role.process.exitcode == 0
    finally:
        role.kill()
    assert not list(tmp_path.glob(".stack*"))
    assert process.ORDERS_S > 0
