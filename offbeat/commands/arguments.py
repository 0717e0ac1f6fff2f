"""Reading command lines: plain commands by argparse, commands that take every option of a run by ``scan``."""

from __future__ import annotations

import argparse
import importlib
import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.machinery import PathFinder
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from offbeat.config.known import find_options, suggest
from offbeat.config.options import FOLLOWERS, SHORT, all_options
from offbeat.config.schema import FALSE, TRUE
from offbeat.errors import HelpShown, UserError, nearest

if TYPE_CHECKING:
    from offbeat.config.run_config import RunConfig


class Parser(argparse.ArgumentParser):
    """argparse whose errors are single lines like all others, and that takes no abbreviations."""

    def __init__(self, command: str, summary: str) -> None:
        super().__init__(prog=f"offbeat {command}", description=summary, allow_abbrev=False)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """As argparse, but - and _ are the same in option names, and unknown options name the nearest."""
        spelt = [_dashed(arg) for arg in args or []]
        known, rest = super().parse_known_args(spelt, namespace)
        for arg in rest:
            if arg.startswith("-"):
                names = [name for action in self._actions for name in action.option_strings]
                raise UserError(f"unknown option {arg!r} of '{self.prog}'{nearest(arg, names)}")
        return known, rest

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        """Raise ``HelpShown``: argparse ends only after ``--help`` here, and SystemExit is what environments raise."""
        raise HelpShown(message or "")

    def error(self, message: str) -> NoReturn:
        """Raise ``UserError``."""
        raise UserError(f"{message} ('{self.prog} --help' shows how it is used)")


def _dashed(argument: str) -> str:
    """``--total_frames=5`` as ``--total-frames=5``; other arguments as they are."""
    name, equals, value = argument.partition("=")
    return name.replace("_", "-") + equals + value if name.startswith("--") else argument


@dataclass
class Scanned:
    """A command line of a command that takes run options."""

    positional: list[str]
    """Everything that is neither an option nor an option's value."""
    options: list[tuple[str, str]]
    """Options of the run in order: full name with underscores, text of the value."""
    own: dict[str, str]
    """The command's own options."""

    def value(self, name: str) -> str | None:
        """What an option of the run, by that very name, was given last; None if it was not."""
        given = [value for key, value in self.options if key == name]
        return given[-1] if given else None

    def switch(self, name: str) -> bool:
        """Whether one of the command's own switches is on."""
        value = self.own.get(name, "false").lower()
        if value not in TRUE + FALSE:
            raise UserError(f"--{name.replace('_', '-')} {value}: expected true or false")
        return value in TRUE

    def config(self, preset: str) -> RunConfig:
        """The preset with the options laid over it."""
        from offbeat.config.run_config import apply_overrides, load_preset

        return apply_overrides(load_preset(preset), self.options)


def scan(arguments: list[str], own: tuple[str, ...] = (), switches: tuple[str, ...] = ()) -> Scanned:
    """Split ``arguments``: ``--name value``, ``--name=value``, and ``--name`` alone for options that are true or false.

    ``own`` names the command's own options that take a value, ``switches`` those that are true or false.
    Raises ``UserError`` for unknown options, naming the nearest, and for missing values.
    """
    scanned = Scanned([], [], {})
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        if not argument.startswith("--"):
            if argument.startswith("-"):
                raise UserError(f"unknown option {argument!r}; options start with two dashes")
            scanned.positional.append(argument)
            continue
        name, equals, value = argument[2:].partition("=")
        name = name.replace("-", "_")
        if name not in own + switches:
            check_name(name, own + switches)
        if not equals:
            value = _switched(rest) if name in switches else _value(name, rest)
        if name in own + switches:
            scanned.own[name] = value
        else:
            scanned.options.append((name, value))
    return scanned


def run_options(arguments: list[str], own: tuple[str, ...] = ()) -> tuple[list[str], list[tuple[str, str]]]:
    """``arguments`` without ``--section.key value``, options of a run, and those: (full name, text of the value).

    ``own``: names of options that are the command's own.
    """
    whole = {option.name for option in all_options() if "." not in option.name} - set(own)
    return split_options(arguments, lambda name: "." in name or name in whole)


def split_options(arguments: list[str], wanted: Callable[[str], bool]) -> tuple[list[str], list[tuple[str, str]]]:
    """``arguments`` without the options of a run that are ``wanted``, and those: (full name, text of the value)."""
    others, found, rest = [], [], list(arguments)
    while rest:
        argument = rest.pop(0)
        name, equals, value = argument.removeprefix("--").partition("=")
        name = name.replace("-", "_")
        if not argument.startswith("--") or not wanted(name):
            others.append(argument)
            continue
        check_name(name)
        found.append((name, value if equals else _value(name, rest)))
    return others, found


def _value(name: str, rest: list[str]) -> str:
    """The value that follows option ``name``, taken from ``rest``; ``true`` where a switch stands alone."""
    if any(option.values == "true, false" for option in find_options(name)):
        return _switched(rest)
    if not rest or rest[0].startswith("--"):
        check_name(name)
        raise UserError(f"option --{name} needs a value")
    return rest.pop(0)


def _switched(rest: list[str]) -> str:
    """The value of a switch: what follows in ``rest`` where that is one, else ``true``."""
    return rest.pop(0) if rest and rest[0].lower() in TRUE + FALSE else "true"


def check_name(name: str, own: tuple[str, ...] = ()) -> None:
    """Refuse an option that no section has; those of agents are left to the agent that runs. ``own``: the command's
    own options, which are rather meant than a run's.
    """
    section, _, rest = name.partition(".")
    if section == "agent" and rest:
        return
    if not find_options(name) and name not in (*SHORT, *FOLLOWERS):
        meant = nearest(name, own, "--") or suggest(name)
        raise UserError(f"unknown option '--{name}'{meant}")


def add_env(parser: argparse.ArgumentParser) -> None:
    """The option of commands that go on with a run of a user's own environment; ``own_of`` reads it."""
    parser.add_argument(
        "--env", metavar="MODULE:NAME", help="makes the run's environment: module:function of your own, or module:Id"
    )


def own_of(options: argparse.Namespace) -> dict[str, Any]:
    """What ``--env`` hands over. UserError where it names nothing that could make an environment."""
    factory = env_factory(options.env)
    if options.env is not None and factory is None:
        raise UserError(f"--env {options.env}: expected module:function or module:Id, for the run's environment")
    return {"env_factory": factory}


FACTORY = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
"""What names a user's own environment on the command line: module:function. Ids of Gymnasium end in a version."""


def env_factory(text: str | None, said: str = "--env") -> Callable[..., Any] | None:
    """The environment's class or function that ``text``, given on the command line, names; what makes environments of
    an id with a module in it; None where it is another id.

    ``said``: what stands before it there, for messages. Modules are looked for in the working directory too. Only the
    command line names something to import, never a file.
    UserError where there is no such module or nothing of that name in it.
    """
    from offbeat.envs.base import SEPARATOR
    from offbeat.envs.module_ids import module_id
    from offbeat.envs.rtgym import with_clock

    if text is None:
        return None
    for game in text.split(SEPARATOR) if SEPARATOR in text else ():
        if module_id(game.strip()) is not None:
            raise UserError(
                f"{said} {text}: a list is of ids that need no import, and {game.strip()} names a module; register it "
                "by the entry point offbeat.envs of your package, or train on it alone"
            )
    _check_form(text, said)
    by_id = module_id(text)
    if by_id is None:
        return None
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    if not FACTORY.fullmatch(text):
        return by_id
    module, _, name = text.partition(":")
    try:
        found = with_clock(getattr(importlib.import_module(module), name))
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise UserError(f"{said} {text}: importing {module} failed: {error}") from error
        raise UserError(f"{said} {text}: there is no module {module!r} here or among what is installed") from None
    except AttributeError:
        raise UserError(f"{said} {text}: module {module!r} has no {name!r}") from None
    except Exception as error:  # of the module itself
        raise UserError(f"{said} {text}: importing {module} failed: {type(error).__name__}: {error}") from error
    if not callable(found):
        raise UserError(f"{said} {text}: expected a class or function that makes an environment, got {found!r}")
    made: Callable[..., Any] = found
    return made


def _check_form(text: str, said: str) -> None:
    """Refuse a file, and a module without what makes the environment in it: neither is an id. Nothing is imported."""
    from offbeat.envs.module_ids import OWN, module_id

    path, colon, name = text.partition(":")
    module, name = Path(path).name.removesuffix(".py"), name if name.isidentifier() else "function"
    wanted = f"module:function, such as {module if module.isidentifier() else 'my_module'}:{name}"
    if path.endswith(".py"):
        raise UserError(f"{said} {text} names a file: give {wanted}, from its folder or where it is installed")
    if colon and not text.startswith(OWN) and module_id(text) is None:
        raise UserError(f"{said} {text}: expected an id or {wanted}")
    if colon or not all(part.isidentifier() for part in text.split(".")):
        return
    module, dot, name = text.rpartition(".")
    if PathFinder.find_spec(text.partition(".")[0], [os.getcwd(), *sys.path]) is None:
        return
    from offbeat.envs.registry import exists

    if not exists(text):
        such = f"{module}:{name}" if dot else f"{text}:function"
        raise UserError(f"{said} {text} names a module, and no environment: give module:function, such as {such}")


def one_preset(scanned: Scanned, command: str) -> str:
    """The single positional argument, a preset. Raises ``UserError``."""
    if len(scanned.positional) != 1:
        got = f"got {len(scanned.positional)}: {' '.join(scanned.positional)}" if scanned.positional else "got none"
        raise UserError(f"'offbeat {command}' takes one preset, {got}; 'offbeat presets' lists them")
    return scanned.positional[0]


def result_file(scanned: Scanned) -> Path | None:
    """Where results are to be written as JSON, ``--json``. UserError where there is no such folder."""
    if "json" not in scanned.own:
        return None
    path = Path(scanned.own["json"])
    if not path.parent.is_dir() or path.is_dir():
        raise UserError(f"--json={str(path)!r} cannot be written: name a file in a folder that exists")
    return path


def number(scanned: Scanned, name: str, default: float) -> float:
    """One of a command's own options, a number above zero. Raises ``UserError``."""
    text = scanned.own.get(name)
    if text is None:
        return default
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise UserError(f"--{name}={text!r} is not a number above 0")
    return number


def valued(arguments: list[str], name: str, value: str) -> list[str]:
    """``arguments`` with ``--name`` alone as ``--name=value``, where no value follows it."""
    after = [*arguments, "--"][1:]
    alone = [one == f"--{name}" and following.startswith("--") for one, following in zip(arguments, after, strict=True)]
    return [f"--{name}={value}" if bare else one for one, bare in zip(arguments, alone, strict=True)]
