"""Signals for the command itself: Ctrl-C, SIGTERM, SIGHUP, SIGKILL, Ctrl-Z."""

from __future__ import annotations

import signal
import time

from offbeat.run.chaos.child import Child, state
from offbeat.run.chaos.environments import broken_run
from offbeat.run.chaos.ground import HANG_S, Fault, Ground, ended, frames, goes_on, intact, saved, within
from offbeat.run.chaos.verdicts import expect

SOON_S = 10.0
"""A run that is at work saves and ends within this. Unit: seconds."""
AT_ONCE_S = 2.0
"""A run that is told twice ends within this. Unit: seconds."""
TWICE_SLACK_S = 6.0
"""What a busy machine may add to that: less than the ten seconds that a role gets otherwise. Unit: seconds."""


def _stops(ground: Ground, child: Child, number: signal.Signals) -> str:
    """The shared run saves and ends by a signal; how long that took."""
    began = time.monotonic()
    child.tell(number)
    name = f"stopped ({number.name}) and saved"
    ended(child, ground.run, 0, name, f"go on with: offbeat resume {ground.run}")
    return within(SOON_S, began, "the end")


def ctrl_c(ground: Ground) -> str:
    """SIGINT for the whole group; then it is resumed."""
    took = _stops(ground, ground.live(), signal.SIGINT)
    at = int(intact(ground.run).name)
    goes_on(ground.live(), ground.run)
    ground.live().until(lambda: int(saved(ground.run)[-1]) > at, f"a checkpoint after {at:,} steps")
    return f"saved at {at:,} steps and ended in {took}, exit code 0; resumed, it has gone on from there"


def sigterm_at_the_start(ground: Ground) -> str:
    """SIGTERM while the roles are starting."""
    run = ground.stopped()
    before = intact(run).name
    child = ground.resume(run)
    child.until(lambda: "weights on" in child.output, "its first lines")
    time.sleep(0.3)
    began = time.monotonic()
    child.process.terminate()
    ended(child, run, 0, "stopped (SIGTERM) and saved")
    expect(intact(run).name >= before, f"the checkpoint {before} or a later one", intact(run).name)
    return f"ended in {within(2 * SOON_S, began, 'the end')}, exit code 0, the checkpoint is whole"


def sighup(ground: Ground) -> str:
    """The terminal is closed."""
    return f"saved and ended in {_stops(ground, ground.live(), signal.SIGHUP)}, exit code 0"


def twice(ground: Ground) -> str:
    """Ctrl-C twice, a second apart, while an environment hangs, so that the first is still waited for."""
    child = broken_run(
        ground, "ctrl-c-twice", "hang", "--deterministic", "true", "--actor.hang-timeout-s", "10000",
        "--checkpoint.every-updates", "1",
    )  # fmt: skip
    run, seen = ground.folder / "ctrl-c-twice" / "run", [(time.monotonic(), -2)]

    def stands_still() -> bool:
        """Nothing new was reported for a while."""
        if (now := frames(run)) != seen[-1][1]:
            seen.append((time.monotonic(), now))
        return now >= 0 and time.monotonic() - seen[-1][0] > 4

    child.until(stands_still, "an environment that hangs")
    child.tell(signal.SIGINT)
    child.until_said("SIGINT: saving, then stopping; once more ends the run at once")
    time.sleep(1)
    expect(child.running(), "a run that waits for the environment that hangs", child.last_line)
    began = time.monotonic()
    child.tell(signal.SIGINT)
    child.wait()
    took = within(AT_ONCE_S, began, "the end", TWICE_SLACK_S)
    ended(child, run, 130, "ended without saving again; go on from the newest checkpoint", whole=bool(saved(run)))
    return f"ended in {took}, exit code 130, nothing left behind"


def killed(ground: Ground) -> str:
    """SIGKILL for the command alone."""
    child = ground.live()
    child.process.kill()
    began = time.monotonic()
    child.wait()
    left = child.left_behind()
    expect("process" not in left, "no role that outlives it", left)
    took = within(SOON_S, began, "the end of all roles")
    at = int(intact(ground.run).name)
    goes_on(ground.live(), ground.run)
    return f"all roles ended in {took}; the checkpoint of {at:,} steps is whole, resumed from it"


def stopped_and_continued(ground: Ground) -> str:
    """Ctrl-Z, longer than any role may be silent, and ``fg``."""
    child = ground.live()
    before = len(child.output)
    every = [child.process.pid, *child.roles().values()]
    child.tell(signal.SIGTSTP)
    child.until(lambda: all(state(pid) == "T" for pid in every), "all processes standing still")
    time.sleep(HANG_S + 1)
    child.tell(signal.SIGCONT)
    goes_on(child, ground.run)
    blamed = [line for line in child.output[before:].splitlines() if "showed no life" in line]
    expect(not blamed, "nobody blamed for silence", blamed)
    return f"stood still for {HANG_S + 1:g} s, goes on; nobody is blamed"


FAULTS = (
    Fault(
        "ctrl-c",
        "Ctrl-C, and resume",
        "saves, prints the command to resume, exit code 0",
        ("Ctrl-C or SIGTERM",),
        ctrl_c,
    ),
    Fault(
        "sigterm",
        "SIGTERM while the run starts",
        "saves, exit code 0",
        ("Ctrl-C or SIGTERM",),
        sigterm_at_the_start,
    ),
    Fault("sighup", "SIGHUP: the terminal was closed", "as SIGTERM", ("SIGHUP: the terminal was closed",), sighup),
    Fault(
        "ctrl-c-twice",
        "Ctrl-C a second time",
        "ends at once without saving again, exit code 130; the newest checkpoint is there",
        ("Ctrl-C or SIGTERM a second time, half a second or more after the first",),
        twice,
        ("actors",),
    ),
    Fault(
        "command-killed",
        "the command is killed (SIGKILL)",
        "no role outlives it; the newest complete checkpoint is there",
        ("the command is killed (SIGKILL), the power fails",),
        killed,
    ),
    Fault(
        "ctrl-z",
        "the run is stopped and continued",
        "all of its processes stand still, then go on; nobody is blamed for the silence",
        ("the run is stopped and continued (Ctrl-Z, `fg`)",),
        stopped_and_continued,
    ),
)
