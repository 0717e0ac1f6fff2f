"""Environments that raise, hang, kill their actor or give no numbers: the preset's own, with a fault in it."""

from __future__ import annotations

import time
from typing import Any

import torch

from offbeat.run.chaos.broken_env import ENV, FAULT, NAME
from offbeat.run.chaos.child import Child
from offbeat.run.chaos.ground import Fault, Ground, ended, goes_on, intact
from offbeat.run.chaos.verdicts import Unfit, expect
from offbeat.storage.checkpoint import load_weights

STEP = 60
"""At this step of an actor's environments the fault happens."""
HANG_S = 3.0
"""An environment that hangs is noticed after so long. Unit: seconds."""


def broken_run(ground: Ground, name: str, fault: str, *options: str) -> Child:
    """A run of its own in the folder ``name``, whose environment breaks. ``Unfit`` where it is one that cannot be
    wrapped.
    """
    env = ground.config.env
    if ground.own_env or env.ids:
        raise Unfit("needs an environment with an id of its own, neither a user's own nor a list of games")
    child: dict[str, Any] = {"variables": {ENV: env.id, FAULT: f"{fault}@{STEP}"}}
    return ground.train(name, "--env", NAME, *options, **child)


def raises(ground: Ground) -> str:
    """It raises RuntimeError."""
    child = broken_run(ground, "env-raises", "raise")
    run = ground.folder / "env-raises" / "run"
    told = f"RuntimeError: toy/raise: raised on purpose at step {STEP}"
    ended(child, run, 1, told, "faulty.py")
    expect(told in (run / "run.log").read_text(), "its traceback in run.log", "none")
    return f"exit code 1, its traceback on the terminal and in run.log, saved at {int(intact(run).name):,} steps"


def cannot_be_closed(ground: Ground) -> str:
    """``close`` raises at the end of a run that is stopped."""
    child = broken_run(ground, "env-close", "close")
    run = ground.folder / "env-close" / "run"
    goes_on(child, run)
    child.process.terminate()
    told = "RuntimeError: toy/close: raised on purpose when closed"
    ended(child, run, 0, "closing it failed:", told, "stopped (SIGTERM) and saved")
    (line,) = [line for line in child.output.splitlines() if "closing it failed:" in line][:1]
    return f"exit code 0, saved; {line.partition(':')[0].split()[-1]} is named"


def hangs(ground: Ground) -> str:
    """It never answers again."""
    options = ("--actor.hang-timeout-s", str(HANG_S), "--actor.max-restarts", "1")
    child = broken_run(ground, "env-hangs", "hang", *options)
    run = ground.folder / "env-hangs" / "run"
    child.until_said("showed no life for")
    child.until_said("replaced (1 of at most 1 times)")
    ended(child, run, 1, "not replaced again because actor.max_restarts=1")
    expect("in _break" in (run / "run.log").read_text(), "the stack of where it hung in run.log", "none")
    return "reported with its stack, killed, replaced; when that hung too: saved, exit code 1"


def keep_dying(ground: Ground) -> str:
    """Each actor is killed by its own environment."""
    child = broken_run(ground, "actors-die", "kill", "--actor.max-restarts", "2")
    told = [f"was killed by SIGKILL; replaced ({count} of at most 2 times)" for count in (1, 2)]
    ended(child, ground.folder / "actors-die" / "run", 1, *told, "not replaced again because actor.max_restarts=2")
    return "replaced twice, then saved; exit code 1"


def no_numbers(ground: Ground) -> str:
    """Rewards are NaN from some step on, and with them losses and gradients."""
    child = broken_run(ground, "not-finite", "nan", "--learner.nonfinite-limit", "3")
    run, began = ground.folder / "not-finite" / "run", time.monotonic()
    told = ("3 updates in a row were skipped because they were not finite", "weights finite: True")
    ended(child, run, 1, *told)
    weights, _ = load_weights(intact(run))
    wrong = [name for name, value in weights.items() if not torch.isfinite(value).all()]
    expect(not wrong, "finite weights in the checkpoint", ", ".join(wrong))
    took = f"{time.monotonic() - began:.0f} s"
    return f"three updates skipped, diagnosed, exit code 1 after {took}; the saved weights are finite"


FAULTS = (
    Fault(
        "env-raises",
        "an environment raises",
        "ends with its traceback, on the terminal and in run.log; saves first; exit code 1",
        (
            "an environment or agent raises, an exception of any class (`BrokenPipeError`, `EOFError`, `SystemExit`, "
            "...)",
        ),
        raises,
    ),
    Fault(
        "env-close",
        "`env.close()` raises",
        "one line says so; the run stands, exit code 0",
        ("`env.close()` raises",),
        cannot_be_closed,
    ),
    Fault(
        "env-hangs",
        "an environment hangs",
        "after actor.hang_timeout_s its actor is reported with its stack, killed and replaced",
        ("an environment hangs",),
        hangs,
        ("freedom", "actors"),
    ),
    Fault(
        "actors-die",
        "actors keep dying",
        "after actor.max_restarts replacements it saves and ends; exit code 1",
        ("actors keep dying",),
        keep_dying,
        ("freedom", "actors"),
    ),
    Fault(
        "not-finite",
        "losses are not finite",
        "skipped; after learner.nonfinite_limit of them it saves the last good weights; diagnosis, exit code 1",
        ("a loss or gradient is not finite", "`learner.nonfinite_limit` of them in a row"),
        no_numbers,
    ),
)
