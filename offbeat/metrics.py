"""Metrics: what roles report becomes metrics.jsonl, progress.csv, TensorBoard events and the live dashboard."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class LogConfig:
    """What a run prints and writes."""

    every_s: float = 5.0
    """A row of progress.csv and a line on the terminal every so many seconds."""
    tensorboard: bool = True
    """Write TensorBoard events into the run folder."""
    dashboard: bool = True
    """A live dashboard where the output is a terminal; plain lines otherwise."""
