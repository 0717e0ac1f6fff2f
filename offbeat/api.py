"""The Python interface: the same names and options as the command line."""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from offbeat.errors import UserError
from offbeat.run.folders import find_run, find_weights
from offbeat.run.hooks import Call

if TYPE_CHECKING:
    import gymnasium

    from offbeat.acting.env_report import EnvReport
    from offbeat.acting.scores import Evaluation
    from offbeat.config.run_config import RunConfig
    from offbeat.networks.own_torso import TorsoFactory
    from offbeat.run.capture import Captured
    from offbeat.run.load import LoadedAgent
    from offbeat.run.train import RunResult
    from offbeat.scoring.sets import SetScores
    from offbeat.serving.server import Server


def check_env(
    env: str | Callable[..., Any] | gymnasium.Env[Any, Any],
    *,
    steps: int = 300,
    seconds: float = 10.0,
    seed: int = 0,
    **switches: Any,
) -> EnvReport:
    """Whether an environment can be trained on: plays it for a moment as a run would, and says what it is, what is
    wrong with it, and how to mend that. ``print`` the report; it has ``ok``, ``errors``, ``warnings`` and ``facts``.

    Args:
        env: an id, what makes the environment (as ``env_factory`` of ``train``), or one environment, which is played
            and not closed.
        steps: random steps of the longest of three trials.
        seconds: about how long they may take together.
        switches: options of ``env`` as in a run, such as ``max_steps=500`` or ``channels="last"``.

    Raises:
        UserError: there is no environment of that id, or no such switch.
    """
    import gymnasium

    from offbeat.acting.env_check import check_env as check
    from offbeat.config import schema
    from offbeat.envs.base import EnvConfig
    from offbeat.envs.module_ids import module_id
    from offbeat.envs.rtgym import with_clock
    from offbeat.run.own import check_factory

    if isinstance(env, str):
        by_id: Any = module_id(env)
        given, name = by_id, env
    else:
        given = with_clock(env)
        name = getattr(given, "__name__", type(env).__name__)
    if not isinstance(given, gymnasium.Env):
        check_factory(given, "env must be an id, an environment, or")
    config = schema.build(EnvConfig, {"id": name, **switches}, "env")
    return check(config, given, steps=steps, seconds=seconds, seed=seed)


def train(
    preset: str | Path | RunConfig,
    *,
    from_run: str | Path | None = None,
    with_optimiser: bool = False,
    env_factory: Callable[..., Any] | None = None,
    agent_factory: Callable[..., Any] | None = None,
    torso: TorsoFactory | None = None,
    on_evaluation: Call | None = None,
    on_checkpoint: Call | None = None,
    on_metrics: Call | None = None,
    **overrides: Any,
) -> RunResult:
    """Train a preset (name or .toml file) or a configuration, and return the run's result once it has ended.

    Args:
        from_run: start from the newest weights of this run, in a folder of its own; or from those of one of its
            checkpoints, named by its folder (``RUN/checkpoints/best``).
        with_optimiser: take over the optimiser's statistics of ``from_run`` too.
        env_factory: an environment of your own: a class or function without arguments that gives a ``gymnasium.Env``,
            or one that takes ``num_envs`` or (config, num_envs, ...) and gives a vector environment. Processes import
            it by its name.
        agent_factory: an agent of your own, called with (agent config, EnvSpec, device).
        torso: a torso of your own for offbeat's agents: a function of the observations' specs, key -> ``ArraySpec``,
            that gives a ``torch.nn.Module`` with ``output_size``, from observations, key -> [T, B, ...], to features
            [T, B, output_size]. Processes import it by its name.
        on_evaluation, on_checkpoint, on_metrics: functions that this process calls after each evaluation, checkpoint,
            or line of metrics.jsonl, with one dict of plain data; docs/runtime.md lists what is in it. One that returns
            ``offbeat.STOP`` ends the run as Ctrl-C does; one that raises too, and then ``HookFailed`` is raised here.
        overrides: options as on the command line; ``learner__batch_size=16`` stands for ``learner.batch_size``,
            ``env="Breakout"`` for ``env.id``. A dict sets several of a section: ``learner={"batch_size": 16}``.

    Raises:
        UserError: the configuration cannot run here. Nothing has been started then.
    """
    from offbeat.run.train import train as start

    config, own = _new_run(preset, overrides, env_factory)
    source = None if from_run is None else find_weights(from_run)
    own |= {"agent_factory": agent_factory, "torso": torso}
    hooks = {"on_evaluation": on_evaluation, "on_checkpoint": on_checkpoint, "on_metrics": on_metrics}
    return start(config, init_from=source, init_optimiser=with_optimiser, draw=_curve, hooks=hooks, **own)


def capture(
    preset: str | Path | RunConfig,
    *,
    batches: int = 3,
    after: int = 0,
    from_run: str | Path | None = None,
    with_optimiser: bool = False,
    env_factory: Callable[..., Any] | None = None,
    agent_factory: Callable[..., Any] | None = None,
    torso: TorsoFactory | None = None,
    **overrides: Any,
) -> Captured:
    """The next ``batches`` that the learner of a preset would be trained on, as its agent's ``loss`` gets them, and the
    agent: for notebooks. Everything happens in this process, and no folder is made.

    Args:
        after: updates that are made before.
        others: as of ``train``.

    Raises:
        UserError: the configuration cannot run here, it is over before, or no batch ever comes.
    """
    from offbeat.run.capture import capture as start

    config, own = _new_run(preset, overrides, env_factory)
    source = None if from_run is None else find_weights(from_run)
    own |= {"agent_factory": agent_factory, "torso": torso}
    return start(config, batches=batches, after=after, init_from=source, init_optimiser=with_optimiser, **own)


def resume(
    run: str | Path,
    total_frames: int | None = None,
    *,
    device: str | None = None,
    env_factory: Callable[..., Any] | None = None,
    agent_factory: Callable[..., Any] | None = None,
    torso: TorsoFactory | None = None,
    on_evaluation: Call | None = None,
    on_checkpoint: Call | None = None,
    on_metrics: Call | None = None,
    **changes: Any,
) -> RunResult:
    """Go on with a run (or the newest run in a folder of runs); ``total_frames`` gives it a new length, ``device``
    another device for all of its networks.

    ``changes``: other options that may differ from now on, as of ``train``: ``evaluation``, ``log``, ``checkpoint``,
    threads, ``learner__learning_rate`` and the like. UserError, with the reason, for the rest.

    A run of your own environment, agent or torso needs the same ``env_factory``, ``agent_factory`` or ``torso`` again.
    ``on_evaluation``, ``on_checkpoint`` and ``on_metrics`` are as of ``train``; nothing asks for them again.
    """
    from offbeat.run.train import resume as go_on

    own = _own(env_factory=env_factory, agent_factory=agent_factory, torso=torso)
    hooks = {"on_evaluation": on_evaluation, "on_checkpoint": on_checkpoint, "on_metrics": on_metrics}
    return go_on(find_run(run), total_frames, device=device, changes=_flat(changes), draw=_curve, hooks=hooks, **own)


def load(
    run: str | Path,
    *,
    greedy: bool = True,
    seed: int = 0,
    device: str = "cpu",
    checkpoint: str | Path | None = None,
    env_factory: Callable[..., Any] | None = None,
    torso: TorsoFactory | None = None,
    agent_factory: Callable[..., Any] | None = None,
) -> LoadedAgent:
    """The agent of a run with its newest weights, ready to act: ``offbeat.load(run).act(observation)``.

    Args:
        run: run folder, or a folder of runs (the newest is taken).
        greedy: the most probable action, else one drawn with ``seed``.
        checkpoint: other weights than the newest: ``best`` (of all validations), ``extra``, agent steps as text, or the
            folder of a checkpoint.
        env_factory, torso, agent_factory: those that the run was trained with, if they were your own.

    Raises:
        UserError: there is no run, or no complete checkpoint in it.
    """
    from offbeat.run.load import load as load_run

    own = _own(env_factory=env_factory, agent_factory=agent_factory, torso=torso)
    return load_run(run, greedy=greedy, seed=seed, device=device, checkpoint=checkpoint, **own)


def evaluate(
    run: str | Path,
    *,
    episodes: int = 10,
    policy: str | None = None,
    seed: int = 0,
    checkpoint: str | Path | None = None,
    trace: str | Path | None = None,
    env_factory: Callable[..., Any] | None = None,
    torso: TorsoFactory | None = None,
    agent_factory: Callable[..., Any] | None = None,
) -> Evaluation:
    """Play whole episodes with a run's newest weights and score them by raw reward.

    ``policy``: ``greedy`` or ``sampled``; None: as the run's own evaluations. ``trace``: file (``.trace``) or folder
    for every action, reward and score, which ``offbeat verify score`` plays again. ``checkpoint``, ``env_factory``,
    ``torso`` and ``agent_factory``: as of ``load``.
    """
    from offbeat.scoring.evaluate import evaluate_run

    own = _own(env_factory=env_factory, agent_factory=agent_factory, torso=torso)
    where = None if trace is None else Path(trace)
    return evaluate_run(find_run(run), episodes, policy, seed, checkpoint=checkpoint, trace=where, **own)


def evaluate_sets(
    run: str | Path,
    *,
    policy: str | None = None,
    seed: int = 0,
    checkpoint: str | Path | None = None,
    env_factory: Callable[..., Any] | None = None,
    torso: TorsoFactory | None = None,
    agent_factory: Callable[..., Any] | None = None,
    **overrides: Any,
) -> SetScores:
    """Score a run's newest weights on each set of environments that its section ``[final]`` names; ``print`` the
    result's ``table()``.

    ``policy``: None: ``final.policy``. ``overrides``: other options of ``final`` and ``final_env``, as of ``train``:
    ``final__sets=5``. ``seed``: added to that of each set. The rest as of ``evaluate``.
    """
    from offbeat.scoring.sets import evaluate_sets as play

    own = _own(env_factory=env_factory, agent_factory=agent_factory, torso=torso)
    given: dict[str, Any] = {"policy": policy, "seed": seed, "checkpoint": checkpoint, "options": _flat(overrides)}
    return play(find_run(run), **given, **own)


def record(
    run: str | Path,
    out: Path | None = None,
    *,
    format: str = "mp4",
    episodes: int = 1,
    max_seconds: float = 120.0,
    checkpoint: str | Path | None = None,
    env_factory: Callable[..., Any] | None = None,
    torso: TorsoFactory | None = None,
    agent_factory: Callable[..., Any] | None = None,
) -> Path:
    """Film whole episodes played with a run's newest weights; returns the file.

    ``max_seconds``: the film ends there, even in the middle of an episode. ``checkpoint``, ``env_factory``, ``torso``,
    ``agent_factory``: as of ``load``.
    """
    from offbeat.report.record import record_run

    own = _own(env_factory=env_factory, agent_factory=agent_factory, torso=torso)
    return record_run(find_run(run), out, format, episodes, max_seconds=max_seconds, checkpoint=checkpoint, **own)


def plot(*runs: str | Path, out: Path | None = None) -> Path:
    """Draw the curves of runs as one PNG; returns the file."""
    from offbeat.report.plot import plot_runs

    return plot_runs([find_run(run) for run in runs], out)


def write_report(*runs: str | Path, out: Path | None = None) -> Path:
    """Write one HTML file that shows runs (``offbeat report``; see docs/report.md); returns the file."""
    from offbeat.report.page import write_page

    return write_page([find_run(run) for run in runs], out)


def export(
    run: str | Path,
    out: str | Path | None = None,
    *,
    format: str | None = None,
    check: int = 100,
    checkpoint: str | Path | None = None,
    env_factory: Callable[..., Any] | None = None,
    torso: TorsoFactory | None = None,
    agent_factory: Callable[..., Any] | None = None,
) -> Path:
    """Write a run's newest network to a file that runs without offbeat; returns the file.

    ``format``: ``pt2`` (torch.export) or ``onnx``; None: ONNX if ``out`` ends in .onnx, else pt2. ``check``: on so many
    observations of the run's environment it must do what the agent does, else UserError and no file; 0: unchecked.
    ``checkpoint``, ``env_factory``, ``torso``, ``agent_factory``: as of ``load``.
    """
    from offbeat.run.export import export_run

    own = _own(env_factory=env_factory, agent_factory=agent_factory, torso=torso)
    given: dict[str, Any] = {"format": format, "check": check, "checkpoint": checkpoint, **own}
    return export_run(find_run(run), None if out is None else Path(out), **given)


def serve(
    run: str | Path,
    *,
    path: str | Path | None = None,
    tcp: str | None = None,
    token: str = "",
    clients: int = 16,
    policy: str | None = None,
    checkpoint: str | Path | None = None,
    env_factory: Callable[..., Any] | None = None,
    torso: TorsoFactory | None = None,
    agent_factory: Callable[..., Any] | None = None,
    **more: Any,
) -> Server:
    """A server of a run's newest weights that listens already; its ``run()`` serves until another thread calls its
    ``stop()``. Clients use ``offbeat.serving.client.Client``; docs/serve.md.

    ``path``: of the Unix socket; None: RUN/serve.sock. ``tcp``: HOST:PORT instead, which needs a ``token``. ``policy``:
    as of ``evaluate``. ``more``: ``seed``, ``device``, ``remote``, ``say``.
    """
    from offbeat.serving.start import open_server

    more |= _own(env_factory=env_factory, agent_factory=agent_factory, torso=torso)
    more |= {"path": None if path is None else Path(path), "tcp": tcp, "token": token}
    return open_server(find_run(run), clients=clients, policy=policy, checkpoint=checkpoint, **more)[0]


def _new_run(
    preset: str | Path | RunConfig, overrides: dict[str, Any], env_factory: Callable[..., Any] | None
) -> tuple[RunConfig, dict[str, Any]]:
    """The configuration of a new run; what makes its environment, and the names of the options that were given."""
    from offbeat.config.run_config import RunConfig, apply_overrides, full_name, load_preset
    from offbeat.run.own import factory_beside

    config = preset if isinstance(preset, RunConfig) else load_preset(preset)
    _check_words(overrides)
    pairs = _flat(overrides)
    ids = [value for name, value in pairs if full_name(name) == "env.id"]
    env_factory = factory_beside(ids[-1] if ids else None, env_factory)
    if env_factory is not None:  # the run's files name it, not the preset's environment
        pairs.insert(0, ("env", getattr(env_factory, "__name__", "own")))
    config = apply_overrides(config, pairs)
    return config, {"env_factory": env_factory, "given": [name for name, _ in pairs]}


def _check_words(overrides: dict[str, Any]) -> None:
    """Refuse what is no option, but nearly an argument of ``train``. UserError names it."""
    from offbeat.config.options import all_options
    from offbeat.config.run_config import SECTIONS, TOP

    words = [name for name in train.__annotations__ if name not in ("preset", "overrides", "return")]
    for name in overrides.keys() - {*SECTIONS, *TOP}:
        meant = get_close_matches(name, words, n=1, cutoff=0.75)
        if meant and name.replace("__", ".") not in {option.name for option in all_options()}:
            raise UserError(f"unknown argument {name!r}; did you mean {meant[0]!r}?")


def _own(**given: Any) -> dict[str, Any]:
    """What a user hands over. UserError for an ``env_factory`` that is none."""
    from offbeat.envs.rtgym import with_clock
    from offbeat.run.own import check_factory

    given["env_factory"] = with_clock(given["env_factory"])
    check_factory(given["env_factory"])
    return given


def _curve(run: Path) -> Path:
    """Draw the curve of a run that has finished."""
    from offbeat.report.plot import plot_run

    return plot_run(run)


def _flat(overrides: dict[str, Any]) -> list[tuple[str, Any]]:
    """Overrides as (full name, value) pairs."""
    pairs = []
    for name, value in overrides.items():
        name = name.replace("__", ".")
        if isinstance(value, dict):
            pairs += [(f"{name}.{key}", item) for key, item in value.items()]
        else:
            pairs.append((name, value))
    return pairs
