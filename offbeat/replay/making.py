"""The replay of a run, made for what its agent trains on; and whether it could be, before anything is allocated."""

from __future__ import annotations

from collections.abc import Callable

from offbeat.replay.item_replay import ItemReplay, make_item_replay
from offbeat.replay.layout import StreamLayout
from offbeat.replay.mixture import Mixture, ReplayConfig, make_mixture
from offbeat.replay.streams import StreamStore
from offbeat.types import ItemSpec


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
    if items.kind == "unroll":
        return make_mixture(store, config, batch_size, length, last, seed, hold_writers)
    return make_item_replay(store, items, config, batch_size, last, seed, progress, hold_writers)


DRAWS = {
    "fifo": ("unroll",),
    "uniform": ("unroll", "transition", "sequence"),
    "prioritised": ("transition", "sequence"),
}
"""Kind of sampler -> what it can draw."""


def check_suits(items: ItemSpec, config: ReplayConfig, agent: str, holds_writers: bool = True) -> None:
    """Raise ValueError where a sampler does not draw what ``agent`` trains on, or an option has no effect on it.

    ``holds_writers``: rate control may make them wait; False in runs with a fixed schedule.
    """
    allowed = ", ".join(sorted(kind for kind, drawn in DRAWS.items() if items.kind in drawn))
    for index, sampler in enumerate(config.samplers):
        drawn = DRAWS[sampler.kind]
        if items.kind not in drawn:
            raise ValueError(
                f"replay.samplers.{index}.kind={sampler.kind} draws {' or '.join(f'{kind}s' for kind in drawn)}, but "
                f"agent {agent!r} trains on {items.kind}s; allowed: {allowed}"
            )
    if items.kind != "unroll" and not holds_writers and not config.samples_per_insert:
        raise ValueError(
            "a deterministic run needs replay.samples_per_insert above 0: with 0 the clock decides how often the "
            "learner trains"
        )
    if any(sampler.kind == "fifo" for sampler in config.samplers):
        for name in ("samples_per_insert", "tolerance"):
            if getattr(config, name):
                raise ValueError(
                    f"replay.{name}={getattr(config, name):g} has no effect beside a fifo, which hands out each row "
                    "once and holds actors back; leave it at 0"
                )


def check_replay(
    layout: StreamLayout, config: ReplayConfig, batch_size: int, length: int, last: bool, hold_writers: bool = True
) -> None:
    """Raise ValueError where samplers and sizes do not fit, so that there could never be a batch. Takes no memory."""
    make_replay(StreamStore.imagine(layout), config, batch_size, length, last, 0, hold_writers=hold_writers)
