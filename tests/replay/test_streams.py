"""The store itself: memory, malformed blocks, taking over streams, snapshots that do not fit."""

from __future__ import annotations

import numpy as np
import pytest

from offbeat.replay.streams import StreamStore
from tests.replay.twin import Twin, dict_layout, image_layout, vector_layout


def twin_of(store: StreamStore, rows: int) -> Twin:
    """A twin whose writers hold ``rows`` rows of every stream."""
    twin = Twin(store.layout, np.random.default_rng(0))
    for s in range(store.layout.num_streams):
        for _ in range(rows):
            twin.step(s)
    return twin


def test_arrays_of_other_shapes_are_refused() -> None:
    layout = image_layout()
    arrays = StreamStore.allocate(layout).arrays
    with pytest.raises(ValueError, match=r"array 'head' must be int64\[3\], got int64\[4\]"):
        StreamStore(layout, arrays | {"head": np.zeros(4, np.int64)})
    del arrays["age"]
    with pytest.raises(ValueError, match=r"array 'age' must be int32\[3, 29\], got nothing"):
        StreamStore(layout, arrays)


def test_stores_over_the_same_arrays_see_the_same_streams() -> None:
    one = StreamStore.allocate(dict_layout())
    other = StreamStore(one.layout, one.arrays)
    one.append(twin_of(one, 5).block([0, 2], 5))
    assert other.head.tolist() == [5, 0, 5]
    unroll, ok = other.read_unrolls(np.array([2]), np.array([1]), 3, last=True)
    assert ok.all()
    assert unroll.inputs.observation["image"].shape == (4, 1, 6, 3, 2)


def test_malformed_blocks_are_refused_and_change_nothing() -> None:
    store = StreamStore.allocate(image_layout())
    twin = twin_of(store, 20)
    long = twin.block([0], 5)
    long.columns = {name: np.repeat(values, 2, 1) for name, values in long.columns.items()}
    twin = twin_of(store, 20)
    missing = twin.block([0], 5)
    del missing.columns["reward"]
    missing.columns["rewards"] = np.zeros((1, 5))
    twin = twin_of(store, 20)
    joined = twin.block([0], 5)
    joined.columns["first"][0, 3] = joined.columns["valid"][0, 2]
    for block, text in (
        (long, "block of 10 rows; allowed are 1 to 5"),
        (missing, r"block's columns: missing \['reward'\], unknown \['rewards'\]"),
        (joined, "stream 0: offset 3 has first=.* an episode ends in one row with valid=False"),
    ):
        with pytest.raises(ValueError, match=text):
            store.append(block)
    assert store.head.tolist() == store.reserved.tolist() == [0, 0, 0]
    assert not store.arrays["action"].any()


def test_a_block_must_begin_with_the_open_row() -> None:
    store = StreamStore.allocate(image_layout())
    store.append(twin_of(store, 5).block([1], 5))
    wrong = twin_of(store, 5).block([1], 5)
    wrong.columns["first"][0, 0] = not store.open_rows(np.array([1]))["first"][0]
    with pytest.raises(ValueError, match=r"streams \[1\]: a block must begin with the open row"):
        store.append(wrong)


def test_final_observations_have_no_discount_even_if_a_writer_says_so() -> None:
    store = StreamStore.allocate(vector_layout(core_state={}))
    twin = Twin(store.layout, np.random.default_rng(0), end=0.9)
    for _ in range(5):
        twin.step(0)
    block = twin.block([0], 5)
    block.columns["discount"][:] = 1
    store.append(block)
    valid = store.arrays["valid"][0, :5]
    assert not valid.all()
    assert (store.arrays["discount"][0, :5] == valid).all()


def test_taking_over_streams_counts_what_the_old_writer_held() -> None:
    store = StreamStore.allocate(image_layout())
    everyone = np.arange(3)
    assert store.attach(everyone) is None
    store.add_produced(everyone)
    assert store.attach(everyone) is None
    assert store.lost.tolist() == [1, 1, 1]
    for _ in range(7):
        store.add_produced(np.array([0]))
    store.append(twin_of(store, 5).block([0], 5))
    store.reserved[0] = 9  # killed in the middle of the next block
    left = store.attach(everyone)
    assert left is not None
    assert left["observation/observation"].shape == (3, 1, 2, 3)
    assert store.lost.tolist() == [3, 1, 1]
    assert store.ledger() == {
        "produced": 13, "stored": 5, "expired": 0, "lost": 5, "in_hand": 3,  # the open rows, to be appended first
        "non_transitions": int((store.head - store.counted()[0]).sum()),
    }  # fmt: skip
    store.check_ledger()


def counted_by(twin: Twin) -> list[list[int]]:
    """Appended transitions of each stream, and the environment steps that they took."""
    rows = [[row for row in stream.rows if row["valid"]] for stream in twin.streams]
    return [[len(valid) for valid in rows], [sum(row["elapsed"] for row in valid) for valid in rows]]


def test_transitions_and_the_steps_they_took_are_counted_with_the_heads() -> None:
    store = StreamStore.allocate(image_layout())
    twin = twin_of(store, 60)
    for turn in range(12):
        store.append(twin.block([0, 2] if turn % 3 else [1], 5))
        assert [counts.tolist() for counts in store.counted()] == counted_by(twin)
        assert [counts.tolist() for counts in store.counted(store.head.copy())] == counted_by(twin)
    assert (store.counted()[0] < store.head).all(), "some rows only carried a final observation"
    again = StreamStore.allocate(store.layout)
    again.load_state(store.state())
    assert [counts.tolist() for counts in again.counted()] == counted_by(twin)


def test_a_writer_killed_before_the_heads_moved_on_has_counted_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    store = StreamStore.allocate(image_layout())
    twin = twin_of(store, 20)
    store.append(twin.block([0, 1, 2], 5))
    before, state = counted_by(twin), store.state()

    def killed(*parts: object) -> None:
        count(*parts)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    count = store._count
    monkeypatch.setattr(store, "_count", killed)
    block = twin.block([0, 1, 2], 5)
    with pytest.raises(KeyboardInterrupt):
        store.append(block)
    assert [counts.tolist() for counts in store.counted()] == before
    assert store.state()["transitions"].tolist() == state["transitions"].tolist()
    monkeypatch.setattr(store, "_count", count)
    store.append(block)
    assert [counts.tolist() for counts in store.counted()] == counted_by(twin)
    with pytest.raises(ValueError, match="moved on"):
        store.counted(np.array([0, 5, 10]))


def test_streams_saved_before_steps_were_counted_took_one_for_each_transition() -> None:
    store = StreamStore.allocate(image_layout())
    twin = twin_of(store, 10)
    store.append(twin.block([0, 1, 2], 5))
    state = store.state()
    del state["transitions"], state["env_steps"]
    store.load_state(state)
    assert store.counted()[0].tolist() == store.counted()[1].tolist() == counted_by(twin)[0]


class Broken:
    """Values of a state whose writer dies when it comes to them."""

    def __getitem__(self, index: object) -> np.ndarray:
        raise KeyboardInterrupt


def test_a_state_half_written_by_a_killed_writer_is_no_state() -> None:
    layout = image_layout(num_streams=1, state_period=0)
    store, twin = StreamStore.allocate(layout), Twin(layout, np.random.default_rng(0), end=0.0)
    for turn in range(4):
        for _ in range(5):
            twin.step(0)
        block = twin.block([0], 5)
        block.core_stream, block.core_row = np.zeros(5, np.int64), np.arange(5)  # more often than is due
        row = turn * 5 + np.arange(5)
        block.core_state = {name: np.full((5, *spec.shape), row[0]) for name, spec in layout.core_state.items()}
        if turn < 3:
            store.append(block)
    assert layout.kept_states == 10
    block.core_state["h"] = Broken()  # type: ignore[assignment]
    starts = np.arange(1, 15)
    assert store.readable(np.zeros(14, np.int64), starts, 1, last=False).tolist() == [False] * 4 + [True] * 10
    with pytest.raises(KeyboardInterrupt):
        store.append(block)
    unroll, ok = store.read_unrolls(np.zeros(14, np.int64), starts, 1, last=False)
    assert ok.tolist() == [False] * 9 + [True] * 5
    assert (unroll.core_state["c"][ok] == 10).all()
