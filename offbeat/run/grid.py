"""Grids of a campaign: the product of what is varied, and a folder name for each setting that says what it is."""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from offbeat.config.options import short_names
from offbeat.errors import UserError

Setting = tuple[tuple[str, Any], ...]
"""One value of each option that is varied: (full name, value)."""

LONGEST_VALUE = 32
"""Letters of a value in a folder's name; of a longer one its beginning is kept, with a checksum behind it."""
LONGEST_NAME = 150
"""The same of the whole name, without the seed. File systems take 255 bytes."""


def flat(options: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Options by their dotted names: ``{learner = {threads = 1}}``, as TOML reads ``learner.threads = 1``, too."""
    found: dict[str, Any] = {}
    for key, value in options.items():
        name = prefix + key
        found |= flat(value, f"{name}.") if isinstance(value, Mapping) and value else {name: value}
    return found


def settings(over: Mapping[str, Sequence[Any]]) -> Iterator[Setting]:
    """The product: every value of each option with every value of the others, the last option's changing fastest."""
    for values in itertools.product(*over.values()):
        yield tuple(zip(over, values, strict=True))


def setting_names(name: str, over: Mapping[str, Sequence[Any]]) -> dict[str, Setting]:
    """Name for files -> setting: ``NAME-learning_rate=0.001-entropy_cost=0.01``.

    Options are named by the last part of their name, by more where two end alike. Raises ``UserError`` where two values
    of an option would be called the same.
    """
    shorts = short_names(over)
    for option, values in over.items():
        known: dict[str, Any] = {}
        for value in values:
            text = for_files(value)
            if text in known:
                raise UserError(f"{option} has the value {value!r} twice, or {known[text]!r} beside it; leave one out")
            known[text] = value
    found = {}
    for setting in settings(over):
        parts = [f"{shorts[option]}={for_files(value)}" for option, value in setting]
        found[_cut("-".join([name, *parts]), LONGEST_NAME)] = setting
    return found


def for_files(value: Any) -> str:
    """A value as a part of a file's name that file systems and shells leave alone; the same for equal values."""
    if isinstance(value, bool):
        text = str(value).lower()
    elif isinstance(value, list | tuple):
        text = "_".join(map(for_files, value))
    elif isinstance(value, Mapping):
        text = "_".join(f"{key}_{for_files(item)}" for key, item in value.items())
    else:
        text = str(value)
    return _cut(re.sub(r"[^A-Za-z0-9.+_-]+", "_", text), LONGEST_VALUE) or "empty"


def _cut(text: str, longest: int) -> str:
    """``text``, or its beginning and a checksum of all of it."""
    if len(text) <= longest:
        return text
    checksum = hashlib.sha256(text.encode()).hexdigest()[:8]
    return f"{text[: longest - 9]}-{checksum}"


def toml(value: Any) -> str:
    """A value as a command line takes it: lists and tables in TOML's form, text as it is."""
    return _toml(value) if isinstance(value, list | tuple | Mapping) else str(value)


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{escaped}"'
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key} = {_toml(item)}' for key, item in value.items())}}}"
    return str(value)
