"""A regret report for people and as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from offbeat.envs.delay_config import DelayConfig
from offbeat.run.written import written
from offbeat.scoring.ranking import lines_up
from offbeat.scoring.regret import Regret, inaction_share
from offbeat.scoring.regret_delays import undelayed
from offbeat.scoring.statistics import Estimate

CALLED = {
    "reference": "reference, undelayed",
    "undelayed": "this run, undelayed",
    "every_frame": "delayed, an action in every frame",
    "as_run": "delayed, as the run",
}


def write_regret(regret: Regret, folder: Path) -> Path:
    """Write all numbers to ``regret.json`` in ``folder``. UserError where that cannot be written."""
    path = folder / "regret.json"
    with written(path) as draft:
        draft.write_text(json.dumps(numbers(regret), indent=1) + "\n")
    return path


def numbers(regret: Regret) -> dict[str, Any]:
    """All of it, plain data for JSON; what is not known is None."""
    skip = _frame_skip(regret)
    evaluations = {}
    for name in CALLED:
        if name not in regret.evaluations:
            continue
        one = regret.evaluations[name]
        evaluations[name] = {
            "return": one.mean,
            "per_1000_frames": _rate(regret, name),
            "inaction_share": inaction_share(one, skip),
            "episodes": len(one.returns),
            "policy": one.policy,
            "version": one.version,
            "given_up": one.given_up,
            "returns": one.returns.tolist(),
            "frames": one.frames_each.tolist(),
        }
    parts = {}
    for name, part in regret.parts.items():
        both = {"per_episode": part.per_episode, "per_1000_frames": part.per_1000_frames}
        parts[name] = {kind: _plain(estimate) for kind, estimate in both.items()}
    return {
        "run": str(regret.run),
        "reference": None if regret.reference is None else str(regret.reference),
        "parts": parts,
        "evaluations": evaluations,
        "delays": {name: asdict(delay) for name, delay in regret.delays.items()},
        "measured_inaction_share": regret.measured_inaction,
    }


def text(regret: Regret) -> str:
    """The evaluations, their differences, and what is to be known about them."""
    skip = _frame_skip(regret)
    rows = [("evaluation", "episodes", "policy", "return", "per 1,000 frames", "frames without a decision", "delay")]
    for name, called in CALLED.items():
        if name in regret.evaluations:
            one = regret.evaluations[name]
            delay = describe(regret.delays[name]) if name in regret.delays else "none"
            cells = (f"{len(one.returns):,}", one.policy, f"{one.mean:.3f}", f"{_rate(regret, name):.3f}")
            rows.append((called, *cells, f"{inaction_share(one, skip):.1%}", delay))
    parts = [("lost to", "per episode", "95 % interval", "per 1,000 frames", "95 % interval")]
    for name, part in regret.parts.items():
        parts.append((name, *_cells(part.per_episode), *_cells(part.per_1000_frames)))
    first = "reference" if regret.reference is not None else "undelayed"
    notes = [f"The sum is '{CALLED[first]}' minus '{CALLED['as_run']}': what lies between cancels."]
    if not regret.delayed:
        notes.append("The run has no delay: delay and inaction cost nothing.")
    if regret.reference is None:
        notes.append("What learning cost is not known without --reference RUN; the sum is that of the other two.")
    if regret.measured_inaction is not None:
        notes.append(
            f"The run left {regret.measured_inaction:.1%} of its frames, from an episode's first decision on, to the "
            "default behaviour; decisions start as often here, evenly."
        )
    if any(one.given_up for one in regret.evaluations.values()):
        notes.append("Episodes that did not end were given up, and are in no number.")
    return "\n\n".join([lines_up(rows), lines_up(parts), "\n".join(notes)])


def describe(delay: DelayConfig) -> str:
    """A delay in few words."""
    if delay == undelayed(delay):
        return "none"
    if delay.semantics == "published":
        return f"published: {delay.inference_frames} macro steps of {delay.noops + 1}"
    age = f"{delay.inference_frames} frames"
    if delay.distribution == "uniform":
        age = f"{delay.low} to {delay.high} frames"
    elif delay.distribution == "recorded":
        age = f"as recorded, at most {delay.longest} frames"
    learning = f", learning {delay.learn_frames}" if delay.learn_frames else ""
    every = f", one every {delay.period:.3g}" if delay.period > 1 else ""
    return f"{delay.mode}, {age}{learning}{every}"


def _frame_skip(regret: Regret) -> int:
    """Environment frames per environment step: undelayed, each decision takes one step."""
    one = regret.evaluations["undelayed"]
    steps = int(one.lengths.sum())
    return round(int(one.frames_each.sum()) / steps) if steps else 1


def _rate(regret: Regret, name: str) -> float:
    one = regret.evaluations[name]
    frames = int(one.frames_each.sum())
    return 1000 * float(one.returns.sum()) / frames if frames else float("nan")


def _plain(estimate: Estimate) -> dict[str, float | None]:
    return {name: None if np.isnan(value) else value for name, value in asdict(estimate).items()}


def _cells(estimate: Estimate) -> tuple[str, str]:
    interval = "-" if np.isnan(estimate.low) else f"[{estimate.low:.3f}, {estimate.high:.3f}]"
    return f"{estimate.value:.3f}", interval
