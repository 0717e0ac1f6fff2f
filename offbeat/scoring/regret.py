"""What a run loses to learning, to delay and to inaction: three parts, each the difference of two evaluations.

With one set of weights each, whole episodes are played in the run's evaluation environment:

- reference: the reference run's weights, undelayed;
- undelayed: this run's weights, undelayed;
- every_frame: the same weights under the run's delay, with an action in every frame once the first is there;
- as_run: the same weights under the run's delay, and frames left to the default behaviour as the run left them.

The parts are

    learning = reference - undelayed
    delay    = undelayed - every_frame
    inaction = every_frame - as_run

of mean returns per episode, or of the reward per 1,000 environment frames. They sum to reference - as_run, since
everything between cancels. A part may be below zero. An episode's first frames, before any decision can be there,
belong to the delay, as no number of inference processes fills them.

After the regret of realtime interaction in Riemer et al. 2025 (Delta_learn, Delta_inaction, Delta_delay). Differs from
the paper: there they are bounds for an optimal policy over time; here they are measured, of the weights as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from offbeat.acting.scores import Evaluation
from offbeat.envs.delay_config import DelayConfig
from offbeat.errors import UserError
from offbeat.run.load import run_config
from offbeat.run.realtime_files import read_recording
from offbeat.scoring.evaluate import evaluate_run
from offbeat.scoring.regret_delays import as_counted, in_every_frame, in_short, measured_spacing, undelayed
from offbeat.scoring.statistics import Estimate, resample

if TYPE_CHECKING:
    from offbeat.config.run_config import RunConfig

PARTS = {
    "learning": ("reference", "undelayed"),
    "delay": ("undelayed", "every_frame"),
    "inaction": ("every_frame", "as_run"),
    "sum": ("reference", "as_run"),
}
"""Part -> the two evaluations of which it is the difference."""
SAME = (
    "id", "frame_skip", "sticky", "noop_max", "life_loss", "full_action_space", "max_frames", "length", "max_steps",
    "num_levels", "start_level", "distribution_mode",
)  # fmt: skip
"""What the environments of the run and of the reference must have in common."""
RESAMPLES = 2000

Say = Callable[[str], None]


@dataclass(frozen=True)
class Part:
    """One part of the regret."""

    per_episode: Estimate
    per_1000_frames: Estimate


@dataclass(frozen=True)
class Regret:
    """What ``regret_of`` found."""

    run: Path
    reference: Path | None
    evaluations: dict[str, Evaluation]
    """``reference`` (if there is one), ``undelayed``, ``every_frame``, ``as_run``."""
    delays: dict[str, DelayConfig]
    """The delay of each evaluation of this run's weights."""
    parts: dict[str, Part]
    """``delay``, ``inaction`` and their ``sum``, with a reference ``learning`` too."""
    measured_inaction: float | None
    """Share of frames, from an episode's first decision on, left to the default behaviour; of realtime runs."""

    @property
    def delayed(self) -> bool:
        """Whether the run has a delay at all."""
        return self.delays["as_run"] != self.delays["undelayed"]


def regret_of(
    run: Path,
    reference: Path | None = None,
    *,
    episodes: int = 100,
    policy: str | None = None,
    seed: int = 0,
    out: Path | None = None,
    say: Say | None = None,
    stop: Callable[[], bool] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
    **own: Any,
) -> Regret | None:
    """Play the evaluations and take their differences; None where ``stop`` ended them.

    Args:
        run: with a delay in ``[delay]``, or a realtime run; without either, delay and inaction are zero.
        reference: whose weights show what could have been learnt; None: the part ``learning`` stays unknown.
        episodes: of each evaluation; those that are equal are played once.
        policy: ``greedy`` or ``sampled``, of both runs; None: as in this run's evaluations.
        seed: of environments and drawn actions.
        out: folder for the delays of a realtime run; None: ``run/report``.
        say: is told what ``evaluate_run`` has to tell.
        stop, on_progress: as of ``evaluate_run``; the episodes of all evaluations are counted.
        own: the runs' ``env_factory``, ``agent_factory`` or ``torso``, if they had one of the user's.

    UserError where a run cannot be read, the reference plays another environment, or no episode ended.
    """
    if reference is not None:
        check_alike(run, reference)
    config = run_config(run)
    delays, share = delays_of(run, config, (out or run / "report") / "regret_staleness.npy")
    played: dict[tuple[Path, DelayConfig], Evaluation] = {}
    evaluations: dict[str, Evaluation] = {}
    wanted = {name: (run, delay) for name, delay in delays.items()}
    if reference is not None:
        wanted["reference"] = reference, undelayed(run_config(reference).delay)
    for name, key in wanted.items():
        if key not in played:
            told: dict[str, Any] = {"say": say, "stop": stop, "options": as_options(key[1]), **own}
            if policy is None and key[0] != run:
                told["say"] = None  # nobody asked for the policy that it is given
            if on_progress is not None:
                told["on_progress"] = _behind(on_progress, list(played.values()))
            chosen = policy if key[0] == run else policy or config.evaluation.policy
            played[key] = evaluate_run(key[0], episodes, chosen, seed, **told)
            if not played[key].complete:
                return None
            if not len(played[key].returns):
                raise UserError(
                    f"{key[0]}: no episode ended within evaluation.longest={config.evaluation.longest} steps, so there "
                    "is nothing to compare; eval_env.max_steps ends episodes"
                )
        evaluations[name] = played[key]
    return Regret(run, reference, evaluations, delays, parts_of(evaluations), share)


def delays_of(run: Path, config: RunConfig, file: Path) -> tuple[dict[str, DelayConfig], float | None]:
    """The delay of each evaluation of a run's weights; of a realtime run as measured, and the share of frames left to
    the default behaviour. ``file``: where a measured distribution is written.
    """
    share, delay = None, config.delay
    if config.realtime.fps:
        recording = read_recording(run)
        period, share = measured_spacing(recording)
        try:
            as_run = as_counted(delay, recording.staleness, period, file)
        except ValueError as error:
            raise UserError(f"{run}: {error}") from error
    else:
        as_run = in_short(delay)
    every = in_every_frame(as_run, file)
    return {"undelayed": undelayed(delay), "every_frame": every, "as_run": as_run}, share


def parts_of(evaluations: dict[str, Evaluation], seed: int = 0) -> dict[str, Part]:
    """The differences, with 95 % percentile bootstrap intervals: each evaluation's episodes are drawn anew, and all
    parts come from the same draws. Without a reference ``sum`` is that of the other two.
    """
    played = list({id(one): one for one in evaluations.values()}.values())
    draws = resample([np.arange(len(one.returns)) for one in played], RESAMPLES, seed)
    drawn = {id(one): draw for one, draw in zip(played, draws, strict=True)}
    rates = (_per_episode, _per_1000_frames)
    found = {}
    for name, (first, second) in PARTS.items():
        if first not in evaluations:
            if name == "learning":
                continue
            first = "undelayed"
        one, other = evaluations[first], evaluations[second]
        estimates = []
        for rate in rates:
            value = float(rate(one, np.arange(len(one.returns))) - rate(other, np.arange(len(other.returns))))
            spread = rate(one, drawn[id(one)]) - rate(other, drawn[id(other)])
            low, high = (float(bound) for bound in np.quantile(spread, [0.025, 0.975]))
            few = min(len(one.returns), len(other.returns)) < 2
            estimates.append(Estimate(value, *((np.nan, np.nan) if few and one is not other else (low, high))))
        found[name] = Part(*estimates)
    return found


def inaction_share(evaluation: Evaluation, frame_skip: int) -> float:
    """Share of an evaluation's frames in which no decision acted."""
    frames = int(evaluation.frames_each.sum())
    return 1 - int(evaluation.lengths.sum()) * frame_skip / frames if frames else float("nan")


def as_options(delay: DelayConfig) -> list[tuple[str, Any]]:
    """Options that set every field of ``[delay]``."""
    return [(f"delay.{field.name}", getattr(delay, field.name)) for field in fields(DelayConfig)]


def check_alike(run: Path, reference: Path) -> None:
    """UserError where the scores of two runs' evaluation environments cannot be compared."""
    mine, other = run_config(run).eval_env, run_config(reference).eval_env
    for name in SAME:
        if getattr(mine, name) != getattr(other, name):
            raise UserError(
                f"--reference {reference}: its eval_env.{name} is {getattr(other, name)!r}, that of {run} is "
                f"{getattr(mine, name)!r}; the reference must play the same environment"
            )


def _behind(on_progress: Callable[[int, int], None], before: list[Evaluation]) -> Callable[[int, int], None]:
    """Counts on from the evaluations before."""
    ended, frames = sum(len(one.returns) for one in before), sum(one.frames for one in before)
    return lambda more, played: on_progress(ended + more, frames + played)


def _per_episode(evaluation: Evaluation, episodes: np.ndarray) -> np.ndarray:
    """Mean return of the episodes with these numbers [..., n]."""
    found: np.ndarray = evaluation.returns[episodes].mean(-1)
    return found


def _per_1000_frames(evaluation: Evaluation, episodes: np.ndarray) -> np.ndarray:
    found: np.ndarray = 1000 * evaluation.returns[episodes].sum(-1) / evaluation.frames_each[episodes].sum(-1)
    return found
