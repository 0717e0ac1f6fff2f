"""The sensitivities of real-time recurrent learning: kept in the learner, one for each stream, never sent anywhere.

Source: Irie et al. 2024, section 3.2, where actors carry them and send them with each unroll. What is renewed here once
per unroll by the learner is the same but for the weights that it was made with: those trained with, not acted with.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from offbeat.networks.stacked import Stacked
from offbeat.networks.traced import TracedCore, aligned
from offbeat.types import TensorDict, Unroll

NEVER = -1
"""No unroll of this stream was trained on yet."""


@dataclass
class Followed:
    """An unroll on its way through the core.

    Attributes:
        trace: the sensitivities of all streams before it.
        at: [B], where each column's lie in them; -1: replayed columns have none.
        steps: what the core leaves for the sensitivities to advance by.
    """

    trace: TensorDict
    at: list[int]
    steps: Any = None


class Sensitivities:
    """Kept in the learner: see ``offbeat.agents.base.LearnerState``.

    They fit a stream's next unroll only if that begins where its last one ended. After a gap they are zeros again,
    which is truncated backpropagation for one unroll, and counted. So are streams that went on under a new writer: the
    episode was cut there, and what is remembered of it goes with it.

    Args:
        core: the core that they are of.
        decay: they are multiplied by it before each unroll, in [0, 1]; 0: no unroll knows of the one before.

    Attributes:
        gaps: unrolls that did not begin where their stream's last one ended.
        restarts: episodes that were cut, because their actor died or the run was stopped and resumed.
        new_gaps, new_restarts: of those, what the batch begun last, and the batch trained on last, have added.
        updates: that the learner has made.
    """

    exact = False
    shards = True
    grows = True

    def __init__(self, core: TracedCore | Stacked, decay: float = 1.0) -> None:
        self._core, self._decay = core, decay
        self._trace: TensorDict = {}
        self._next = torch.zeros(0, dtype=torch.int64)  # [E], the row that each stream's next unroll begins with
        self._since = torch.zeros(0, dtype=torch.int64)  # [E], updates when the oldest part of it was made
        self._ended = torch.zeros(0, dtype=torch.bool)  # [E], whether the last row trained on ended its episode
        self._begun: tuple[Unroll, Followed] | None = None
        self.gaps = self.restarts = self.updates = self.new_gaps = self.new_restarts = 0

    def begin(self, batch: Unroll) -> Followed:
        """The sensitivities before ``batch``, each stream's zeroed where there is a gap.

        RuntimeError where a stream has two columns that are not replayed: none of them would come next.
        """
        streams, rows = batch.stream.tolist(), batch.row.tolist()
        replayed = [False] * len(streams) if batch.replayed is None else batch.replayed.tolist()
        at = [-1 if again else stream for stream, again in zip(streams, replayed, strict=True)]
        fresh = [stream for stream in at if stream >= 0]
        if len(set(fresh)) < len(fresh):
            raise RuntimeError(
                f"a batch holds two unrolls of one stream (streams {sorted(fresh)}), of which only one can come next; "
                "RTRL needs one fifo among replay.samplers"
            )
        self._reach(max(fresh, default=-1) + 1)
        before = self.gaps
        for stream, row in zip(at, rows, strict=True):
            if stream < 0:
                continue
            expected = int(self._next[stream])
            if expected != row:
                self.gaps += expected != NEVER
                self._since[stream], self._ended[stream] = self.updates, True
                self._forget(stream)
            elif self._decay != 1.0:
                for values in self._trace.values():
                    values[stream].mul_(self._decay)
        self.new_gaps = self.gaps - before
        followed = Followed(self._trace, at)
        self._begun = (batch, followed)
        return followed

    def refresh(self, followed: Followed, before: Unroll) -> None:
        """Make them anew of the rows ``before`` the batch that was begun last, which ``followed`` has gone through with
        the weights of now. Where nothing is known of those, they are zeros.
        """
        known = before.valid.any(0).tolist()
        at = [row if is_known else -1 for row, is_known in zip(followed.at, known, strict=True)]
        for stream in followed.at:
            if stream >= 0:
                self._since[stream] = self.updates
                self._forget(stream)
        self._core.advance(self._trace, at, followed.steps)

    def _forget(self, stream: int) -> None:
        """Zeros, whatever was there: not finite ones too."""
        for values in self._trace.values():
            values[stream].zero_()

    def spans(self) -> Tensor:
        """Versions of the weights that the sensitivities of each column begun last span [n] float32, n <= B."""
        at = () if self._begun is None else self._begun[1].at
        index = torch.tensor([stream for stream in at if stream >= 0], dtype=torch.int64)
        return (self.updates - self._since[index]).float()

    def trained(self, batch: Any, updates: int) -> None:
        """Advance by the unroll that was begun last. One whose update was skipped is not: it will be a gap."""
        if self._begun is not None:
            unroll, followed = self._begun
            self._core.advance(self._trace, followed.at, followed.steps)
            self._note(unroll, followed.at)
            self._begun = None
        self.updates = updates

    def _note(self, unroll: Unroll, at: list[int]) -> None:
        """Where the streams of ``unroll`` are now, and what happened on the way."""
        length = len(unroll.action)
        first, ended = unroll.inputs.first[:length].cpu(), (unroll.terminated | unroll.truncated).cpu()
        rows, started = unroll.row.tolist(), first.any(0).tolist()
        column = [b for b, stream in enumerate(at) if stream >= 0]
        streams = torch.tensor([at[b] for b in column], dtype=torch.int64)
        before = torch.cat([self._ended[streams].unsqueeze(0), ended[:-1, column]])
        cut = ~unroll.valid[:length].cpu()[:, column] & ~first[:, column] & ~before
        self.new_restarts = int(cut.sum())
        self.restarts += self.new_restarts
        self._ended[streams] = ended[-1, column]
        for b, stream in zip(column, streams.tolist(), strict=True):
            self._next[stream] = rows[b] + length
            if started[b]:
                self._since[stream] = self.updates

    def state(self) -> TensorDict:
        """Sensitivities, what they fit, and the counters, on the CPU."""
        trace = self._trace or self._core.initial_trace(0)
        kept = {f"trace/{name}": values.contiguous().cpu() for name, values in trace.items()}
        counts = torch.tensor([self.gaps, self.restarts, self.updates])
        places = {"next": self._next.clone(), "since": self._since.clone(), "ended": self._ended.clone()}
        return kept | places | {"counts": counts}

    def load_state(self, state: TensorDict) -> None:
        """Back to a saved ``state``."""
        self._trace, self._begun = {}, None
        self._next, self._since, self._ended = (state[name].clone() for name in ("next", "since", "ended"))
        self.gaps, self.restarts, self.updates = (int(count) for count in state["counts"])
        self._trace = self._core.initial_trace(len(self._next))
        for name, values in self._trace.items():
            values.copy_(state[f"trace/{name}"])

    def _reach(self, streams: int) -> None:
        """Have room for so many streams."""
        more = streams - len(self._next)
        if more <= 0:
            return
        for name, new in self._core.initial_trace(more).items():
            old = self._trace.get(name)
            if old is not None:
                both = aligned(new, len(old) + more, *new.shape[1:])
                both[: len(old)] = old
                new = both
            self._trace[name] = new
        self._next = torch.cat([self._next, torch.full((more,), NEVER)])
        self._since = torch.cat([self._since, torch.full((more,), self.updates)])
        self._ended = torch.cat([self._ended, torch.ones(more, dtype=torch.bool)])
