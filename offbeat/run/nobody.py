"""Who takes the place of others where a role's loop runs by itself, to be measured or looked at."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from offbeat.runtime.ports import Point, WeightTarget
from offbeat.types import ArrayDict


class Nobody:
    """Takes rows, takes numbers, never stops anybody."""

    def append(self, block: Any) -> None:
        """Taken."""

    def offer(self, block: Any) -> None:
        """Taken."""

    def produced(self, streams: np.ndarray) -> None:
        """Not counted."""

    def attach(self, streams: np.ndarray) -> ArrayDict | None:
        """Streams are empty."""

    def write(self, kind: str, values: dict[str, float]) -> None:
        """Not written."""

    def is_set(self) -> bool:
        """The run is never over."""
        return False


class NoWeights:
    """A reader of weights that never has newer ones than the network was made with."""

    def version(self) -> int:
        """Always the version that a policy starts with."""
        return -1

    def pull(self, flat: WeightTarget) -> Point:
        """Leaves the weights as they are."""
        return Point(-1)

    def pin(self) -> tuple[torch.Tensor, Point]:
        """There are none."""
        raise RuntimeError("no weights have been published")

    def release(self) -> None:
        """Nothing is pinned."""
