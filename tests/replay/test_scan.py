"""Finding items and their initial priorities, against slow transcriptions of the definitions."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from offbeat.algorithms.priorities import max_mean
from offbeat.algorithms.returns import n_step_target, rescale, unrescale
from offbeat.replay.items import ItemSpec
from offbeat.replay.scan import scan_streams
from offbeat.replay.streams import StreamStore
from tests.replay.episodes import item_layout, write
from tests.replay.test_readers import operate
from tests.replay.twin import Row, Twin

SEQUENCES = [
    ItemSpec("sequence", n=2, length=4, burn_in=2, period=4),
    ItemSpec("sequence", n=3, length=5, burn_in=3, period=2, eta=0.5, rescale=1e-3),
    ItemSpec("sequence", n=1, length=3, burn_in=0, period=3, eta=1.0, rescale=1e-2),
    ItemSpec("sequence", n=5, length=2, burn_in=1, period=1, eta=0.0),
]
TRANSITIONS = [ItemSpec(n=n) for n in range(1, 6)] + [ItemSpec(n=4, rescale=1e-3)]


def scan(store: StreamStore, items: ItemSpec, from_actor: bool = True) -> dict[tuple[int, int], float]:
    """Stream and row of every item that nobody has looked at, and its priority; nothing expires."""
    size = store.layout.num_streams
    low, head = np.zeros(size, np.int64), store.head.copy()
    leaf, priority = scan_streams(store, items, np.zeros(size, np.int64), low, low.copy(), head, from_actor)
    assert len(set(leaf.tolist())) == len(leaf)
    return {divmod(int(at), store.layout.ring): float(p) for at, p in zip(leaf, priority)}


def slow_items(rows: list[Row], items: ItemSpec) -> list[int]:
    """First trained rows of all complete items of one stream."""
    found = []
    for t, row in enumerate(rows):
        if not row["valid"] or row["age"] % items.period:
            continue
        ahead = rows[t + 1 : t + 1 + (items.n if items.kind == "transition" else items.length + items.n)]
        whole = len(ahead) == (items.n if items.kind == "transition" else items.length + items.n)
        if whole or any(not then["valid"] for then in ahead):
            found.append(t)
    return found


def slow_priority(rows: list[Row], t: int, items: ItemSpec) -> float:
    """The TD errors of an item, by ``n_step_target`` over the rest of its episode, and their mixture."""
    end = t
    while rows[end]["valid"] and end + 1 < len(rows):
        end += 1  # the final observation, or the last row there is
    steps = range(t, end)

    def column(name: str, ahead: int = 0) -> torch.Tensor:
        return torch.tensor([[float(rows[i + ahead][name])] for i in steps], dtype=torch.float64)

    bootstrap, scaled = column("extras/q_max", 1), items.rescale >= 0
    if scaled:
        bootstrap = unrescale(bootstrap, items.rescale)
    target = n_step_target(column("reward"), column("discount"), bootstrap, items.n)
    if scaled:
        target = rescale(target, items.rescale)
    error = (target - column("extras/q"))[: items.trained]
    if items.kind == "transition":
        return float(error[0, 0].abs())
    return float(max_mean(error, torch.ones_like(error, dtype=torch.bool), items.eta))


@pytest.mark.parametrize("items", TRANSITIONS + SEQUENCES, ids=str)
@pytest.mark.parametrize("end", [0.03, 0.2])
def test_items_and_priorities_equal_a_slow_transcription(items: ItemSpec, end: float) -> None:
    rng = np.random.default_rng([items.n, items.length])
    layout = item_layout(items, num_streams=3, capacity=300)
    store, twin = StreamStore.allocate(layout), Twin(layout, rng, end)
    for _ in range(60):
        operate(store, twin, rng)
    assert (store.head < layout.capacity).all()
    got = scan(store, items)
    rows = [stream.rows for stream in twin.streams]
    want = {(s, t): slow_priority(rows[s], t, items) for s in range(3) for t in slow_items(rows[s], items)}
    assert got.keys() == want.keys()
    assert len(got) > 30
    np.testing.assert_allclose([got[name] for name in want], list(want.values()), rtol=1e-9)
    assert min(want.values()) != max(want.values())
    without = scan(store, items, from_actor=False)
    assert without == dict.fromkeys(got, 0.0)


@pytest.mark.parametrize("items", [TRANSITIONS[2], SEQUENCES[1]], ids=str)
def test_many_small_scans_find_what_one_does(items: ItemSpec) -> None:
    rng = np.random.default_rng(3)
    layout = item_layout(items, num_streams=2, capacity=300)
    store, twin = StreamStore.allocate(layout), Twin(layout, rng)
    seen, low, found = np.zeros(2, np.int64), np.zeros(2, np.int64), {}
    for turn in range(60):
        operate(store, twin, rng)
        if turn % 3 == 0:
            head = store.head.copy()
            for at, priority in zip(*scan_streams(store, items, seen, low, low.copy(), head, True)):
                assert at not in found
                found[at] = priority
            assert (seen <= head).all()
    whole = scan(store, items)
    last = {s * layout.ring + t: p for (s, t), p in whole.items()}
    assert found.items() <= last.items()
    assert len(found) > 0.8 * len(last)


def test_rows_expire_once_and_before_what_takes_their_place() -> None:
    items = ItemSpec(n=1)
    store = write(items, 1000, capacity=20, block=5)
    ring, head = store.layout.ring, store.head.copy()
    seen, low = np.array([30]), np.array([18])
    leaf, priority = scan_streams(store, items, seen, low, head - 10, head, False)
    gone = head[0] - 10 - 18
    assert leaf[:gone].tolist() == [t % ring for t in range(18, head[0] - 10)]
    assert (priority[:gone] == -1).all()
    # the final observation, row 1000, is no item; the last row's one step is there
    assert leaf[gone:].tolist() == [t % ring for t in range(head[0] - 10, head[0] - 1)]
    assert (priority[gone:] == 0).all()
    assert (seen[0], low[0]) == (head[0], head[0] - 10)


def td_error(items: ItemSpec, reward: list[float], gamma: float, q: float, q_max: float, terminal: int = 0) -> float:
    """The priority of row 0 of an episode with these rewards; ``terminal``: the action that ended a life, from 1."""
    store = write(items, 30)
    store.arrays["reward"][0, : len(reward)], store.arrays["discount"][0] = reward, gamma
    store.arrays["extras/q"][0, 0], store.arrays["extras/q_max"][0, items.n] = q, q_max
    if terminal:
        store.arrays["discount"][0, terminal - 1] = 0
    return scan(store, items)[0, 0]


def test_numbers_worked_out_by_hand() -> None:
    one, five = ItemSpec(n=3), ItemSpec(n=5, rescale=1e-3)
    close = {"rtol": 1e-6}  # rewards and values are float32
    np.testing.assert_allclose(td_error(one, [1, 0, -1], 0.99, 0.25, 1.2), 0.9342588, **close)
    np.testing.assert_allclose(td_error(one, [1, 2, 9], 0.99, 0.25, 1.2, terminal=2), 2.98 - 0.25, **close)
    rewards = [10, 0, 50, 0, -5]
    np.testing.assert_allclose(td_error(five, rewards, 0.997, 7.9, 8), 2.7725390148, **close)
    np.testing.assert_allclose(td_error(five, rewards, 0.997, 7.9, 8, terminal=3), 7.9 - 6.8507498017, **close)


@pytest.mark.parametrize(("actions", "mixed"), [(5, 1.858), (3, 1.8866666667)])
def test_the_mixture_is_over_the_rows_that_are_there(actions: int, mixed: float) -> None:
    items = ItemSpec("sequence", n=1, length=5, burn_in=2, period=5, eta=0.9)
    store = write(items, actions)
    store.arrays["reward"][0, :5], store.arrays["discount"][0] = [0.5, -0.1, 2, 0, 0.3], 0
    np.testing.assert_allclose(scan(store, items)[0, 0], mixed, rtol=1e-7)


@pytest.mark.parametrize("items", [ItemSpec(n=2), ItemSpec("sequence", n=2, length=3, period=3)], ids=["one", "many"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["reward", "extras/q", "extras/q_max"])
def test_a_priority_that_is_not_finite_is_nan(items: ItemSpec, value: float, name: str) -> None:
    store = write(items, 14)
    store.arrays[name][0, 8] = value
    got = scan(store, items)
    touched = {"reward": (7, 8), "extras/q": (8,), "extras/q_max": (6,)}[name]  # transitions whose error needs row 8
    want = {t for (_, t) in got if any(t <= row < t + items.trained for row in touched)}
    assert {t for (_, t), priority in got.items() if np.isnan(priority)} == want != set()
    assert all(np.isfinite(priority) for (_, t), priority in got.items() if t not in want)
