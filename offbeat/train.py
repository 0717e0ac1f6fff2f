"""Training: puts a run together from its configuration, runs it on an engine, and leaves a folder that says
everything.
"""

from __future__ import annotations

import fcntl
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from time import time
from types import FrameType
from typing import Any

import numpy as np

from offbeat.agents.make import make_agent
from offbeat.auto import decide
from offbeat.checkpoint import CheckpointError, load, newest
from offbeat.config import RunConfig, read_config, to_toml
from offbeat.envs.registry import env_spec
from offbeat.errors import UserError
from offbeat.metrics import MetricLogger
from offbeat.networks.flat import flat_size
from offbeat.provenance import write_environment
from offbeat.runlog import open_log
from offbeat.runtime.conductor import Conductor
from offbeat.runtime.engines import inline, local
from offbeat.runtime.world import World, make_world, plan_layout
from offbeat.validation import check_resources, check_run_folder, validate

PROCESS_BYTES = 350 * 2**20
"""Memory of one role process before it does anything: Python, torch, an emulator. Measured on Linux."""


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


def train(
    config: RunConfig,
    *,
    init_from: Path | None = None,
    env_factory: Callable[..., Any] | None = None,
    agent_factory: Callable[..., Any] | None = None,
) -> RunResult:
    """Train in a new run folder.

    Args:
        config: the run.
        init_from: another run whose newest weights this one starts from.
        env_factory: a user's own environment (see ``offbeat.envs.registry.make_env``); must be importable by processes.
        agent_factory: a user's own agent: called with (agent config, EnvSpec, device).

    Raises ``UserError`` before anything is spawned if the run cannot work.
    """
    validate(config, env_factory=env_factory)
    run = Path(config.out) if config.out else default_folder(config.env.id)
    check_run_folder(run)
    own = {"env_factory": env_factory, "agent_factory": agent_factory}
    return _run(decide(replace(config, out=str(run))), run, checkpoint=None, init_from=init_from, own=own)


def resume(run: Path, total_frames: int | None = None, **own: Any) -> RunResult:
    """Go on with a run from its newest checkpoint; ``total_frames`` gives it a new length."""
    run = Path(run)
    path = run / "config.toml"
    if not path.exists():
        raise UserError(f"{run} is no run folder: it has no config.toml; 'offbeat train' makes run folders")
    config = replace(read_config(path), out=str(run))
    if total_frames is not None:
        config = replace(config, total_frames=total_frames)
    validate(config, new_run=False, env_factory=own.get("env_factory"))
    found = newest(run, report=lambda text: print(f"offbeat: {text}", file=sys.stderr))
    if found is None:
        raise UserError(f"{run} has no complete checkpoint to resume from; start it again with 'offbeat train'")
    return _run(config, run, checkpoint=run, init_from=None, own=own)


def default_folder(env_id: str) -> Path:
    """``results/<environment>_<unix time>``, with a number behind it if that is taken."""
    name = "".join(letter if letter.isalnum() or letter in "-." else "_" for letter in env_id)
    folder = Path("results") / f"{name}_{int(time())}"
    number = 2
    while folder.exists():
        folder = folder.with_name(f"{name}_{int(time())}_{number}")
        number += 1
    return folder


def _run(
    config: RunConfig, run: Path, *, checkpoint: Path | None, init_from: Path | None, own: dict[str, Any]
) -> RunResult:
    """Everything between a checked configuration and the result."""
    spec = env_spec(config.env, own.get("env_factory"))
    maker = own.get("agent_factory")
    agent = maker(config.agent, spec, "cpu") if maker else make_agent(config.agent_name, config.agent, spec, "cpu")
    layout = plan_layout(config, spec, agent)
    weights = flat_size(agent.network)
    processes = 1 if config.engine == "inline" else 3 + config.actor.workers
    check_resources(config, layout.nbytes() + 16 * weights * 4, run, roles_bytes=processes * PROCESS_BYTES)
    run.mkdir(parents=True, exist_ok=True)
    with _alone_in(run), closing(open_log(run, "main", echo=sys.stdout)) as log, _signals(log.write) as interrupts:
        log.write(f"{'resuming' if checkpoint else 'run'} {run}")
        log.write(f"{config.agent_name} with {weights:,} weights on {spec.id}; {layout.describe()}")
        _write_config(run, config)
        write_environment(run, seed=config.seed)
        world = make_world(config, spec, layout, weights, run / "run.log", **own)
        meta = _load_shared(world, checkpoint, init_from)
        logger = MetricLogger(
            run,
            config.log,
            total_frames=config.total_frames,
            frame_skip=spec.frame_skip,
            resume_offset=meta.get("metrics"),
        )
        conductor = Conductor(world, run, logger, log.write, meta)
        interrupts.tell(conductor)
        engine = inline if config.engine == "inline" else local
        try:
            finished = engine.run(world, conductor, checkpoint)
        except KeyboardInterrupt:
            log.write(f"ended without saving again; go on from the newest checkpoint with: offbeat resume {run}")
            raise
        except BaseException as error:
            log.write(f"the run ended with an error: {error}")
            raise
        finally:
            _write_ledger(world, logger)
            logger.close()
        world.store.check_ledger()
        if conductor.unsaved:
            raise CheckpointError(f"the run's end is not saved: {conductor.unsaved}")
        _say_goodbye(run, conductor, finished, log.write)
        return _result(run, conductor, finished)


def _result(run: Path, conductor: Conductor, finished: bool) -> RunResult:
    """What the caller of a run is told."""
    status = conductor.logger.status
    return RunResult(
        run, finished, conductor.frames, conductor.agent_steps, conductor.updates, status.return_mean, status.eval_mean
    )


def _load_shared(world: World, checkpoint: Path | None, init_from: Path | None) -> dict[str, Any]:
    """Put what belongs to nobody alone into shared memory: streams of a checkpoint. Returns its meta data."""
    world.init_from = init_from
    if checkpoint is None:
        return {}
    found = newest(checkpoint)
    assert found is not None
    parts, meta = load(found)
    streams = parts.get("streams")
    if streams is not None:
        prefix = "streams/"
        state = {name[len(prefix) :]: np.asarray(v) for name, v in streams.items() if name.startswith(prefix)}
        world.store.load_state(state)
    return meta


@contextmanager
def _alone_in(run: Path) -> Iterator[None]:
    """No other process trains in this folder meanwhile; the lock ends with the process, however that ends."""
    with (run / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"another process is training in {run}; wait for its end, or stop it with Ctrl-C") from None
        yield


class _Interrupts:
    """Ctrl-C and SIGTERM save and end the run; a second one ends it without waiting for that."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._received: list[str] = []
        self._conductor: Conductor | None = None

    def handle(self, number: int, frame: FrameType | None) -> None:
        """What Python calls between two instructions of the main thread."""
        self._received.append(signal.Signals(number).name)
        if len(self._received) == 1:
            if self._conductor is not None:
                self._conductor.ask_to_stop(self._received[0])
            self._say(f"{self._received[0]}: saving, then stopping; once more ends the run at once")
        elif len(self._received) == 2:
            raise KeyboardInterrupt

    def tell(self, conductor: Conductor) -> None:
        """Whom to ask from now on; also passes on a signal that came before."""
        self._conductor = conductor
        if self._received:
            conductor.ask_to_stop(self._received[0])


@contextmanager
def _signals(say: Callable[[str], None]) -> Iterator[_Interrupts]:
    """The signals of this process go to the object that this gives."""
    interrupts = _Interrupts(say)
    try:
        before = {number: signal.signal(number, interrupts.handle) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not the main thread: the caller's signals are its own
        before = {}
    try:
        yield interrupts
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _write_ledger(world: World, logger: MetricLogger) -> None:
    """Count every row of the run once more and write it down."""
    world.store.settle()
    logger.record("supervisor", "ledger", {name: float(value) for name, value in world.store.ledger().items()})


def _write_config(run: Path, config: RunConfig) -> None:
    """The resolved configuration, whole or not at all."""
    draft = run / ".config.toml"
    draft.write_text(to_toml(config))
    os.replace(draft, run / "config.toml")


def _say_goodbye(run: Path, conductor: Conductor, finished: bool, say: Callable[[str], None]) -> None:
    """The last lines: where results lie and how to go on."""
    if not finished:
        say(f"stopped ({conductor.stop_reason}) and saved at {conductor.frames:,} frames")
        say(f"go on with: offbeat resume {run}")
        return
    say(f"finished: {conductor.frames:,} frames, {conductor.updates:,} updates; everything is in {run}")
    try:
        from offbeat.plot import plot_run

        say(f"curve: {plot_run(run)}")
    except (ImportError, OSError) as error:
        say(f"the curve could not be drawn: {error}")
    say(f"score it:     offbeat eval {run} --episodes 20")
    say(f"watch it:     offbeat record {run}")
    say(f"train longer: offbeat resume {run} --total-frames {2 * conductor.world.config.total_frames}")
