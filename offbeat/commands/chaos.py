"""The command ``chaos``: everything that docs/faults.md promises, tried on a preset of the user's."""

from __future__ import annotations

import sys
from pathlib import Path

from offbeat.commands.arguments import env_factory, one_preset, scan
from offbeat.errors import UserError

CHAOS = """usage: offbeat chaos PRESET [--only NAME ...] [--out DIR] [--option value ...]
       offbeat chaos --list

Train PRESET for real and make happen what can go wrong, one fault after the other: roles and the command itself are
killed and stopped, environments raise and hang, files are torn, disks are full, terminals go away. A line for each says
whether docs/faults.md's promise was kept, and what that rests on; so it takes some minutes, more for large networks.

--list   print the faults and their promises, and what is not made to happen here
--only   these faults only
--out    folder of the runs, kept; without it they lie in a temporary one, kept where a promise was broken

Options of a run are those of 'offbeat train'. Exit code: 0, or 1 where a promise was broken. On Linux only."""


def chaos(arguments: list[str]) -> int:
    """Break runs of a preset in every way; 1 where a promise is broken."""
    if "--help" in arguments or "-h" in arguments:
        print(CHAOS)
        return 0
    from offbeat.run.chaos.table import faults_named, listed

    if arguments == ["--list"]:
        print(listed())
        return 0
    names, rest = _only(arguments)
    faults = faults_named(names)
    scanned = scan(rest, own=("out",))
    preset = one_preset(scanned, "chaos")
    for name in ("total_frames",):
        if scanned.value(name) is not None:
            raise UserError(f"--{name.replace('_', '-')} is no option here: the runs of 'offbeat chaos' go on for ever")
    factory = env_factory(scanned.value("env"))
    config = scanned.config(preset)
    if not sys.platform.startswith("linux"):
        raise UserError(f"'offbeat chaos' looks at processes as Linux shows them, in /proc; this is {sys.platform}")
    from offbeat.run.chaos.perform import chaos as perform

    given = [preset, *(text for name, value in scanned.options for text in (f"--{name}", value))]
    folder = _folder(scanned.own["out"]) if "out" in scanned.own else None
    return 0 if perform(config, given, faults, folder=folder, env_is_own=factory is not None) else 1


def _only(arguments: list[str]) -> tuple[list[str], list[str]]:
    """The names behind ``--only``, up to the next option, and all other arguments."""
    if not any(argument.partition("=")[0] == "--only" for argument in arguments):
        return [], arguments
    names: list[str] = []
    others: list[str] = []
    taking = False
    for argument in arguments:
        name, _, value = argument.partition("=")
        if argument.startswith("--"):
            taking = name == "--only"
        if not taking:
            others.append(argument)
        elif name == "--only":
            names += value.split(",") if value else []
        else:
            names += argument.split(",")
    names = [name for name in names if name]
    if not names:
        raise UserError("option --only needs the name of a fault; 'offbeat chaos --list' shows them")
    return names, others


def _folder(text: str) -> Path:
    """A new or empty folder. UserError for another one."""
    folder = Path(text)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"--out={text!r} is there and not an empty folder; name a new one")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out={text!r} cannot be made: {error.strerror or error}") from error
    return folder
