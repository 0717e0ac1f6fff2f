"""Our cartridges in PyBoy against their rules in Python, frame by frame."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from offbeat.envs.gameboy.emulators import Emulator
from offbeat.envs.gameboy.folders import ROMS
from offbeat.envs.gameboy.games import ENCOUNTER, SEED, WANTED
from offbeat.envs.gameboy.opening import open_emulator
from offbeat.envs.gameboy.values import Value
from offbeat.envs.gameboy.world import until_ready
from tests.envs.gameboy.battle_twin import Battle
from tests.envs.gameboy.blocks_twin import HEIGHT, WIDTH, Blocks

KEYS = ("A", "B", "LEFT", "UP", "RIGHT", "DOWN")
WELL = 0xC100


@pytest.fixture
def emulator(request: pytest.FixtureRequest) -> Iterator[Emulator]:
    pytest.importorskip("pyboy")
    made = open_emulator("pyboy", ROMS / f"{request.param}.gb")
    yield made
    made.close()


def begin(emulator: Emulator, ready: bytes, seed: int, pokes: dict[int, int]) -> None:
    """Load, put the seed and more into memory, press START and let it go."""
    emulator.load(ready)
    emulator.write(SEED, seed.to_bytes(2, "little"))
    for address, byte in pokes.items():
        emulator.write(address, bytes([byte]))
    emulator.run((), 2)
    emulator.run(("START",), 1)


def numbers(emulator: Emulator, keys: set[str], values: dict[str, Value]) -> dict[str, int]:
    """Play a frame; name -> number after it."""
    (row,) = emulator.run(tuple(keys), 1, [(value.address, value.size) for value in values.values()])
    return {name: value.decode(data) for (name, value), data in zip(values.items(), row, strict=True)}


BLOCKS = {
    "score": Value(0xC0A0, "<d3"), "lines": Value(0xFF9E, "<d2"), "level": Value(0xFFA9, "<d1"),
    "state": Value(0xFFE1, "<u1"), "seed": Value(SEED, "<u2"), "shape": Value(0xFF90, "<u1"),
    "turn": Value(0xFF91, "<u1"), "place": Value(0xFF92, "<u1"), "timer": Value(0xFF93, "<u1"),
    **{f"cell{x}.{y}": Value(WELL + 8 * y + x + 1, "<u1") for x in range(WIDTH) for y in range(HEIGHT)},
}  # fmt: skip


def of_blocks(twin: Blocks) -> dict[str, int]:
    return {
        "score": twin.score, "lines": twin.lines, "level": twin.level, "state": int(twin.over), "seed": twin.seed,
        "shape": twin.shape, "turn": twin.rotation, "place": 8 * twin.y + twin.x + 1, "timer": twin.timer,
        **{f"cell{x}.{y}": twin.well[y][x] for x in range(WIDTH) for y in range(HEIGHT)},
    }  # fmt: skip


@pytest.mark.parametrize("emulator", ["blocks"], indirect=True)
def test_blocks(emulator: Emulator) -> None:
    ready, draw, lines = until_ready(emulator), random.Random(0), []
    for _ in range(12):
        seed = draw.randrange(1, 65536)
        begin(emulator, ready, seed, {})
        twin = Blocks(seed)
        while not twin.over:
            keys = {draw.choice((*KEYS, "START"))} if draw.random() < 0.85 else set()
            for _ in range(draw.choice((1, 4, 9))):
                seen = numbers(emulator, keys, BLOCKS)
                twin.frame(keys)
                assert seen == of_blocks(twin)
                if twin.over:
                    break
        lines.append(twin.lines)
    assert max(lines) >= 2


@pytest.mark.parametrize("emulator", ["blocks"], indirect=True)
def test_more_rows_at_once_and_levels(emulator: Emulator) -> None:
    """A well that lacks a column but for a bar; and 9 lines, after which the next ones are of level 1."""
    ready = until_ready(emulator)
    for seed in range(1, 2000):
        twin = Blocks(seed)
        if twin.shape == 2:
            break
    begin(emulator, ready, seed, {})
    twin.lines = 9
    emulator.write(0xFF9E, b"\x09")
    for y in range(5, HEIGHT):
        for x in range(1, WIDTH):
            twin.well[y][x] = 1
            emulator.write(WELL + 8 * y + x + 1, b"\x01")
    twin.well[4][3] = 1
    emulator.write(WELL + 8 * 4 + 4, b"\x01")
    script: list[set[str]] = [{"A"}, set(), {"LEFT"}, set(), {"LEFT"}, *[{"DOWN"}] * 30]
    for keys in script:
        seen = numbers(emulator, keys, BLOCKS)
        twin.frame(keys)
        assert seen == of_blocks(twin)
    assert (twin.score, twin.lines, twin.level) == (300, 12, 1)


@pytest.mark.parametrize("emulator", ["blocks"], indirect=True)
def test_a_person_needs_no_seed(emulator: Emulator) -> None:
    emulator.load(until_ready(emulator))
    values = {"seed": BLOCKS["seed"], "state": BLOCKS["state"]}
    assert numbers(emulator, {"START"}, values)["state"] == 0
    assert numbers(emulator, set(), values)["seed"] > 0


def battle_values() -> dict[str, Value]:
    values = {
        "in_battle": Value(0xD057, "<i1"), "party": Value(0xD163, "<u1"), "owned": Value(0xD2F7, "<u1"),
        "balls": Value(0xD31F, "<u1"), "money": Value(0xD347, ">d3"), "box": Value(0xDA80, "<u1"),
        "wild": Value(0xCFE6, ">u2"), "state": Value(0xFFE1, "<u1"), "seed": Value(SEED, "<u2"),
        "fighter": Value(0xFF90, "<u1"), "kind": Value(0xFF93, "<u1"),
    }  # fmt: skip
    for i in range(6):
        values |= {f"my{i}": Value(0xD16C + 44 * i, ">u2"), f"opp{i}": Value(0xD8A5 + 44 * i, ">u2")}
        values[f"exp{i}"] = Value(0xD179 + 44 * i, ">u3")
    return values


def of_battle(twin: Battle) -> dict[str, int]:
    def six(points: list[int]) -> list[int]:
        return points + [0] * (6 - len(points))

    found = {
        "in_battle": twin.in_battle, "party": 3, "owned": twin.owned, "balls": twin.balls, "money": twin.money,
        "box": twin.box, "wild": twin.foes[0] if twin.wild else 0, "state": int(twin.over), "seed": twin.seed,
        "fighter": twin.fighter, "kind": twin.kind,
    }  # fmt: skip
    lists = {"my": twin.mine, "opp": [] if twin.wild else twin.foes, "exp": twin.exp}
    return found | {f"{name}{i}": value for name, points in lists.items() for i, value in enumerate(six(points))}


@pytest.mark.parametrize("emulator", ["battle"], indirect=True)
def test_battles(emulator: Emulator) -> None:
    ready, draw, values = until_ready(emulator), random.Random(0), battle_values()
    ends = set()
    for _ in range(80):
        seed, wild, encounter = draw.randrange(1, 65536), draw.random() < 0.5, draw.randrange(6)
        begin(emulator, ready, seed, {WANTED: 1 if wild else 2, ENCOUNTER: encounter})
        twin = Battle(seed, wild, encounter)
        known = twin.owned
        while not twin.over:
            keys = set(draw.choices(KEYS, (4, 4, 1, 3, 1, 0.2))) if draw.random() < 0.85 else set()
            for _ in range(4):
                seen = numbers(emulator, keys, values)
                twin.frame(keys)
                assert seen == of_battle(twin)
        caught = "new" if twin.owned != known else "box" if twin.box else ""
        ends.add((wild, caught or ("won" if not sum(twin.foes) else "lost" if not sum(twin.mine) else "fled")))
    expected = {(True, end) for end in ("new", "box", "won", "fled")} | {(False, "won"), (False, "lost")}
    assert ends >= expected


@pytest.mark.parametrize("emulator", ["battle"], indirect=True)
def test_select_begins_a_wild_battle(emulator: Emulator) -> None:
    emulator.load(until_ready(emulator))
    assert numbers(emulator, {"SELECT"}, battle_values())["in_battle"] == 1
