"""Rewards and ends against a slow transcription of what was published, and by hand."""

from __future__ import annotations

import itertools

import numpy as np

from offbeat.envs.gameboy.rules import Battles, Catching, Score

Numbers = dict[str, int]


def health(mine: list[int], theirs: list[int]) -> Numbers:
    return {
        f"{side}_hp{i + 1}": value for side, all_ in (("my", mine), ("opp", theirs)) for i, value in enumerate(all_)
    }


def published_battle(before: Numbers, now: Numbers) -> float:
    """The first of twelve events, asked for one after the other."""
    for side, reward in (("my", -1.0), ("opp", 1.0)):
        for number in range(1, 7):
            if before[f"{side}_hp{number}"] > 0 and now[f"{side}_hp{number}"] == 0:
                return reward
    return 0.0


def test_battles_against_the_transcription() -> None:
    generator = np.random.default_rng(0)
    for _ in range(200):
        rows = [health(*generator.integers(0, 3, (2, 6)).tolist()) for _ in range(20)]
        rule = Battles()
        rule.start(rows[0])
        last = 0.0
        for before, now in itertools.pairwise(rows):
            reward, over = rule.frame(now)
            assert reward == published_battle(before, now)
            assert over == any(all(now[f"{side}_hp{i}"] == 0 for i in range(1, 7)) for side in ("my", "opp"))
            last = reward or last
            assert rule.won == (last == 1)


def test_a_battle_by_hand() -> None:
    rule = Battles()
    rule.start(health([9, 0, 0, 0, 0, 300], [5, 7, 0, 0, 0, 0]))
    assert rule.frame(health([9, 0, 0, 0, 0, 300], [0, 7, 0, 0, 0, 0])) == (1.0, False)
    assert rule.frame(health([9, 0, 0, 0, 0, 300], [0, 7, 0, 0, 0, 0])) == (0.0, False)
    assert rule.frame(health([0, 0, 0, 0, 0, 300], [0, 0, 0, 0, 0, 0])) == (-1.0, True)  # one event a frame
    assert not rule.won
    rule.start(health([1] * 6, [1] * 6))
    assert rule.frame(health([0, 1, 1, 1, 1, 1], [1] * 6)) == (-1.0, False)
    assert rule.frame(health([0, 1, 1, 1, 1, 1], [0] * 6)) == (1.0, True) and rule.won


def wild(box: int, battle: int, **owned: int) -> Numbers:
    return {"box_qnt": box, "InBattle": battle, **{f"Owned{i}": 0 for i in range(1, 20)}, **owned}


def test_catching_by_hand() -> None:
    rule = Catching()
    rule.start(wild(3, 1, Owned2=8))
    assert rule.frame(wild(3, 1, Owned2=8)) == (0.0, False)
    assert rule.frame(wild(3, 1, Owned2=-120)) == (1.0, False)  # a new kind
    assert rule.frame(wild(4, 1, Owned2=-120)) == (0.0, False)  # the same one, in the box
    assert rule.frame(wild(4, 0, Owned2=-120)) == (0.0, True) and rule.won
    rule.start(wild(4, 1))
    assert rule.frame(wild(5, 1)) == (1.0, False)  # a known kind
    assert rule.frame(wild(5, 1, Owned1=1)) == (0.0, False)
    rule.start(wild(5, 1))
    assert rule.frame(wild(5, 0)) == (-1.0, True) and not rule.won  # it fled, or fell
    rule.start(wild(5, 1))
    assert rule.frame(wild(5, -1)) == (-1.0, False)  # lost
    assert rule.frame(wild(5, 0)) == (0.0, True)


def published_catching(before: Numbers, now: Numbers, caught: int) -> tuple[float, int]:
    """(reward, caught) of a frame."""
    if now["box_qnt"] - before["box_qnt"] == 1:
        return 1 - caught, 1
    changed = False
    for number in range(1, 20):
        changed = changed or now[f"Owned{number}"] != before[f"Owned{number}"]
    if changed and caught == 0:
        return 1, 1
    if now["InBattle"] < before["InBattle"]:
        return caught - 1, caught
    return 0, caught


def test_catching_against_the_transcription() -> None:
    generator = np.random.default_rng(1)
    for _ in range(200):
        rule, caught = Catching(), 0
        before = wild(2, 1)
        rule.start(before)
        for _ in range(10):
            draw = generator.random(3)
            now = dict(before)
            now["box_qnt"] += int(generator.integers(-1, 2)) if draw[0] < 0.3 else 0
            now[f"Owned{generator.integers(1, 20)}"] ^= 4 if draw[1] < 0.3 else 0
            now["InBattle"] = int(generator.integers(-1, 3)) if draw[2] < 0.4 else now["InBattle"]
            expected, caught = published_catching(before, now, caught)
            assert rule.frame(now) == (expected, now["InBattle"] == 0)
            before = now


def test_scores() -> None:
    rule = Score()
    rule.start({"score": 9960, "game_state": 0})
    assert rule.frame({"score": 10000, "game_state": 0}) == (40.0, False)  # no fall back to zero
    assert rule.frame({"score": 10000, "game_state": 13}) == (0.0, True) and not rule.won
