"""Items: which rows start one, and what a sequence holds, against layouts that were worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from offbeat.replay.items import ItemSpec, read_items
from offbeat.replay.layout import layout_for
from offbeat.replay.mixture import ReplayConfig
from offbeat.replay.prioritised import Prioritised
from offbeat.replay.samplers import sampler_config
from offbeat.replay.streams import StreamStore
from offbeat.types import ActionSpec, ArraySpec, EnvSpec, Sequence, Transition
from tests.replay.episodes import Episodes, item_layout, write

SMALL = ItemSpec("sequence", n=2, length=4, burn_in=2, period=4)
PAPER = ItemSpec("sequence", n=5, length=80, burn_in=40, period=40)

# Actions of the episode -> its sequences: (state before step k, length with burn-in, burn-in|trained|tail).
# P: padding, *: the action that ended the episode.
CASES = {
    11: [(0, 6, "P P|0 1 2 3|4 5"), (2, 6, "2 3|4 5 6 7|8 9"), (6, 5, "6 7|8 9 10* P|P P")],
    9: [(0, 6, "P P|0 1 2 3|4 5"), (2, 6, "2 3|4 5 6 7|8* P"), (6, 3, "6 7|8* P P P|P P")],
    3: [(0, 5, "P P|0 1 2* P|P P")],
    4: [(0, 6, "P P|0 1 2 3*|P P")],
}


def found(store: StreamStore, items: ItemSpec) -> tuple[np.ndarray, np.ndarray]:
    """Streams and rows of all items, in order."""
    sampler = Prioritised(store, items, np.random.default_rng(0), alpha=1.0)
    sampler.sync()
    stream, at = np.divmod(np.flatnonzero(sampler.tree.leaves), store.layout.ring)
    head = store.head[stream]
    row = head - 1 - (head - 1 - at) % store.layout.ring
    order = np.lexsort((row, stream))
    return stream[order], row[order]


def read(store: StreamStore, items: ItemSpec) -> tuple[Sequence, np.ndarray]:
    """All sequences there are, and their rows."""
    stream, row = found(store, items)
    batch, ok = read_items(store, items, stream, row, last=True, source=np.full(len(row), 3))
    assert ok.all()
    assert isinstance(batch, Sequence)
    assert batch.stream.tolist() == stream.tolist()
    assert batch.row.tolist() == row.tolist()
    assert batch.source.tolist() == [3] * len(row)
    return batch, row


@pytest.mark.parametrize("actions", sorted(CASES))
def test_the_layouts_worked_out_by_hand(actions: int) -> None:
    batch, row = read(write(SMALL, actions), SMALL)
    assert row.tolist() == list(range(0, actions, 4)) == [4 * i for i in range(len(CASES[actions]))]
    assert batch.burn_in == 2
    step = batch.inputs.observation["observation"][..., 2]
    for b, (state, length, text) in enumerate(CASES[actions]):
        assert batch.core_state["h"][b].tolist() == [state]
        burn_in, trained, tail = (part.split() for part in text.split("|"))
        cells = burn_in + trained + tail
        assert batch.mask[:, b].tolist() == [False] * 2 + [cell != "P" for cell in trained] + [False] * 2
        assert 2 + int(batch.mask[:, b].sum()) == length
        for t, cell in enumerate(cells):
            if cell == "P":
                assert step[t, b] == (0 if t < 2 else actions)
                for values in (batch.valid, batch.reward, batch.discount, batch.terminated, batch.truncated):
                    assert not values[t, b]
            else:
                number = int(cell.rstrip("*"))
                assert step[t, b] == batch.action[t, b] == number
                assert batch.reward[t, b] == 1 + number
                assert batch.valid[t, b]
                assert batch.terminated[t, b] == cell.endswith("*") == (number == actions - 1)
                assert (batch.discount[t, b] == 0) == cell.endswith("*")
                assert batch.inputs.last_reward is not None
                assert batch.inputs.last_reward[t, b] == number  # 1 + the step before; 0 at the start
            assert batch.inputs.first[t, b] == (cell == "0")
        assert step[8, b] == min(int(row[b]) + 6, actions)  # the observation after the last row
    assert batch.rows == int(batch.mask.sum()) == actions


def test_a_sequence_exists_once_its_tail_does() -> None:
    store = StreamStore.allocate(item_layout(SMALL))
    episodes = Episodes(store, lambda: 100)
    for head in range(1, 40):
        episodes.append(0, 1)
        _, row = found(store, SMALL)
        assert row.tolist() == [start for start in range(0, 100, 4) if start + 4 + 2 < head]


def test_overlapping_sequences_of_the_paper() -> None:
    store = write(PAPER, 400, 130, capacity=600, block=20)
    batch, row = read(store, PAPER)
    assert row.tolist() == [*range(0, 400, 40), *range(401, 531, 40)]
    absolute = [set((np.flatnonzero(batch.mask[:, b].numpy()) - 40 + row[b]).tolist()) for b in range(len(row))]
    for b in range(9):
        assert absolute[b] == set(range(40 * b, min(40 * b + 80, 400)))
        assert row[b + 1] - row[b] == 40
        assert len(absolute[b] & absolute[b + 1]) == 40
    assert not absolute[9] & absolute[10]
    start = batch.inputs.observation["observation"][40, :, 2]
    assert batch.core_state["h"][:, 0].tolist() == (start - 40).clamp(min=0).tolist()
    # rows 1 .. 39 of an episode have too little history before them: only a first row is ever padded
    assert batch.valid[0].tolist() == [step > 0 for step in start.tolist()]
    assert batch.valid[40].all()


@pytest.mark.parametrize(
    ("n", "length", "burn_in", "period", "state_period"),
    [(1, 3, 0, 3, 3), (2, 4, 0, 1, 1), (3, 5, 4, 6, 2), (2, 6, 7, 3, 1), (1, 2, 9, 6, 3), (4, 8, 4, 4, 4)],
)
def test_every_sequence_has_its_rows_and_its_state(
    n: int, length: int, burn_in: int, period: int, state_period: int
) -> None:
    items = ItemSpec("sequence", n=n, length=length, burn_in=burn_in, period=period)
    assert items.state_period == state_period
    rng, lengths = np.random.default_rng(n), []

    def draw() -> int:
        lengths.append(int(rng.integers(1, 25)))
        return lengths[-1]

    store = StreamStore.allocate(item_layout(items, num_streams=2))
    episodes = Episodes(store, draw)
    for _ in range(30):
        episodes.round()
    assert (store.head > store.layout.ring).all()
    batch, row = read(store, items)
    number, step = batch.inputs.observation["observation"][burn_in, :, 1:].T.long()
    assert len(row) > 2 * 40 / (period + 1) - 20 / period
    assert not (step % period).any()
    assert batch.core_state["h"][:, 0].tolist() == (step - burn_in).clamp(min=0).tolist()
    for b in range(len(row)):
        before = min(int(step[b]), burn_in)
        assert batch.valid[:burn_in, b].tolist() == [False] * (burn_in - before) + [True] * before
        seen = batch.inputs.observation["observation"][:, b]
        assert (seen[:, 0] == batch.stream[b]).all()
        assert (seen[:, 1] == number[b]).all()
        ended = int(seen[:, 2].max())
        want = [max(0, int(step[b]) + t - burn_in) for t in range(burn_in + length + n + 1)]
        assert seen[:, 2].tolist() == [min(t, ended) for t in want]
        assert batch.mask[:, b].sum() == min(length, ended - int(step[b]))


def test_transitions_are_every_valid_row_whose_steps_are_there() -> None:
    items = ItemSpec(n=3)
    assert items.state_period == 0
    store = write(items, 5, 2)
    stream, row = found(store, items)
    assert row.tolist() == [0, 1, 2, 3, 4, 6, 7]
    batch, ok = read_items(store, items, stream, row, last=False, source=np.zeros(7, np.int64))
    assert ok.all()
    assert isinstance(batch, Transition)
    assert batch.steps.tolist() == [3, 3, 3, 2, 1, 2, 1]
    assert batch.row.tolist() == row.tolist()
    np.testing.assert_allclose(batch.reward[:2], [1 + 0.9 * 2 + 0.81 * 3, 2 + 0.9 * 3 + 0.81 * 4], rtol=1e-6)
    assert (batch.discount == 0).tolist() == [False, False, True, True, True, True, True]


def test_a_layout_keeps_what_items_need() -> None:
    spec = EnvSpec("toy", {"observation": ArraySpec((1, 2, 2))}, ActionSpec("discrete", 3), 4, ("observation",))
    replay = ReplayConfig(samplers=(sampler_config("prioritised"),))
    for items in (SMALL, PAPER, ItemSpec(n=3)):
        core = {"h": ArraySpec((1,))} if items.kind == "sequence" else {}
        layout = layout_for(spec, {}, core, num_streams=3, replay=replay, unroll_length=7, block=5, items=items)
        assert (layout.state_grid, layout.state_period, layout.items) == (0, items.state_period, items)
        assert layout.capacity % 5 == 0
        Prioritised(
            StreamStore.allocate(layout), items, np.random.default_rng(0), alpha=0.5, last=True
        )  # does not refuse
        few = ReplayConfig(3 * (layout.capacity - 5), replay.samplers)
        with pytest.raises(ValueError, match=r"replay\.capacity=\d+ gives \d+ rows to each of 3 streams"):
            layout_for(spec, {}, core, num_streams=3, replay=few, unroll_length=7, block=5, items=items)


@pytest.mark.parametrize(
    ("field", "value", "allowed"),
    [("n", 0, "1 or above"), ("length", 0, "1 or above"), ("period", 0, "1 or above"), ("burn_in", -1, "0 or above"),
     ("eta", 1.5, "0 to 1"), ("eta", float("nan"), "0 to 1")],
)  # fmt: skip
def test_numbers_out_of_range_are_refused(field: str, value: float, allowed: str) -> None:
    with pytest.raises(ValueError, match=f"{field}={value} is out of range; allowed: {allowed}"):
        ItemSpec("sequence", **{field: value})  # type: ignore[arg-type]
