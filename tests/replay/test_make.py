"""Replays are made for what an agent trains on; what could never give a batch is refused before memory is taken."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from offbeat.replay.layout import StreamLayout, layout_for
from offbeat.replay.make import check_mixture, check_replay, make_mixture
from offbeat.replay.mixture import ReplayConfig
from offbeat.replay.prioritised import Prioritised
from offbeat.replay.sampler import SamplerConfig
from offbeat.replay.samplers import sampler_config
from offbeat.replay.streams import StreamStore
from offbeat.replay.uniform import Uniform
from offbeat.types import UNROLL, ActionSpec, ArraySpec, EnvSpec, ItemSpec

SPEC = EnvSpec("toy", {"observation": ArraySpec((1, 84, 84), "uint8")}, ActionSpec("discrete", 3), 4, ("observation",))
LENGTH = 5


def plan(config: ReplayConfig, items: ItemSpec = UNROLL) -> StreamLayout:
    """Eight streams."""
    return layout_for(SPEC, {}, {}, num_streams=8, replay=config, unroll_length=LENGTH, items=items)


def sampler(kind: str = "uniform", **fields: Any) -> SamplerConfig:
    """One sampler."""
    return sampler_config(kind, **fields)


UNIFORM = ReplayConfig(4_000, (sampler(),))
ITEMS = ItemSpec(n=3)


def test_an_agent_of_items_gets_items_and_another_unrolls() -> None:
    for items, kind in ((UNROLL, Uniform), (ITEMS, Prioritised)):
        made = make_mixture(StreamStore.allocate(plan(UNIFORM, items)), UNIFORM, 4, True, 0)
        assert [type(one) for one in made.samplers] == [kind]
        assert (made.counts, made.items.kind) == ((4,), items.kind)


@pytest.mark.parametrize(
    ("samplers", "items", "changes", "text"),
    [
        ((sampler("fifo", share=0.0), sampler()), UNROLL, {}, "a fifo with share 0 .* hold actors back for ever"),
        ((sampler("fifo", share=0.75), sampler("fifo", share=0.25)), UNROLL, {}, "take 3/1 unrolls .* run dry"),
        ((sampler("fifo", max_pending=1, share=0.75), sampler(share=0.25)), UNROLL, {}, "of 3 leave 2 of them over"),
        ((sampler(window=4_001),), UNROLL, {}, r"samplers\.0: window=4001 is more than the 4000 rows kept"),
        ((sampler(share=0.5), sampler(share=0.5, min_rows=4_001)), ITEMS, {}, r"samplers\.1: min_rows=4001 is more"),
        ((sampler(window=40),), UNROLL, {}, "a window of 40 rows is 5 rows per stream, .* needs 8; keep 64 or more"),
        ((sampler(window=40),), ITEMS, {}, "a window of 40 rows is 5 rows per stream"),
        ((sampler(min_rows=4_001),), UNROLL, {}, "min_rows=4001 is more than the 4000 rows kept"),
        ((sampler(),), UNROLL, {"samples_per_insert": 2.0, "tolerance": 3}, "tolerance=3 .* too narrow"),
        ((sampler(),), ITEMS, {"samples_per_insert": 2.0, "tolerance": 3}, "tolerance=3 .* too narrow"),
        ((sampler("prioritised", initial_priority="actor"),), ITEMS, {}, "priorities from actors need the extras"),
    ],
)
def test_what_can_never_give_a_batch_is_refused(
    samplers: tuple[SamplerConfig, ...], items: ItemSpec, changes: dict[str, Any], text: str
) -> None:
    config = replace(ReplayConfig(4_000, samplers), **changes)
    with pytest.raises(ValueError, match=text):
        check_mixture(plan(config, items), config, 4, True)


def test_samplers_and_options_must_suit_what_the_agent_trains_on() -> None:
    half = {"share": 0.5}
    both = ReplayConfig(4_000, (sampler("fifo", **half), sampler("prioritised", **half)))
    with pytest.raises(
        ValueError, match=r"samplers\.1\.kind=prioritised .* 'mine' trains on unrolls; allowed: fifo, uni"
    ):
        check_replay(UNROLL, both, "mine")
    with pytest.raises(
        ValueError, match=r"samplers\.0\.kind=fifo draws unrolls, .* transitions; allowed: uniform, pri"
    ):
        check_replay(ITEMS, both, "mine")
    for name in ("samples_per_insert", "tolerance"):
        with pytest.raises(ValueError, match=rf"replay\.{name}=2 has no effect beside a fifo"):
            check_replay(UNROLL, replace(ReplayConfig(), **{name: 2}), "mine")
    check_replay(UNROLL, replace(UNIFORM, samples_per_insert=2.0), "mine", hold_writers=False)
    check_replay(UNROLL, UNIFORM, "mine", hold_writers=False)
    check_replay(ITEMS, UNIFORM, "mine")
    with pytest.raises(ValueError, match=r"a deterministic run needs replay\.samples_per_insert above 0"):
        check_replay(ITEMS, UNIFORM, "mine", hold_writers=False)


def test_what_carries_something_from_unroll_to_unroll_needs_one_fifo() -> None:
    carried = replace(UNROLL, consecutive=True)
    half = {"share": 0.5}
    check_replay(carried, ReplayConfig(0, (sampler("fifo"),)), "mine")
    check_replay(carried, ReplayConfig(4_000, (sampler("fifo", **half), sampler("uniform", **half))), "mine")
    for samplers in ((sampler("fifo", **half), sampler("fifo", **half)), (sampler("uniform"),)):
        with pytest.raises(ValueError, match=r"agent mine carries something .* one fifo, .* there are [02]"):
            check_replay(carried, ReplayConfig(4_000, samplers), "mine")


def test_two_fifos_that_take_the_same_share_are_fine() -> None:
    config = ReplayConfig(0, (sampler("fifo", share=0.5), sampler("fifo", share=0.5)))
    check_mixture(plan(config), config, 4, True)


def test_the_check_takes_no_memory_for_rows() -> None:
    large = ReplayConfig(1_000_000, (sampler("prioritised"),))
    layout = plan(large, ITEMS)
    assert layout.nbytes() > 7e9
    tracemalloc.start()
    store = StreamStore.imagine(layout)
    rows = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert rows < 1e6
    assert store.room(np.arange(8)).min() > 0
    check_mixture(layout, large, 4, True)
