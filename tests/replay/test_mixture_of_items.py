"""Batches of transitions and sequences: weights, what is drawn again, going on from a saved state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from offbeat.algorithms.priorities import importance_weights
from offbeat.replay.items import ItemSpec, read_items
from offbeat.replay.make import make_mixture
from offbeat.replay.mixture import MOST_TRIES, Mixture, ReplayConfig
from offbeat.replay.prioritised import Prioritised
from offbeat.replay.samplers import sampler_config
from offbeat.replay.streams import StreamStore
from offbeat.types import Batch, Sequence, Transition
from tests.replay.episodes import Episodes, item_layout, write

ONE = ItemSpec(n=1)
MANY = ItemSpec("sequence", n=2, length=4, burn_in=2, period=4)


def replay_of(
    store: StreamStore,
    batch_size: int = 4,
    progress: Callable[[], float] = lambda: 0.0,
    replay: dict[str, Any] | None = None,
    **sampler: Any,
) -> Mixture:
    """Prioritised replay of the items that ``store`` was made for."""
    options: dict[str, Any] = {"kind": "prioritised"} | sampler
    config = ReplayConfig(samplers=(sampler_config(**options),), **(replay or {}))
    return make_mixture(store, config, batch_size, True, 0, progress=progress)


def only(replay: Mixture) -> Prioritised:
    """Its one sampler."""
    (sampler,) = replay.samplers
    assert isinstance(sampler, Prioritised)
    return sampler


def told(replay: Mixture, batch: Batch, priority: np.ndarray) -> None:
    """Tell the samplers the priorities of a batch."""
    replay.feedback(batch.source.numpy(), batch.stream.numpy(), batch.row.numpy(), {"priority": priority})


def filled(items: ItemSpec, rounds: int = 30) -> tuple[StreamStore, Episodes]:
    """Two streams of random episodes."""
    rng = np.random.default_rng(0)
    store = StreamStore.allocate(item_layout(items, num_streams=2))
    episodes = Episodes(store, lambda: int(rng.integers(1, 30)))
    for _ in range(rounds):
        episodes.round()
    return store, episodes


def tensors(batch: Batch) -> dict[str, torch.Tensor]:
    """Every tensor of a batch."""
    found: dict[str, torch.Tensor] = {}

    def walk(name: str, value: Any) -> None:
        if isinstance(value, torch.Tensor):
            found[name] = value
        elif isinstance(value, dict) or hasattr(value, "__dataclass_fields__"):
            for key, part in (value if isinstance(value, dict) else vars(value)).items():
                walk(f"{name}/{key}", part)

    walk("", batch)
    return found


def equal(one: Batch | None, other: Batch | None) -> bool:
    assert one is not None
    assert other is not None
    mine, theirs = tensors(one), tensors(other)
    return mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)


@pytest.mark.parametrize(
    ("batch", "want"),
    [([0, 2, 4], [1, 0.5754399373, 0.4125775590]), ([1, 2, 4], [1, 0.8467453124, 0.6070974422]), ([3], [1])],
)
def test_weights_worked_out_by_hand(batch: list[int], want: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    """Priorities .1, .5, 1, 2, 4; alpha = .6, beta = .4."""
    replay = replay_of(write(ONE, 5), len(batch), alpha=0.6, beta=0.4, final_beta=0.4)
    assert replay.sample() is not None
    five = np.zeros(5, np.int64)
    replay.feedback(five, five, np.arange(5), {"priority": np.array([0.1, 0.5, 1, 2, 4])})
    assert only(replay).tree.total == pytest.approx(5.7240558750, rel=1e-10)
    monkeypatch.setattr(only(replay).tree, "draw", lambda n, rng: np.array(batch))
    drawn = replay.sample()
    assert drawn is not None
    assert drawn.weight is not None
    assert drawn.row.tolist() == batch
    assert drawn.weight.dtype == torch.float32
    np.testing.assert_allclose(drawn.weight, want, rtol=1e-6)


@pytest.mark.parametrize("items", [ONE, MANY], ids=["one", "many"])
def test_weights_are_those_of_the_probabilities_and_beta_follows_progress(items: ItemSpec) -> None:
    store, episodes = filled(items)
    share = [0.0]
    replay = replay_of(store, 16, lambda: share[0], alpha=0.9, beta=0.4, final_beta=1.0)
    rng = np.random.default_rng(1)
    different = 0
    for step in range(30):
        share[0] = step / 29
        episodes.append(step % 2, 3)
        batch = replay.sample()
        assert batch is not None
        assert batch.weight is not None
        leaves = only(replay).tree.leaves
        probability = leaves[store.locate(batch.stream.numpy(), batch.row.numpy())] / leaves.sum()
        want = importance_weights(torch.from_numpy(probability), np.count_nonzero(leaves), 0.4 + 0.6 * share[0])
        np.testing.assert_allclose(batch.weight, want, rtol=1e-6)
        different += int(batch.weight.min() < 0.9)
        told(replay, batch, rng.exponential(1, 16))
    assert different > 20


def test_uniform_replay_weighs_nothing_and_ignores_priorities() -> None:
    store, _ = filled(ONE)
    replay = replay_of(store, 8, kind="uniform")
    for _ in range(5):
        batch = replay.sample()
        assert batch is not None
        assert batch.weight is not None
        assert batch.weight.tolist() == [1.0] * 8
        told(replay, batch, np.arange(8.0))
    used = only(replay).tree.leaves[only(replay).tree.leaves > 0]
    assert set(used.tolist()) == {1.0}


@pytest.mark.parametrize(("items", "reader"), [(ONE, "read_transitions"), (MANY, "read_sequences")])
def test_overwritten_items_are_drawn_again_and_counted(
    items: ItemSpec, reader: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, _ = filled(items)
    replay = replay_of(store, 6)
    true_read, spoiled = getattr(store, reader), []

    def spoil(*args: Any, **options: Any) -> Any:
        batch, ok = true_read(*args, **options)
        if len(spoiled) < 3:
            bad = np.arange(len(ok)) % 2 == len(spoiled) % 2
            batch.action[..., bad], batch.reward[..., bad] = 77, 77
            batch.inputs.observation["observation"][:, bad] = 77
            ok = ok & ~bad
            spoiled.append(int(bad.sum()))
        return batch, ok

    monkeypatch.setattr(store, reader, spoil)
    batch = replay.sample()
    assert batch is not None
    assert len(spoiled) == 3
    assert replay.stats()["dropped_items"] == replay.dropped == sum(spoiled) == 5
    monkeypatch.undo()
    clean, ok = read_items(
        store, items, batch.stream.numpy(), batch.row.numpy(), last=True, source=batch.source.numpy()
    )
    assert ok.all()
    clean.weight, clean.replayed = batch.weight, torch.ones(6, dtype=torch.bool)
    assert equal(batch, clean)
    assert replay.sampled == 6 * items.trained  # a batch counts once


def test_items_that_writers_overwrite_meanwhile_are_drawn_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer goes round the whole ring between the draw and the copy."""
    store, episodes = filled(ONE)
    replay = replay_of(store, 6, initial_priority="actor")  # priorities differ: rewards do
    true_read, calls = store.read_transitions, []

    def late(*args: Any, **options: Any) -> Any:
        calls.append(args)
        if len(calls) == 1:
            episodes.append(0, 100)
            episodes.append(1, 100)
        return true_read(*args, **options)

    monkeypatch.setattr(store, "read_transitions", late)
    batch = replay.sample()
    assert batch is not None
    assert batch.weight is not None
    assert (len(calls), replay.dropped) == (2, 6)
    assert (batch.row.numpy() >= store.head[batch.stream.numpy()] - store.layout.capacity).all()
    leaves = only(replay).tree.leaves
    probability = leaves[store.locate(batch.stream.numpy(), batch.row.numpy())] / leaves.sum()
    want = importance_weights(torch.from_numpy(probability), np.count_nonzero(leaves), 0.4)
    np.testing.assert_allclose(batch.weight, want, rtol=1e-6)


def spoil_all(
    store: StreamStore, monkeypatch: pytest.MonkeyPatch, meanwhile: Callable[[], object] = lambda: None
) -> None:
    """No transition stays readable while it is copied, and ``meanwhile`` happens."""
    true_read = store.read_transitions

    def read(*args: Any, **options: Any) -> Any:
        batch, ok = true_read(*args, **options)
        meanwhile()
        return batch, np.zeros_like(ok)

    monkeypatch.setattr(store, "read_transitions", read)


def test_a_batch_that_stays_unreadable_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    store, _ = filled(ONE)
    replay = replay_of(store, 5)
    spoil_all(store, monkeypatch)
    with pytest.raises(RuntimeError, match=r"no 5 items stayed readable .* use a larger replay\.capacity"):
        replay.sample()
    assert replay.dropped == 5 * MOST_TRIES
    assert replay.sampled == 0


def test_there_is_no_batch_where_all_items_went_while_they_were_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    store, _ = filled(ONE)
    replay = replay_of(store, 5)
    tree = only(replay).tree
    spoil_all(store, monkeypatch, lambda: tree.load(np.zeros(tree.size)))
    assert replay.sample() is None
    assert replay.dropped == 5
    assert replay.sampled == 0


@pytest.mark.parametrize("items", [ONE, MANY], ids=["one", "many"])
def test_there_is_no_batch_before_min_rows_nor_before_an_item_is_complete(items: ItemSpec) -> None:
    for min_rows in (0, 60):
        store = StreamStore.allocate(item_layout(items, num_streams=2))
        episodes = Episodes(store, lambda: 1_000)
        replay = replay_of(store, 2, min_rows=min_rows)
        for rows in range(1, 50):
            for s in range(2):
                episodes.append(s, 1)
            want = rows >= max(items.span + 1, min_rows / 2)
            assert replay.ready() == want
            assert (replay.sample() is not None) == want


def test_a_replay_says_what_it_waits_for(monkeypatch: pytest.MonkeyPatch) -> None:
    store, _ = filled(ONE, rounds=2)
    replay = replay_of(store, 4, min_rows=60)
    assert replay.missing() == "60 rows before the first batch; 20 have come"
    replay = replay_of(store, 4, min_rows=0)
    assert replay.missing() == "a complete transition with a priority above 0; 20 rows are stored"
    assert replay.sample() is not None
    assert replay.missing() == "nothing: a batch is ready"
    replay = replay_of(store, 4, replay={"samples_per_insert": 1.0}, min_rows=14)
    while replay.sample() is not None:
        pass
    assert replay.missing() == "rate control: 22 rows at replay.samples_per_insert=1; 20 have come and 4 were drawn"


def test_a_batch_counts_the_rows_it_may_train_on() -> None:
    for items, kind in ((ONE, Transition), (MANY, Sequence)):
        store, _ = filled(items)
        replay = replay_of(store, 4, replay={"samples_per_insert": 0.5}, min_rows=20)
        drawn = 0
        while (batch := replay.sample()) is not None:
            assert isinstance(batch, kind)
            assert batch.source.tolist() == [0] * 4
            drawn += 1
        rows = 4 * items.trained
        assert drawn == (300 - 20) * 0.5 // rows
        stats = replay.stats()
        assert stats["sampled_rows"] == drawn * rows
        assert stats["samples_per_insert"] == drawn * rows / 300
        assert stats["items"] == only(replay).size > 0
        assert stats["stored_rows"] == 160


@pytest.mark.parametrize("items", [ONE, MANY], ids=["one", "many"])
@pytest.mark.parametrize("initial", ["actor", "max"])
def test_a_saved_replay_goes_on_exactly(items: ItemSpec, initial: str) -> None:
    options: dict[str, Any] = {"initial_priority": initial, "alpha": 0.7, "replay": {"samples_per_insert": 2.0}}
    store, episodes = filled(items)
    replay = replay_of(store, 6, **options)
    rng = np.random.default_rng(3)

    def go_on(pairs: list[tuple[Mixture, Episodes]]) -> list[Batch | None]:
        made = []
        for step in range(20):
            priority = rng.exponential(1, 6)
            for one, writer in pairs:
                writer.append(step % 2, 7)
                batch = one.sample()
                made.append(batch)
                if batch is not None:
                    told(one, batch, priority)
        return made

    assert any(batch is not None for batch in go_on([(replay, episodes)]))
    twin_store = StreamStore.allocate(store.layout)
    twin_store.load_state({name: values.copy() for name, values in store.state().items()})
    other = replay_of(twin_store, 6, **options)
    other.load_state({name: values.copy() for name, values in replay.state().items()})
    assert other.stats() == replay.stats()
    lengths = rng.integers(1, 30, 1_000).tolist()
    writers = [Episodes(target, iter(lengths).__next__) for target in (store, twin_store)]
    for writer in writers:
        writer.open = list(episodes.open)
    made = go_on([(replay, writers[0]), (other, writers[1])])
    assert all(equal(one, two) for one, two in zip(made[0::2], made[1::2]) if (one, two) != (None, None))
    assert sum(batch is not None for batch in made) > 20
    assert other.stats() == replay.stats()
    one_state, other_state = replay.state(), other.state()
    assert one_state.keys() == other_state.keys()
    for name in one_state:
        np.testing.assert_array_equal(one_state[name], other_state[name], err_msg=name)
