"""The mixture of a run: made as its configuration says; and whether it could be, before anything is allocated."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

import numpy as np

from offbeat.replay.demonstrated import NONE, Demonstrated, DemonstratedRows, DemonstrationsConfig, items_shown
from offbeat.replay.layout import StreamLayout
from offbeat.replay.mixture import Mixture, ReplayConfig
from offbeat.replay.rate_limiter import RateLimiter, ratio_of
from offbeat.replay.sampler import Encode, Place, Sampler, SamplerConfig
from offbeat.replay.samplers import check_suits, make_sampler
from offbeat.replay.streams import StreamStore
from offbeat.types import ItemSpec


def make_mixture(
    store: StreamStore,
    config: ReplayConfig,
    batch_size: int,
    last: bool,
    seed: int,
    *,
    progress: Callable[[], float] = lambda: 0.0,
    hold_writers: bool = True,
    drawn: tuple[np.ndarray, int] | None = None,
    encode: Encode | None = None,
    demonstrations: DemonstrationsConfig = NONE,
    rows: DemonstratedRows | None = None,
    tried: int = 0,
) -> Mixture:
    """The mixture that ``config`` describes. Raises ValueError where its shares or sizes cannot work.

    Args:
        store: the streams.
        config: samplers, shares, rate control.
        batch_size: items per batch, all samplers together.
        last: items are read with last actions and rewards.
        seed: of all draws.
        progress: share of the run that is done, in [0, 1].
        hold_writers: rate control may make them wait; False in runs with a fixed schedule.
        drawn: of several mixtures over the store, each a learner's: rows that each has drawn [n] int64, and which this
            one is. Rate control counts all together.
        encode: gives features to samplers that need them; None: nothing will be drawn by those.
        demonstrations: their share of each batch, and how many batches are drawn from them alone first.
        rows: of those; None: nothing will be drawn from them.
        tried: updates that the run has tried before.
    """
    aside = items_shown(demonstrations, batch_size)
    counts = split_batch(config, batch_size - aside)
    _check_pacing(config, counts)
    seeds = np.random.SeedSequence(seed).spawn(len(config.samplers))
    samplers: list[Sampler] = []
    for index, (sampler, count) in enumerate(zip(config.samplers, counts)):
        # Items were drawn by one sampler alone at first, from the seed itself.
        own = seed if store.layout.items.kind != "unroll" and index == 0 else seeds[index]
        cursor = sum(one.paces for one in config.samplers[:index])
        place = Place(store, index, count, last, np.random.default_rng(own), cursor, progress, encode)
        try:
            samplers.append(make_sampler(sampler, place))
        except ValueError as error:
            raise ValueError(f"replay.samplers.{index}: {error}") from error
    limiter = None if config.paced else _make_limiter(store, config, batch_size, hold_writers, drawn)
    if rows is None:
        return Mixture(store, samplers, counts, last, limiter)
    rng = np.random.default_rng(np.random.SeedSequence([seed, len(samplers)]))
    samplers.append(Demonstrated(rows, store.layout, last, rng, len(samplers)))
    pretrain = max(0, demonstrations.pretrain_steps - tried)
    return Mixture(store, samplers, [*counts, aside], last, limiter, pretrain)


def check_mixture(
    layout: StreamLayout,
    config: ReplayConfig,
    batch_size: int,
    last: bool,
    hold_writers: bool = True,
    demonstrations: DemonstrationsConfig = NONE,
) -> Mixture:
    """Raise ValueError where samplers and sizes do not fit, so that there could never be a batch. Takes no memory: what
    it gives can draw nothing.
    """
    store = StreamStore.imagine(layout)
    return make_mixture(store, config, batch_size, last, 0, hold_writers=hold_writers, demonstrations=demonstrations)


def copies_nbytes(config: ReplayConfig, layout: StreamLayout) -> int:
    """Bytes that samplers take beside the streams, once they are full."""
    return sum(sampler.nbytes(layout) for sampler in config.samplers)


def check_shared(config: ReplayConfig) -> None:
    """Raise ValueError where a sampler cannot be one of several, each a learner's, over the same streams."""
    for index, sampler in enumerate(config.samplers):
        if not sampler.shared:
            raise ValueError(
                f'replay.samplers.{index}.kind="{sampler.kind}": it keeps books that one learner has to itself; of '
                'several learners each has samplers of its own, which must be "uniform" (or say shared = True)'
            )


def check_replay(items: ItemSpec, config: ReplayConfig, agent: str, hold_writers: bool = True) -> None:
    """Raise ValueError where a sampler does not draw what ``agent`` trains on, or an option has no effect on it."""
    check_suits(items, config.samplers, agent)
    pacing = sum(sampler.paces for sampler in config.samplers)
    reuses = next((sampler.kind for sampler in config.samplers if sampler.reuses), "")
    if items.consecutive and (pacing != 1 or reuses):
        found = f"{reuses} gives them more than once" if reuses else f"there are {pacing}"
        raise ValueError(
            f"agent {agent} carries something from each unroll of a stream to the next, so that replay.samplers must "
            f"hold one fifo, which gives them in order, each once; {found}. Beside it there may be others"
        )
    if items.kind != "unroll" and not hold_writers and not config.samples_per_insert:
        raise ValueError(
            "a deterministic run needs replay.samples_per_insert above 0: with 0 the clock decides how often the "
            "learner trains"
        )
    for name in ("samples_per_insert", "tolerance"):
        if config.paced and getattr(config, name):
            raise ValueError(
                f"replay.{name}={getattr(config, name):g} has no effect beside a {_pacer(config)}, which takes each "
                "row once and holds actors back; leave it at 0"
            )


def _pacer(config: ReplayConfig) -> str:
    """The kind of the first sampler that paces."""
    return next(sampler.kind for sampler in config.samplers if sampler.paces)


def _check_pacing(config: ReplayConfig, counts: list[int]) -> None:
    """Refuse samplers of which one would hold back the writers that others wait for."""
    paced = [count for sampler, count in zip(config.samplers, counts) if sampler.paces]
    if 0 in paced:
        raise ValueError(
            f"a {_pacer(config)} with share 0 in replay.samplers would hold actors back for ever, since nothing is "
            "taken from it; leave it out, or give it a share"
        )
    if len(set(paced)) > 1:
        taken = "/".join(map(str, paced))
        raise ValueError(
            f"the fifos of replay.samplers take {taken} unrolls of a batch, but actors wait for the slowest, so that "
            "the others run dry; use one fifo, or equal shares"
        )


def _make_limiter(
    store: StreamStore,
    config: ReplayConfig,
    batch_size: int,
    hold_writers: bool,
    drawn: tuple[np.ndarray, int] | None,
) -> RateLimiter:
    """The rate control of a mixture that no sampler paces."""
    items, block = store.layout.items, store.layout.block
    # Writers must reach each stream's first complete item, or they would wait for a learner that has nothing to draw.
    # They may always go one block beyond the first rows.
    each = (-(-items.length // block) - 1) * block if items.kind == "unroll" else items.span + 1
    first = max(store.layout.num_streams * each, config.min_rows)
    ratio = ratio_of(config.samples_per_insert, hold_writers)
    return RateLimiter(store, ratio, config.tolerance, first, batch_size * items.trained, hold_writers, drawn)


def split_batch(config: ReplayConfig, batch_size: int) -> list[int]:
    """Items of each sampler in a batch. Raises ValueError where the shares do not split it."""
    shares = [_share_of(sampler) for sampler in config.samplers]
    text = "/".join(f"{share:g}" for share in shares)
    if not shares:
        raise ValueError('replay.samplers is empty; name at least one, e.g. kind = "fifo"')
    if min(shares) < 0 or abs(sum(shares) - 1) > 1e-6:
        raise ValueError(
            f"the shares of replay.samplers are {text} and sum to {sum(shares):g}; they must be at least 0 and sum to 1"
        )
    counts = [round(share * batch_size) for share in shares]
    if any(abs(count - share * batch_size) > 1e-6 for count, share in zip(counts, shares)):
        whole = math.lcm(*(Fraction(share).limit_denominator(1000).denominator for share in shares))
        raise ValueError(f"batch_size={batch_size} cannot be split {text} between samplers; use a multiple of {whole}")
    return counts


def _share_of(sampler: SamplerConfig) -> float:
    return sampler.share
