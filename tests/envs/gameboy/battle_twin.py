"""The rules of the battle cartridge in plain Python: what its memory must hold after each frame."""

from __future__ import annotations

TURN, OWN = 8, 3


class Battle:
    """A battle from its start. ``frame`` plays one frame with the names of the buttons that are down."""

    def __init__(self, seed: int, wild: bool, encounter: int) -> None:
        """``seed``: 1 to 65535; ``encounter``: 0 to 5."""
        self.seed, self.wild = seed, wild
        self.mine = [12] * OWN
        self.exp = [0] * OWN
        self.foes = [10 + 2 * encounter] * (1 if wild else 1 + encounter // 2)
        self.fighter = self.foe = self.timer = self.ending = self.owned = self.box = self.money = 0
        self.balls, self.in_battle, self.over = 10, 1 if wild else 2, False
        if wild:
            self.species = 1 << (self._random() >> 5)
            self.owned = self.species if encounter >= 3 else 0
        self.kind = self._random() >> 7

    def frame(self, keys: set[str]) -> None:
        """One frame; nothing happens once the battle is over."""
        if self.over:
            return
        if self.ending:
            self.ending -= 1
            if not self.ending:
                self.over, self.in_battle = True, 0
        elif self.timer:
            self.timer -= 1
        elif keys & {"A", "B", "LEFT", "RIGHT", "UP", "DOWN"}:
            self.timer = TURN
            if keys & {"LEFT", "RIGHT"}:
                self._next()
            elif keys & {"A", "B"}:
                self._strike(0 if "A" in keys else 1)
            elif self.wild and "UP" in keys:
                self._throw()
            elif self.wild:
                self.ending = TURN

    def _random(self) -> int:
        self.seed = (self.seed * 261 + 13849) % 65536
        return self.seed >> 8

    def _next(self) -> None:
        for _ in range(OWN):
            self.fighter = (self.fighter + 1) % OWN
            if self.mine[self.fighter]:
                return

    def _strike(self, move: int) -> None:
        self.foes[self.foe] = max(0, self.foes[self.foe] - (9 if move == self.kind else 3))
        if self.foes[self.foe]:
            self._strike_back()
            return
        self.exp[self.fighter] += 10
        if not self.wild:
            self.foe += 1
            if self.foe < len(self.foes):
                self.kind = self._random() >> 7
                return
            self.money += 100
        self.ending = TURN

    def _strike_back(self) -> None:
        self.mine[self.fighter] = max(0, self.mine[self.fighter] - 3 - (self._random() >> 6))
        if self.mine[self.fighter]:
            return
        self._next()
        if not self.mine[self.fighter]:
            self.in_battle, self.ending = -1, TURN

    def _throw(self) -> None:
        if not self.balls:
            return
        self.balls -= 1
        if self.foes[0] > 6 and self._random() >= 48:
            self._strike_back()
            return
        if self.owned & self.species:
            self.box += 1
        self.owned |= self.species
        self.ending = TURN
