"""Scores of a run's weights on several sets of environments, as a run with a section ``[final]`` ends with them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from offbeat.acting.episodes import play_episodes
from offbeat.acting.final_sets import FinalSet, SetScore, final_sets, summary, table
from offbeat.acting.scores import Evaluation
from offbeat.acting.trace_facts import Played, traced
from offbeat.acting.tracing import Tracer
from offbeat.config.validation import check_delay, check_ranges
from offbeat.errors import UserError
from offbeat.scoring.evaluate import check_playable, choose_policy, leave_trace, point_of

if TYPE_CHECKING:
    from offbeat.config.run_config import RunConfig
    from offbeat.run.load import Restored


@dataclass(frozen=True)
class SetScores:
    """What was played, set by set."""

    played: tuple[tuple[FinalSet, Evaluation], ...]
    complete: bool
    """False where it was stopped; the set that was being played then is left out."""

    @property
    def scores(self) -> list[SetScore]:
        """Mean and spread of each set."""
        return [SetScore(one.name, one.test, got.mean, got.std, len(got.returns)) for one, got in self.played]

    def summary(self) -> dict[str, Any]:
        """Mean and standard deviation over the test sets, ``test_mean`` and ``test_std``; ``train_mean``."""
        return summary(self.scores)

    def table(self) -> str:
        """All of it as a small table for people."""
        return table(self.scores)

    def record(self) -> dict[str, Any]:
        """All of it as JSON can hold it."""
        sets = [got.record() | {"set": one.name, "test": int(one.test)} for one, got in self.played]
        return {"sets": sets} | (self.summary() if self.complete else {})


def planned(run: Path, options: Iterable[tuple[str, Any]] = ()) -> tuple[RunConfig, list[FinalSet]]:
    """The configuration of ``run`` with ``options`` laid over it, and the sets that it names.

    UserError where it names none, and for options that are none or contradict each other.
    """
    from offbeat.config.run_config import apply_overrides
    from offbeat.run.load import run_config

    config = apply_overrides(run_config(run), options)
    check_ranges(config)
    check_delay(config)
    sets = final_sets(config.final, config.env, config.final_env)
    if not sets:
        raise UserError(
            f"{run} names no sets of environments: give --final.sets 3, or --final.values 1000,1200,1400 with the "
            "option of the environment that they are of, --final.vary start_level"
        )
    return config, sets


def evaluate_sets(
    run: Path,
    *,
    policy: str | None = None,
    seed: int = 0,
    checkpoint: Path | str | None = None,
    options: Iterable[tuple[str, Any]] = (),
    say: Callable[[str], None] | None = None,
    stop: Callable[[], bool] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
    trace: Path | None = None,
    **own: Any,
) -> SetScores:
    """Score a run's newest weights on each of its sets by whole episodes, ``final.episodes`` of them.

    The final weights are scored as at the end of the run itself: the same games, on the same machine.

    Args:
        run: run folder.
        policy: ``greedy`` or ``sampled``; None: ``final.policy``.
        seed: added to that of each set.
        checkpoint: other weights, as of ``offbeat.run.load.load_agent``.
        options: laid over the run's: ("final.sets", 5), ("final_env.num_levels", 200) and the like.
        say: is told in a line where the agent plays by another policy than ``policy``, and what closing raises.
        stop: once it gives True, nothing more is played.
        on_progress: is told after every step how many episodes of all sets have ended, and the frames of this set.
        trace: folder for the action traces, one file for each set.
        own: the run's ``env_factory``, ``agent_factory`` or ``torso``, if it had one of the user's.
    """
    from offbeat.run.load import restore

    config, sets = planned(run, list(options))
    loaded = restore(run, checkpoint=checkpoint, **own)
    greedy = choose_policy(loaded, policy or config.final.policy, None if policy is None else say)
    for one in sets:
        check_playable(loaded, one.env, f"set {one.name}", own.get("env_factory"))
    loaded = replace(loaded, config=config)
    played: list[tuple[FinalSet, Evaluation]] = []
    for one in sets:
        before = sum(len(got.returns) for _, got in played)

        def progress(ended: int, frames: int, before: int = before) -> None:
            if on_progress is not None:
                on_progress(before + ended, frames)

        told: dict[str, Any] = {"stop": stop, "on_progress": progress, "trace": trace, "run": run.absolute().name}
        got = _play(loaded, one, greedy, seed, say, own.get("env_factory"), told)
        if not got.complete:
            return SetScores(tuple(played), False)
        played.append((one, got))
    return SetScores(tuple(played), True)


def _play(
    loaded: Restored, one: FinalSet, greedy: bool, seed: int, say: Callable[[str], None] | None, factory: Any,
    told: dict[str, Any],
) -> Evaluation:  # fmt: skip
    """One set; ``told``: what ``play_episodes`` takes besides, ``trace``, and the name of the run."""
    from offbeat.envs.closing import closed_after
    from offbeat.envs.game_lists import scored
    from offbeat.envs.registry import make_env

    final, players = loaded.config.final, loaded.agent.spec.players
    games = min(final.episodes, final.envs // players)
    several = len(one.env.games)
    trace, about = told.pop("trace"), {"kind": "final", "run": told.pop("run"), "set": one.name}
    longest = loaded.config.evaluation.longest
    played = Played(scored(one.env), one.seed + seed, several * final.episodes, longest, about=about)
    env = make_env(played.env, several * games * players, factory=factory)
    with closed_after(env, one.env.id, say):
        tracer = Tracer(env.num_envs) if trace is not None else None
        result = play_episodes(
            env, loaded.agent, version=loaded.version, episodes=played.episodes, greedy=greedy, seed=played.seed,
            longest=longest, tracer=tracer, **told,
        )  # fmt: skip
        result = replace(result, at=point_of(loaded))
        if trace is not None and tracer is not None and result.complete:
            leave_trace(trace, traced(env, tracer, result, played, loaded.agent.network.state_dict()), result, played)
    return result
