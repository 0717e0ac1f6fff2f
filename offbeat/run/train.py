"""Training: puts a run together from its configuration, runs it on an engine, and leaves a folder that says
everything.
"""

from __future__ import annotations

import os
import shlex
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from offbeat.agents.base import Agent
from offbeat.agents.make import make_agent
from offbeat.config.auto import choose_device, decide
from offbeat.config.fitting import fitted, left_out
from offbeat.config.run_config import RunConfig, read_config, to_toml
from offbeat.config.validation import check_resources, check_run_folder, validate
from offbeat.envs.registry import check_exact, env_spec, specs_kept
from offbeat.errors import UserError
from offbeat.networks.flat import flat_size
from offbeat.networks.own_torso import TorsoFactory
from offbeat.replay.make import copies_nbytes
from offbeat.run import announcements
from offbeat.run.actor_times import choose_envs
from offbeat.run.changes import changed, check_length
from offbeat.run.demonstrated import shown_to
from offbeat.run.folders import claim, default_folder
from offbeat.run.hook_calls import HookCalls, shown
from offbeat.run.hooks import HookFailed, find_hooks
from offbeat.run.inference_times import choose_inference
from offbeat.run.locked import locked
from offbeat.run.log import RunLog, open_log
from offbeat.run.metrics import MetricLogger
from offbeat.run.own import check_given, check_scored, command, noted, with_torso
from offbeat.run.provenance import write_environment
from offbeat.run.resumable import check_fits, describe, needs_state
from offbeat.run.starting import check_start
from offbeat.run.stem import Start, begin_with_stem, with_stem
from offbeat.runtime.conductor import Conductor, EndNow
from offbeat.runtime.engines import inline, local, virtual
from offbeat.runtime.interrupts import Interrupts, signals
from offbeat.runtime.process import remove_stacks
from offbeat.runtime.supervisor import RoleFailed
from offbeat.runtime.terminal import guarded, troubles_told
from offbeat.runtime.topology import topology
from offbeat.runtime.world import World, environments, is_deterministic, learners_nbytes, make_world, plan_layout
from offbeat.storage.checkpoint import CheckpointError, find, load, newest
from offbeat.types import EnvSpec


@dataclass(frozen=True)
class RunResult:
    """What a run left behind."""

    run: Path
    finished: bool
    frames: int
    agent_steps: int
    updates: int
    return_mean: float | None
    """Mean return of the last 100 training episodes."""
    evaluation_mean: float | None
    """Mean return of the last evaluation."""


@specs_kept()
def train(
    config: RunConfig,
    *,
    given: Iterable[str] = (),
    init_from: Path | None = None,
    init_optimiser: bool = False,
    env_factory: Callable[..., Any] | None = None,
    agent_factory: Callable[..., Any] | None = None,
    torso: TorsoFactory | None = None,
    draw: announcements.Draw | None = None,
    hooks: Mapping[str, Any] | None = None,
    env_named: str | None = None,
) -> RunResult:
    """Train in a new run folder.

    Args:
        config: the run.
        given: names of the options that were laid over a preset: its own switches of another environment are left out.
        init_from: another run whose newest weights this one starts from.
        init_optimiser: and with whose optimiser's statistics it goes on.
        env_factory: a user's own environment (see ``offbeat.envs.registry.make_env``); must be importable by processes.
        agent_factory: a user's own agent: called with (agent config, EnvSpec, device).
        torso: a user's own torso for offbeat's agents, see ``offbeat.networks.own_torso``.
        draw: draws the curve of a run that has finished.
        hooks: moment -> function, see ``offbeat.run.hooks``; beside those that ``log.hooks`` names.
        env_named: what the command line calls ``env_factory``, for the commands that the run advises.

    Raises ``UserError`` before anything is spawned if the run cannot work.
    """
    own = {"env_factory": env_factory, "agent_factory": agent_factory, "torso": torso, "env_named": env_named}
    check_scored(config, given, own)
    fit = fitted(config, given, env_factory)
    note, config = left_out(config, fit), with_torso(fit, own)
    calls = HookCalls(find_hooks(config.log, hooks or {}))
    validate(config, env_factory=env_factory, go_on=command("resume", Path(config.out), own))
    run = Path(config.out) if config.out else default_folder(config.env.id)
    check_run_folder(run)
    start = init_from, init_optimiser
    config = with_stem(decide(replace(config, out=str(run)), measures=True), start)
    started: dict[str, Any] = {"draw": draw, "hooks": calls, "note": note, "fresh": True}
    return _run(config, run, checkpoint=None, start=start, own=own, **started)


@specs_kept()
def resume(
    run: Path,
    total_frames: int | None = None,
    *,
    device: str | None = None,
    changes: Iterable[tuple[str, Any]] = (),
    draw: announcements.Draw | None = None,
    hooks: Mapping[str, Any] | None = None,
    **own: Any,
) -> RunResult:
    """Go on with a run from its newest checkpoint; ``total_frames`` gives it a new length, ``device`` (``auto``: CUDA
    where there is one) other hardware for all of its networks, ``changes`` other options, ``draw`` draws its curve;
    ``hooks`` as of ``train``. ``own``: what the user handed over, and ``env_named``, as of ``train``.
    """
    run = Path(run)
    path = run / "config.toml"
    if not path.exists():
        raise UserError(f"{run} is no run folder: it has no config.toml; 'offbeat train' makes run folders")
    config = replace(read_config(path), out=str(run))
    before, config = config.total_frames, changed(config, changes)
    if total_frames is not None:
        config = replace(config, total_frames=total_frames)
    if device is not None:
        config = moved(config, device)
    found = newest(run, report=lambda text: print(f"offbeat: {text}", file=sys.stderr), accept=needs_state)
    if found is None:
        raise UserError(f"{run} has no complete checkpoint to resume from; start it again with 'offbeat train'")
    check_given(found.meta, own, run)
    check_length(config.total_frames, before, int(found.meta.get("frames", 0)), run)
    config = with_torso(config, own)
    calls = HookCalls(find_hooks(config.log, hooks or {}))
    validate(config, new_run=False, env_factory=own.get("env_factory"))
    return _run(config, run, checkpoint=found.path, start=(None, False), own=own, draw=draw, hooks=calls)


def moved(config: RunConfig, device: str) -> RunConfig:
    """The same run with everything that computes on ``device``, wherever each was before."""
    device = choose_device(device)
    learner, inference = replace(config.learner, device=device), replace(config.inference, device=(device,))
    return replace(config, device=device, learner=learner, inference=inference)


def _run(
    config: RunConfig,
    run: Path,
    *,
    checkpoint: Path | None,
    start: Start,
    own: dict[str, Any],
    draw: announcements.Draw | None,
    hooks: HookCalls,
    note: str = "",
    fresh: bool = False,
) -> RunResult:
    """Everything between a checked configuration and the result. ``note``: a line to say at the start, if it is one.
    ``fresh``: in a folder that nobody else has.
    """
    if config.engine != "inline":
        check_start(own, *dict.fromkeys(game for env in environments(config) for game in env.games))
    spec = env_spec(config.env, own.get("env_factory"))
    config, agent, note = _made(config, spec, own, note, new=checkpoint is None)
    layout = plan_layout(config, spec, agent, type(agent).__qualname__ if own.get("agent_factory") else "")
    shown = shown_to(config, spec, agent, layout, own.get("env_factory"), checkpoint)
    weights, roles = flat_size(agent.network), topology(config, layout.items)
    needed = layout.nbytes() + copies_nbytes(config.replay, layout) + shown.nbytes + learners_nbytes(config, weights)
    check_resources(config, needed, run, roles_bytes=roles.nbytes(inline=config.engine == "inline"))
    check_fits(config, agent, layout, roles, checkpoint=checkpoint, init_from=start[0], init_optimiser=start[1])
    _check_exact(config, own.get("env_factory"))
    run = claim(run) if fresh else run
    config, home = replace(config, out=str(run)), run.absolute()  # an environment may change the working directory
    with (
        _alone_in(home),
        guarded(),
        closing(open_log(home, "main", echo=True)) as log,
        troubles_told(log.note),
        signals(log.write) as interrupts,
    ):
        remove_stacks(home)
        log.write("\n".join(filter(None, (f"{'resuming' if checkpoint else 'run'} {run}", note, shown.line))))
        announcements.introduce(config, spec, agent.network, layout, log.write, own.get("env_factory"))
        _write_config(home, config, log.write)
        write_environment(home, seed=config.seed, say=log.write)
        world = make_world(config, spec, layout, roles, weights, home / "run.log", **own)
        try:
            meta = _load_shared(world, checkpoint, start, log.write)
            logger = _open_metrics(home, config, meta, log.write, hooks)
            conductor = Conductor(world, home, logger, log.write, meta, hooks)
            conductor.described = describe(config, layout) | noted(own)
            finished = _train(conductor, logger, checkpoint and checkpoint.absolute(), log, interrupts, hooks)
            announcements.say_goodbye(run, conductor, finished, log.write, draw, logger.status.eval_mean is not None)
            counted = (conductor.frames, conductor.agent_steps, conductor.updates)
            return RunResult(run, finished, *counted, logger.status.return_mean, logger.status.eval_mean)
        finally:
            interrupts.tell(None)
            world.close()


def _made(config: RunConfig, spec: EnvSpec, own: dict[str, Any], note: str, new: bool) -> tuple[RunConfig, Agent, str]:
    """The run's agent; the configuration with what could only be chosen with it, and ``note`` with lines on that and on
    the stem of a ``new`` run.
    """

    def make(device: str) -> Agent:
        return make_agent(config.agent_name, config.agent, spec, device, own.get("torso"), own.get("agent_factory"))

    chosen, *lines = choose_inference(config, spec, make)
    chosen, line = choose_envs(chosen, spec, make, own.get("env_factory"))
    agent = make("cpu")
    stem = begin_with_stem(config, agent.network) if new else []
    return chosen, agent, "\n".join(filter(None, (note, *lines, line, *stem)))


def _check_exact(config: RunConfig, factory: Callable[..., Any] | None) -> None:
    """Refuse environments that cannot be stepped as is asked for, and those that a deterministic run could not save."""
    for env in environments(config):
        if env.vectorised == "yes":
            announcements.steppings(config, env, factory)
    if is_deterministic(config):
        for env in {env.id: env for env in reversed(environments(config))}.values():
            check_exact(env, factory)


def _open_metrics(
    run: Path, config: RunConfig, meta: dict[str, Any], say: Callable[[str], None], hooks: HookCalls
) -> MetricLogger:
    """The run's metrics, cut back to where the checkpoint left them."""
    announcements.tell_of_schedule(config, meta, say)
    logger = MetricLogger(
        run,
        config.log,
        total_frames=config.total_frames,
        resume_offset=meta.get("metrics"),
        say=say,
        listen=hooks.line,
        games=config.env.ids,
    )
    hooks.begin(run, logger.seconds)
    return logger


def _train(
    conductor: Conductor,
    logger: MetricLogger,
    checkpoint: Path | None,
    log: RunLog,
    interrupts: Interrupts,
    hooks: HookCalls,
) -> bool:
    """Run the engine to the end, from where the conductor and the checkpoint are, and close the books.

    Whether the run has finished.
    """
    world, run = conductor.world, conductor.run
    conductor.post()
    interrupts.tell(conductor)
    config = world.config
    engine: Any = local if config.engine != "inline" else virtual if config.realtime.fps else inline
    ending, reason = "failed", ""
    try:
        finished = engine.run(world, conductor, checkpoint)
        ending, reason = _ending(conductor, finished)
    except EndNow:
        hooks.drop()
        log.write(
            f"ended without saving again; go on from the newest checkpoint with: {command('resume', run, vars(world))}"
        )
        raise
    except BaseException as error:
        reason = shown(error)
        _tell_of_error(error, log)
        if isinstance(error, RoleFailed) and newest(conductor.run) is not None:
            log.write(f"go on with: {command('resume', run, vars(world))}")
        raise
    finally:
        _write_ledger(world, logger)
        logger.close()
        hooks.end(conductor, ending, reason)
    world.store.check_ledger()
    if conductor.unsaved:
        raise CheckpointError(f"the run's end is not saved: {conductor.unsaved}")
    if hooks.failure is not None:
        _tell_of_hook(hooks.failure, conductor, log)
        raise hooks.failure
    return finished


def _ending(conductor: Conductor, finished: bool) -> tuple[str, str]:
    """How hooks are told that a run ended which no error did, and why."""
    if conductor.unsaved:
        return "failed", f"the run's end is not saved: {conductor.unsaved}"
    return ("finished", "") if finished else ("stopped", conductor.stop_reason or "")


def _tell_of_error(error: BaseException, log: RunLog) -> None:
    """Say why the run ends. Its traceback goes to run.log: to the terminal it comes with the exception itself."""
    if isinstance(error, RoleFailed | UserError | CheckpointError):
        log.write(f"the run ended with an error: {error}")
        return
    log.note("".join(traceback.format_exception(error)))
    log.write(f"the run ended with an error: {traceback.format_exception_only(error)[-1].strip()}")


def _tell_of_hook(failure: HookFailed, conductor: Conductor, log: RunLog) -> None:
    """Say that a hook has ended the run, which is saved, and how to go on."""
    _tell_of_error(failure, log)
    go_on = command("resume", conductor.run, vars(conductor.world))
    log.write(f"saved at {conductor.frames:,} frames; go on with: {go_on}")


def _load_shared(world: World, checkpoint: Path | None, start: Start, say: Callable[[str], None]) -> dict[str, Any]:
    """Put what belongs to nobody alone into shared memory: streams of a checkpoint. Returns its meta data."""
    announcements.tell_of_streams(world, say)
    world.init_from, world.init_optimiser = start
    if world.init_from is not None:
        what = "weights and its optimiser's statistics" if world.init_optimiser else "weights"
        say(f"starts from {world.init_from}, its {what}")
    if checkpoint is None:
        return {}
    parts, meta = load(find(checkpoint, only=("streams",)))
    streams = parts.get("streams")
    if streams is not None:
        prefix = "streams/"
        state = {name[len(prefix) :]: np.asarray(v) for name, v in streams.items() if name.startswith(prefix)}
        world.store.load_state(state)
    else:
        exact = ", so the run does not go on bit for bit" if is_deterministic(world.config) else ""
        say(f"the checkpoint holds no streams: actors start new episodes and replay starts empty{exact}")
    return meta


def _alone_in(run: Path) -> AbstractContextManager[None]:
    """No other process trains in this folder meanwhile."""
    start = shlex.join(["offbeat", "train", "PRESET", "--from", str(run)])
    return locked(
        run / ".lock",
        f"another process is training in {run}; wait for its end, or stop it with Ctrl-C",
        f"; a copy of it can go on, or start from its weights with: {start}",
    )


def _write_ledger(world: World, logger: MetricLogger) -> None:
    """Count every row of the run once more and write it down."""
    world.store.settle()
    ledger = {name: float(value) for name, value in world.store.ledger().items()}
    if (mirror := world.mirror) is not None and mirror.restarts:
        ledger |= {"learner_restarts": float(mirror.restarts), "lost_updates": float(mirror.lost_updates)}
    logger.record("supervisor", "ledger", ledger)
    if world.master is not None:
        counts = world.master.store().staleness()
        logger.record("supervisor", "staleness", {"counts": counts, "updates": sum(counts)})


def _write_config(run: Path, config: RunConfig, say: Callable[[str], None]) -> None:
    """The resolved configuration, whole or not at all. A resumed run whose disk is full keeps the one that it has."""
    draft, path = run / ".config.toml", run / "config.toml"
    try:
        draft.write_text(to_toml(config))
        os.replace(draft, path)
    except OSError as error:
        draft.unlink(missing_ok=True)
        if not path.exists():
            raise UserError(f"{path} cannot be written: {error.strerror or error}") from error
        say(f"{path} cannot be written ({error.strerror or error}): it keeps the options of the last start")
