"""The inference server: batches the requests of all actors into single forwards."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class InferenceConfig:
    """The inference server; unused with ``actor.inference = "actor"``."""

    device: str = "auto"
    """Torch device of the server; ``auto``: the run's device."""
    threads: int = 1
    """Torch threads of the server."""
    max_batch: int = 512
    """Most environments in one forward."""
    min_batch: int = 1
    """Wait for so many environments, but never longer than ``wait_s``."""
    wait_s: float = 0.002
    """Longest wait for ``min_batch``. Unit: seconds."""
