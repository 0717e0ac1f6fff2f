"""Staging against a naive twin that keeps every row as a dict, through a real store, with environments in any order."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from offbeat.envs.rows import in_order
from offbeat.replay.layout import StreamBlock, StreamLayout
from offbeat.replay.streams import StreamStore
from offbeat.runtime.staging import Staging
from offbeat.types import OBSERVATION, ArraySpec, EnvStep
from tests.runtime.parts import same_arrays

GAMMA = 0.9
LENGTH = 4
STREAMS = np.array([2, 0, 3])
"""Streams of the environments 0, 1, 2; stream 1 is another actor's."""
Row = dict[str, Any]


def make_layout(**changes: Any) -> StreamLayout:
    """Four streams; states every fourth row of the stream and every third of an episode."""
    fields: dict[str, Any] = {
        "observation": {OBSERVATION: ArraySpec((2,)), "mark": ArraySpec((), "int64")},
        "stacked": (),
        "frame_stack": 1,
        "stack_padding": "zero",
        "action": ArraySpec((), "int64"),
        "extras": {"logits": ArraySpec((2,))},
        "core_state": {"h": ArraySpec((2,))},
        "num_streams": 4,
        "capacity": 2000,
        "block": LENGTH,
        "state_grid": LENGTH,
        "state_period": 3,
    }
    return StreamLayout(**(fields | changes))


class World:
    """Random environments; ``rows[env]`` is the list of all rows that must be in that environment's stream."""

    def __init__(self, seed: int, *, count: int = len(STREAMS), elapsed: bool = False) -> None:
        self.rng = np.random.default_rng(seed)
        self.elapsed = elapsed
        self.rows: list[list[Row]] = [[] for _ in range(count)]
        self.open: list[Row | None] = [None] * count
        self.mark = 0

    def ready(self) -> np.ndarray:
        """Some environments, in any order."""
        count = int(self.rng.integers(1, len(self.rows) + 1))
        return self.rng.permutation(len(self.rows))[:count]

    def step(self, ids: np.ndarray) -> EnvStep:
        """The next row of these environments; the twin's rows before them are complete now."""
        parts = [self._next(int(env)) for env in ids]
        names = ("reward", "raw_reward", "terminated", "truncated", "first", "valid")
        columns: dict[str, Any] = {name: np.array([part[name] for part in parts]) for name in names}
        for name in ("reward", "raw_reward"):
            columns[name] = columns[name].astype(np.float32)
        took = np.array([part["took"] for part in parts], np.int32)
        observation = {key: np.stack([part[f"observation/{key}"] for part in parts]) for key in (OBSERVATION, "mark")}
        return EnvStep(ids, observation, **columns, elapsed=took if self.elapsed else None)

    def _next(self, env: int) -> Row:
        """What the last action led to, and the new row."""
        rng, before = self.rng, self.open[env]
        # A library may say anything about a row whose action it ignored; it must not be believed.
        led = {"reward": float(rng.normal()), "terminated": bool(rng.random() < 0.2), "truncated": False}
        led["truncated"] = bool(rng.random() < 0.15) and not led["terminated"]
        led["took"] = int(rng.integers(1, 5)) if self.elapsed else 1
        ended = False
        if before is not None:
            alive = before["valid"]
            life_lost = led["terminated"] and rng.random() < 0.4
            ended = alive and (led["truncated"] or (led["terminated"] and not life_lost))
            before["reward"] = np.float32(led["reward"] if alive else 0)
            before["terminated"], before["truncated"] = led["terminated"] and alive, led["truncated"] and alive
            before["elapsed"] = led["took"]
            before["discount"] = np.float32(GAMMA ** led["took"] if alive and not led["terminated"] else 0)
            self.rows[env].append(before)
        self.mark += 1
        first = before is None or not before["valid"]
        row: Row = {"first": first, "valid": not ended, f"observation/{OBSERVATION}": rng.normal(size=2)}
        row[f"observation/{OBSERVATION}"] = row[f"observation/{OBSERVATION}"].astype(np.float32)
        row["observation/mark"] = np.int64(self.mark)
        row["age"] = 0 if first or before is None else before["age"] + 1
        self.open[env] = row
        return {**row, "raw_reward": 99.0, **led}

    def acted(self, env: int, action: int, logits: np.ndarray, version: int, state: np.ndarray) -> None:
        """Write down what was done at the open row."""
        row = self.open[env]
        assert row is not None
        row |= {"action": action, "extras/logits": logits, "param_version": version, "core": state}


def play(staging: Staging, world: World, store: StreamStore, steps: int) -> list[StreamBlock]:
    """Step random environments in the order that an actor keeps; the blocks that were appended."""
    blocks = []
    for version in range(steps):
        rows = world.step(world.ready())
        full = staging.complete(rows)
        if len(full):
            blocks.append(staging.take(full, rows))
            store.append(blocks[-1])
        staging.open(rows)
        ids = rows.env_ids
        states = world.rng.normal(size=(len(ids), 2)).astype(np.float32)
        due = staging.due(ids)
        order = [int(np.flatnonzero(ids == env)[0]) for env in due]
        staging.keep(due, {"h": torch.from_numpy(states[order])})
        action = world.rng.integers(5, size=len(ids))
        logits = world.rng.normal(size=(len(ids), 2)).astype(np.float32)
        staging.act(ids, action, {"logits": logits}, version)
        for i, env in enumerate(ids):
            world.acted(int(env), int(action[i]), logits[i], version, states[i])
        store.add_produced(staging.streams[ids])
    return blocks


def check_stream(store: StreamStore, stream: int, rows: list[Row]) -> None:
    """The stream holds the twin's rows, as many as make whole blocks, with the states that are due."""
    head = int(store.head[stream])
    assert head == len(rows) // LENGTH * LENGTH
    at = store.locate(np.full(head, stream), np.arange(head))
    for name in store.layout.columns():
        want = np.array([row[name] for row in rows[:head]])
        np.testing.assert_allclose(store.take(name, at), want, rtol=1e-6, err_msg=f"{name} of stream {stream}")
    if not store.layout.core_state:
        return
    slots = store.take("core_slot", at)
    for t, row in enumerate(rows[:head]):
        due = t % LENGTH == 0 or (row["age"] > 0 and row["age"] % 3 == 0)
        assert (slots[t] > 0) == due, f"row {t} of stream {stream}, age {row['age']}: slot {slots[t]}"
        if due:
            kept = store.arrays["core/h"][stream, slots[t] - 1]
            np.testing.assert_array_equal(kept, row["core"], err_msg=f"row {t} of stream {stream}")
            assert store.arrays["core_row"][stream, slots[t] - 1] == t


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("elapsed", [False, True])
def test_streams_hold_what_a_naive_twin_wrote_down(seed: int, elapsed: bool) -> None:
    store = StreamStore.allocate(make_layout())
    staging, world = Staging(store.layout, STREAMS, LENGTH, GAMMA), World(seed, elapsed=elapsed)
    play(staging, world, store, 300)
    lost_lives = 0
    for env, stream in enumerate(STREAMS):
        check_stream(store, int(stream), world.rows[env])
        lost_lives += sum(
            row["terminated"] and then["valid"] for row, then in zip(world.rows[env], world.rows[env][1:])
        )
    assert lost_lives > 5, "the twin loses lives whose episodes go on"
    assert store.head[1] == 0
    assert store.head[STREAMS].min() > 100
    store.check_ledger()


def test_without_a_recurrent_state_nothing_is_kept() -> None:
    store = StreamStore.allocate(make_layout(core_state={}, state_grid=0, state_period=0))
    staging, world = Staging(store.layout, STREAMS, LENGTH, GAMMA), World(1)
    blocks = play(staging, world, store, 100)
    for env, stream in enumerate(STREAMS):
        check_stream(store, int(stream), world.rows[env])
    assert blocks
    assert all(block.core_state == {} and len(block.core_row) == 0 for block in blocks)


def test_environments_together_make_blocks_of_all_streams() -> None:
    store = StreamStore.allocate(make_layout())
    staging, world = Staging(store.layout, STREAMS, LENGTH, GAMMA), World(2)
    world.ready = lambda: np.arange(len(STREAMS))  # type: ignore[method-assign]
    blocks = play(staging, world, store, 3 * LENGTH + 1)
    assert [block.streams.tolist() for block in blocks] == [STREAMS.tolist()] * 3
    for env, stream in enumerate(STREAMS):
        check_stream(store, int(stream), world.rows[env])


def test_a_new_actor_cuts_the_episodes_that_a_dead_one_left() -> None:
    """Its first row is the dead writer's open row without an action; states of it are zeros; rows in hand are lost."""
    store = StreamStore.allocate(make_layout(state_period=0))
    staging, world = Staging(store.layout, STREAMS, LENGTH, GAMMA), World(3)
    play(staging, world, store, 61)
    heads, opened = store.head.copy(), store.open_rows(STREAMS)
    dead = [rows[: int(heads[stream])] for rows, stream in zip(world.rows, STREAMS, strict=True)]
    assert any(len(rows) > len(kept) for rows, kept in zip(world.rows, dead, strict=True)), "some rows were in hand"

    left = store.attach(STREAMS)
    assert left is not None
    again, fresh = Staging(store.layout, STREAMS, LENGTH, GAMMA), World(4)
    again.adopt(left)
    play(again, fresh, store, 60)
    for env, stream in enumerate(STREAMS):
        cut = {name: values[env] for name, values in opened.items()}
        cut |= {"valid": False, "reward": 0, "discount": 0, "terminated": False, "truncated": False}
        cut |= {"action": 0, "param_version": 0, "extras/logits": np.zeros(2), "core": np.zeros(2), "age": 0}
        cut["elapsed"] = int(store.take("elapsed", store.locate(stream, heads[stream])))
        rows = [*dead[env], cut, *fresh.rows[env]]
        for row in rows:
            row["age"] = 0  # states of this layout lie on the grid only
        check_stream(store, int(stream), rows)
    store.check_ledger()
    assert store.ledger()["lost"] == sum(len(w) + 1 - len(k) for w, k in zip(world.rows, dead, strict=True))


def test_the_state_can_be_saved_at_a_block_boundary_only() -> None:
    layout = make_layout()
    staging, world, store = Staging(layout, STREAMS, LENGTH, GAMMA), World(5), StreamStore.allocate(layout)
    world.ready = lambda: np.arange(len(STREAMS))  # type: ignore[method-assign]
    play(staging, world, store, LENGTH)
    with pytest.raises(ValueError, match="block boundary"):
        staging.state()
    rows = world.step(world.ready())
    store.append(staging.take(staging.complete(rows), rows))
    saved = staging.state()
    assert saved["row"].tolist() == [LENGTH] * 3
    other = Staging(layout, STREAMS, LENGTH, GAMMA)
    other.load_state(saved)
    same_arrays(other.state(), saved)
    for one in (staging, other):
        one.open(rows)
    assert other.due(rows.env_ids).tolist() == staging.due(rows.env_ids).tolist() == [0, 1, 2]


@pytest.mark.parametrize("seed", range(3))
def test_turns_of_all_at_once_and_of_some_give_the_same_streams(seed: int) -> None:
    """All of them in order, as their own array or as another one; then some by themselves, which parts their ways."""
    store = StreamStore.allocate(make_layout())
    staging, world = Staging(store.layout, STREAMS, LENGTH, GAMMA), World(seed)
    chosen, some = np.random.default_rng(seed), world.ready
    alone = [True, *(bool(one) for one in chosen.random(200) < 0.05)]
    turns = iter(alone)

    def ready() -> np.ndarray:
        if next(turns):
            return some()
        return in_order(len(STREAMS)) if chosen.random() < 0.7 else np.arange(len(STREAMS))

    world.ready = ready  # type: ignore[method-assign]
    play(staging, world, store, len(alone))
    for env, stream in enumerate(STREAMS):
        check_stream(store, int(stream), world.rows[env])


def test_all_in_order_are_written_at_one_index() -> None:
    """The quick way is taken: from the first row on, over blocks, after ways have met again, and by who adopts."""
    store = StreamStore.allocate(make_layout(state_period=0))
    staging, world = Staging(store.layout, STREAMS, LENGTH, GAMMA), World(6)
    everyone = in_order(len(STREAMS))
    world.ready = lambda: everyone  # type: ignore[method-assign]
    play(staging, world, store, 2 * LENGTH + 1)
    assert staging._place(everyone) == (slice(None), 1)
    turns = iter([np.array([1]), np.array([2, 0]), everyone])
    world.ready = lambda: next(turns)  # type: ignore[method-assign]
    play(staging, world, store, 1)
    assert staging._place(everyone)[0] is everyone
    play(staging, world, store, 2)
    assert staging._place(everyone) == (slice(None), 3)
    other = Staging(store.layout, STREAMS, LENGTH, GAMMA)
    left = store.attach(STREAMS)
    assert left is not None
    other.adopt(left)
    assert other._place(everyone) == (slice(None), 1)
