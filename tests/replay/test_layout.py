"""Sizes: what is allocated, which states are kept, and layouts that follow from a configuration."""

from __future__ import annotations

import numpy as np
import pytest

from offbeat.replay.layout import layout_for
from offbeat.replay.mixture import ReplayConfig
from offbeat.replay.sampler import SamplerConfig
from offbeat.replay.samplers import sampler_config
from offbeat.replay.streams import StreamStore
from offbeat.types import ActionSpec, ArraySpec, EnvSpec, ItemSpec
from tests.replay.twin import image_layout, vector_layout

PONG = EnvSpec("Pong", {"observation": ArraySpec((1, 84, 84), "uint8")}, ActionSpec("discrete", 6), 4, ("observation",))


def fifo(max_pending: int = 2) -> SamplerConfig:
    return sampler_config("fifo", share=1.0, max_pending=max_pending)


def test_nbytes_is_what_is_allocated() -> None:
    for layout in (image_layout(), vector_layout(num_cursors=2)):
        store = StreamStore.allocate(layout)
        assert layout.nbytes() == sum(array.nbytes for array in store.arrays.values())


def test_the_description_names_what_is_large() -> None:
    layout = layout_for(PONG, {"logits": ArraySpec((6,))}, {"h": ArraySpec((256,))}, num_streams=32,
                        replay=ReplayConfig(1_000_000), unroll_length=20)  # fmt: skip
    text = layout.describe()
    assert text.startswith("streams: 6.69 GiB")
    assert "32 streams of 31,260 rows (1,000,320 agent steps): observation/observation 6.5" in text
    assert text.index("observation/observation") < text.index("core states") < text.index("extras")


def test_capacity_zero_is_what_the_fifo_needs_in_whole_blocks() -> None:
    layout = layout_for(PONG, {}, {}, num_streams=8, replay=ReplayConfig(0, (fifo(2),)), unroll_length=20)
    assert layout.capacity == 80  # 3 unrolls and 3 frames of history, rounded up
    assert (layout.block, layout.num_cursors, layout.state_grid, layout.stacked) == (20, 1, 0, ("observation",))
    recurrent = layout_for(PONG, {}, {"h": ArraySpec((2,))}, num_streams=8, replay=ReplayConfig(0, (fifo(1),)),
                           unroll_length=20, block=4, state_period=40)  # fmt: skip
    assert (recurrent.capacity, recurrent.state_grid, recurrent.state_period) == (44, 20, 40)


def test_rows_before_unrolls_are_kept_too() -> None:
    def build(burn_in: int, capacity: int = 0) -> int:
        items = ItemSpec("unroll", burn_in=burn_in)
        config = ReplayConfig(capacity, (fifo(1),))
        return layout_for(PONG, {}, {}, num_streams=8, replay=config, unroll_length=20, block=1, items=items).capacity

    assert build(40) == build(0) + 40
    with pytest.raises(ValueError, match="samplers need at least 83"):
        build(40, capacity=8 * 82)
    with pytest.raises(ValueError, match=r"asks for 30 rows before .* multiple of learner.unroll_length=20"):
        build(30)


def test_sizes_that_cannot_work_are_refused() -> None:
    def build(config: ReplayConfig, block: int = 0) -> None:
        layout_for(PONG, {}, {}, num_streams=8, replay=config, unroll_length=20, block=block)

    with pytest.raises(ValueError, match=r"replay.capacity=100 gives 13 rows to each of 8 streams, .* use 504 or more"):
        build(ReplayConfig(100, (fifo(2),)))
    with pytest.raises(ValueError, match=r"max_pending=1 lets writers be 20 rows ahead, .* use max_pending=2 or more"):
        build(ReplayConfig(0, (fifo(1),)), block=12)
    with pytest.raises(ValueError, match="num_streams=0 of the streams must be at least 1"):
        image_layout(num_streams=0)
    with pytest.raises(ValueError, match="stacked observation 'x'"):
        image_layout(stacked=("x",))


def test_states_are_due_on_the_grid_and_within_episodes() -> None:
    layout = image_layout(state_grid=5, state_period=3)
    row, age = np.array([0, 4, 5, 6, 7, 8, 10]), np.array([0, 4, 5, 6, 0, 1, 3])
    assert layout.state_due(row, age).tolist() == [True, False, True, True, False, False, True]
    assert not image_layout(core_state={}).state_due(row, age).any()


@pytest.mark.parametrize(("grid", "period"), [(5, 3), (1, 0), (0, 1), (7, 2), (3, 3)])
@pytest.mark.parametrize("episode", [2, 3, 4, 9, 1000])
def test_every_due_state_of_the_ring_has_a_slot(grid: int, period: int, episode: int) -> None:
    layout = image_layout(state_grid=grid, state_period=period)
    row = np.arange(500)
    due = layout.state_due(row, row % episode)
    most = max(int(due[t : t + layout.ring].sum()) for t in row)
    assert most <= layout.kept_states
