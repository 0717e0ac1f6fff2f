"""The replay of a run, made for what its agent trains on; and whether it could be, before anything is allocated."""

from __future__ import annotations

from collections.abc import Callable

from offbeat.replay.item_replay import ItemReplay, make_item_replay
from offbeat.replay.layout import StreamLayout
from offbeat.replay.mixture import Mixture, ReplayConfig, make_mixture
from offbeat.replay.streams import StreamStore


def make_replay(
    store: StreamStore,
    config: ReplayConfig,
    batch_size: int,
    length: int,
    last: bool,
    seed: int,
    *,
    progress: Callable[[], float] = lambda: 0.0,
    hold_writers: bool = True,
) -> Mixture | ItemReplay:
    """The samplers that ``config`` describes, over unrolls of ``length`` rows or the items that the layout names."""
    items = store.layout.items
    if items is None:
        return make_mixture(store, config, batch_size, length, last, seed, hold_writers)
    return make_item_replay(store, items, config, batch_size, last, seed, progress, hold_writers)


def check_replay(
    layout: StreamLayout, config: ReplayConfig, batch_size: int, length: int, last: bool, hold_writers: bool = True
) -> None:
    """Raise ValueError where samplers and sizes do not fit, so that there could never be a batch. Takes no memory."""
    make_replay(StreamStore.imagine(layout), config, batch_size, length, last, 0, hold_writers=hold_writers)
