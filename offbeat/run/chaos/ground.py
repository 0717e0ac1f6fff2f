"""The real runs that faults happen to: one that most of them share, begun once and resumed, and some of their own."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from offbeat.config.run_config import RunConfig
from offbeat.run.chaos.child import Child
from offbeat.run.chaos.verdicts import Broken, Unfit, expect
from offbeat.storage.checkpoint import CheckpointError, load, newest

HANG_S = 8.0
"""``hang_timeout_s`` of the roles: short, so that hanging is noticed soon. Unit: seconds."""
SLACK_S = 10.0
"""What a busy machine may add to a promised time. Unit: seconds."""
KEPT = 6
"""Checkpoints that runs keep: several of them are broken at a time."""
TRAINING_S = 600.0
"""Longest wait for training to begin or go on: replay has to fill, networks are large. Unit: seconds."""
START_S = 60.0
"""A role that has not started after so long is none of this run. Unit: seconds."""
TAIL_BYTES = 1 << 18
"""So much of the end of metrics.jsonl is looked at."""
FOREVER = 10**9
"""Length of runs that are stopped. Unit: environment frames."""
NEEDS = {
    "processes": "needs processes (engine = inline)",
    "freedom": "needs roles that run freely (deterministic = true)",
    "actors": "needs actors (those of realtime runs are replaced by other rules)",
}
"""What a fault may need -> what is said where a run has it not."""


@dataclass(frozen=True)
class Fault:
    """One way to break a run."""

    name: str
    """What ``--only`` calls it."""
    title: str
    """What happens."""
    promise: str
    """What the run does then."""
    rows: tuple[str, ...]
    """The first column of the rows of docs/faults.md that it makes happen."""
    make: Callable[[Ground], str]
    """Makes it happen and checks the promise; returns the evidence. Raises ``Broken`` or ``Unfit``."""
    needs: tuple[str, ...] = ()
    """Keys of ``NEEDS``."""


class Ground:
    """Runs of one preset, in a folder.

    Args:
        config: the preset with the options laid over it.
        arguments: the preset and the options as they were given, for ``offbeat train``.
        folder: of all the runs; it exists.
        env_is_own: the environment is a user's own, ``--env module:function``.
    """

    def __init__(self, config: RunConfig, arguments: list[str], folder: Path, env_is_own: bool = False) -> None:
        self.config, self.folder = config, folder
        self.own_env = config.env.id if env_is_own else ""
        self.arguments, self._number = arguments, 1
        self._live: Child | None = None
        self._others: list[Child] = []

    def lacks(self, needs: Iterable[str]) -> str:
        """Which of these needs the runs do not meet, as it is said; empty: they meet all."""
        inline = self.config.engine == "inline"
        met = {
            "processes": not inline,
            "freedom": not inline and not self.config.deterministic,
            "actors": not self.config.realtime.fps,
        }
        if "freedom" in needs and inline:
            return NEEDS["processes"]
        return next((NEEDS[need] for need in needs if not met[need]), "")

    @property
    def work(self) -> Path:
        """The folder around the shared run."""
        return self.folder / f"shared-{self._number}"

    @property
    def run(self) -> Path:
        """The folder of the shared run."""
        return self.work / "run"

    def live(self, checkpoints: int = 1) -> Child:
        """The shared run, at work with so many checkpoints: begun, resumed, or as it is."""
        if not self._running():
            self._live = self.resume(self.run) if saved(self.run) else self.train(self.work)
            goes_on(self._live, self.run)
        live = self._live
        assert live is not None
        live.until(lambda: len(saved(self.run)) >= checkpoints, f"{checkpoints} checkpoints")
        return live

    def stopped(self, checkpoints: int = 1, whole: bool = True) -> Path:
        """The folder of the shared run, which was stopped and has so many checkpoints, the newest ``whole``."""
        if self._running() or len(saved(self.run)) < checkpoints:
            live = self.live(checkpoints)
            live.process.send_signal(signal.SIGTERM)
            self._live = None
            ended(live, self.run, 0, "stopped (SIGTERM) and saved", whole=whole)
        return self.run

    def train(self, work: Path | str, *options: str, **child: Any) -> Child:
        """Begin a run in ``work``/run; a name is a new folder. ``options`` come last; ``child``: as ``Child`` takes."""
        work = self.folder / work if isinstance(work, str) else work
        work.mkdir()
        ours = self._options()
        last = ("--total-frames", str(FOREVER), "--out", str(work / "run"))
        return self._begin(["train", *self.arguments[:1], *ours, *self.arguments[1:], *last, *options], work, **child)

    def resume(self, run: Path, *options: str, work: Path | None = None, **child: Any) -> Child:
        """Go on with a run, for ever; what is printed lies in ``work``, or beside the run."""
        own = ("--env", self.own_env) if self.own_env else ()
        return self._begin(["resume", str(run), *own, *options], work or run.parent, **child)

    def command(self, *arguments: str) -> Child:
        """Another command, whose output nobody else writes to."""
        work = self.folder / f"command-{len(self._others)}"
        work.mkdir()
        return self._begin(list(arguments), work)

    def clear(self) -> None:
        """End everything; what comes next begins anew, since this run may be spoilt."""
        self.end()
        self._live, self._number = None, self._number + 1

    def end(self) -> None:
        """End every command that was started."""
        for child in self._others:
            child.kill()

    def _running(self) -> bool:
        return self._live is not None and self._live.running()

    def _begin(self, arguments: list[str], work: Path, **child: Any) -> Child:
        begun = Child(arguments, work, **child)
        self._others.append(begun)
        return begun

    def _options(self) -> list[str]:
        """Nothing is played beside training, much is saved, and hanging is noticed soon."""
        values: dict[str, object] = {
            "evaluation.every_frames": 0,
            "evaluation.at_end": "false",
            "checkpoint.keep": KEPT,
            "log.tensorboard": "false",
            "log.dashboard": "false",
            "log.every_s": 0.5,
        }
        values |= {f"{section}.hang_timeout_s": HANG_S for section in ("actor", "learner")}
        if self.config.engine == "inline" or self.config.deterministic:
            values["checkpoint.every_updates"] = 100
        else:
            values["checkpoint.every_s"] = 1.0
        return [text for name, value in values.items() for text in (f"--{name.replace('_', '-')}", str(value))]


def copied(run: Path, to: Path) -> Path:
    """A copy of a run that was stopped, without what was put aside."""
    shutil.copytree(run, to, ignore=shutil.ignore_patterns("*.broken*"))
    return to


def saved(run: Path) -> list[str]:
    """Names of the checkpoints of a run, oldest first."""
    return sorted(path.name for path in (run / "checkpoints").glob("[0-9]*"))


def intact(run: Path) -> Path:
    """The newest checkpoint of a run, which is complete and can be read. Raises ``Broken``."""
    broken: list[str] = []
    found = newest(run, report=broken.append)
    expect(found is not None and not broken, "a newest checkpoint that is complete", broken or "none")
    assert found is not None
    try:
        load(found)
    except CheckpointError as error:
        raise Broken("a newest checkpoint that can be read", str(error)) from error
    return found.path


def last_records(run: Path) -> list[dict[str, Any]]:
    """The records at the end of a run's metrics.jsonl."""
    path = run / "metrics.jsonl"
    try:
        with path.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL_BYTES))
            tail = file.read()
    except OSError:
        return []
    return list(_parsed(tail.decode(errors="replace").splitlines()))


def frames(run: Path) -> int:
    """Environment frames that a run has trained on, by its records; -1 where there are none yet."""
    return max((int(one.get("frames", -1)) for one in last_records(run)[-50:]), default=-1)


def goes_on(child: Child, run: Path, times: int = 3) -> None:
    """Wait until a run has reported more frames so many times."""
    seen, grown = frames(run), 0

    def grows() -> bool:
        nonlocal seen, grown
        now = frames(run)
        grown += now > max(seen, 0)
        seen = now
        return grown >= times

    child.until(grows, "training that goes on", TRAINING_S)
    child.note_shared()


def ended(child: Child, run: Path, code: int, *said: str, whole: bool = True) -> None:
    """Wait for the end of a command: its exit code, what it has ``said``, and that it left nothing behind.

    Only exit code 1 comes with a traceback. ``whole``: its newest checkpoint is complete.
    """
    got = child.wait()
    expect(got == code, f"exit code {code}", f"{got}: {child.last_line}")
    for text in said:
        expect(text in child.output, f"the line {text!r}", child.last_line)
    expect(code == 1 or "Traceback" not in child.output, "no traceback", "one")
    left = child.left_behind()
    expect(not left, "nothing left behind", left)
    stacks = sorted(path.name for path in run.glob(".stack*"))
    expect(not stacks, "no files of stacks left behind", ", ".join(stacks))
    if whole:
        intact(run)


def ledger(run: Path) -> str:
    """Check the last ledger of a run: each row is somewhere. Returns what it says of lost rows."""
    found = [one for one in last_records(run) if one.get("kind") == "ledger"]
    expect(found, "a ledger at the end of metrics.jsonl", "none")
    rows = found[-1]
    kept = rows["stored"] + rows["expired"] + rows["lost"] + rows["in_hand"]
    expect(rows["produced"] == kept, f"a ledger that closes: produced = {rows['produced']}", kept)
    for fifo in sorted({match[1] for name in rows if (match := re.match(r"(fifo\d+)/", name))}):
        parts = sum(rows[f"{fifo}/{name}"] for name in ("trained", "pending", "skipped", "lost"))
        expect(rows["produced"] == parts, f"a ledger that closes: produced = {rows['produced']}", f"{parts} in {fifo}")
    return f"ledger closes ({rows['lost']:,} of {rows['produced']:,} rows lost)"


def role(child: Child, name: str) -> int:
    """The process of a role, which may still be starting. ``Unfit`` where the run has none of that name."""
    deadline = time.monotonic() + START_S
    while child.running() and time.monotonic() < deadline:
        found = child.roles()
        if name in found:
            return found[name]
        time.sleep(0.1)
    raise Unfit(f"there is no role {name} here, only {', '.join(sorted(child.roles()))}")


def within(seconds: float, began: float, what: str, slack_s: float = SLACK_S) -> str:
    """Check that ``what`` took at most so long, and what a busy machine adds, since ``began``; how long it took."""
    took = time.monotonic() - began
    expect(took <= seconds + slack_s, f"{what} within {seconds:.0f} s", f"{took:.1f} s")
    return f"{took:.1f} s"


def _parsed(lines: list[str]) -> Iterable[dict[str, Any]]:
    """Records of lines; torn ones are left out."""
    for line in lines:
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict):
            yield record
