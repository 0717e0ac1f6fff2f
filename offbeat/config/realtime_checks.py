"""What a realtime run refuses before anything is spawned."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from offbeat.envs.rtgym import OwnClock
from offbeat.errors import UserError

if TYPE_CHECKING:
    from offbeat.config.run_config import RunConfig


def check_realtime(config: RunConfig, factory: object = None) -> None:
    """UserError for options that mean nothing, or cannot work, around an environment that never waits.

    ``factory``: makes it, if it is the user's own.
    """
    realtime = config.realtime
    if not realtime.fps:
        return
    if isinstance(factory, OwnClock):
        raise UserError(
            f"realtime.fps={realtime.fps:g}: {config.env.id} keeps its own clock, rtgym's, and there cannot be two; "
            "leave realtime.fps out, and set time_step_duration in a configuration of rtgym that names the interface"
        )
    if realtime.mode != "async" and realtime.inference > 1:
        raise UserError(
            f"realtime.inference={realtime.inference} means nothing with realtime.mode={realtime.mode}, which has one "
            "inference process; leave it at 1, or use mode async"
        )
    if realtime.takes_turns and config.learner.count > 1:
        raise UserError(
            f"learner.count={config.learner.count} means nothing with realtime.mode={realtime.mode}, where one learner "
            "and one inference process take turns; use 1, or mode async"
        )
    pacing = [(index, sampler.kind) for index, sampler in enumerate(config.replay.samplers) if sampler.paces]
    if pacing:
        index, kind = pacing[0]
        raise UserError(
            f"replay.samplers.{index}.kind={kind!r} makes actors wait for the learner, and a realtime environment "
            f"waits for nobody; use uniform or prioritised samplers, e.g. --replay.samplers.{index}.kind uniform"
        )
    if config.deterministic and config.engine != "inline":
        raise UserError(
            "deterministic runs advance in rounds, and a realtime environment by a clock; engine inline runs it on a "
            "virtual clock, repeatably"
        )
    _check_delay(config)
    if config.engine == "inline":
        _check_virtual(config)
    elif realtime.replay:
        raise UserError("realtime.replay replays latencies on the virtual clock only; add --engine inline")


def _check_delay(config: RunConfig) -> None:
    delay = config.delay
    if delay.history and delay.history_until != "start":
        raise UserError(
            f"delay.history_until={delay.history_until!r}: a realtime inference begins before the actions of those "
            "that are under way are known; allowed is 'start'"
        )
    if delay.semantics != "exact":
        raise UserError(f"delay.semantics={delay.semantics!r} is of simulated delays only; in realtime it is 'exact'")


def _check_replayed(folder: Path) -> None:
    """UserError where ``folder`` holds no recorded latencies."""
    if not any(folder.glob("*.durations.npy")):
        raise UserError(
            f"realtime.replay={str(folder)!r} holds no recorded latencies; run with --realtime.record true and give "
            "the folder RUN/realtime"
        )


def _check_virtual(config: RunConfig) -> None:
    realtime, replay = config.realtime, config.replay
    if realtime.record:
        raise UserError("realtime.record writes down latencies of the wall clock; a virtual clock has none to measure")
    if not (realtime.inference_s or realtime.pad or realtime.replay):
        raise UserError(
            "on a virtual clock computing takes no time: set realtime.inference_s above 0, or leave realtime.pad on"
        )
    if realtime.replay:
        _check_replayed(Path(realtime.replay))
    if realtime.mode in ("async", "background") and not (realtime.learn_s or replay.samples_per_insert):
        raise UserError(
            "on a virtual clock an update takes no time, so that there would be no end of them: set realtime.learn_s "
            "or replay.samples_per_insert above 0"
        )
