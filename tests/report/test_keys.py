"""Keys of a terminal and what they stand for."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from offbeat.report.keys import HOLD_S, Bindings, Keyboard, parts_of
from offbeat.runtime.clock import VirtualClock

JOYSTICK = ["NOOP", "FIRE", "UP", "RIGHT", "UPRIGHT", "UPFIRE"]


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    read, write = os.pipe()
    yield read, write
    os.close(read)


def test_keys_are_held_for_a_while_and_sequences_may_come_in_parts(pipe: tuple[int, int]):
    clock = VirtualClock()
    keyboard = Keyboard(pipe[0], clock)
    assert not keyboard.wait(0) and keyboard.held() == []
    os.write(pipe[1], b"a\x1b[A\x1b[1;5C\x1b")
    assert keyboard.wait(0) and keyboard.held() == ["a", "UP"]
    clock.sleep(HOLD_S * 0.9)
    os.write(pipe[1], b"[D")
    assert keyboard.wait(0) and keyboard.held() == ["a", "UP", "LEFT"]
    clock.sleep(HOLD_S * 0.5)
    assert keyboard.held() == ["LEFT"]
    clock.sleep(HOLD_S)
    assert keyboard.held() == [] and not keyboard.quit
    os.write(pipe[1], b"q")
    keyboard.wait(0)
    assert keyboard.quit and not keyboard.wait(0)


def test_the_end_of_the_terminal_ends_the_game(pipe: tuple[int, int]):
    os.close(pipe[1])
    keyboard = Keyboard(pipe[0], VirtualClock())
    keyboard.wait(0)
    assert keyboard.quit


@pytest.mark.parametrize(("held", "action"), [
    (["UP"], 2), (["w"], 2), ([" "], 1), (["d", "UP"], 4), (["UP", " "], 5), (["RIGHT", " "], 1),
    (["LEFT"], None), (["k"], None), (["UP", "3"], 3), (["9"], None),
])  # fmt: skip
def test_keys_are_actions_by_their_names_together_else_the_newest_and_by_number(held: list[str], action: int | None):
    assert Bindings(JOYSTICK, 6).action(held) == action


def test_what_does_nothing_is_known_by_its_name_or_told():
    assert Bindings(JOYSTICK, 6).idle == 0 and Bindings(["A", "B", ""], 3).idle == 2
    assert Bindings((), 3).idle is None and Bindings((), 3, 1).idle == 1
    assert Bindings(["A", "B", "NOOP"], 3).action(["x"]) == 0
    assert Bindings(["one"], 3).meanings == (), "names that are not all there are none"
    assert parts_of("UPRIGHTFIRE") == {"UP", "RIGHT", "FIRE"} and parts_of("Shoot") == {"SHOOT"}
    assert parts_of("START+A") == {"START", "A"} and not parts_of("noop")


def test_help_names_every_action():
    assert Bindings(JOYSTICK, 6).help() == (
        "0: NOOP; space: FIRE; arrows, wasd: UP, RIGHT; 4: UPRIGHT; 5: UPFIRE; q: end"
    )
    assert Bindings((), 2).help() == "0: action 0; 1: action 1; q: end"
