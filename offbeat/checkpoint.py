"""Checkpoints: safetensors, JSON and .npy in a folder that is complete or not there."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class CheckpointConfig:
    """When a run is saved and how much of it."""

    every_s: float = 600.0
    """Save after so many seconds; 0: never by time. Not used in deterministic runs."""
    every_updates: int = 0
    """Save after so many learner updates, at the next round boundary; 0: never by count."""
    keep: int = 3
    """Newest checkpoints that are kept."""
    replay: bool = True
    """Save the streams too. Without them a resumed run is not bit-identical."""
    max_replay_gb: float = 8.0
    """Leave the streams out, with a warning, where they are larger than this. Unit: GiB."""
