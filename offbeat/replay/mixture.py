"""Mixtures: batches with fixed shares from several samplers over the same streams."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import numpy as np
import torch

from offbeat.replay.columns import paste_columns
from offbeat.replay.fifo import Fifo, Selection
from offbeat.replay.rate_limiter import RateLimiter, ratio_of
from offbeat.replay.streams import StreamStore
from offbeat.replay.uniform import Uniform
from offbeat.types import ArrayDict, Unroll

MOST_TRIES = 100
"""A batch is drawn anew so often before it counts as impossible."""


@dataclass(frozen=True)
class SamplerConfig:
    """One sampler of a mixture."""

    kind: Literal["fifo", "uniform", "prioritised"] = "fifo"
    """``fifo``: each row once, in order, holding actors back; ``uniform``: any item in the window, replaced;
    ``prioritised``: in proportion to priorities (Schaul et al. 2016), of agents that train on transitions or
    sequences."""
    share: float = 1.0
    """Share of each batch. Shares sum to 1 and ``share * batch_size`` must be whole."""
    window: int = 0
    """Newest rows (all streams together) that may be drawn; 0: all that are kept. Unit: agent steps. Not for fifo."""
    min_rows: int = 0
    """Rows that must be stored before the first batch. Unit: agent steps. Not for fifo."""
    max_pending: int = 2
    """Unrolls per stream that actors may be ahead of the learner (fifo): bounds the policy lag."""
    alpha: float = 0.6
    """Exponent of priorities (prioritised); 0: uniform. Source: Horgan et al. 2018."""
    beta: float = 0.4
    """Exponent of importance weights at the start (prioritised). Source: Horgan et al. 2018."""
    final_beta: float = 0.4
    """Exponent of importance weights at the end of the run, straight in between. Schaul et al. 2016 go up to 1."""
    priority_floor: float = 1e-6
    """Least priority of an item, so that none is never drawn."""
    initial_priority: Literal["actor", "max"] = "max"
    """Priority of new items: TD errors from the actor's own Q values (Horgan et al. 2018), or the largest so far."""


@dataclass(frozen=True)
class ReplayConfig:
    """What is kept and how batches are drawn from it."""

    capacity: int = 0
    """Rows kept, all streams together; 0: just what the fifo needs. Unit: agent steps."""
    samplers: tuple[SamplerConfig, ...] = (SamplerConfig(),)
    """Samplers that share each batch."""
    samples_per_insert: float = 0.0
    """Rows trained on per row appended, without a fifo: learner and actors wait for each other; 0: both run freely. In
    a deterministic or inline run, where no clock decides, 0 stands for 1, and is refused for value agents."""
    tolerance: int = 0
    """How far actors may then be ahead; 0: two batches and a round of blocks. Unit: rows to train on."""


class Mixture:
    """Batches with fixed ``counts`` from several samplers over one store; columns come sampler by sampler.

    ``last``: with last actions and rewards. ``limiter``: when a batch may be drawn where no fifo says so. Unrolls that
    were overwritten while they were copied are drawn again from the same sampler and counted. One process, one thread.
    """

    def __init__(
        self,
        store: StreamStore,
        samplers: Sequence[Fifo | Uniform],
        counts: Sequence[int],
        length: int,
        last: bool,
        limiter: RateLimiter | None = None,
    ) -> None:
        self.store = store
        self.samplers = tuple(samplers)
        self.counts = tuple(counts)
        self.length = length
        self.last = last
        self.limiter = limiter
        self.dropped = 0
        """Unrolls that were drawn again because a writer had overwritten them."""
        self.sampled = 0
        """Rows handed out, all samplers together."""
        self.skipped = 0
        """Unrolls that were skipped because they were too old, or came before ``min_rows`` were stored."""
        self._too_old: tuple[int, int] | None = None  # version asked for and newest skipped one, since the last batch

    def ready(self) -> bool:
        """Whether ``sample`` would give a batch."""
        if self.limiter is not None and not self.limiter.may_sample():
            return False
        return all(
            sampler.ready() >= (count if isinstance(sampler, Fifo) else 1)
            for sampler, count in zip(self.samplers, self.counts)
            if count
        )

    def missing(self) -> str:
        """What the next batch waits for, in one line. It only looks, and may be asked beside a thread that draws."""
        parts = [sampler.missing() for sampler in self.samplers if isinstance(sampler, Uniform)]
        if not any(parts) and self._too_old is not None:
            asked, newest = self._too_old
            parts = [
                f"unrolls acted with weights of version {asked} or newer; the newest has {newest} "
                "(learner.max_policy_lag)"
            ]
        fifos = ((sampler, count) for sampler, count in zip(self.samplers, self.counts) if isinstance(sampler, Fifo))
        parts += [sampler.missing(count) for sampler, count in fifos]
        parts += [self.limiter.missing()] if self.limiter is not None else []
        return next((part for part in parts if part), "nothing: a batch is ready")

    def sample(self, min_version: int = 0) -> Unroll | None:
        """The next batch, or None if there is not enough yet.

        Fifo unrolls whose newest row was acted with weights older than ``min_version`` are skipped and counted; so are
        all while another sampler waits for its ``min_rows``, which a fifo that holds writers back would never let come.
        """
        if not all(sampler.ready() for sampler in self.samplers if isinstance(sampler, Uniform)):
            self._skip_next(None)
            return None
        self._skip_next(min_version)
        if not self.ready():
            return None
        chosen = [self._select(sampler, count) for sampler, count in zip(self.samplers, self.counts)]
        batch, ok = self._read(_join(chosen))
        for _ in range(MOST_TRIES):
            if ok.all():
                break
            self._redraw(batch, ok)
        else:
            raise RuntimeError(
                f"no {sum(self.counts)} unrolls stayed readable while they were copied, in {MOST_TRIES} tries; use a "
                "larger replay.capacity"
            )
        fifos = [(sampler, part) for sampler, part in zip(self.samplers, chosen) if isinstance(sampler, Fifo)]
        for _, part in fifos[:1]:  # another fifo hands out the same rows once more
            batch.fresh = self._transitions(part)
        for sampler, part in fifos:
            sampler.release(part)
        self.sampled += batch.reward.numel()
        self._too_old = None
        if self.limiter is not None:
            self.limiter.count(batch.reward.numel())
        return batch

    def _transitions(self, selection: Selection) -> tuple[int, int]:
        """How many rows of these unrolls are transitions, and how many environment steps those took."""
        at = self.store.locate(selection.stream[:, None], selection.row[:, None] + np.arange(self.length))
        valid = self.store.take("valid", at)
        return int(valid.sum()), int(self.store.take("elapsed", at)[valid].sum())

    def done(self, batch: Unroll) -> None:
        """The batch was trained on (ledger)."""
        for sampler, selection in self._fifo_columns(batch):
            sampler.done(selection)

    def skip(self, batch: Unroll) -> None:
        """The batch was not trained on (ledger)."""
        for sampler, selection in self._fifo_columns(batch):
            sampler.skip(selection)

    def stats(self) -> dict[str, float]:
        """Numbers for the log: rows sampled, unrolls dropped and skipped, rows stored, unrolls pending per fifo."""
        numbers = {
            "sampled_rows": float(self.sampled),
            "dropped_unrolls": float(self.dropped),
            "skipped_unrolls": float(self.skipped),
            "stored_rows": float(self.store.stored.sum()),
        }
        for index, sampler in enumerate(self.samplers):
            if isinstance(sampler, Fifo):
                numbers[f"pending_unrolls_{index}"] = sampler.pending()
        return numbers

    def state(self) -> ArrayDict:
        """Random generators and counters (cursors are part of the store's state)."""
        saved = {"counts": np.array([self.dropped, self.sampled, self.skipped])}
        for index, sampler in enumerate(self.samplers):
            if isinstance(sampler, Uniform):
                saved |= {f"{index}/{name}": values for name, values in sampler.state().items()}
        if self.limiter is not None:
            saved |= {f"limiter/{name}": values for name, values in self.limiter.state().items()}
        return saved

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Go back to a saved ``state`` of the same mixture."""
        self.dropped, self.sampled, self.skipped = (int(count) for count in state["counts"])
        for index, sampler in enumerate(self.samplers):
            if isinstance(sampler, Uniform):
                sampler.load_state({"rng": state[f"{index}/rng"]})
        if self.limiter is not None and "limiter/sampled" in state:
            self.limiter.load_state({"sampled": state["limiter/sampled"]})
        elif self.limiter is not None:  # saved when mixtures had no rate control
            self.limiter.start_here()

    def _select(self, sampler: Fifo | Uniform, count: int) -> Selection:
        """``count`` unrolls of a sampler that said it was ready."""
        selection = sampler.select(count)
        if selection is None:
            raise RuntimeError(
                f"{type(sampler).__name__.lower()} sampler found no {count} readable unrolls of {self.length} rows; "
                "use a larger replay.capacity or window"
            )
        return selection

    def _read(self, selection: Selection) -> tuple[Unroll, np.ndarray]:
        """Copy the unrolls out of the store."""
        return self.store.read_unrolls(
            selection.stream, selection.row, self.length, last=self.last, source=selection.source
        )

    def _redraw(self, batch: Unroll, ok: np.ndarray) -> None:
        """Replace the columns that are not ``ok`` [B] by new draws of the same samplers, and update ``ok``."""
        source = batch.source.numpy()
        for index in np.unique(source[~ok]):
            sampler = self.samplers[index]
            columns = np.flatnonzero(~ok & (source == index))
            if isinstance(sampler, Fifo):
                broken = [(int(batch.stream[c]), int(batch.row[c])) for c in columns]
                raise RuntimeError(f"fifo: unrolls (stream, row) {broken} were overwritten or have no core state")
            self.dropped += len(columns)
            other, fine = self._read(self._select(sampler, len(columns)))
            paste_columns(batch, other, torch.from_numpy(columns))
            ok[columns] = fine

    def _skip_next(self, min_version: int | None) -> None:
        """Skip fifo unrolls that are next and whose newest row is older than ``min_version`` (None: skip them all)."""
        for sampler in self.samplers:
            while isinstance(sampler, Fifo) and min_version != 0 and sampler.ready():
                selection = sampler.peek()
                newest = self.store.locate(selection.stream, selection.row + self.length - 1)
                version = self.store.take("param_version", newest)
                old = version < min_version if min_version is not None else np.ones(len(version), bool)
                if not old.any():
                    break
                sampler.drop(selection[old])
                self.skipped += int(old.sum())
                if min_version is not None:
                    self._too_old = (min_version, int(version[old].max()))

    def _fifo_columns(self, batch: Unroll) -> list[tuple[Fifo, Selection]]:
        """The part of a batch that each fifo chose."""
        source, stream, row = (values.cpu().numpy() for values in (batch.source, batch.stream, batch.row))
        chosen = Selection(stream, row, source)
        fifos = ((index, sampler) for index, sampler in enumerate(self.samplers) if isinstance(sampler, Fifo))
        return [(sampler, chosen[source == index]) for index, sampler in fifos]


def make_mixture(
    store: StreamStore,
    config: ReplayConfig,
    batch_size: int,
    length: int,
    last: bool,
    seed: int,
    hold_writers: bool = True,
) -> Mixture:
    """The mixture that ``config`` describes. Raises ValueError where its shares or sizes cannot work.

    ``hold_writers``: rate control may make them wait; False in runs with a fixed schedule.
    """
    counts = split_batch(config, batch_size)
    _check_kinds(config, counts)
    seeds = np.random.SeedSequence(seed).spawn(len(config.samplers))
    samplers: list[Fifo | Uniform] = []
    cursor = 0
    for index, (sampler, count) in enumerate(zip(config.samplers, counts)):
        if sampler.kind == "fifo":
            if count > store.layout.num_streams:
                raise ValueError(
                    f"a batch takes {count} unrolls from the fifo, at most one per stream, but there are "
                    f"{store.layout.num_streams} environments; use {count} environments or more, or a smaller batch"
                )
            samplers.append(Fifo(store, cursor, length, sampler.max_pending, index))
            cursor += 1
        else:
            rng = np.random.default_rng(seeds[index])
            samplers.append(Uniform(store, length, sampler.window, sampler.min_rows, rng, last=last, source=index))
    limiter = None if cursor else _make_limiter(store, config, batch_size * length, length, hold_writers)
    return Mixture(store, samplers, counts, length, last, limiter)


def _check_kinds(config: ReplayConfig, counts: list[int]) -> None:
    """Refuse samplers that draw no unrolls, and fifos of which one would hold back the writers that others wait for."""
    fifos = []
    for index, (sampler, count) in enumerate(zip(config.samplers, counts)):
        if sampler.kind == "prioritised":
            raise ValueError(
                f"replay.samplers.{index}.kind=prioritised draws transitions or sequences, but this agent trains on "
                "unrolls; allowed: fifo, uniform"
            )
        if sampler.kind == "fifo":
            fifos.append(count)
    if 0 in fifos:
        raise ValueError(
            "a fifo with share 0 in replay.samplers would hold actors back for ever, since nothing is taken from it; "
            "leave it out, or give it a share"
        )
    if len(set(fifos)) > 1:
        taken = "/".join(map(str, fifos))
        raise ValueError(
            f"the fifos of replay.samplers take {taken} unrolls of a batch, but actors wait for the slowest, so that "
            "the others run dry; use one fifo, or equal shares"
        )


def _make_limiter(
    store: StreamStore, config: ReplayConfig, batch_rows: int, length: int, hold_writers: bool
) -> RateLimiter:
    """The rate control of a mixture without a fifo."""
    block = store.layout.block
    # Writers may always go one block beyond the first rows: with these they reach each stream's first unroll.
    least = store.layout.num_streams * (-(-length // block) - 1) * block
    first = max(least, *(sampler.min_rows for sampler in config.samplers))
    ratio = ratio_of(config.samples_per_insert, hold_writers)
    return RateLimiter(store, ratio, config.tolerance, first, batch_rows, hold_writers)


def split_batch(config: ReplayConfig, batch_size: int) -> list[int]:
    """Unrolls of each sampler in a batch. Raises ValueError where the shares do not split it."""
    shares = [sampler.share for sampler in config.samplers]
    text = "/".join(f"{share:g}" for share in shares)
    if not shares or min(shares) < 0 or abs(sum(shares) - 1) > 1e-6:
        raise ValueError(f"shares {text or 'of no sampler'} of replay.samplers must be at least 0 and sum to 1")
    counts = [round(share * batch_size) for share in shares]
    if any(abs(count - share * batch_size) > 1e-6 for count, share in zip(counts, shares)):
        whole = math.lcm(*(Fraction(share).limit_denominator(1000).denominator for share in shares))
        raise ValueError(f"batch_size={batch_size} cannot be split {text} between samplers; use a multiple of {whole}")
    return counts


def _join(parts: Sequence[Selection]) -> Selection:
    """Several selections as one, in their order."""
    return Selection(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("stream", "row", "source")))
