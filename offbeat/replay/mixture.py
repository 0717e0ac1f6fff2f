"""Mixtures: batches with fixed shares from several samplers over the same streams, and how fast they are drawn."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from offbeat.errors import called
from offbeat.replay import fifo
from offbeat.replay.columns import join_columns, paste_columns
from offbeat.replay.dealt import Dealt, transitions
from offbeat.replay.items import read_items
from offbeat.replay.rate_limiter import RateLimiter
from offbeat.replay.sampler import Sampler, SamplerConfig, Selection
from offbeat.replay.streams import StreamStore
from offbeat.types import ArrayDict, Batch, Unroll

MOST_TRIES = 100
"""A batch is drawn anew so often before it counts as impossible."""
Parts = list[tuple[Sampler, Selection]]
"""What each sampler chose for a batch, in the batch's order."""


@dataclass(frozen=True)
class ReplayConfig:
    """What is kept and how batches are drawn from it."""

    capacity: int = 0
    """Rows kept, all streams together; 0: just what the samplers need. Unit: agent steps."""
    samplers: tuple[SamplerConfig, ...] = (fifo.Config(),)
    """Samplers that share each batch."""
    samples_per_insert: float = 0.0
    """Rows trained on per row appended, without a fifo: learner and actors wait for each other; 0: both run freely. In
    a deterministic or inline run, where no clock decides, 0 stands for 1, and is refused for value agents."""
    tolerance: int = 0
    """How far actors may then be ahead; 0: two batches and a round of blocks. Unit: rows to train on."""

    @property
    def paced(self) -> bool:
        """Whether a sampler sets the pace, so that there is no rate control."""
        return any(sampler.paces for sampler in self.samplers)

    @property
    def encodes(self) -> bool:
        """Whether a sampler needs features."""
        return any(sampler.encodes for sampler in self.samplers)

    @property
    def min_rows(self) -> int:
        """Rows that must be stored before the first batch."""
        return max((int(getattr(sampler, "min_rows", 0)) for sampler in self.samplers), default=0)


class Mixture:
    """Batches with fixed ``counts`` from several samplers over one store; columns come sampler by sampler.

    What was overwritten while it was copied is drawn again from the same sampler and counted. One process, one thread;
    only ``copy`` may run in several threads at once, beside anything else, where it is ``splittable`` and a lock guards
    all the rest.

    Args:
        store: the streams; ``store.layout.items`` is what is drawn.
        samplers: who chooses.
        counts: items of each in a batch; samplers with none are only asked whether they are ready.
        last: read with last actions and rewards.
        limiter: when a batch may be drawn, where no sampler paces.
        pretrain: so many batches are drawn from the last sampler alone, first of all, and count nowhere else.
    """

    def __init__(
        self,
        store: StreamStore,
        samplers: Sequence[Sampler],
        counts: Sequence[int],
        last: bool,
        limiter: RateLimiter | None = None,
        pretrain: int = 0,
    ) -> None:
        self.pretrain = pretrain
        """Batches that are still drawn from the last sampler alone."""
        self.store, self.items = store, store.layout.items
        self.samplers, self.counts = tuple(samplers), tuple(counts)
        self.last, self.limiter = last, limiter
        self._size, self._trained = sum(counts), self.items.trained
        self.dropped = 0
        """Items that were drawn again because a writer had overwritten them."""
        self.sampled = 0
        """Rows handed out, all samplers together."""
        self.skipped = 0
        """Unrolls that were skipped because they were too old, or came before ``min_rows`` were stored."""
        self._pacing = [(sampler, n) for sampler, n in zip(self.samplers, self.counts) if sampler.paces]
        self._others = [(sampler, n) for sampler, n in zip(self.samplers, self.counts) if not sampler.paces]
        strangers = [not type(sampler).__module__.startswith("offbeat.") for sampler in self.samplers]
        pairs = zip(self.samplers, self.counts)
        self._strangers = [pair for pair, strange in zip(pairs, strangers) if strange]
        replayed = [torch.full((n,), not sampler.paces) for sampler, n in zip(self.samplers, self.counts)]
        self._replayed = torch.cat(replayed)
        self.paced = bool(self._pacing)
        """Whether a sampler hands out each row once and holds writers back."""
        copies = [type(sampler).read is not Sampler.read for sampler in self.samplers]
        self._copies = any(copies)
        self.unsplittable = [place for place, (one, other) in enumerate(zip(copies, strangers)) if one or other]
        """Which samplers keep copies, or have habits of their own."""
        self.splittable = not self.unsplittable
        """Whether another batch may be drawn before one is copied: samplers with copies or habits of their own expect
        that what they chose is read and released at once, as ``sample`` does."""
        self._noun = "unrolls" if self.items.kind == "unroll" else "items"
        self._too_old: tuple[int, int] | None = None  # version asked for and newest skipped one, since the last batch

    def ready(self) -> bool:
        """Whether ``sample`` would give a batch."""
        if self.pretrain:
            return True
        limited = self.limiter is not None and not self.limiter.may_sample()
        return not limited and _ready(self._others) and _ready(self._pacing)

    def missing(self) -> str:
        """What the next batch waits for, in one line. It only looks, and may be asked beside a thread that draws."""
        if self.pretrain:
            return "nothing: a batch of the demonstration is ready"
        parts = [self.limiter.missing()] if self.limiter is not None else []
        parts += [sampler.missing(n) for sampler, n in self._others]
        if self._too_old is not None:
            asked, newest = self._too_old
            parts.append(
                f"unrolls acted with weights of version {asked} or newer; the newest has {newest} "
                "(learner.max_policy_lag)"
            )
        parts += [sampler.missing(n) for sampler, n in self._pacing]
        but = ", as its samplers say; one may select nothing all the same" if self._strangers else ""
        return next((part for part in parts if part), f"nothing: a batch is ready{but}")

    def sample(self, min_version: int = 0) -> Batch | None:
        """The next batch, or None if there is not enough yet: ``draw``, ``copy`` and ``release``."""
        parts = self.draw(min_version)
        batch = None if parts is None else self.copy(parts)
        if parts is not None and batch is not None:
            self.release(parts)
        return batch

    def draw(self, min_version: int = 0) -> Parts | None:
        """Choose the items of the next batch, or None if there is not enough yet. They must be copied and released.

        Pacing samplers leave out unrolls whose newest row was acted with weights older than ``min_version``, and all
        while another sampler waits for its ``min_rows``, which writers that are held back would never reach.
        """
        if self.pretrain:
            self.pretrain -= 1
            part = self.samplers[-1].select(self._size)
            return None if part is None else [(self.samplers[-1], part)]
        if self.limiter is not None and not self.limiter.may_sample():
            return None
        if self.paced:
            others = _ready(self._others)
            self._skip_older(min_version if others else None)
            if not (others and _ready(self._pacing)):
                return None
        elif self._strangers and not _ready(self._strangers):  # ours give nothing where they are not
            return None
        parts = self._select()
        if parts is not None:
            self._too_old = None
            self._count(self._size)
        return parts

    def copy(self, parts: Parts, lock: AbstractContextManager[object] | None = None) -> Batch | None:
        """The batch of what was drawn; None where it was overwritten and there is nothing else any more.

        ``lock``: guards draws and books; held for those alone, so that copies run side by side.
        """
        lock = lock or nullcontext()
        batch, ok = self._read(parts)
        for _ in range(MOST_TRIES):
            if ok.all():
                break
            with lock:
                if not self._redraw(batch, parts, ok):
                    self.give_back()
                    return None
        else:
            with lock:
                self.give_back()
            raise RuntimeError(
                f"no {self._size} {self._noun} stayed readable while they were copied, in {MOST_TRIES} tries; "
                "use a larger replay.capacity"
            )
        with lock:
            self._mark(batch, parts)
        return batch

    def release(self, parts: Parts) -> None:
        """What was drawn has been copied: writers may go on. In the order of draws."""
        for sampler, part in parts:
            if sampler.paces:
                sampler.copied(part)

    def give_back(self) -> None:
        """A batch without rows of a pacing sampler will not be trained on: as if it had not been drawn."""
        self._count(-self._size)

    def _count(self, items: int) -> None:
        rows = items * self._trained
        self.sampled += rows
        if self.limiter is not None:
            self.limiter.count(rows)

    def _select(self) -> Parts | None:
        """What each sampler chooses; None if one has nothing after all."""
        chosen = []
        for sampler, n in zip(self.samplers, self.counts):
            part = sampler.select(n) if n else None
            if part is not None:
                if self._strangers:
                    self._check(sampler, part, n)
                chosen.append((sampler, part))
            elif n and self._pacing:
                raise RuntimeError(
                    f"{type(sampler).__name__.lower()} sampler found no {n} readable {self._noun}; use a larger "
                    "replay.capacity or window"
                )
            elif n:
                return None
        return chosen

    def _check(self, sampler: Sampler, part: Any, count: int) -> None:
        """Raise RuntimeError, naming the sampler, where it chose something else than it was asked for."""
        index = self.samplers.index(sampler)
        who = f"sampler {called(type(sampler))} (replay.samplers.{index})"
        names = ("stream", "row", "source")
        for name in names:
            values = getattr(part, name, None)
            if not isinstance(values, np.ndarray) or values.dtype.kind != "i" or values.shape != (count,):
                got = f"{values.dtype}{list(values.shape)}" if isinstance(values, np.ndarray) else type(values).__name__
                raise RuntimeError(f"{who}: select({count}).{name}: expected int64[{count}], got {got}")
        if (part.source != index).any():
            raise RuntimeError(f"{who}: select: source must be {index}, its place, got {part.source.tolist()}")
        outside = (part.stream < 0) | (part.stream >= self.store.layout.num_streams) | (part.row < 0)
        if not outside.any() and type(sampler).read is Sampler.read:
            outside = part.row >= self.store.heads(part.stream)
        if outside.any():
            wrong = int(np.flatnonzero(outside)[0])
            raise RuntimeError(
                f"{who}: select: there is no row {part.row[wrong]} of stream {part.stream[wrong]}; there are "
                f"{self.store.layout.num_streams} streams with the heads {self.store.head.tolist()}"
            )

    def _read(self, parts: Parts) -> tuple[Batch, np.ndarray]:
        """Copy what was selected, and whether each column may be used [B]."""
        if self._copies:
            read = [sampler.read(part) or self._read_streams(part) for sampler, part in parts]
            return join_columns([batch for batch, _ in read]), np.concatenate([ok for _, ok in read])
        part = parts[0][1]
        if len(parts) > 1:  # one pass for all
            named = [[getattr(part, name) for _, part in parts] for name in ("stream", "row", "source")]
            part = Selection(*map(np.concatenate, named))
        return read_items(self.store, self.items, part.stream, part.row, last=self.last, source=part.source)

    def _read_streams(self, part: Selection) -> tuple[Batch, np.ndarray]:
        return read_items(self.store, self.items, part.stream, part.row, last=self.last, source=part.source)

    def _redraw(self, batch: Batch, parts: Parts, ok: np.ndarray) -> bool:
        """Replace the columns that are not ``ok`` [B] by new draws of the same samplers, and update ``ok``; False if
        there is nothing to draw any more.
        """
        start = 0
        for sampler, part in parts:
            broken = np.flatnonzero(~ok[start : start + len(part)])
            if len(broken):
                if sampler.paces:
                    gone = list(zip(part.stream[broken].tolist(), part.row[broken].tolist()))
                    raise RuntimeError(f"fifo: unrolls (stream, row) {gone} were overwritten or have no core state")
                self.dropped += len(broken)
                fresh = sampler.select(len(broken))
                if fresh is None:
                    return False
                if self._strangers:
                    self._check(sampler, fresh, len(broken))
                other, fine = self._read([(sampler, fresh)])
                paste_columns(batch, other, torch.from_numpy(start + broken))
                part.put(broken, fresh)
                ok[start + broken] = fine
            start += len(part)
        return True

    def _mark(self, batch: Batch, parts: Parts) -> None:
        """Mark the columns: importance weights, rows that are new, what is replayed."""
        at, batch.replayed = 0, self._replayed.clone()
        for sampler, part in parts:
            weight, end = sampler.weights(part), at + len(part.row)
            again = sampler.replayed(part)
            if again is not None:
                batch.replayed[at:end] = torch.from_numpy(again)
            if weight is not None:
                batch.weight = torch.ones(self._size) if batch.weight is None else batch.weight
                batch.weight[at:end] = torch.from_numpy(weight)
            if sampler.paces and isinstance(batch, Unroll) and sampler is self._pacing[0][0]:
                # another pacing sampler hands out the same rows
                batch.fresh = transitions(batch, torch.arange(at, end)[~batch.replayed[at:end]])
            at = end

    def _skip_older(self, version: int | None) -> None:
        for sampler, _ in self._pacing:
            skipped, newest = sampler.skip_older(version)
            self.skipped += skipped
            if skipped and version is not None:
                self._too_old = (version, newest)

    def done(self, batch: Batch | Dealt) -> None:
        """The batch was trained on (ledger)."""
        for sampler, selection in self._paced_columns(batch):
            sampler.done(selection)

    def skip(self, batch: Batch | Dealt) -> None:
        """The batch was not trained on (ledger)."""
        for sampler, selection in self._paced_columns(batch):
            sampler.skip(selection)

    def _paced_columns(self, batch: Batch | Dealt) -> Iterator[tuple[Sampler, Selection]]:
        """The part of a batch that each pacing sampler chose and had not handed out before."""
        columns = batch if isinstance(batch, Dealt) else Dealt.of(batch)
        chosen, new = Selection(columns.stream, columns.row, columns.source), ~columns.replayed
        for index, sampler in enumerate(self.samplers):
            if sampler.paces:
                yield sampler, chosen[(columns.source == index) & new]

    def feedback(
        self, source: np.ndarray, stream: np.ndarray, row: np.ndarray, found: Mapping[str, np.ndarray]
    ) -> None:
        """What the loss found out about the columns of a batch, for the samplers that chose them: all [B]."""
        if len(self.samplers) == 1:
            self.samplers[0].feedback(stream, row, found)
            return
        for index, sampler in enumerate(self.samplers):
            own = source == index
            if own.any():
                sampler.feedback(stream[own], row[own], {name: values[own] for name, values in found.items()})

    def stats(self) -> dict[str, float]:
        """Numbers for the log: rows sampled and stored, what was dropped and skipped, and what samplers tell."""
        numbers = {
            "sampled_rows": float(self.sampled),
            f"dropped_{self._noun}": float(self.dropped),
            "stored_rows": float(self.store.stored.sum()),
        }
        if self.items.kind == "unroll":
            numbers["skipped_unrolls"] = float(self.skipped)
        else:
            numbers["samples_per_insert"] = self.sampled / max(1, int(self.store.head.sum()))
        for sampler in self.samplers:
            numbers |= sampler.stats()
        return numbers

    def state(self) -> ArrayDict:
        """Random generators, priorities and counters (cursors are part of the store's state)."""
        saved = {"counts": np.array([self.dropped, self.sampled, self.skipped])}
        for name, part in self._stateful():
            saved |= {f"{name}/{key}": values for key, values in part.state().items()}
        return saved

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Go back to a saved ``state`` of the same mixture. KeyError naming what is missing in it."""
        self.dropped, self.sampled, self.skipped = (int(count) for count in state["counts"])
        for name, part in self._stateful():
            head = f"{name}/"
            part.load_state({key.removeprefix(head): v for key, v in state.items() if key.startswith(head)})

    def tallies(self) -> ArrayDict:
        """The few numbers that go on where another mixture takes this one's place over the same streams."""
        found = {"counts": np.array([self.dropped, self.sampled, self.skipped])}
        for index, sampler in enumerate(self.samplers):
            found |= {f"{index}/{key}": values for key, values in sampler.tallies().items()}
        return found

    def load_tallies(self, tallies: Mapping[str, np.ndarray]) -> None:
        """Take the place of a mixture that was lost, of the same samplers."""
        self.dropped, self.sampled, self.skipped = (int(count) for count in tallies["counts"])
        for index, sampler in enumerate(self.samplers):
            head = f"{index}/"
            sampler.load_tallies({key.removeprefix(head): v for key, v in tallies.items() if key.startswith(head)})

    def _stateful(self) -> Iterator[tuple[str, Sampler | RateLimiter]]:
        yield from ((str(index), sampler) for index, sampler in enumerate(self.samplers))
        if self.limiter is not None:
            yield "limiter", self.limiter


def _ready(samplers: Sequence[tuple[Sampler, int]]) -> bool:
    """Whether each has so many items."""
    return all(sampler.ready(count) for sampler, count in samplers)
