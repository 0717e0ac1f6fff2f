"""Mixtures: shares, redrawing, ledger, and going on from a saved state."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from offbeat.replay.columns import columns_of
from offbeat.replay.layout import layout_for
from offbeat.replay.make import make_mixture, split_batch
from offbeat.replay.mixture import Mixture, ReplayConfig
from offbeat.replay.samplers import sampler_config
from offbeat.replay.streams import StreamStore
from offbeat.types import ActionSpec, ArraySpec, EnvSpec, Unroll
from tests.replay.test_fifo import grow
from tests.replay.twin import Twin, TwinReader

SPEC = EnvSpec("toy", {"observation": ArraySpec((1, 2, 2), "uint8")}, ActionSpec("discrete", 3), 4, ("observation",))
HALF = ReplayConfig(90, (sampler_config("fifo", share=0.5), sampler_config("uniform", share=0.5, min_rows=15)))


def build(config: ReplayConfig = HALF, seed: int = 0, batch_size: int = 4) -> tuple[StreamStore, Twin, Mixture]:
    """Three streams, unrolls of five rows, batches of four."""
    layout = layout_for(
        SPEC, {"q": ArraySpec(())}, {"h": ArraySpec((2,))}, num_streams=3, replay=config, unroll_length=5
    )
    store = StreamStore.allocate(layout)
    return store, Twin(layout, np.random.default_rng(seed)), make_mixture(store, config, batch_size, True, seed)


def write(store: StreamStore, twin: Twin, blocks: int = 1) -> None:
    """So many blocks for every stream, whatever room there is."""
    for _ in range(blocks):
        for s in range(3):
            grow(store, twin, s, 5)


def fill(store: StreamStore, twin: Twin) -> None:
    """Let the writers go on as far as they may."""
    for s in range(3):
        while store.room(np.array([s]))[0] >= 5 and store.head[s] < 400:
            grow(store, twin, s, 5)


def equal(one: Unroll, other: Unroll) -> bool:
    mine, theirs = columns_of(one), columns_of(other)
    return mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)


def test_batches_have_their_shares_and_the_twins_contents() -> None:
    store, twin, mixture = build()
    batches = 0
    fill(store, twin)
    assert mixture.ready()
    while batches < 20:
        fill(store, twin)
        batch = mixture.sample()
        assert batch is not None
        assert batch.source.tolist() == [0, 0, 1, 1]
        assert batch.replayed is not None
        assert batch.replayed.tolist() == [False, False, True, True]
        assert batch.weight is None
        for b in range(4):
            want = TwinReader(twin, True).unroll(int(batch.stream[b]), int(batch.row[b]), 5)
            assert want is not None
            assert batch.reward[:, b].tolist() == [row["reward"] for row in want[:-1]]
            seen = np.array([row["seen"]["observation"] for row in want])
            assert np.array_equal(batch.inputs.observation["observation"][:, b].numpy(), seen)
        mixture.done(batch)
        store.check_ledger()
        batches += 1
    counts = store.ledger()
    assert counts["fifo0/trained"] == 20 * 2 * 5
    assert mixture.stats()["sampled_rows"] == 20 * 4 * 5
    assert mixture.stats()["pending_unrolls_0"] > 0


def test_overwritten_unrolls_are_drawn_again_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    config = ReplayConfig(90, (sampler_config("uniform", share=1.0),))
    store, twin, mixture = build(config)
    for _ in range(12):
        for s in range(3):
            grow(store, twin, s, 5)
    true_read, spoiled = store.read_unrolls, []

    def spoil(*args, **options):  # type: ignore[no-untyped-def]
        unroll, ok = true_read(*args, **options)
        if len(spoiled) < 3:
            bad = np.arange(len(ok)) % 2 == len(spoiled) % 2
            unroll.action[:, bad] = -1
            for values in (unroll.inputs.observation["observation"], unroll.inputs.last_action):
                values[:, bad] = 77
            ok &= ~bad
            spoiled.append(int(bad.sum()))
        return unroll, ok

    monkeypatch.setattr(store, "read_unrolls", spoil)
    batch = mixture.sample()
    assert batch is not None
    assert len(spoiled) == 3
    assert mixture.stats()["dropped_unrolls"] == mixture.dropped == sum(spoiled)
    clean, ok = true_read(batch.stream.numpy(), batch.row.numpy(), 5, last=True, source=batch.source.numpy())
    assert ok.all()
    clean.replayed = torch.ones(4, dtype=torch.bool)
    assert equal(batch, clean)


@pytest.mark.parametrize(
    ("config", "text"),
    [
        (ReplayConfig(), r"^fifo: unrolls \(stream, row\) \[\(0, 0\), \(1, 0\), \(2, 0\)\] were overwritten"),
        (HALF, r"^uniform sampler found no 2 readable unrolls of 5 rows"),
    ],
)
def test_an_unroll_that_is_gone_is_an_error_not_a_gap(config: ReplayConfig, text: str) -> None:
    store, twin, mixture = build(config, batch_size=4 if config is HALF else 3)
    fill(store, twin)
    store.arrays["core_row"][:] = -1
    store.arrays["first"][:] = False
    store.arrays["valid"][:] = True
    with pytest.raises(RuntimeError, match=text):
        mixture.sample()


def test_old_unrolls_are_skipped() -> None:
    store, twin, mixture = build(ReplayConfig(0, (sampler_config("fifo", share=1.0, max_pending=2),)), batch_size=3)
    fill(store, twin)
    store.arrays["param_version"][:] = 7
    store.arrays["param_version"][1, 4] = 6  # the newest row of stream 1's first unroll
    batch = mixture.sample(min_version=7)
    assert batch is not None
    assert batch.row.tolist() == [0, 0, 5]
    assert batch.stream.tolist() == [0, 2, 1]
    mixture.skip(batch)
    store.check_ledger()
    assert store.ledger()["fifo0/skipped"] == 5 + 15
    assert mixture.stats()["skipped_unrolls"] == 1


def test_a_fifo_does_not_hold_writers_back_before_min_rows_are_stored() -> None:
    config = ReplayConfig(90, (sampler_config("fifo", share=0.5), sampler_config("uniform", share=0.5, min_rows=62)))
    store, twin, mixture = build(config)
    batch = None
    for _ in range(10):
        fill(store, twin)
        assert (mixture.sample() is None) == (store.stored.sum() < 62)
        store.check_ledger()
    counts = store.ledger()
    assert counts["fifo0/skipped"] == 60 == 5 * mixture.skipped  # two rounds of two unrolls per stream
    batch = mixture.sample()
    assert batch is not None
    assert batch.row[:2].min() >= 20


@pytest.mark.parametrize("config", [HALF, replace(HALF, samplers=(HALF.samplers[1], HALF.samplers[0]))])
def test_a_saved_mixture_goes_on_exactly(config: ReplayConfig) -> None:
    store, twin, mixture = build(config)
    for _ in range(9):
        fill(store, twin)
        batch = mixture.sample()
        assert batch is not None
        mixture.done(batch)
    again, _, other = build(config, seed=5)
    again.load_state({name: values.copy() for name, values in store.state().items()})
    other.load_state(mixture.state())
    assert other.stats() == mixture.stats()
    for _ in range(9):
        for s in range(3):
            while store.room(np.array([s]))[0] >= 5:
                while len(twin.streams[s].hand) < 5:
                    twin.step(s)
                block = twin.block([s], 5)
                for target in (store, again):
                    target.produced[s] += 5
                    target.append(block)
        one, two = mixture.sample(), other.sample()
        assert one is not None
        assert two is not None
        assert equal(one, two)
        mixture.done(one)
        other.done(two)
    saved, resaved = store.state(), again.state()
    assert saved.keys() == resaved.keys()
    for name in saved:
        np.testing.assert_array_equal(saved[name], resaved[name], err_msg=name)


def uniform(min_rows: int = 0, **changes: float) -> ReplayConfig:
    """Unrolls of one uniform sampler."""
    return ReplayConfig(90, (sampler_config("uniform", share=1.0, min_rows=min_rows),), **changes)  # type: ignore[arg-type]


def drawn(mixture: Mixture) -> int:
    """Batches until there is none."""
    for count in range(1_000):
        if not mixture.ready():
            assert mixture.sample() is None
            return count
        assert mixture.sample() is not None
    raise AssertionError("it never ends")


def test_without_a_fifo_a_fixed_schedule_trains_on_as_many_rows_as_came() -> None:
    store, twin, _ = build(uniform())
    mixture = make_mixture(store, uniform(), 6, True, 0, hold_writers=False)
    for round_ in range(1, 30):
        write(store, twin)
        assert drawn(mixture) == (round_ % 2 == 0)  # 15 rows a round, 30 in a batch
        assert store.room(np.arange(3)).min() > 10**9, "writers of a fixed schedule are never held"


@pytest.mark.parametrize("ratio", [0.5, 2.0])
def test_without_a_fifo_the_ratio_is_kept_and_writers_are_held(ratio: float) -> None:
    config = uniform(min_rows=30, samples_per_insert=ratio)
    store, twin, mixture = build(config)
    batches = 0
    for _ in range(6):
        fill(store, twin)
        assert store.head.max() < 400, "nothing holds writers back"
        batches += drawn(mixture)
        ahead = (int(store.head.sum()) - 30) * ratio - batches * 20
        assert 0 <= ahead < 20
    assert batches > 6
    free, twin, mixture = build(uniform(min_rows=30))
    fill(free, twin)
    assert free.head.min() == 400, "with 0 both run freely"
    for _ in range(1_000):
        assert mixture.sample() is not None


def test_with_a_fifo_there_is_no_rate_control() -> None:
    store, twin, mixture = build(replace(HALF, samples_per_insert=0.001))
    for _ in range(5):
        fill(store, twin)
        assert mixture.sample() is not None
    assert mixture.limiter is None


def test_the_rate_is_saved() -> None:
    config = uniform(samples_per_insert=2.0)
    store, twin, mixture = build(config)
    fill(store, twin)
    assert drawn(mixture) > 1
    write(store, twin)
    other = make_mixture(store, config, 4, True, 3)
    assert other.ready()
    assert other.limiter is not None
    other.load_state(mixture.state())
    assert (drawn(other), drawn(mixture)) == (2, 2)
    old = mixture.state()
    del old["limiter/sampled"]
    with pytest.raises(KeyError, match="sampled"):
        other.load_state(old)


def test_a_mixture_says_what_it_waits_for() -> None:
    store, twin, mixture = build(uniform(min_rows=45))
    write(store, twin)
    assert mixture.missing() == "45 rows before the first batch; 15 have come"
    write(store, twin, 2)
    assert mixture.missing() == "nothing: a batch is ready"
    store, twin, mixture = build(uniform())
    assert mixture.missing() == "a complete unroll of 5 rows; 0 rows are stored"
    store, twin, mixture = build(uniform(samples_per_insert=2.0))
    fill(store, twin)
    drawn(mixture)
    assert mixture.missing() == "rate control: 50 rows at replay.samples_per_insert=2; 45 have come and 80 were drawn"
    store, twin, mixture = build(HALF, batch_size=6)
    write(store, twin)
    mixture.sample()
    grow(store, twin, 1, 5)
    assert mixture.missing() == "a complete unroll of 5 rows in 3 of 3 streams; 1 have one, and 5 rows wait"


def test_a_mixture_that_skips_everything_says_so() -> None:
    store, twin, mixture = build(ReplayConfig(0, (sampler_config("fifo", share=1.0),)), batch_size=3)
    write(store, twin, 2)
    store.arrays["param_version"][:] = 80
    assert mixture.sample(min_version=100) is None
    assert mixture.missing() == (
        "unrolls acted with weights of version 100 or newer; the newest has 80 (learner.max_policy_lag)"
    )
    write(store, twin)
    store.arrays["param_version"][:] = 100
    assert mixture.missing().startswith("unrolls acted with")
    assert mixture.sample(min_version=100) is not None
    assert mixture.missing() == "a complete unroll of 5 rows in 3 of 3 streams; 0 have one, and 0 rows wait"


def test_unrolls_that_stay_unreadable_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    store, twin, mixture = build(uniform())
    write(store, twin, 4)
    true_read = store.read_unrolls

    def never(*args, **options):  # type: ignore[no-untyped-def]
        unroll, ok = true_read(*args, **options)
        return unroll, np.zeros_like(ok)

    monkeypatch.setattr(store, "read_unrolls", never)
    with pytest.raises(RuntimeError, match=r"no 4 unrolls stayed readable .* use a larger replay\.capacity"):
        mixture.sample()


@pytest.mark.parametrize(
    ("shares", "batch_size", "text"),
    [
        ((0.25, 0.75), 10, r"batch_size=10 cannot be split 0.25/0.75 between samplers; use a multiple of 4"),
        (
            (0.5, 0.4),
            10,
            r"the shares of replay.samplers are 0.5/0.4 and sum to 0.9; they must be at least 0",
        ),
        ((1.5, -0.5), 10, r"the shares of replay.samplers are 1.5/-0.5"),
        ((), 10, r"replay.samplers is empty"),
    ],
)
def test_shares_that_cannot_work_are_refused(shares: tuple[float, ...], batch_size: int, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        split_batch(ReplayConfig(0, tuple(sampler_config("fifo", share=share) for share in shares)), batch_size)


def test_thirds_split() -> None:
    config = ReplayConfig(0, (sampler_config("fifo", share=1 / 3), sampler_config("uniform", share=2 / 3)))
    assert split_batch(config, 6) == [2, 4]
    with pytest.raises(ValueError, match="use a multiple of 3"):
        split_batch(config, 8)


def test_a_batch_larger_than_the_number_of_streams_is_refused() -> None:
    store, _, _ = build()
    with pytest.raises(ValueError, match=r"a batch takes 8 unrolls from the fifo, .* there are 3 environments"):
        make_mixture(store, HALF, 16, True, 0)
