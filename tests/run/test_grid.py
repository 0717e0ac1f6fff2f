"""Grids: every value with every other, each in a folder whose name says which."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest

from offbeat.config.options import short_names
from offbeat.errors import UserError
from offbeat.run.grid import LONGEST_NAME, LONGEST_VALUE, flat, for_files, setting_names, settings, toml


def test_all_values_are_combined() -> None:
    over = {"learner.learning_rate": [1e-3, 3e-4], "agent.core": ["none", "lstm"]}
    assert list(settings(over)) == [
        (("learner.learning_rate", 1e-3), ("agent.core", "none")),
        (("learner.learning_rate", 1e-3), ("agent.core", "lstm")),
        (("learner.learning_rate", 3e-4), ("agent.core", "none")),
        (("learner.learning_rate", 3e-4), ("agent.core", "lstm")),
    ]
    assert list(settings({})) == [()], "an entry without a grid is one setting"
    assert list(setting_names("x", over)) == [
        "x-learning_rate=0.001-core=none", "x-learning_rate=0.001-core=lstm",
        "x-learning_rate=0.0003-core=none", "x-learning_rate=0.0003-core=lstm",
    ]  # fmt: skip
    assert setting_names("x", {}) == {"x": ()}


def test_options_that_end_alike_are_named_by_more() -> None:
    names = ["learner.threads", "actor.threads", "env.id", "agent.name", "replay.samplers.0.share", "threads"]
    assert short_names(names) == {
        "learner.threads": "learner.threads", "actor.threads": "actor.threads", "env.id": "env", "agent.name": "agent",
        "replay.samplers.0.share": "share", "threads": "threads",
    }  # fmt: skip


@pytest.mark.parametrize(("value", "text"), [
    (3e-5, "3e-05"), (0.0, "0.0"), (True, "true"), ("minatar/breakout", "minatar_breakout"), ([64, 64], "64_64"),
    ("a b;$(c)*", "a_b_c_"), (-1, "-1"), ("", "empty"), ([], "empty"),
    ([{"kind": "fifo", "share": 0.5}], "kind_fifo_share_0.5"),
])  # fmt: skip
def test_values_are_safe_in_files_and_shells(value: Any, text: str) -> None:
    assert for_files(value) == text


def test_long_names_are_cut_and_still_told_apart() -> None:
    values = [[64] * 20, [64] * 21]
    first, second = (for_files(value) for value in values)
    assert len(first) == len(second) == LONGEST_VALUE and first != second
    over = {f"agent.option_{number}": [values[0], values[1]] for number in range(4)}
    names = list(setting_names("grid", over))
    assert len(names) == 16 and max(map(len, names)) == LONGEST_NAME
    assert names == list(setting_names("grid", over)), "another start finds the same folders"


def test_values_that_would_share_a_folder_are_refused() -> None:
    with pytest.raises(UserError, match=r"env.id has the value 'a_b' twice, or 'a/b' beside it"):
        setting_names("x", {"env.id": ["a/b", "a_b"]})
    with pytest.raises(UserError, match=r"learner.batch_size has the value 8 twice"):
        setting_names("x", {"learner.batch_size": [8, 8]})


def test_options_may_be_written_with_dots_or_in_tables() -> None:
    table = tomllib.loads('learner.learning_rate = 1\n"env.id" = "x"\nreplay.samplers.0.share = 0.5')
    assert flat(table) == {"learner.learning_rate": 1, "env.id": "x", "replay.samplers.0.share": 0.5}


@pytest.mark.parametrize("value", [[64, 64], ['a"b\\'], [{"kind": "fifo", "share": 0.5, "x": True}], []])
def test_lists_go_to_a_command_line_as_toml(value: Any) -> None:
    assert tomllib.loads(f"value = {toml(value)}")["value"] == value
    assert (toml("lstm"), toml(1e-5), toml(True)) == ("lstm", "1e-05", "True")
