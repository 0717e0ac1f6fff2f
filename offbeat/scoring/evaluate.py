"""Scores of a finished or running run."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from offbeat.acting.episodes import play_episodes
from offbeat.acting.scores import Evaluation
from offbeat.acting.trace_facts import Played, trace_name, traced
from offbeat.acting.tracing import Tracer
from offbeat.agents.base import policy_name
from offbeat.config.validation import check_delay, check_range
from offbeat.errors import UserError
from offbeat.storage.traces import SUFFIX, write_trace

if TYPE_CHECKING:
    from offbeat.envs.base import EnvConfig
    from offbeat.run.load import Restored

__all__ = ["Evaluation", "evaluate_run", "play_episodes"]


HOW = {
    "greedy": "it has no policy to draw from and takes the best action",
    "sampled": "it draws its actions in any case",
    "noisy": "it takes the best action under noise on its weights, drawn anew for each",
}
"""What an agent does whose policy has that name, where another one was asked for."""


def evaluate_run(
    run: Path,
    episodes: int = 10,
    policy: str | None = None,
    seed: int = 0,
    *,
    checkpoint: Path | str | None = None,
    say: Callable[[str], None] | None = None,
    options: Iterable[tuple[str, Any]] = (),
    stop: Callable[[], bool] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
    trace: Path | None = None,
    **own: Any,
) -> Evaluation:
    """Score a run's newest weights (or those of ``checkpoint``) by whole episodes in its evaluation environments.

    Args:
        run: run folder.
        episodes: whole episodes, shared equally among at most ``evaluation.envs`` environments; a game of several
            players is one episode. Of a list of games, so many of each.
        policy: ``greedy`` or ``sampled``; None: as the run's evaluation. Agents without a policy to draw from play
            greedily either way; the result's ``policy`` says what was played.
        seed: of environments and drawn actions; the same seed gives the same games.
        checkpoint: its folder; or as text what it is called in this run: ``best``, ``extra`` or its agent steps.
        say: is told in a line where the agent plays by another policy than ``policy``, where a trace is, and what
            closing raises.
        options: of the evaluation environments, laid over the run's: ("eval_env.life_loss", "end_episode") gives scores
            of one life each.
        stop: once it gives True, the episodes that have ended are scored (``complete`` is False).
        on_progress: is told after every step how many episodes have ended, and the frames of all.
        trace: file for every action, reward and score, or a folder for it, where its name is chosen; not written where
            it was stopped.
        own: the run's ``env_factory``, ``agent_factory`` or ``torso``, if it had one of the user's.
    """
    from offbeat.envs.closing import closed_after
    from offbeat.envs.game_lists import scored
    from offbeat.envs.registry import make_env
    from offbeat.run.load import restore

    check_range("evaluation.episodes", episodes, "episodes")
    check_range("seed", seed)
    loaded = restore(run, checkpoint=checkpoint, **own)
    factory = own.get("env_factory")
    eval_env = lay_over(loaded, options, factory)
    greedy = choose_policy(loaded, policy, say)
    players = loaded.agent.spec.players
    games = min(episodes, loaded.config.evaluation.envs // players)
    several = len(eval_env.games)
    env = make_env(scored(eval_env), several * games * players, factory=factory)
    with closed_after(env, eval_env.id, say):
        played: dict[str, Any] = {
            "episodes": several * episodes,
            "greedy": greedy,
            "seed": seed,
            "longest": loaded.config.evaluation.longest,
            "stop": stop,
            "on_progress": on_progress,
        }
        tracer = Tracer(env.num_envs) if trace is not None else None
        result = play_episodes(env, loaded.agent, version=loaded.version, tracer=tracer, **played)
        result = replace(result, at=point_of(loaded))
        if trace is not None and tracer is not None and result.complete:
            about = {"kind": "eval", "run": run.absolute().name}
            setup = Played(scored(eval_env), seed, several * episodes, played["longest"], about=about)
            content = traced(env, tracer, result, setup, loaded.agent.network.state_dict())
            left = leave_trace(trace, content, result, setup)
            if say is not None:
                say(f"every action, reward and score is in {left}, {len(content):,} bytes")
    return result


def leave_trace(where: Path, content: bytes, result: Evaluation, played: Played) -> Path:
    """Write a trace to the file ``where``, or into the folder of that name: its file is called by what was played.

    Returns the file. UserError where it cannot be written.
    """
    if where.suffix == SUFFIX and not where.is_dir():
        return write_trace(where, content)
    kind, which = str(played.about["kind"]), str(played.about.get("set", ""))
    mark = f"{which}-{content[-4:].hex()}" if which else content[-4:].hex()
    return write_trace(where / trace_name(kind, int(result.at["frames"]), mark), content)


def point_of(loaded: Restored) -> dict[str, float]:
    """The point of the run that the weights are from: frames, agent_steps, updates."""
    frames = loaded.meta.get("frames", loaded.agent_steps * loaded.agent.spec.frame_skip)
    return {"frames": frames, "agent_steps": loaded.agent_steps, "updates": loaded.version}


def lay_over(loaded: Restored, options: Iterable[tuple[str, Any]], factory: Any = None) -> EnvConfig:
    """The run's evaluation environment with these options, ("eval_env.sticky", 0.25) and the like, laid over it.

    ``factory``: makes it, if it is the user's own. Frames may be stacked elsewhere, by a delay or by the agent: it is
    told. UserError where there is no such option, or the agent could not play there.
    """
    from offbeat.config.run_config import apply_overrides

    options = list(options)
    if not options:
        return loaded.config.eval_env
    config = apply_overrides(loaded.config, options)
    check_delay(config)
    changed = ", ".join(f"{name}={value}" for name, value in options)
    check_playable(loaded, config.eval_env, f"with {changed} the evaluation environment", factory)
    return config.eval_env


def check_playable(loaded: Restored, env: EnvConfig, what: str, factory: Any = None) -> None:
    """Raise ``UserError`` where the agent could not play in ``env``, which messages call ``what``.

    ``factory``: makes it, if it is the user's own. Frames may be stacked elsewhere, by a delay: the agent is told.
    """
    from offbeat.envs.registry import env_spec

    try:
        seen, known = env_spec(env, factory), loaded.agent.spec
    except ValueError as error:  # a value that the environment has no use for
        raise UserError(str(error)) from error
    if env.delay != loaded.config.eval_env.delay and seen.network_observation == known.network_observation:
        stacks = {name: getattr(seen, name) for name in ("observation", "frame_stack", "stacked", "stack_padding")}
        loaded.agent.spec = known = replace(known, **stacks)
    for part in ("observation", "action", "frame_stack", "stacked", "stack_padding", "players"):
        if getattr(seen, part) != getattr(known, part):
            raise UserError(
                f"{what} has another {part} than the agent was trained on: {getattr(seen, part)} instead of "
                f"{getattr(known, part)}"
            )


def is_greedy(policy: str) -> bool:
    """Whether ``policy`` is greedy. UserError if it is neither ``greedy`` nor ``sampled``."""
    if policy not in ("greedy", "sampled"):
        raise UserError(f"policy {policy!r} is unknown; allowed: greedy, sampled")
    return policy == "greedy"


def choose_policy(loaded: Restored, policy: str | None, say: Callable[[str], None] | None = None) -> bool:
    """Whether the agent is to be greedy: as ``policy`` asks, None: as the run's evaluation.

    ``say`` is told where the agent plays otherwise than it was asked to. UserError if ``policy`` is no policy.
    """
    greedy = is_greedy(policy or loaded.config.evaluation.policy)
    played = policy_name(loaded.agent, greedy)
    if say is not None and policy is not None and played != policy:
        say(f"policy {policy!r} was asked for; agent {loaded.config.agent_name!r} plays {played!r}: {HOW[played]}")
    return greedy
