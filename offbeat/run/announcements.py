"""What a run says of itself as it begins and when it has ended."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from torch import nn

from offbeat.config.run_config import RunConfig
from offbeat.envs.base import EnvConfig
from offbeat.envs.game_lists import configs_of, described
from offbeat.envs.registry import game_specs, stepping
from offbeat.networks.own_torso import find_torso
from offbeat.networks.torsos import choose_torso, flattened_pictures
from offbeat.replay.layout import StreamLayout
from offbeat.replay.make import copies_nbytes
from offbeat.run.own import command
from offbeat.runtime.conductor import Conductor
from offbeat.runtime.world import World, is_deterministic
from offbeat.types import ArraySpec, EnvSpec

Draw = Callable[[Path], Path]
"""Draws the curve of a run folder and returns the picture's file. Pictures are made above this package."""


def introduce(
    config: RunConfig,
    spec: EnvSpec,
    network: nn.Module,
    layout: StreamLayout,
    say: Callable[[str], None],
    factory: Callable[..., Any] | None = None,
) -> None:
    """What trains on what, and what had better be known of that. Weights are those of ``network``, without padding.

    ``factory``: makes the environment, if it is the user's own.
    """
    weights = sum(weight.numel() for weight in network.parameters())
    say(f"{config.agent_name} with {weights:,} weights on {spec.id}; {layout.describe()}")
    if copies := copies_nbytes(config.replay, layout):
        say(f"copies that samplers keep beside the streams: up to {copies / 2**20:,.1f} MiB")
    for line in described(config.env, game_specs(config.env)) if config.env.ids else ():
        say(line)
    for line in flattened(config, spec):
        say(line)
    tell_of_stepping(config, factory, say)
    tell_of_short_run(config, spec, say)
    tell_of_small_replay(config, layout, say)
    tell_of_validation(config, say)


def tell_of_stepping(config: RunConfig, factory: Callable[..., Any] | None, say: Callable[[str], None]) -> None:
    """Say of ids that could step all copies in one array operation whether they do."""
    for line in steppings(config, config.env, factory):
        say(line)


def steppings(config: RunConfig, env: EnvConfig, factory: Callable[..., Any] | None) -> list[str]:
    """How the games of ``env`` are stepped, where that is to be said. ``Misbehaved`` where they cannot be as asked."""
    count = 1 if config.realtime.fps else config.actor.envs_per_worker
    given = [stepping(game, count, is_deterministic(config), factory) for game in configs_of(env) or [env]]
    return [line for line in given if line]


def tell_of_small_replay(config: RunConfig, layout: StreamLayout, say: Callable[[str], None]) -> None:
    """Say where samplers that replay choose among the rows that a fifo needs, as nobody said how many are to be kept.

    Those that keep copies of their own (``size``, ``batches``) have as many as they are told.
    """
    replaying = [one.kind for one in config.replay.samplers if not one.paces and not hasattr(one, "size")]
    kept = layout.num_streams * layout.capacity
    if replaying and not config.replay.capacity and layout.items.kind == "unroll":
        say(
            f"replay keeps no more than the {kept:,} newest rows, among which {' and '.join(replaying)} choose"
            f"{'s' if len(replaying) == 1 else ''}; set replay.capacity to keep more"
        )


def tell_of_validation(config: RunConfig, say: Callable[[str], None]) -> None:
    """Say where validations were asked for and none will be played: minutes do not count in a fixed schedule."""
    wanted = config.validation
    if wanted.every_minutes and not wanted.every_steps and is_deterministic(config):
        say(
            f"no validation will be played: validation.every_minutes={wanted.every_minutes:g} does not count in runs "
            "with a fixed schedule, whose results depend on no clock; validation.every_steps does"
        )


def flattened(config: RunConfig, spec: EnvSpec) -> Iterator[str]:
    """A line for each observation that looks like a picture and that the run's torso does not convolve.

    Nothing for torsos of the user's own, and for agents that have none.
    """
    kind = getattr(config.agent, "torso", None)
    if kind is None or (kind != "auto" and (kind.startswith("python:") or find_torso(kind) is not None)):
        return
    chosen = choose_torso(spec.features) if kind == "auto" else kind
    for key, array in flattened_pictures(spec.features, chosen).items():
        seen = f"observation {key!r}, {array.dtype} {list(array.shape)}, looks like a picture"
        yield f"{seen}; it is flattened to {math.prod(array.shape):,} numbers: {_instead(array, chosen)}"


def _instead(array: ArraySpec, torso: str) -> str:
    """How it would be convolved."""
    if len(array.shape) == 3:
        return f"torso {torso} has no convolutions, agent.torso = 'per_key' has"
    if len(array.shape) == 2:
        return "networks take pictures as [channels, height, width], so give it a third axis of length 1"
    return "networks take pictures as [channels, height, width], so stack frames along the channels"


def tell_of_schedule(config: RunConfig, meta: dict[str, Any], say: Callable[[str], None]) -> None:
    """Say how the learning rate jumps where a run whose schedule is as long as itself was given another
    length.
    """
    learner, frames, before = config.learner, meta.get("frames", 0), meta.get("total_frames")
    stays = learner.schedule == "constant" or (learner.schedule == "polynomial" and learner.schedule_updates > 0)
    if stays or not frames or before is None or before == config.total_frames:
        return

    def rate(total: int) -> float:
        return learner.rate(frames / total, 0)

    say(
        f"the run is now {config.total_frames:,} frames long instead of {before:,}, so its {learner.schedule} schedule "
        f"goes on along another line: the learning rate jumps from {rate(before):.3g} to "
        f"{rate(config.total_frames):.3g} here; "
        'learner.schedule = "constant" has no such jump'
    )


def tell_of_short_run(config: RunConfig, spec: EnvSpec, say: Callable[[str], None]) -> None:
    """Say where a run will be longer than it was asked to be: nothing is trained on before replay has enough rows."""
    rows = config.replay.min_rows
    if config.total_frames < rows * spec.frame_skip:
        say(
            f"training begins when replay has {rows:,} rows, which are more frames than total_frames="
            f"{config.total_frames:,}: the run will be longer; lower the samplers' min_rows for less"
        )


def tell_of_streams(world: World, say: Callable[[str], None]) -> None:
    """Say where checkpoints will be without the streams although they were wanted."""
    limits = world.config.checkpoint
    if limits.replay and not world.saves_streams():
        say(
            f"streams of {world.replay_nbytes() / 2**30:.3g} GiB are more than checkpoint.max_replay_gb="
            f"{limits.max_replay_gb:g}: checkpoints leave them out, and a run resumed from one starts with empty replay"
        )


def tell_of_no_evaluation(conductor: Conductor, say: Callable[[str], None]) -> None:
    """Say that evaluations were asked for and none was played: the run was over before the evaluator was at work."""
    asked = conductor.world.config.evaluation
    if 0 < asked.every_frames <= conductor.frames and not asked.at_end:
        say(
            f"no evaluation was played, although one was asked for each {asked.every_frames:,} frames: the run was "
            "over before the evaluator was at work; evaluation.at_end = true scores the final weights"
        )


def say_goodbye(
    run: Path, conductor: Conductor, finished: bool, say: Callable[[str], None], draw: Draw | None, scored: bool
) -> None:
    """The last lines: where results lie and how to go on. ``scored``: an evaluation was played."""
    world = conductor.world
    if not finished:
        say(f"stopped ({conductor.stop_reason}) and saved at {conductor.frames:,} frames")
        say(f"go on with: {command('resume', run, vars(world))}")
        return
    if not scored:
        tell_of_no_evaluation(conductor, say)
    say(f"finished: {conductor.frames:,} frames, {conductor.updates:,} updates; everything is in {run}")
    try:
        if draw is not None:
            say(f"curve: {draw(conductor.run)}")
    except Exception as error:  # the run is finished and saved, whatever a picture needs
        say(f"the curve could not be drawn: {type(error).__name__}: {error}")
    total = world.config.total_frames
    longer = 2 * (total if 2 * total > conductor.frames else conductor.frames)
    say(f"score it:     {command('eval', run, vars(world), episodes=20)}")
    say(f"watch it:     {command('record', run, vars(world))}")
    say(f"train longer: {command('resume', run, vars(world), total_frames=longer)}")
