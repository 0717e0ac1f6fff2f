"""``offbeat play``: watch a run in a window, or play an environment by hand, and record what was played."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from offbeat.commands.arguments import Parser, env_factory, split_options
from offbeat.errors import UserError
from offbeat.run.folders import find_run

if TYPE_CHECKING:
    from offbeat.envs.base import EnvConfig
    from offbeat.report.by_hand import Chooser
    from offbeat.report.pictures import Camera
    from offbeat.run.load import Restored


def play(arguments: list[str]) -> int:
    """Watch a run, where there is one of that name; else play that environment."""
    from offbeat.commands.scores import watch

    named = [text for before, text in zip(["", *arguments], arguments) if before != "--policy"]
    if any(not text.startswith("-") and Path(text).expanduser().is_dir() for text in named):
        return watch(arguments)
    if set(arguments) & {"--help", "-h"}:
        print(_parser().format_help())
        return watch(["--help"])  # what there is for a run
    if not arguments:
        raise UserError("'offbeat play' takes a run folder, to watch it, or an environment, to play it; got nothing")
    return _play(*_options(arguments))


def _parser() -> Parser:
    parser = Parser("play", "Play an environment by hand, in a terminal, and record it as a demonstration.")
    parser.add_argument("env", metavar="ENV", help="as of 'offbeat train --env': an id, or module:function of your own")
    parser.add_argument("--record-demo", type=Path, metavar="FILE", help="write what was played to this file")
    parser.add_argument("--fps", type=float, help="actions per second; default: the speed that people play at")
    parser.add_argument("--policy", metavar="RUN", help="have a trained run play, in its own environment's options")
    parser.add_argument("--actions", type=Path, metavar="FILE", help="have this list of actions played: numbers, names")
    parser.add_argument("--preset", help="play with the options that this preset has for its environment")
    parser.add_argument("--episodes", type=int, default=0, help="end after so many; default: 1 with --policy, else any")
    parser.add_argument("--steps", type=int, default=0, help="end after so many actions; default: any number")
    parser.add_argument("--noop", type=int, help="action while no key is held; default: the one that is called so")
    parser.add_argument("--seed", type=int, default=0, help="of the environment and drawn actions; default: 0")
    parser.add_argument("--sampled", action="store_true", help="with --policy: drawn actions, not the best")
    parser.add_argument("--epsilon", type=float, default=0.0, help="with --policy: share of random actions; default: 0")
    parser.add_argument("--played-by", default="", help="who plays, for the demonstration; default: a person, or what")
    parser.epilog = (
        "--env.KEY VALUE sets an option of the environment. Keys are those of the actions' names where the environment "
        "names them (arrows or wasd, space: FIRE, x: A, z: B), and 0 to 9 always. q or Ctrl-C ends the game; whole "
        "episodes and the part of one that was played are kept."
    )
    return parser


def _options(arguments: list[str]) -> tuple[argparse.Namespace, list[tuple[str, str]]]:
    """The command's own options, and those of the environment."""
    others, over = split_options(arguments, lambda name: name.startswith("env."))
    options = _parser().parse_args(others)
    if options.policy and options.actions:
        raise UserError("--policy and --actions both say who plays; give one of them")
    for name, value in (("fps", options.fps), ("episodes", options.episodes), ("steps", options.steps)):
        if value is not None and (not 0 <= value < float("inf") or (name == "fps" and value == 0)):
            raise UserError(
                f"--{name}={value:g} is out of range; allowed: {'above 0' if name == 'fps' else '0 and up'}"
            )
    if not 0 <= options.epsilon <= 1:
        raise UserError(f"--epsilon={options.epsilon:g} is out of range; allowed: 0 to 1")
    return options, over


def _play(options: argparse.Namespace, over: list[tuple[str, str]]) -> int:
    from offbeat.acting.demonstrating import Recorder, facts_of
    from offbeat.envs.closing import closed_after
    from offbeat.report.by_hand import play_on
    from offbeat.report.pictures import open_camera
    from offbeat.run.written import draft_of
    from offbeat.runtime.forking import handle_here
    from offbeat.storage.demonstrations import write_demonstration

    if options.record_demo is not None:
        draft_of(options.record_demo).unlink()  # says before anything is played where it cannot be written
    factory = env_factory(options.env)
    restored = _restored(options, factory)
    config = _config(options, over, restored, factory)
    recorder, stopped = Recorder(), list[int]()
    camera = open_camera(config, factory, _note)
    spec = camera.env.spec
    if spec.action.kind != "discrete" or spec.players > 1:
        raise UserError(
            f"{config.id} has {spec.action.kind} actions for {spec.players} player(s); what can be played here has one "
            "player who chooses one of several actions"
        )
    with ExitStack() as stack:
        stack.enter_context(closed_after(camera.env, config.id, _note))
        chooser, who = _chooser(options, camera, restored, stack, lambda: bool(stopped))
        for number, handler in handle_here([signal.SIGINT], lambda number, frame: stopped.append(number)).items():
            stack.callback(signal.signal, number, handler)
        episodes = options.episodes or int(bool(options.policy) and not options.steps)
        taken = [0]

        def stop() -> bool:
            taken[0] += 1
            return bool(stopped) or 0 < options.steps < taken[0]

        played = play_on(camera.env, chooser, episodes=episodes, seed=options.seed, recorder=recorder, stop=stop)
    returns = ", ".join(f"{value:g}" for value in played.returns[-20:])
    print(
        f"played {played.steps:,} actions; {len(played.returns)} episodes ended" + (f": {returns}" if returns else "")
    )
    if options.record_demo is None:
        return 0
    made = recorder.demonstration(
        facts_of(config, spec, options.seed, options.played_by or who) | {"returns": played.returns}
    )
    if made is None:
        raise UserError("nothing was played, so that there is no demonstration to write")
    file = write_demonstration(options.record_demo, made)
    cut = " (the last one broken off)" if made.facts["broken_off"] else ""
    print(f"{file}: {made.transitions:,} actions of {made.episodes} episodes{cut}, played by {made.facts['played_by']}")
    return 0


def _restored(options: argparse.Namespace, factory: Any) -> Restored | None:
    """The run that plays, if one does."""
    if not options.policy:
        return None
    from offbeat.run.load import restore

    return restore(find_run(options.policy), **({} if factory is None else {"env_factory": factory}))


def _config(
    options: argparse.Namespace, over: list[tuple[str, str]], restored: Restored | None, factory: Any
) -> EnvConfig:
    """The environment's options: those of the run that plays or of the preset, and what is laid over them."""
    from offbeat.config import schema
    from offbeat.config.fitting import fitted
    from offbeat.config.run_config import apply_overrides, load_preset
    from offbeat.envs.base import EnvConfig
    from offbeat.envs.delay import undelayed

    label = options.env if factory is None else str(getattr(factory, "__name__", "own"))
    base = EnvConfig(id=label)
    if options.preset:
        named = [("env.id", label)]  # switches of the preset's own environment that mean nothing to this one are left
        base = fitted(apply_overrides(load_preset(options.preset), named), ["env.id"], factory).env
    elif restored is not None:
        base = restored.config.env
        if base.id.lower() != label.lower():
            raise UserError(f"--policy {options.policy} was trained on {base.id}, not on {label}")
    base = undelayed(base)
    if base.ids:
        raise UserError(f"{base.id}: what is played here is one game, and this is a list of {len(base.ids)}")
    return schema.update(replace(base, id=label), {name.removeprefix("env."): value for name, value in over}, "env")


def _chooser(
    options: argparse.Namespace,
    camera: Camera,
    restored: Restored | None,
    stack: ExitStack,
    stop: Callable[[], bool],
) -> tuple[Chooser, str]:
    """Who plays, and what they are called in a demonstration."""
    from offbeat.envs.meanings import action_meanings
    from offbeat.report.by_hand import Hand, Script, read_actions
    from offbeat.report.keys import Bindings, raw_keyboard

    meanings, count = action_meanings(camera.env), camera.env.spec.action.num_actions
    if restored is not None:
        from offbeat.report.by_agent import Trained

        said = f"agent {restored.config.agent_name} after {restored.agent_steps:,} agent steps"
        drawn = f", {options.epsilon:g} of its actions random" if options.epsilon else ""
        played = Trained(
            restored.agent, camera.env.spec, greedy=not options.sampled, epsilon=options.epsilon, seed=options.seed
        )
        return played, f"{said}{drawn}"
    if options.actions is not None:
        return Script(read_actions(options.actions, meanings, count)), f"a list of actions, {options.actions.name}"
    if options.noop is not None and not 0 <= options.noop < count:
        raise UserError(f"--noop={options.noop} is out of range; allowed: 0 to {count - 1}")
    bindings = Bindings(meanings, count, options.noop)
    keyboard = stack.enter_context(raw_keyboard())
    fps = options.fps or camera.fps
    sys.stdout.write("\x1b[2J")
    stack.callback(sys.stdout.write, "\x1b[0m\n")
    return Hand(camera, keyboard, bindings, sys.stdout, fps, f"{camera.env.spec.id}  ", stop=stop), "a person"


def _note(line: str) -> None:
    print(f"offbeat: {line}", file=sys.stderr)
