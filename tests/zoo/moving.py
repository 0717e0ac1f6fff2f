"""Environments whose spaces do not stay as they were, or are not those of their copies."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

from gymnasium import spaces

from tests.zoo.entry import Entry
from tests.zoo.small import Small


class Moves(Small):
    """One of its spaces is another from its ``resets``-th reset on, or from the step after it."""

    def __init__(self, resets: int, in_step: bool = False, **moved: Any) -> None:
        super().__init__()
        self.resets, self.in_step, self.moved, self.count = resets, in_step, moved, 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.count += 1
        if self.count >= self.resets and not self.in_step:
            vars(self).update(self.moved)
        return super().reset(seed=seed)

    def step(self, action: Any) -> Any:
        outcome = super().step(action)
        if self.count >= self.resets and self.in_step:
            vars(self).update(self.moved)
        return outcome


class Anew(Small):
    """Makes equal spaces anew at each reset."""

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.observation_space = copy.deepcopy(self.observation_space)
        self.action_space = copy.deepcopy(self.action_space)
        return super().reset(seed=seed)


class Property(Small):
    """Its action space is another object, equal to the others, whenever it is asked for."""

    @property
    def action_space(self) -> Any:  # type: ignore[override]
        return spaces.Discrete(3)

    @action_space.setter
    def action_space(self, space: Any) -> None:
        pass


class Unlike(Small):
    """Every second one that is made has more actions than the one before."""

    made = 0

    def __init__(self) -> None:
        Unlike.made += 1
        super().__init__(action=spaces.Discrete(2 + Unlike.made % 2))


MORE, WIDE = {"action_space": spaces.Discrete(9)}, {"observation_space": spaces.Box(-1, 1, (4,))}
ACTIONS = r"its action_space changes, Discrete\(3\) when it was made, and Discrete\(9\) later: spaces must stay"
SEEN = r"its observation_space changes, Box\(.*\(3,\), float32\) when it was made, and Box\(.*\(4,\), float32\) later"

ENTRIES = [
    Entry("moves-actions", partial(Moves, 1, **MORE), ACTIONS),
    Entry("moves-actions-later", partial(Moves, 3, **MORE), ACTIONS, at="look"),
    Entry("moves-actions-in-step", partial(Moves, 1, True, **MORE), ACTIONS, at="look"),
    Entry("moves-observation", partial(Moves, 1, **WIDE), SEEN),
    Entry("moves-observation-later", partial(Moves, 3, **WIDE), SEEN, at="look"),
    Entry("moves-to-equal", Anew),
    Entry("moves-to-equal-always", Property),
    Entry(
        "unlike",
        Unlike,
        "must have the same spaces",
        at="look",
        error="two of them have different|must have the same spaces",
    ),
]
