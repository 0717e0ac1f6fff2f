"""What a role's process runs: commands and their answers, ends, failures of every class."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any

import pytest

from offbeat.runtime.child import serve
from offbeat.runtime.host import Host
from offbeat.runtime.link import Link, ParentGone
from offbeat.runtime.ports import Stopped
from offbeat.runtime.process import RoleProcess
from offbeat.runtime.services import Arrays, Write
from offbeat.runtime.topology import Role, topology
from offbeat.storage.checkpoint import CheckpointError
from offbeat.types import UNROLL
from tests.runtime.parts import small_config


class Idler(Host):
    """Does nothing and says so."""

    warm = False  # type: ignore[assignment]

    def __init__(self, rounds: int = 3, fails_at: int = -1, error: type[BaseException] = RuntimeError) -> None:
        self.rounds, self.fails_at, self.error = rounds, fails_at, error
        self.closing: type[BaseException] | None = None
        self.posted = 0
        self.closed = False

    def steps(self) -> Iterator[None]:
        for number in range(self.rounds):
            if number == self.fails_at:
                raise self.error("no luck")
            yield

    def post(self, event: Any) -> None:
        self.posted += 1

    def missing(self) -> str:
        return "patience"

    def advance(self) -> dict[str, Any]:
        return {"finished": False}

    def evaluate(self, number: int) -> dict[str, Any]:
        return {"number": number}

    def save(self, write: Write) -> dict[str, Any]:
        write("part", {})
        return {"parts": ["part"]}

    def close(self) -> None:
        self.closed = True
        if self.closing is not None:
            raise self.closing("the emulator is gone")


class Ends:
    """Both ends of a role's pipe, in this process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, host: Host, **options: Any) -> None:
        here, there = multiprocessing.Pipe()
        self.link = Link(there)
        self.parent = RoleProcess.__new__(RoleProcess)  # only the talking half: nothing is spawned
        self.parent.role = "learner"
        self.parent._listen(here)
        self.table = topology(small_config(engine="local", **options), UNROLL)
        self.written: list[str] = []
        self.services: Any = SimpleNamespace(
            stopped=lambda: False,
            heart=SimpleNamespace(beating=nullcontext, beat=lambda: None),
            record=lambda host: nullcontext(),
            write_part=self._write,
        )
        monkeypatch.setattr(Role, "builder", lambda row: lambda services: host)

    def _write(self, folder: str, part: str, arrays: Arrays) -> None:
        if folder == "/full":
            raise CheckpointError("the disk is full")
        self.written.append(f"{folder}/{part}")

    def serve(self, role: str = "learner", lockstep: bool = False) -> bool:
        """The child's part; whether it failed."""
        return serve(self.services, self.table.row(role), self.link, lockstep)

    def told(self) -> list[tuple[str, dict[str, Any]]]:
        """What has arrived."""
        return list(self.parent.read())


def test_commands_are_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    host = Idler()
    ends = Ends(monkeypatch, host)
    answers = []
    for name, arguments in (
        ("hello", {}),
        ("advance", {}),
        ("evaluate", {"number": 3}),
        ("save", {"folder": "/somewhere"}),
        ("save", {"folder": "/full"}),
        ("missing", {}),
    ):
        ends.parent.command(name, **arguments)
        assert ends.parent.busy
        ends.parent.pipe.send_bytes(b'{"command": "stop"}')
        assert not ends.serve(lockstep=True)
        assert ends.told() == []
        assert not ends.parent.busy
        answers.append(ends.parent.result)
    assert answers == [
        {}, {"finished": False}, {"number": 3}, {"parts": ["part"]}, {"error": "the disk is full"},
        {"text": "patience"},
    ]  # fmt: skip
    assert ends.written == ["/somewhere/part"]
    assert host.closed


def test_a_free_role_runs_to_its_end_and_then_takes_orders(monkeypatch: pytest.MonkeyPatch) -> None:
    host = Idler(rounds=3)
    ends = Ends(monkeypatch, host)
    looks = iter([False] * 2 + [True])
    ends.services.stopped = lambda: next(looks)
    ends.link.write("episode", {"return": 2.0})
    ends.serve()
    assert ends.told() == [("episode", {"return": 2.0})]
    assert ends.parent.finished
    assert host.posted == 3
    assert host.closed


def test_a_free_role_stops_between_two_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    host = Idler(rounds=10**9)
    ends = Ends(monkeypatch, host)
    ends.parent.command("save", folder="/x")
    ends.parent.pipe.send_bytes(b'{"command": "stop"}')
    ends.serve()
    assert ends.told() == []
    assert ends.parent.result == {"parts": ["part"]}
    assert not ends.parent.finished
    assert host.posted == 2
    assert host.closed


def test_a_learner_that_failed_can_still_save(monkeypatch: pytest.MonkeyPatch) -> None:
    ends = Ends(monkeypatch, Idler(fails_at=0))
    ends.parent.command("save", folder="/x")
    ends.parent.pipe.send_bytes(b'{"command": "stop"}')
    assert ends.serve()
    assert ends.told() == []
    assert "RuntimeError: no luck" in (ends.parent.error or "")
    assert ends.parent.result == {"parts": ["part"]}


@pytest.mark.parametrize("error", [RuntimeError, BrokenPipeError, EOFError, SystemExit, KeyboardInterrupt])
def test_errors_of_any_class_are_errors_of_the_role(error: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    host = Idler(fails_at=0, error=error)
    ends = Ends(monkeypatch, host)
    with pytest.raises(error, match="no luck"):
        ends.serve("actor-0")
    assert host.closed
    ends = Ends(monkeypatch, Idler(fails_at=0, error=error))
    ends.parent.pipe.send_bytes(b'{"command": "stop"}')
    assert ends.serve("learner"), "a learner can still be asked to save"
    assert ends.told() == []
    assert error.__name__ in (ends.parent.error or "")


@pytest.mark.parametrize("error", [Stopped, ParentGone])
def test_the_end_of_the_run_is_no_failure(error: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    host = Idler(fails_at=0, error=error)
    ends = Ends(monkeypatch, host)
    with pytest.raises(error):
        ends.serve("learner")
    assert host.closed
    assert ends.told() == []
    assert ends.parent.error is None


@pytest.mark.parametrize("error", [RuntimeError, BrokenPipeError, SystemExit])
def test_a_host_that_cannot_be_closed_is_complained_of(error: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    host = Idler(rounds=10**9)
    host.closing = error
    ends = Ends(monkeypatch, host)
    ends.parent.command("stop")
    assert not ends.serve("actor-0")
    assert ends.told() == []
    (text,) = ends.parent.complaints
    assert "the emulator is gone" in text


def test_answers_to_earlier_commands_are_not_taken_for_later_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    ends = Ends(monkeypatch, Idler())
    ends.parent.command("advance")
    ends.parent.command("save", folder="/x")
    assert ends.link.command(1.0) == {"command": "advance"}
    ends.link.result({"finished": False})
    assert ends.told() == []
    assert ends.parent.result is None
    assert ends.parent.busy
    assert ends.link.command(1.0) == {"command": "save", "folder": "/x"}
    ends.link.result({"parts": []})
    assert ends.told() == []
    assert ends.parent.result == {"parts": []}


@pytest.mark.parametrize("lockstep", [True, False])
def test_loading_saving_and_compiling_are_signs_of_life(lockstep: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A learner that compiles beats by itself until its first update, and whoever saves while it saves."""
    host = Idler(rounds=2)
    ends, beating = Ends(monkeypatch, host, learner__compile=True), []

    @contextmanager
    def beats() -> Iterator[None]:
        beating.append(host.warm)
        yield
        host.warm = True  # type: ignore[misc]

    ends.services.heart = SimpleNamespace(beat=lambda: None, beating=beats)
    for name in ("advance", "advance", "save"):
        ends.parent.pipe.send_bytes(f'{{"command": "{name}", "folder": "/x"}}'.encode())
    ends.parent.pipe.send_bytes(b'{"command": "stop"}')
    ends.serve(lockstep=lockstep)
    assert beating == [False, True], "the first update, and the save"
