"""Batches that do not fit into a device's memory, trained in parts that add up to the same update."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import torch

from offbeat.replay.columns import columns_of, from_columns
from offbeat.runtime.generators import generator_state, load_generator_state
from offbeat.types import Batch, LossOutput, TensorDict

MOST_TOLD = 200
"""Characters of the device's own complaint that are passed on."""


class Halving:
    """Remembers into how many parts batches have to be cut: one, until the device's memory does not do for that.

    Losses are sums, so the gradients of the parts add up. Each part begins with the same numbers of torch's
    generators, as the whole would: noise on weights is the same in all of them.

    Args:
        device: where the learner computes.
        carries: the agent carries something from one unroll to the next, which it takes up once for each batch: such a
            batch is never cut.

    Attributes:
        parts: batches are cut into so many, and into no more than they have columns.
        failures: how often memory did not do.
    """

    def __init__(self, device: torch.device, carries: bool = False) -> None:
        self._device, self._carries = device, carries
        self.parts, self.failures = 1, 0
        self._again, self._drawn = False, generator_state(device)
        self._rows: list[int] = []  # of the parts that were cut last

    def counted(self) -> dict[str, int]:
        """For the log: how often memory did not do, and the parts now; nothing where it always did."""
        return {"out_of_memory": self.failures, "batch_parts": self.parts} if self.failures else {}

    def cut(self, batch: Batch) -> Iterator[Batch]:
        """The parts of a batch, one after the other, each to be done with before the next; of one part itself."""
        width = len(batch.stream)
        count = min(self.parts, width)
        if not self._again:
            self._drawn = generator_state(self._device)
        self._again, self._rows = False, []
        if count == 1:
            yield batch
            return
        columns = columns_of(batch)
        others = {name: value for name, value in vars(batch).items() if isinstance(value, int | tuple)}
        for part in range(count):
            among = slice(width * part // count, width * (part + 1) // count)
            load_generator_state(self._drawn, self._device)
            piece = from_columns(type(batch), {name: value[among] for name, value in columns.items()}, **others)
            self._rows.append(piece.rows)
            yield piece

    def again(self, batch: Batch, text: str) -> None:
        """Memory did not do for the parts of ``batch``, with the complaint ``text``: cut it into twice as many.

        RuntimeError, saying what to lower, where that cannot be.
        """
        self.failures, self._again = self.failures + 1, True
        width, complaint = len(batch.stream), text.partition("\n")[0][:MOST_TOLD]
        if self._carries and width > 1:
            raise RuntimeError(
                f"a batch of {width} does not fit into the memory of {self._device}, and this agent carries something "
                f"from one unroll to the next, so that it cannot be cut; lower learner.batch_size ({complaint})"
            )
        if self.parts >= width:
            raise RuntimeError(
                f"not even one of the {width} items of a batch fits into the memory of {self._device}; lower "
                "learner.unroll_length (agent.length, agent.burn_in) or the network's size, or use learner.precision "
                f"bf16 or another device ({complaint})"
            )
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        self.parts = min(2 * self.parts, width)
        if self.failures == 1:
            print(
                f"a batch of {width} does not fit into the memory of {self._device}: from now on it is trained in "
                f"{self.parts} parts (more, if need be), which add up to the same update but take longer; a lower "
                "learner.batch_size would not need them",
                file=sys.stderr,
                flush=True,
            )

    def together(self, outputs: list[LossOutput]) -> LossOutput:
        """What the loss gave for the parts that were cut last, as of the whole."""
        return outputs[0] if len(outputs) == 1 else together(self._rows, outputs)


def together(rows: list[int], parts: list[LossOutput]) -> LossOutput:
    """What the loss gave for the parts of a batch, which have so many rows, as of the whole.

    Totals and counts add up, feedback is joined column by column, metrics are means over rows: right for those that are
    means over rows themselves.
    """
    whole = sum(rows)
    shares = [number / whole if whole else 1 / len(rows) for number in rows]
    metrics: TensorDict = {}
    for name in parts[0].metrics:
        metrics[name] = torch.stack([share * part.metrics[name] for share, part in zip(shares, parts)]).sum(0)
    feedback = {name: torch.cat([part.feedback[name] for part in parts]) for name in parts[0].feedback}
    counts = [part.count for part in parts if part.count is not None]
    count = torch.stack([torch.as_tensor(number) for number in counts]).sum() if counts else None
    return LossOutput(torch.stack([part.total.detach() for part in parts]).sum(), metrics, feedback, count)
