"""Demonstrations as files: what is written is read again, and whatever else there is becomes one line."""

from __future__ import annotations

import json
import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from offbeat.errors import UserError
from offbeat.storage.demonstrations import (
    ENTRY,
    Demonstration,
    DemonstrationError,
    demonstrations_at,
    read_demonstration,
    write_demonstration,
)
from offbeat.storage.regular import one_line, stat_regular

FACTS = {"env": "toy/catch", "played_by": "a test"}


def rows() -> dict[str, np.ndarray]:
    """Two episodes, of two actions and one."""
    return {
        "observation/observation": np.arange(10, dtype=np.uint8).reshape(5, 2),
        "action": np.array([1, 0, 0, 2, 0]),
        "reward": np.array([0, 1, 0, -1, 0], np.float32),
        "terminated": np.array([0, 1, 0, 0, 0], bool),
        "truncated": np.array([0, 0, 0, 1, 0], bool),
        "first": np.array([1, 0, 0, 1, 0], bool),
        "valid": np.array([1, 1, 0, 1, 0], bool),
        "elapsed": np.array([1, 1, 0, 1, 0], np.int32),
    }


def test_what_is_written_is_read_again(tmp_path: Path):
    file = write_demonstration(tmp_path / "new" / "demo", Demonstration(FACTS, rows()))
    assert file.name == "demo.safetensors" and [path.name for path in file.parent.iterdir()] == [file.name]
    found = read_demonstration(file)
    assert found.facts == FACTS and found.arrays.keys() == rows().keys()
    for name, array in rows().items():
        assert found.arrays[name].dtype == array.dtype and np.array_equal(found.arrays[name], array)
    assert (found.rows, found.episodes, found.transitions) == (5, 2, 3)
    assert demonstrations_at(tmp_path / "new") == demonstrations_at(file) == [file]
    with pytest.raises(DemonstrationError, match="there is no demonstration in this folder"):
        demonstrations_at(tmp_path)


def at(name: str, row: int, value: object) -> Callable[[dict[str, np.ndarray]], None]:
    def change(arrays: dict[str, np.ndarray]) -> None:
        arrays[name] = arrays[name].copy()
        arrays[name][row] = value

    return change


DISORDER = [
    (at("first", 0, False), "the first row must start an episode"),
    (at("valid", 4, True), "the last row must end one"),
    (at("first", 1, True), "row 1: episodes do not follow each other"),
    (at("terminated", 1, False), "must have terminated or truncated it"),
    (at("truncated", 0, True), "must have terminated or truncated it"),
    (at("reward", 0, np.nan), "rewards must be finite"),
    (at("reward", 2, 1.0), "rewards must be finite, and 0"),
    (at("elapsed", 1, 0), "elapsed must be 1 or above"),
    (lambda arrays: arrays.update(reward=arrays["reward"][:4]), "the same number of rows"),
]
HEADERS = [
    (lambda arrays: arrays.pop("reward"), r"missing \['reward'\]"),
    (lambda arrays: arrays.update(more=arrays["reward"]), r"unknown \['more'\]"),
    (lambda arrays: arrays.pop("observation/observation"), "one observation/KEY at least"),
    (lambda arrays: arrays.update(reward=arrays["reward"].astype(np.float64)), r"'reward' is float64\[5\]; expected"),
    (lambda arrays: arrays.update(valid=np.ones((5, 1), bool)), r"'valid' is bool\[5, 1\]; expected"),
    (lambda arrays: arrays.update(action=np.array(3)), r"'action' is int64\[\]; expected at least one row"),
]


@pytest.mark.parametrize(("change", "says"), [*DISORDER, *HEADERS])
def test_rows_that_are_no_episodes_are_refused(
    change: Callable[[dict[str, np.ndarray]], object], says: str, tmp_path: Path
):
    arrays = rows()
    change(arrays)
    file = tmp_path / "demo.safetensors"
    save_file(arrays, file, metadata={ENTRY: json.dumps({"format": 1, **FACTS})})
    with pytest.raises(DemonstrationError, match=says) as error:
        read_demonstration(file)
    assert str(error.value).startswith(str(file)) and "\n" not in str(error.value)
    if (change, says) in DISORDER:
        with pytest.raises(ValueError, match=says):
            write_demonstration(tmp_path / "again", Demonstration(FACTS, arrays))


@pytest.mark.parametrize(("entry", "says"), [
    (None, "has no entry 'offbeat'"),
    ('{"format": 1}', "does not say which environment"),
    ('{"format": 2, "env": "x"}', "its format is 2; format 1 is read here"),
    ('{"format": true, "env": "x"}', "its format is True"),
    ("[1]", "does not say which environment"),
    ("{", "no demonstration that can be read"),
])  # fmt: skip
def test_headers_that_say_something_else_are_refused(entry: str | None, says: str, tmp_path: Path):
    file = tmp_path / "demo.safetensors"
    save_file(rows(), file, metadata=None if entry is None else {ENTRY: entry})
    with pytest.raises(DemonstrationError, match=says):
        read_demonstration(file)


def test_files_that_are_none_are_refused_and_nothing_is_unpickled(tmp_path: Path):
    whole = write_demonstration(tmp_path / "whole", Demonstration(FACTS, rows())).read_bytes()

    class Trap:
        def __reduce__(self) -> object:
            return (os.mkdir, (str(tmp_path / "sprung"),))

    contents = {
        "empty": b"", "short": whole[:5], "cut": whole[:-3], "long": whole + b"x", "pickle": pickle.dumps(Trap()),
        "huge": struct.pack("<Q", 2**62) + whole[8:], "head": struct.pack("<Q", len(whole)) + whole[8:],
        "text": b"{" * 200,
    }  # fmt: skip
    for name, content in contents.items():
        file = tmp_path / f"{name}.safetensors"
        file.write_bytes(content)
        with pytest.raises(DemonstrationError, match="it is no demonstration that can be read"):
            read_demonstration(file)
    assert not (tmp_path / "sprung").exists()
    os.mkfifo(tmp_path / "fifo.safetensors")
    for name in ("fifo.safetensors", "missing.safetensors"):
        with pytest.raises(DemonstrationError, match="no demonstration that can be read"):
            read_demonstration(tmp_path / name)
    with pytest.raises(UserError, match="cannot be written"):
        write_demonstration(tmp_path / "empty.safetensors" / "demo", Demonstration(FACTS, rows()))


def test_only_regular_files_are_looked_at_and_lines_stay_lines(tmp_path: Path):
    with pytest.raises(ValueError, match="is no regular file"):
        stat_regular(tmp_path)
    assert one_line("a\nb\x1b[2J  c") == "a b [2J c"
