"""The rules of the falling-block cartridge in plain Python: what its memory must hold after each frame."""

from __future__ import annotations

WIDTH, HEIGHT = 4, 8
GRAVITY, SOFT, REPEAT = 16, 2, 4
BAG = (0, 0, 0, 1, 1, 1, 2, 3)
POINTS = (0, 40, 100, 300)
DOT = [[(0, 0)]] * 4
DOMINO = [[(0, 0), (1, 0)], [(0, 0), (0, 1)]] * 2
BAR = [[(0, 0), (1, 0), (2, 0)], [(0, 0), (0, 1), (0, 2)]] * 2
CORNER = [
    [(0, 0), (0, 1), (1, 1)],
    [(0, 0), (1, 0), (0, 1)],
    [(0, 0), (1, 0), (1, 1)],
    [(1, 0), (0, 1), (1, 1)],
]
SHAPES = (DOT, DOMINO, BAR, CORNER)


class Blocks:
    """A game from its start. ``frame`` plays one frame with the names of the buttons that are down."""

    def __init__(self, seed: int) -> None:
        """``seed``: 1 to 65535."""
        self.seed = seed
        self.well = [[0] * WIDTH for _ in range(HEIGHT)]
        self.score = self.lines = self.level = 0
        self.over = False
        self.held: set[str] = set()
        self.repeat = REPEAT
        self._spawn()

    def frame(self, keys: set[str]) -> None:
        """One frame; nothing happens once the game is over."""
        if self.over:
            return
        pressed, self.held = keys - self.held, set(keys)
        if "A" in pressed:
            self._turn(1)
        elif "B" in pressed:
            self._turn(-1)
        side = -1 if "LEFT" in keys else 1 if "RIGHT" in keys else 0
        if side:
            self.repeat = 0 if pressed & {"LEFT", "RIGHT"} else self.repeat - 1
            if self.repeat <= 0:
                self.repeat = REPEAT
                if self._fits(self.x + side, self.y, self.rotation):
                    self.x += side
        if "DOWN" in keys:
            self.timer = min(self.timer, SOFT)
        self.timer -= 1
        if self.timer <= 0:
            self._fall()

    def cells(self) -> list[tuple[int, int]]:
        """(column, row) of the falling piece."""
        return [(self.x + dx, self.y + dy) for dx, dy in SHAPES[self.shape][self.rotation]]

    def _spawn(self) -> None:
        self.seed = (self.seed * 261 + 13849) % 65536
        self.shape, self.rotation, self.x, self.y = BAG[self.seed >> 13], 0, self.seed >> 11 & 1, 0
        self.timer = GRAVITY - 2 * min(self.level, 6)
        self.over = not self._fits(self.x, self.y, 0)

    def _fits(self, x: int, y: int, rotation: int) -> bool:
        cells = [(x + dx, y + dy) for dx, dy in SHAPES[self.shape][rotation]]
        return all(0 <= cx < WIDTH and cy < HEIGHT and not self.well[cy][cx] for cx, cy in cells)

    def _turn(self, by: int) -> None:
        rotation = (self.rotation + by) % 4
        if self._fits(self.x, self.y, rotation):
            self.rotation = rotation

    def _fall(self) -> None:
        self.timer = GRAVITY - 2 * min(self.level, 6)
        if self._fits(self.x, self.y + 1, self.rotation):
            self.y += 1
            return
        for x, y in self.cells():
            self.well[y][x] = 1
        left = [row for row in self.well if not all(row)]
        full = HEIGHT - len(left)
        self.well = [[0] * WIDTH for _ in range(full)] + left
        self.score += POINTS[full]
        self.lines += full
        self.level = self.lines // 10
        self._spawn()
