"""Hooks: what they are told in every engine, that they may end a run, fail, and take their time."""

from __future__ import annotations

import functools
import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import offbeat
from offbeat.config.log import LogConfig
from offbeat.errors import UserError
from offbeat.run.hook_calls import HookCalls
from offbeat.run.hooks import STOP, Hook, HookFailed, find_hooks, hook_of
from offbeat.run.records import evaluations
from offbeat.run.verify import compare_checkpoints
from offbeat.runtime.conductor import EndNow, Overdue
from offbeat.storage.checkpoint import find
from tests.faults.command import PRESET, running

ENGINES: dict[str, dict[str, Any]] = {
    "inline": {"engine": "inline"}, "lockstep": {"engine": "local", "deterministic": True}, "free": {"engine": "local"},
}  # fmt: skip
ENDLESS = 10**9
SLOW = pytest.mark.slow
POINT = {"run", "frames", "agent_steps", "updates", "seconds"}


def run(folder: Path, engine: str = "inline", **options: Any) -> Any:
    """A short run on Catch that evaluates and saves now and then."""
    given: dict[str, Any] = {
        "total_frames": 400, "device": "cpu", "out": str(folder), "actor": {"envs_per_worker": 4},
        "learner": {"batch_size": 4, "unroll_length": 5}, "evaluation": {"every_frames": 150, "episodes": 4, "envs": 2},
        "checkpoint": {"every_updates": 10, "every_s": 0}, "log": {"every_updates": 5, "tensorboard": False},
    }  # fmt: skip
    return offbeat.train("debug", **(given | ENGINES[engine] | options))


def lines(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("engine", ENGINES)
def test_hooks_are_told_everything_as_plain_data(engine: str, tmp_path: Path) -> None:
    told: dict[str, list[dict[str, Any]]] = {"evaluation": [], "checkpoint": [], "metrics": []}
    result = run(tmp_path / "run", engine, **{f"on_{name}": events.append for name, events in told.items()})
    assert result.finished
    assert json.loads(json.dumps(told)) == told, "plain data"
    for name, events in told.items():
        assert events and all(set(event) >= POINT for event in events), name
        assert {event["run"] for event in events} == {str(tmp_path / "run")}
    records = evaluations(result.run)
    assert [event["mean"] for event in told["evaluation"]] == [record["mean"] for record in records]
    assert [event["returns"] for event in told["evaluation"]] == [record["returns"] for record in records]
    assert told["evaluation"][-1]["updates"] == result.updates
    for number, event in enumerate(told["evaluation"], 1):
        assert len(event["returns"]) == len(event["lengths"]) == event["episodes"] == 4
        assert event["best"] == max(one["mean"] for one in told["evaluation"][:number])
    assert told["checkpoint"][-1]["frames"] == result.frames
    assert find(Path(told["checkpoint"][-1]["path"])).path.parent == tmp_path / "run" / "checkpoints"
    written = lines(result.run)
    assert [(event["role"], event["kind"]) for event in told["metrics"]] == [(w["role"], w["kind"]) for w in written]
    for event, line in zip(told["metrics"], written, strict=True):
        assert event["seconds"] == line["time"] and event["frames"] == line["frames"]
        assert event["values"].items() <= line.items()
    assert {"learner", "actor-0", "evaluator", "supervisor"} <= {event["role"] for event in told["metrics"]}


@pytest.mark.parametrize(
    ("engine", "moment"),
    [
        ("inline", "on_evaluation"),
        ("inline", "on_checkpoint"),
        ("inline", "on_metrics"),
        ("lockstep", "on_evaluation"),
        ("free", "on_checkpoint"),
        *(pytest.param(*case, marks=SLOW) for case in (("lockstep", "on_checkpoint"), ("lockstep", "on_metrics"))),
        *(pytest.param(*case, marks=SLOW) for case in (("free", "on_evaluation"), ("free", "on_metrics"))),
    ],
)
def test_stop_ends_the_run_as_ctrl_c_does(moment: str, engine: str, tmp_path: Path) -> None:
    count = []

    def enough(event: dict[str, Any]) -> object:
        count.append(event)
        return offbeat.STOP if len(count) == 2 else "anything else"

    result = run(tmp_path / "run", engine, total_frames=ENDLESS, **{moment: enough})
    assert not result.finished and result.frames > 0
    log = (result.run / "run.log").read_text()
    who = f"hook {moment}={enough.__module__}.{enough.__qualname__}"
    assert f"{who} returned offbeat.STOP: the run ends" in log
    assert f"stopped ({who}) and saved at {result.frames:,} frames" in log
    if engine == "inline":
        assert offbeat.resume(result.run, total_frames=result.frames + 200).finished


def test_a_run_that_a_hook_stopped_goes_on_bit_for_bit(tmp_path: Path) -> None:
    """And hooks that only look change nothing; with a score so far that is known again."""
    seen: list[dict[str, Any]] = []
    looks: dict[str, Any] = {"on_metrics": lambda event: event["values"].clear(), "on_evaluation": seen.append}
    constant = {"batch_size": 4, "unroll_length": 5, "schedule": "constant"}
    plain = run(tmp_path / "plain", learner=constant)
    watched = run(tmp_path / "watched", learner=constant, **looks)
    assert compare_checkpoints(plain.run, watched.run).equal
    stops = {"on_evaluation": lambda event: STOP if event["frames"] > 200 else None}
    stopped = run(tmp_path / "stopped", "lockstep", learner=constant, **stops)
    assert not stopped.finished and stopped.frames < 400
    seen.clear()
    resumed = offbeat.resume(stopped.run, on_evaluation=seen.append)
    assert resumed.finished
    assert [event["best"] for event in seen] == [max(one["mean"] for one in evaluations(resumed.run))] * len(seen)
    result = compare_checkpoints(plain.run, resumed.run)
    assert result.equal, result.differing


@pytest.mark.parametrize(
    ("engine", "error"),
    [
        ("inline", ZeroDivisionError("no luck")),
        ("free", SystemExit(0)),
        pytest.param("lockstep", ZeroDivisionError("no luck"), marks=SLOW),
    ],
)
def test_a_hook_that_raises_ends_the_run_saved(engine: str, error: BaseException, tmp_path: Path) -> None:
    calls: list[str] = []

    def breaks(event: dict[str, Any]) -> None:
        calls.append("broken")
        raise error

    others = {"on_evaluation": lambda event: calls.append("evaluation"), "on_metrics": lambda event: None}
    with pytest.raises(HookFailed, match=r"hook on_checkpoint=.*breaks raised \w+: .*\(test_hooks.py, line \d+\)") as e:
        run(tmp_path / "run", engine, total_frames=ENDLESS, on_checkpoint=breaks, **others)
    assert e.value.__cause__ is error
    assert calls.count("broken") == 1, "it is called no more"
    log = (tmp_path / "run" / "run.log").read_text()
    assert log.count("Traceback") >= 1 and "in breaks" in log
    assert "failed; saving" not in log, "saved as after Ctrl-C"
    assert "go on with: offbeat resume" in log
    if engine == "inline":
        assert offbeat.resume(tmp_path / "run", total_frames=lines(tmp_path / "run")[-1]["frames"] + 100).finished


def test_a_hook_that_raises_at_the_very_end(tmp_path: Path) -> None:
    def breaks(event: dict[str, Any]) -> None:
        if event["kind"] == "ledger":
            raise ValueError("no luck")

    with pytest.raises(HookFailed, match="on_metrics"):
        run(tmp_path / "run", on_metrics=breaks)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["free", "lockstep"])
def test_nobody_hangs_while_a_hook_takes_its_time(engine: str, tmp_path: Path) -> None:
    slept = []

    def slow(event: dict[str, Any]) -> None:
        if not slept:
            slept.append(time.sleep(5))

    options = {"actor": {"envs_per_worker": 4, "hang_timeout_s": 2.0}}
    result = run(tmp_path / "run", engine, **options, on_checkpoint=slow, total_frames=3000)
    assert result.finished and slept
    assert "showed no life" not in (result.run / "run.log").read_text()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"on_evaluation": 3}, r"on_evaluation=3: expected a function of one dict, got int"),
        ({"on_metrics": "print"}, r"on_metrics='print': expected a function of one dict, got str"),
        ({"log__hooks": ["mine", "mine"]}, r"log.hooks names 'mine' twice"),
        ({"log__hooks": ["os:system"]}, r"unknown hook 'os:system'"),
    ],
)
def test_what_is_no_hook_is_refused_before_there_is_a_folder(options: Any, says: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=says):
        offbeat.train("debug", out=str(tmp_path / "run"), **options)
    assert not (tmp_path / "run").exists()


def test_an_object_may_have_any_of_the_functions() -> None:
    class Whole:
        on_checkpoint = None

        def on_metrics(self, event: dict[str, Any]) -> None: ...

        def close(self) -> None: ...

    hook = hook_of("hook 'whole'", Whole())
    assert set(hook.calls) == {"on_metrics"} and hook.close is not None
    with pytest.raises(UserError, match=r"hook 'x': expected an object with any of on_evaluation, .*, got 3"):
        hook_of("hook 'x'", 3)
    with pytest.raises(UserError, match=r"hook 'x': on_metrics is 3, expected a function"):
        hook_of("hook 'x'", type("X", (), {"on_metrics": 3}))
    assert find_hooks(LogConfig(), {"on_metrics": functools.partial(print), "on_evaluation": None})[0].name.endswith(
        "print"
    )


class Conductor:
    """Remembers what hooks ask for."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.reason = ""
        self.may_cut = False

    def say(self, text: str) -> None:
        self.said.append(text)

    def ask_to_stop(self, reason: str) -> None:
        self.reason = self.reason or reason


def calls_of(*hooks: Hook) -> tuple[HookCalls, Any]:
    """Hooks that are to be told of one checkpoint."""
    calls = HookCalls(hooks)
    calls.saved(Path("there"), {"frames": 4, "agent_steps": 2, "updates": 1})
    return calls, Conductor()


def test_several_hooks_get_data_of_their_own_and_each_is_closed() -> None:
    seen: list[Any] = []

    def spoils(event: dict[str, Any]) -> object:
        event.clear()
        return STOP

    def bad_end() -> None:
        raise OSError("no luck")

    first = Hook("hook 'first'", {"on_checkpoint": spoils, "on_metrics": spoils}, bad_end)
    second = Hook("hook 'second'", {"on_checkpoint": seen.append}, lambda: seen.append("closed"))
    calls, conductor = calls_of(first, second)
    calls.end(conductor)
    calls.end(conductor)
    point = {"run": "", "frames": 4, "agent_steps": 2, "updates": 1, "seconds": 0}
    assert seen == [point | {"path": "there"}, "closed"]
    assert conductor.reason == "hook 'first', on_checkpoint"
    assert conductor.said[-1].startswith("hook 'first': close raised OSError: no luck")


def test_a_hook_that_does_not_return_is_broken_off_and_a_second_signal_ends_at_once() -> None:
    def late(event: dict[str, Any]) -> None:
        assert conductor.may_cut
        raise Overdue

    def at_once(event: dict[str, Any]) -> None:
        raise EndNow

    calls, conductor = calls_of(Hook("hook 'late'", {"on_checkpoint": late}))
    calls.deliver(conductor)
    assert conductor.said == ["hook 'late', on_checkpoint was broken off: the run is to end and it had not returned"]
    assert not conductor.may_cut and calls.failure is None
    calls, conductor = calls_of(Hook("hook 'x'", {"on_checkpoint": at_once}))
    with pytest.raises(EndNow):
        calls.deliver(conductor)


def test_an_exception_that_cannot_be_shown_is_named_all_the_same() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text")

    def breaks(event: dict[str, Any]) -> None:
        raise Mute

    calls, conductor = calls_of(Hook("hook 'mute'", {"on_checkpoint": breaks}, lambda: breaks({})))
    calls.end(conductor)
    assert conductor.said == ["hook 'mute', on_checkpoint raised Mute: the run ends", "hook 'mute': close raised Mute"]
    assert str(calls.failure) == "hook 'mute', on_checkpoint raised Mute"


class Ends:
    """Is told how runs end."""

    told: list[Any]

    def __init__(self) -> None:
        self.told = []

    def on_end(self, event: dict[str, Any]) -> None:
        self.told.append(event)

    def close(self) -> None:
        self.told.append("closed")


def ended(monkeypatch: pytest.MonkeyPatch, folder: Path, engine: str = "inline", **options: Any) -> tuple[Any, Any]:
    """What a run's ``on_end`` was told, and the error that it ended with."""
    ends, error = Ends(), None
    monkeypatch.setattr(
        "offbeat.run.train.find_hooks", lambda log, given: [*find_hooks(log, given), hook_of("e", ends)]
    )
    try:
        run(folder, engine, **options)
    except Exception as raised:
        error = raised
    event, closed = ends.told
    assert closed == "closed" and set(event) == POINT | {"ending", "reason"} and json.loads(json.dumps(event)) == event
    return event, error


@pytest.mark.parametrize("engine", ["inline", "free"])
def test_hooks_are_told_how_the_run_ended(engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    event, _ = ended(monkeypatch, tmp_path / "all", engine)
    assert (event["ending"], event["reason"]) == ("finished", "") and event["frames"] >= 400
    stop = {"on_evaluation": lambda event: STOP}
    event, _ = ended(monkeypatch, tmp_path / "stopped", engine, total_frames=ENDLESS, **stop)
    assert event["ending"] == "stopped" and event["reason"].startswith("hook on_evaluation=") and event["updates"] > 0


def test_hooks_are_told_that_the_run_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(event: dict[str, Any]) -> None:
        raise ValueError("no luck")

    event, error = ended(monkeypatch, tmp_path / "hook", on_evaluation=breaks)
    assert event["ending"] == "failed" and event["reason"] == str(error) and "raised ValueError" in event["reason"]
    event, error = ended(monkeypatch, tmp_path / "role", env={"id": "toy/raise@50"}, total_frames=ENDLESS)
    assert error is not None and event["ending"] == "failed" and type(error).__name__ in event["reason"]
    monkeypatch.setattr("offbeat.runtime.conductor.begin", broken_disk)
    event, error = ended(monkeypatch, tmp_path / "disk")
    assert event["ending"] == "failed" and event["reason"] == str(error) == "the run's end is not saved: full"


def broken_disk(run: Path, agent_steps: int) -> None:
    raise OSError("full")


def test_one_that_failed_is_told_no_more_and_what_on_end_raises_changes_nothing() -> None:
    told: list[Any] = []
    failed = Hook(
        "hook 'failed'", {"on_checkpoint": lambda event: 1 / 0, "on_end": told.append}, lambda: told.append(1)
    )
    clumsy = Hook("hook 'clumsy'", {"on_end": lambda event: 1 / 0}, lambda: told.append(2))
    calls, conductor = calls_of(failed, clumsy)
    conductor.frames = conductor.agent_steps = conductor.updates = 3
    calls.end(conductor)
    assert told == [1, 2] and "hook 'clumsy': on_end raised ZeroDivisionError" in conductor.said[-1]


SCRIPT = """
import offbeat, time
def {hook}
if __name__ == "__main__":
    offbeat.train("tiny.toml", out="run", on_metrics=hook)
"""


@pytest.mark.parametrize("engine", ["inline", pytest.param("local", marks=SLOW)])
def test_ctrl_c_breaks_off_a_hook_that_never_returns(engine: str, tmp_path: Path) -> None:
    (tmp_path / "tiny.toml").write_text(f'engine = "{engine}"\n' + PRESET.replace("{agent}", ""))
    hook = "hook(event):\n    print('asleep', flush=True)\n    time.sleep(1000)"
    (tmp_path / "script.py").write_text(SCRIPT.format(hook=hook))
    shell = f"cd {tmp_path} && exec {sys.executable} script.py"
    with running(folder=tmp_path, shell=shell) as command:
        command.until_said("asleep")
        command.press_ctrl_c()
        assert command.wait() == 0, command.output
        assert "script.hook" in command.output or "__main__.hook" in command.output
        assert "was broken off" in command.output
        assert "stopped (SIGINT) and saved" in command.output
