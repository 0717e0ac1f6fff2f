"""All judges as a table, and the diagnosis of a run: what they found, and what they went by."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from offbeat.errors import UserError
from offbeat.scoring.diagnose import machine, policies, rewards, updates, values, world
from offbeat.scoring.diagnose.finding import Finding, Judge
from offbeat.scoring.diagnose.fresh import play_fresh
from offbeat.scoring.diagnose.gather import read_record
from offbeat.scoring.diagnose.record import Record

JUDGES = (
    Judge("rewards never seen", rewards.unseen, ("episodes",)),
    Judge("rewards clipped away", rewards.clipped, ("fresh",)),
    Judge("scale of rewards", rewards.scale),
    Judge("silent units", updates.silent, ("layers",)),
    Judge("entropy collapsed", policies.collapsed, ("entropy",), unless_learning=True),
    Judge("entropy frozen", policies.frozen, ("entropy",), unless_learning=True),
    Judge("values explain nothing", values.explained, ("explained_variance",), unless_learning=True),
    Judge("importance ratios", policies.ratios, ("ratio_mean",)),
    Judge("policy lag", policies.lag, ("policy_lag",)),
    Judge("stale replay", values.stale, ("policy_lag", "target")),
    Judge("samples per insert", values.samples, ("samples_per_insert",)),
    Judge("values drift", values.drift),
    Judge("target network", values.target, ("target",)),
    Judge("gradients clipped", updates.clipping, ("gradient_norm",)),
    Judge("gradients vanish", updates.vanishing, ("gradient_norm",), unless_learning=True),
    Judge("updates skipped", updates.skipped),
    Judge("epsilon high", policies.epsilon, ("exploration", "frames")),
    Judge("learning rate", updates.still, ("learning_rate",)),
    Judge("evaluator late", machine.evaluator, ("frames",)),
    Judge("scores below training", machine.greedy, ("episodes",)),
    Judge("cores oversubscribed", machine.cores, ("cores",)),
    Judge("one side waits", machine.waits, ("waits",)),
    Judge("episodes never end", world.endless),
    Judge("episodes end at once", world.at_once, ("episodes",)),
    Judge("observations not finite", world.numbers, ("fresh",)),
    Judge("observations constant", world.constant, ("fresh",)),
    Judge("scale of observations", world.scale, ("fresh",)),
    Judge("actions never chosen", policies.actions, ("actions",), unless_learning=True),
)
"""In the order in which findings are said: causes before what follows from them, as far as that can be."""

SHOWN = (
    "entropy", "explained_variance", "ratio_mean", "ratio_clipped_share", "policy_lag", "q_mean", "td_error",
    "value_mean", "samples_per_insert", "gradient_norm", "learning_rate",
)  # fmt: skip
"""Numbers of the learner that are shown, first and last."""


@dataclass(frozen=True)
class Diagnosis:
    """What was found of a run."""

    run: Path
    record: Record
    findings: dict[str, Finding]
    """Judge -> what it found."""
    unjudged: dict[str, str]
    """Judge -> what it would have needed."""
    unplayed: str
    """Why the run's environment could not be played; empty: it was."""

    def lines(self) -> list[str]:
        """One line for each finding, or that there was none; the numbers; what could not be judged."""
        asked = len(JUDGES) - len(self.unjudged)
        found = [finding.line(name) for name, finding in self.findings.items()]
        said = found or [f"nothing unusual in {asked} of {len(JUDGES)} checks"]
        said.append("numbers: " + "; ".join(f"{name} {text}" for name, text in numbers(self.record).items()))
        if self.unplayed:
            said.append(f"judged from the record alone, as the run could not be played: {self.unplayed}")
        return said

    def plain(self) -> dict[str, Any]:
        """All of it as JSON can hold it."""
        found = [{"name": name, **asdict(finding)} for name, finding in self.findings.items()]
        return {
            "run": str(self.run),
            "findings": found,
            "numbers": numbers(self.record),
            "unjudged": self.unjudged,
            "unplayed": self.unplayed,
        }


def judge_all(record: Record) -> tuple[dict[str, Finding], dict[str, str]]:
    """What each judge found in ``record``, by its name; and what those that could not judge would have needed."""
    found: dict[str, Finding] = {}
    unjudged: dict[str, str] = {}
    for judge in JUDGES:
        if missing := judge.missing(record):
            unjudged[judge.name] = ", ".join(missing)
        elif not (judge.unless_learning and record.learns) and (finding := judge.find(record)) is not None:
            found[judge.name] = finding
    return found, unjudged


def diagnose_run(
    run: Path, batches: int = 4, *, device: str | None = None, say: Callable[[str], None] = print, **own: Any
) -> Diagnosis:
    """Judge a run by what it has recorded, and by ``batches`` of rows that it plays with its newest weights.

    Where that cannot be done, the reason is kept, and the record alone is judged. Nothing is written.

    Args:
        run: run folder.
        device: where the network computes; None: the run's device where this machine has it.
        say: is told what closing the environment raises.
        own: the run's ``env_factory``, ``agent_factory`` or ``torso``, if it had one of the user's.

    UserError where it is no run folder, or has recorded nothing yet.
    """
    record, unplayed = read_record(run), ""
    try:
        fresh = play_fresh(run, record.config, batches, device=device, say=say, **own)
        record = replace(record, fresh=fresh)
    except Exception as error:  # of an environment or an agent, which may be anybody's
        kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
        unplayed = " ".join(f"{kind}{error}".split())
    return Diagnosis(run, record, *judge_all(record), unplayed)


def numbers(record: Record) -> dict[str, str]:
    """What a reader looks at first: name -> first and last."""
    shown = {"frames": f"{record.last('frames'):,.0f}", "episodes": f"{len(record.returns):,}"}
    if np.isfinite(record.windows[0]):
        shown["return"] = f"{record.windows[0]:.3g} to {record.windows[1]:.3g}"
    if record.evaluations:
        shown["evaluation"] = str(record.evaluations[-1].get("mean"))
    for name in SHOWN:
        if len(series := record.series(name)):
            shown[name] = f"{series[0]:.3g} to {series[-1]:.3g}"
    if record.fresh is not None:
        raw = record.fresh.raw_rewards[np.isfinite(record.fresh.raw_rewards)]
        if len(raw):
            shown["rewards"] = f"{raw.min():.3g} to {raw.max():.3g}"
        for key, seen in record.fresh.observations.items():
            shown[f"observation {key!r}"] = f"{seen.low:.3g} to {seen.high:.3g}"
        for layer in record.fresh.layers:
            shown[layer.name] = f"{layer.silent} of {layer.units} silent"
    return shown
