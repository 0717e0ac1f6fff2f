"""Lists of games: what their rows are like together, what is refused, what is said."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from offbeat.envs.base import EnvConfig
from offbeat.envs.game_lists import configs_of, described, joined_spec, scored
from offbeat.types import LEGAL, OBSERVATION, ActionSpec, ArraySpec, EnvSpec

LIST = EnvConfig(ids=("a", "b"), sticky=0.1)
FEW = EnvSpec("a", {OBSERVATION: ArraySpec((4, 9, 9), "uint8", 0, 1)}, ActionSpec("discrete", 3), max_episode_steps=5)
MANY = EnvSpec("b", {OBSERVATION: ArraySpec((7, 9, 9), "uint8", 0, 255)}, ActionSpec("discrete", 6))


def test_the_widest_of_pictures_and_actions_is_taken() -> None:
    spec = joined_spec(LIST, [FEW, MANY])
    assert spec.id == "a,b"
    assert spec.observation[OBSERVATION] == ArraySpec((7, 9, 9), "uint8", 0, 255)
    assert spec.observation[LEGAL] == ArraySpec((6,), "bool")
    assert spec.action == MANY.action
    assert spec.max_episode_steps is None, "one of them has no limit"
    limited = joined_spec(LIST, [FEW, replace(MANY, max_episode_steps=9)])
    assert limited.max_episode_steps == 9
    assert LEGAL not in joined_spec(LIST, [FEW, replace(MANY, action=FEW.action)]).observation


def test_a_mask_that_one_game_has_is_in_all_rows() -> None:
    masked = replace(FEW, observation=FEW.observation | {LEGAL: ArraySpec((3,), "bool")})
    for specs in ([masked, FEW], [FEW, masked]):
        assert joined_spec(LIST, specs).observation[LEGAL] == ArraySpec((3,), "bool")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"frame_skip": 4}, "frame_skip is 1 and 4"),
        ({"observation": {"x": ArraySpec((7, 9, 9))}}, "observation is"),
        ({"observation": {OBSERVATION: ArraySpec((7, 9, 8), "uint8")}}, "observation 'observation' is"),
        ({"observation": {OBSERVATION: ArraySpec((7, 9, 9), "float32")}}, "observation 'observation' is"),
        ({"observation": {OBSERVATION: ArraySpec((7,), "uint8")}}, "observation 'observation' is"),
        ({"action": ActionSpec("continuous", shape=(2,))}, "action is"),
        ({"action": ActionSpec("multi_discrete", nvec=(2, 3))}, "action is"),
        ({"stacked": (OBSERVATION,)}, "stacked is"),
    ],
)
def test_games_that_differ_otherwise_are_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match="a and b cannot be in one list") as error:
        joined_spec(LIST, [FEW, replace(MANY, **change)])
    assert said in str(error.value)


def test_vectors_must_be_of_one_length_and_boxes_of_one_form() -> None:
    box = ActionSpec("continuous", shape=(2,), low=(-1.0,), high=(1.0,))
    vector = EnvSpec("a", {OBSERVATION: ArraySpec((3,))}, box)
    assert joined_spec(LIST, [vector, replace(vector, id="b")]).action == box
    with pytest.raises(ValueError, match="cannot be in one list"):
        joined_spec(LIST, [vector, EnvSpec("b", {OBSERVATION: ArraySpec((4,))}, box)])
    with pytest.raises(ValueError, match="cannot be in one list"):
        joined_spec(LIST, [vector, replace(vector, action=replace(box, shape=(3,)))])


def test_games_of_several_players_are_refused() -> None:
    with pytest.raises(ValueError, match="a has 2 players"):
        joined_spec(LIST, [replace(FEW, players=2), replace(MANY, players=2)])


def test_each_game_has_the_switches_of_the_list() -> None:
    first, second = configs_of(replace(LIST, several="in_turn", turn_frames=5, turns=2))
    assert first == EnvConfig(id="a", sticky=0.1) and second == EnvConfig(id="b", sticky=0.1)
    with pytest.raises(ValueError, match="names a game twice"):
        configs_of(EnvConfig(ids=("a", "a")))
    assert scored(first) is first


def test_a_list_is_called_by_its_games() -> None:
    assert LIST.id == "a,b" and LIST.games == ("a", "b")
    assert EnvConfig(id="a").games == ("a",)
    assert replace(LIST, sticky=0.2).id == "a,b"
    with pytest.raises(ValueError, match="were both given"):
        EnvConfig(id="c", ids=("a", "b"))


def test_what_a_run_says_of_its_list() -> None:
    once, few = described(LIST, [FEW, MANY])
    assert once == "2 games at once: environment i plays game i mod 2 of a,b"
    assert few == "a has 4 of 7 channels and 3 of 6 actions: other channels are zeros, other actions masked out"
    for turns, said in ((0, "over and over"), (1, "once"), (3, "3 times")):
        first, *_ = described(replace(LIST, several="in_turn", turn_frames=5000, turns=turns), [FEW, MANY])
        assert f"2 games in turn, 5,000 frames each, the list {said}" in first
