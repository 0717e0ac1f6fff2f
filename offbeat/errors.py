"""The one error that a user can mend: it is printed as a single line, and the command ends with exit code 2."""

from __future__ import annotations

import difflib
import functools
import traceback
from collections.abc import Callable, Iterable
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any


class UserError(ValueError):
    """What was wrong, what was got, what is allowed and the remedy, in one line."""


class HelpShown(Exception):
    """A command has printed its help and has nothing else to do."""


def nearest(name: str, known: Iterable[str], before: str = "") -> str:
    """``"; did you mean 'x'?"`` for the known name closest to ``name``, or an empty string if none is close.

    ``before``: what all of them begin with, for the message.
    """
    found = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"; did you mean {before + found[0]!r}?" if found else ""


def failure(attempt: Callable[[], bool]) -> str:
    """Why an attempt to use what another package does not promise to keep fails, in one line; empty if it succeeds.

    ``attempt`` gives whether the results are right.
    """
    try:
        return "" if attempt() else "it gives other results"
    except Exception as error:  # what has changed over there may raise anything
        return " ".join(f"{type(error).__name__}: {error}".split())[:200]


def load_entry_point(kind: str, point: EntryPoint) -> Any:
    """What an entry point names. UserError, naming it, where that cannot be imported."""
    try:
        return point.load()
    except (Exception, SystemExit) as error:  # of the package, of any class
        raise UserError(
            f"{kind} {point.name!r}: {point.value}, the entry point of an installed package, cannot be loaded "
            f"({type(error).__name__}: {error})"
        ) from error


def in_short(text: str) -> str:
    """``text``, or its beginning where it is long."""
    return text if len(text) <= 60 else f"{text[:57]}..."


def called(thing: Any) -> str:
    """The full name of a function, a class, or the class of an object; of what a ``partial`` calls."""
    while isinstance(thing, functools.partial):
        thing = thing.func
    kind = thing if hasattr(thing, "__qualname__") else type(thing)
    return f"{kind.__module__}.{kind.__qualname__}"


def told(error: BaseException) -> str:
    """An exception of somebody else's code on one line: its class, its text, and where it was raised."""
    text = " ".join(str(error).split())
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {text}{where}"


def unknown(kind: str, name: str, known: Iterable[str]) -> UserError:
    """The error for a ``name`` that is none of the ``known`` ones, with the nearest and all of them."""
    known = list(known)
    return UserError(f"unknown {kind} {name!r}{nearest(name, known) or ';'} known: {', '.join(known)}")
