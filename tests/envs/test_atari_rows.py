"""How lost lives, game over and time limits become flags, on made-up outcomes."""

from __future__ import annotations

import numpy as np
import pytest

from offbeat.envs.atari_rows import AtariRows
from offbeat.envs.base import EnvConfig

FRAME = np.zeros((1, 1, 84, 84), np.uint8)


def feed(choice: str, steps: list[tuple[bool, bool, int]]) -> list[tuple[bool, bool, bool, bool]]:
    """(terminated, truncated, first, valid) after each (game over, time limit, lives)."""
    rows = AtariRows(EnvConfig(life_loss=choice), 3)
    out = []
    for over, cut, lives in steps:
        made = rows.make(
            np.array([1]), FRAME, np.array([2], np.int32), np.array([over]), np.array([cut]), np.array([lives])
        )
        flags = (made.terminated, made.truncated, made.first, made.valid)
        out.append(tuple(bool(flag[0]) for flag in flags))
    assert rows.ended[[0, 2]].all() and not rows.lives[[0, 2]].any()
    return out


START = (False, False, True, True)
ON = (False, False, False, True)
OVER = (True, False, False, False)
CUT = (False, True, False, False)
SIGNAL = (True, False, False, True)


@pytest.mark.parametrize(
    ("choice", "expected"),
    [("ignore", [START, ON, ON]), ("terminal", [START, SIGNAL, ON]), ("end_episode", [START, OVER, START])],
)
def test_a_lost_life(choice: str, expected: list[object]) -> None:
    assert feed(choice, [(False, False, 3), (False, False, 2), (False, False, 2)]) == expected


@pytest.mark.parametrize("choice", ["ignore", "terminal", "end_episode"])
def test_game_over_and_the_display_of_zero_lives(choice: str) -> None:
    assert feed(choice, [(False, False, 1), (False, False, 0), (True, False, 0), (False, False, 3)]) == [
        START,
        ON,
        OVER,
        START,
    ]
    assert feed(choice, [(False, False, 0), (False, False, 0), (False, True, 0), (False, False, 0)]) == [
        START,
        ON,
        CUT,
        START,
    ]


def test_a_life_lost_at_the_time_limit_terminates() -> None:
    assert feed("ignore", [(False, False, 3), (False, True, 2)]) == [START, CUT]
    for choice in ("terminal", "end_episode"):
        assert feed(choice, [(False, False, 3), (False, True, 2), (False, False, 3)]) == [START, OVER, START]


def test_flags_left_over_at_a_start_are_dropped() -> None:
    assert feed("terminal", [(True, True, 3), (True, True, 3), (True, True, 1)]) == [START, OVER, START]


def test_lives_gained_are_no_loss() -> None:
    assert feed("terminal", [(False, False, 3), (False, False, 4), (False, False, 3)]) == [START, ON, SIGNAL]
