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


ACTIONS = Pending(
    "MultiDiscrete and MultiBinary actions", "has the action space Multi.*; supported are Discrete and Box"
)
MASKS = Pending("action masks", "is illegal now", at="run")
VECTORS = "environments of gymnasium.vector"
PENDING = {
    "action-multi-discrete": ACTIONS,
    "action-multi-discrete-start": ACTIONS,
    "action-multi-discrete-nested": ACTIONS,
    "action-multi-binary": ACTIONS,
    "action-multi-binary-shape": ACTIONS,
    "mask-bits": MASKS,
    "mask-bool": MASKS,
    "mask-int8": MASKS,
    "mask-float": MASKS,
    "mask-start": MASKS,
    "mask-last": MASKS,
    "mask-named": MASKS,
    "mask-info": MASKS,
    "vector": Pending(VECTORS, "gave SyncVectorEnv; expected a gymnasium.Env"),
    "vector-of": Pending(VECTORS, "gave SyncVectorEnv; expected a VectorEnv"),
    "ends-never-scored": Pending("scores of endless episodes", ""),
}
"""Name of an entry -> what it awaits."""
UNSCORED = {"raises-close"}
"""Entries that train, but whose scores and films are lost: what close() raises ends ``evaluate`` and ``record``."""
