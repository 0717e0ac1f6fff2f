"""Several games in one run: rows of each are those of the game alone, changes come at their frame, all is restored."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from offbeat.envs.base import EnvConfig, VectorEnv
from offbeat.envs.delay_config import DelayConfig
from offbeat.envs.game_lists import scored
from offbeat.envs.registry import env_spec, make_env
from offbeat.envs.seeding import env_seeds
from offbeat.envs.several import AtOnceVector, InTurnVector, PaddedVector, Place, PlaysList
from offbeat.types import LEGAL, OBSERVATION, EnvStep
from tests.envs.playing import FLAGS, random_actions

GAMES = ("minatar/breakout", "minatar/freeway", "minatar/asterix")
COUNTS, CHANNELS = (3, 3, 5), (4, 7, 4)
TOYS = EnvConfig(ids=("toy/catch", "toy/memory_chain"), length=6)


@pytest.fixture(autouse=True)
def _needs_minatar() -> None:
    pytest.importorskip("minatar")


def config(several: Any = "at_once", **options: Any) -> EnvConfig:
    return EnvConfig(ids=GAMES, several=several, **{"max_steps": 40} | options)


def alone(game: int, **options: Any) -> EnvConfig:
    return EnvConfig(id=GAMES[game], **{"max_steps": 40} | options)


def assert_of_game(rows: EnvStep, at: list[int], own: EnvStep, game: int) -> None:
    """The rows ``at`` these places are a game's ``own``, padded."""
    for name in FLAGS[1:]:
        assert np.array_equal(getattr(rows, name)[at], getattr(own, name)), name
    frames = rows.observation[OBSERVATION][at]
    assert np.array_equal(frames[:, : CHANNELS[game]], own.observation[OBSERVATION])
    assert not frames[:, CHANNELS[game] :].any()
    assert (rows.observation[LEGAL][at] == (np.arange(5) < COUNTS[game])).all()


def test_at_once_rows_are_those_of_each_game_alone() -> None:
    """Seven environments from index 4 on: 4 plays game 1, 5 game 2, 6 game 0, and so on."""
    many = make_env(config(), 7, place=Place(4, 12))
    assert isinstance(many, AtOnceVector) and isinstance(many, PlaysList)
    plays = [(4 + place) % 3 for place in range(7)]
    assert [many.game_of(place) for place in range(7)] == [GAMES[game] for game in plays]
    at = {game: [place for place in range(7) if plays[place] == game] for game in range(3)}
    ones = {game: make_env(alone(game), len(at[game])) for game in range(3)}
    seeds = [9, *env_seeds(9, 3)[1:].tolist()]
    many.reset(9)
    for game, one in ones.items():
        one.reset(seeds[game])
    ended = 0
    for action in random_actions(config(), 120, 7):
        rows = many.recv()
        assert rows.env_ids.tolist() == list(range(7)) and rows.elapsed is None
        for game, one in ones.items():
            assert_of_game(rows, at[game], one.recv(), game)
            own = action[at[game]]
            one.send(np.where(own < COUNTS[game], own, 0))
        many.send(action)
        ended += int((~rows.valid).sum())
    assert ended > 10
    many.close()


def test_an_actor_of_fewer_environments_than_games_makes_only_those() -> None:
    many = make_env(config(), 2, place=Place(2, 6))
    assert [many.game_of(0), many.game_of(1)] == [GAMES[2], GAMES[0]]  # type: ignore[attr-defined]
    assert len(many._parts) == 2  # type: ignore[attr-defined]
    assert many.spec == env_spec(config()), "the rows are those of all games"


def play(envs: VectorEnv, actions: np.ndarray) -> list[tuple[EnvStep, str]]:
    """Rows and the game that they are of, from a reset on."""
    envs.reset(5)
    found = [(envs.recv(), envs.game_of(0))]  # type: ignore[attr-defined]
    for action in actions:
        envs.send(action)
        found.append((envs.recv(), envs.game_of(0)))  # type: ignore[attr-defined]
    return found


@pytest.mark.parametrize("turns", [1, 2, 0])
def test_in_turn_changes_come_with_the_step_that_completes_a_turn(turns: int) -> None:
    """3 of 6 environments, turns of 200 frames: the part of these is 100 frames each, steps counted one by one here."""
    one = config("in_turn", turn_frames=200, turns=turns)
    envs = make_env(one, 3, place=Place(3, 6), deterministic=True)
    frames, turn, over = 0, 0, False
    changes = []
    for step, (rows, game) in enumerate(play(envs, random_actions(one, 320, 3))):
        if over:
            turn, over = turn + 1, False
            assert rows.first.all() and rows.valid.all()
            changes.append(step)
        frames += int((~rows.first).sum())
        assert game == GAMES[turn % 3]
        due = frames >= 100 * (turn + 1) and (not turns or turn < 3 * turns - 1)
        if due and not rows.first.all():
            assert not rows.valid.any()
            assert (rows.truncated | rows.terminated | rows.first).all()
            assert not (rows.truncated & rows.first).any()
            over = True
        else:
            assert np.array_equal(rows.valid, ~(rows.terminated | rows.truncated)), "nothing is cut within a turn"
    assert len(changes) == (2 if turns == 1 else 5 if turns == 2 else turn)
    assert turn > 6 or turns, "the list is gone through again and again"
    envs.close()


def test_in_turn_the_first_game_is_played_as_it_would_be_alone() -> None:
    one = config("in_turn", turn_frames=150)
    envs, own = make_env(one, 3), make_env(alone(0), 3)
    assert isinstance(envs, InTurnVector)
    own.reset(5)
    actions = random_actions(one, 60, 3)
    for (rows, game), action in zip(play(envs, actions), actions, strict=False):
        same = own.recv()
        if not rows.valid.any():
            assert game == GAMES[0] and envs.frames >= 150
            break
        assert_of_game(rows, [0, 1, 2], same, 0)
        own.send(np.where(action < 3, action, 0))
    else:
        raise AssertionError("there was no change")


@pytest.mark.parametrize(("several", "at"), [("at_once", 40), *(("in_turn", at) for at in (-1, 0, 1, 2))])
def test_restored_in_the_middle_it_goes_on_the_same(several: str, at: int) -> None:
    """Games in turn are saved just before a change, at it (the last row of the game), and after it."""
    one = config(several, turn_frames=75 if several == "in_turn" else 0)
    actions = random_actions(one, 100, 3)
    first, second = (make_env(one, 3, deterministic=True, place=Place(0, 3)) for _ in range(2))
    whole = play(first, actions)
    if several == "in_turn":
        at += next(step for step, (rows, _) in enumerate(whole) if not rows.valid.any())
    again = make_env(one, 3, deterministic=True, place=Place(0, 3))
    play(again, actions[:at])
    second.load_state({name: value.copy() for name, value in again.state().items()})
    for step, action in enumerate(actions[at:], at + 1):
        second.send(action)
        rows, (known, game) = second.recv(), whole[step]
        for name in FLAGS:
            assert np.array_equal(getattr(rows, name), getattr(known, name)), (name, step)
        for key, column in known.observation.items():
            assert np.array_equal(rows.observation[key], column), (key, step)
        assert second.game_of(0) == game  # type: ignore[attr-defined]
    assert several == "at_once" or len({game for _, game in whole}) == 3


def test_no_turn_has_the_seeds_of_another() -> None:
    one = EnvConfig(ids=GAMES[:2], several="in_turn", turn_frames=60, turns=0)
    envs = make_env(one, 2, deterministic=True)
    envs.reset(5)
    seeds: dict[int, list[int]] = {}
    for action in random_actions(one, 250, 2):
        rows = envs.recv()
        if rows.first.all():
            state = envs.state()
            seeds.setdefault(int(state["turn"][2]), []).extend(state["game/seed"].tolist())
        envs.send(action)
    found = [seed for of in seeds.values() for seed in of]
    assert len(seeds) >= 5 and len(set(found)) == len(found)


@pytest.mark.parametrize("follow", [True, False])
def test_a_slow_actor_changes_with_the_run_where_nothing_is_to_be_repeated(follow: bool) -> None:
    told = [0]
    envs = make_env(
        config("in_turn", turn_frames=1000), 2, deterministic=not follow, place=Place(0, 4, lambda: told[0])
    )
    envs.reset(1)
    action = np.zeros(2, np.int64)
    games = []
    for frames in (0, 900, 1100, 1100):
        told[0] = frames
        envs.recv()
        envs.send(action)
        games.append(envs.game_of(0))  # type: ignore[attr-defined]
    assert games == ([GAMES[0]] * 2 + [GAMES[1]] * 2 if follow else [GAMES[0]] * 4)


def test_an_actor_that_starts_late_begins_with_the_game_whose_turn_it_is() -> None:
    envs = make_env(config("in_turn", turn_frames=1000), 2, place=Place(0, 4, lambda: 2500))
    envs.reset(1)
    assert envs.game_of(0) == GAMES[2] and envs.frames == 1250  # type: ignore[attr-defined]


def test_a_delay_lies_around_the_list() -> None:
    """Each environment of a delayed batch has the game of its own index, and the change at its own frame."""
    delay = DelayConfig(inference_frames=2)
    spec = env_spec(config(delay=delay))
    assert spec.action.num_actions == 5 and LEGAL in spec.observation
    envs = make_env(config(delay=delay), 4, place=Place(1, 6))
    assert isinstance(envs, PlaysList)
    assert [envs.game_of(place) for place in range(4)] == [GAMES[(1 + place) % 3] for place in range(4)]
    assert not isinstance(make_env(alone(0, delay=delay), 1), PlaysList)
    turned = make_env(config("in_turn", turn_frames=90, delay=delay), 3, deterministic=True)
    games = {game for _, game in play(turned, random_actions(config(), 120, 3))}
    assert games == set(GAMES)


def test_actions_that_a_game_does_not_have_act_as_its_first() -> None:
    own, twin = make_env(alone(1), 2), make_env(alone(1), 2)
    padded = PaddedVector(own, env_spec(config()))
    padded.reset(2)
    twin.reset(2)
    for action in random_actions(config(), 60, 2, seed=1):
        assert np.array_equal(padded.recv().raw_reward, twin.recv().raw_reward)
        padded.send(action)
        twin.send(np.array([choice if choice < 3 else 0 for choice in action]))
    padded.recv()
    with pytest.raises(ValueError, match="0 to 4"):
        padded.send(np.array([5, 0]))


def test_a_list_of_toys_with_equal_forms_has_no_mask() -> None:
    same = EnvConfig(ids=("minatar/breakout", "minatar/freeway"), full_action_space=True)
    assert LEGAL not in env_spec(same).observation
    assert env_spec(same).action.num_actions == 6


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="turn_frames=0 with several='in_turn'"):
        make_env(config("in_turn"), 3)
    with pytest.raises(ValueError, match="steps all 4 environments at once, got batch_size=2"):
        make_env(config(), 4, batch_size=2)
    with pytest.raises(ValueError, match="cannot have an environment of your own"):
        env_spec(config(), lambda: None)
    with pytest.raises(ValueError, match="several='in_turn' means nothing to minatar/breakout"):
        env_spec(replace(alone(0), several="in_turn"))
    assert scored(config("in_turn", turn_frames=7, turns=3)) == config()
