"""Rewards and ends of Game Boy tasks from numbers in memory, frame by frame.

Source: the integrations published with Riemer et al. 2025 (realtime_rl), whose scripts are restated here. What differs:
values before the first frame are those of the start and not zeros, so that nothing is an event that was so already; and
a score is read with all of its six digits, where its lower four, which were published, fall back to zero at 10,000.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

PARTY = 6
OWNED_BYTES = 19
IN_PLAY = 0
NO_BATTLE = 0
Numbers = Mapping[str, int]
"""Name -> number in memory after a frame."""


class Rule(Protocol):
    """What a task pays, and when it is over. One for each environment."""

    def start(self, now: Numbers) -> None:
        """An episode begins with these numbers."""

    def frame(self, now: Numbers) -> tuple[float, bool]:
        """(reward, whether the game has ended) of one frame."""

    @property
    def won(self) -> bool:
        """Whether the last reward that was not zero was 1."""


class Score:
    """Falling blocks: the reward is what the score rose by; over as soon as ``game_state`` says anything but play."""

    def __init__(self) -> None:
        self._score = 0

    @property
    def won(self) -> bool:
        """Never: there is nothing to go on to."""
        return False

    def start(self, now: Numbers) -> None:
        """An episode begins."""
        self._score = now["score"]

    def frame(self, now: Numbers) -> tuple[float, bool]:
        """(points, over)."""
        reward, self._score = now["score"] - self._score, now["score"]
        return float(reward), now["game_state"] != IN_PLAY


class Battles:
    """A battle: -1 where an own creature falls, 1 where one of the opponent's does, for one event a frame at most.

    An own one goes before. Over once all of either side have no points of health.
    """

    def __init__(self) -> None:
        self._mine = self._theirs = (0,) * PARTY
        self._last = 0.0

    @property
    def won(self) -> bool:
        """Whether the last reward that was not zero was 1."""
        return self._last == 1

    def start(self, now: Numbers) -> None:
        """An episode begins."""
        self._mine, self._theirs = _health(now, "my"), _health(now, "opp")
        self._last = 0.0

    def frame(self, now: Numbers) -> tuple[float, bool]:
        """(reward, over)."""
        mine, theirs = _health(now, "my"), _health(now, "opp")
        reward = -1.0 if _fell(self._mine, mine) else 1.0 if _fell(self._theirs, theirs) else 0.0
        self._mine, self._theirs = mine, theirs
        self._last = reward or self._last
        return reward, not any(mine) or not any(theirs)


class Catching:
    """A wild creature: 1 for catching it, -1 where the battle ends without. Over once there is no battle.

    Caught is what raises the number in the box, or changes the list of kinds that are owned: of a known kind only where
    the party is full, so that one which joins a party goes unseen, as in what was published.
    """

    def __init__(self) -> None:
        self._box = self._battle = 0
        self._owned: tuple[int, ...] = ()
        self._caught = False
        self._last = 0.0

    @property
    def won(self) -> bool:
        """Whether the last reward that was not zero was 1."""
        return self._last == 1

    def start(self, now: Numbers) -> None:
        """An episode begins."""
        self._box, self._battle, self._owned = now["box_qnt"], now["InBattle"], _owned(now)
        self._caught, self._last = False, 0.0

    def frame(self, now: Numbers) -> tuple[float, bool]:
        """(reward, over)."""
        owned = _owned(now)
        reward = 0.0
        if now["box_qnt"] == self._box + 1:
            reward, self._caught = 1.0 - self._caught, True
        elif owned != self._owned and not self._caught:
            reward, self._caught = 1.0, True
        elif now["InBattle"] < self._battle:
            reward = self._caught - 1.0
        self._box, self._battle, self._owned = now["box_qnt"], now["InBattle"], owned
        self._last = reward or self._last
        return reward, now["InBattle"] == NO_BATTLE


RULES: dict[str, Callable[[], Rule]] = {"score": Score, "battles": Battles, "catching": Catching}
"""Name of a rule -> what makes one."""


def _health(now: Numbers, side: str) -> tuple[int, ...]:
    return tuple(now[f"{side}_hp{number}"] for number in range(1, PARTY + 1))


def _owned(now: Numbers) -> tuple[int, ...]:
    return tuple(now[f"Owned{number}"] for number in range(1, OWNED_BYTES + 1))


def _fell(before: tuple[int, ...], now: tuple[int, ...]) -> bool:
    """Whether any that had points has none."""
    return any(was > 0 and points == 0 for was, points in zip(before, now, strict=True))
