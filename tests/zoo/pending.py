"""What is still refused and shall not be: one table. A row goes when its environment behaves as its entry says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Pending:
    """What happens instead."""

    awaits: str
    says: str
    """Pattern of the line with which it is refused; empty: it is not tried at all."""
    at: Literal["start", "run"] = "start"


VECTORS = "environments of gymnasium.vector from a factory without arguments"
PENDING = {
    "vector": Pending(VECTORS, "gave SyncVectorEnv; expected a gymnasium.Env"),
}
"""Name of an entry -> what it awaits."""
