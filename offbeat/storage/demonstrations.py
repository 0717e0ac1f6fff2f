"""Demonstrations as files: rows of one environment that somebody played, safe to read whoever wrote them.

A file is safetensors. Its arrays, of N rows, with everything at index t belonging to the same row:

    observation/<key>  [N, ...]     single frames, as the environment without any delay gives them
    action             [N, ...]     taken at that observation; of rows that are not ``valid`` without meaning
    reward             float32 [N]  the raw reward that came from that action, 0 where not ``valid``
    terminated         bool [N]     that action ended the episode
    truncated          bool [N]     that action reached a time limit, or nobody played on after it
    first              bool [N]     the row starts an episode
    valid              bool [N]     False: the row only carries an episode's final observation
    elapsed            int32 [N]    environment steps that the action took

Episodes follow each other whole: the first row starts one, the row after each that is not ``valid`` starts the next,
and the last row is not ``valid``. The header's entry ``offbeat`` is JSON: ``format``, and facts of who played what.

Nothing in a file is unpickled or believed before it was compared. Whatever is wrong becomes a ``DemonstrationError`` of
one line.
"""

from __future__ import annotations

import contextlib
import json
import os
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

from offbeat.errors import UserError
from offbeat.storage.regular import BROKEN, one_line, open_regular, stat_regular

FORMAT = 1
"""Version of the layout; a reader refuses any other."""
SUFFIX = ".safetensors"
"""What names of demonstrations end in."""
ENTRY = "offbeat"
"""The entry of the header that is ours."""
MOST_HEAD = 1 << 20
"""No header is longer. Unit: bytes."""
MOST_ROWS = 1 << 31
"""No file has more rows."""
OBSERVATION = "observation/"
"""Arrays of observations have names that begin so."""
BY_ROW = {
    "reward": "float32", "terminated": "bool", "truncated": "bool", "first": "bool", "valid": "bool",
    "elapsed": "int32",
}  # fmt: skip
"""Arrays of one number a row -> dtype."""
_KINDS = {
    "F64": "float64", "F32": "float32", "F16": "float16", "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8",
    "U64": "uint64", "U32": "uint32", "U16": "uint16", "U8": "uint8", "BOOL": "bool",
}  # fmt: skip


class DemonstrationError(UserError):
    """A file is no demonstration, or not one of what is asked for; the message says what is wrong with it."""


@dataclass(frozen=True)
class Demonstration:
    """What a file holds."""

    facts: dict[str, Any]
    """Plain data: who played what, see docs/demonstrations.md."""
    arrays: dict[str, np.ndarray]
    """Name -> array, as above."""

    @property
    def rows(self) -> int:
        """N."""
        return len(self.arrays["valid"])

    @property
    def episodes(self) -> int:
        """Episodes, those that were broken off too."""
        return int(self.arrays["first"].sum())

    @property
    def transitions(self) -> int:
        """Rows at which an action was taken."""
        return int(self.arrays["valid"].sum())


def write_demonstration(path: Path, made: Demonstration) -> Path:
    """Write a file: whole or not at all, missing folders too. UserError where that cannot be, ValueError for rows that
    a reader would refuse.
    """
    if wrong := _disorder(made.arrays):
        raise ValueError(f"rows of a demonstration: {wrong}")
    path = path if path.suffix == SUFFIX else path.with_name(path.name + SUFFIX)
    entry = json.dumps({"format": FORMAT, **made.facts}, sort_keys=True, allow_nan=False)
    draft = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        arrays = {name: np.ascontiguousarray(array) for name, array in made.arrays.items()}
        save_file(arrays, draft, metadata={ENTRY: entry})
        os.replace(draft, path)
    except BROKEN as error:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)
        raise UserError(one_line(f"{path} cannot be written: {getattr(error, 'strerror', None) or error}")) from error
    return path


def read_demonstration(path: Path) -> Demonstration:
    """What the file holds. DemonstrationError says what is wrong with it; only regular files are ever opened."""
    try:
        _check_head(path)
        with safe_open(path, framework="np") as opened:
            facts = _facts(opened.metadata() or {}, path)
            names = list(opened.keys())
            for name in names:  # all of them before any is read
                header = opened.get_slice(name)
                if wrong := _wrong_header(name, header.get_dtype(), list(header.get_shape())):
                    raise DemonstrationError(one_line(f"{path}: {wrong}"))
            _check_names(names, path)
            arrays = {name: opened.get_tensor(name) for name in names}
    except DemonstrationError:
        raise
    except BROKEN as error:
        why = (getattr(error, "strerror", None) or str(error)) or type(error).__name__
        raise DemonstrationError(one_line(f"{path}: it is no demonstration that can be read ({why})")) from error
    if wrong := _disorder(arrays):
        raise DemonstrationError(one_line(f"{path}: {wrong}"))
    return Demonstration(facts, arrays)


def demonstrations_at(path: Path) -> list[Path]:
    """The file, or all demonstrations in the folder by name. DemonstrationError where there is none."""
    if path.is_dir():
        found = sorted(file for file in path.iterdir() if file.suffix == SUFFIX and not file.name.startswith("."))
        if not found:
            raise DemonstrationError(f"{path}: there is no demonstration in this folder; their names end in {SUFFIX}")
        return found
    return [path]


def _check_head(path: Path) -> None:
    """ValueError for a header that is longer than any of ours, or than its file."""
    size = stat_regular(path).st_size
    with open_regular(path) as opened:
        begin = opened.read(8)
    if len(begin) < 8 or not 0 < struct.unpack("<Q", begin)[0] <= min(MOST_HEAD, size - 8):
        raise ValueError("it does not begin as a safetensors file of ours does")


def _facts(metadata: Mapping[str, str], path: Path) -> dict[str, Any]:
    """The facts in the header."""
    if ENTRY not in metadata:
        raise DemonstrationError(f"{path}: its header has no entry {ENTRY!r}: it is no demonstration")
    facts = json.loads(metadata[ENTRY])
    if not isinstance(facts, dict) or not isinstance(facts.get("env"), str):
        raise DemonstrationError(f"{path}: its entry {ENTRY!r} does not say which environment was played")
    if (found := facts.pop("format", None)) != FORMAT or isinstance(found, bool):
        raise DemonstrationError(one_line(f"{path}: its format is {found!r}; format {FORMAT} is read here"))
    return facts


def _wrong_header(name: str, dtype: str, shape: list[int]) -> str:
    """What is wrong with an array by its header; empty: nothing."""
    kind = _KINDS.get(dtype)
    if kind is None:
        return f"{name!r} is of {dtype}; allowed are {', '.join(_KINDS.values())}"
    if name in BY_ROW and (kind, len(shape)) != (BY_ROW[name], 1):
        return f"{name!r} is {kind}{shape}; expected {BY_ROW[name]}[rows]"
    if not shape or not 0 < shape[0] <= MOST_ROWS or len(shape) > 8:
        return f"{name!r} is {kind}{shape}; expected at least one row, at most {MOST_ROWS:,}, in up to 8 axes"
    return ""


def _check_names(names: Iterable[str], path: Path) -> None:
    """DemonstrationError where arrays are missing, or are none of a demonstration's."""
    found = set(names)
    unknown = sorted(name for name in found - {"action", *BY_ROW} if not name.startswith(OBSERVATION))
    missing = sorted({"action", *BY_ROW} - found)
    if unknown or missing or not any(name.startswith(OBSERVATION) for name in found):
        raise DemonstrationError(
            one_line(f"{path}: arrays missing {missing or 'none'}, unknown {unknown or 'none'}; expected "
                     f"{', '.join(['action', *BY_ROW])} and one {OBSERVATION}KEY at least")
        )  # fmt: skip


def _disorder(arrays: Mapping[str, np.ndarray]) -> str:
    """Why these rows are no whole episodes; empty: they are."""
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) != 1 or not next(iter(lengths.values())):
        return f"arrays must have the same number of rows, above 0, got {lengths}"
    first, valid, over = arrays["first"], arrays["valid"], arrays["terminated"] | arrays["truncated"]
    if not first[0] or valid[-1]:
        return "the first row must start an episode and the last row must end one (valid = false)"
    if (first & ~valid).any() or (first[1:] == valid[:-1]).any():
        return f"row {int(np.argmax(np.append(False, first[1:] == valid[:-1])))}: episodes do not follow each other"
    ends = np.append(valid[:-1] & ~valid[1:], False)
    if (over & ~valid).any() or (ends & ~over).any() or (arrays["truncated"] & ~ends).any():
        return "the last action of each episode must have terminated or truncated it, and truncated means nothing else"
    if not np.isfinite(arrays["reward"]).all() or arrays["reward"][~valid].any():
        return "rewards must be finite, and 0 where a row is not valid"
    if (arrays["elapsed"][valid] < 1).any():
        return "elapsed must be 1 or above where a row is valid"
    return ""
