"""The options of what a run prints and writes; ``run/metrics.py`` does it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class LogConfig:
    """What a run prints and writes."""

    every_s: float = 5.0
    """A row of progress.csv and a line on the terminal every so many seconds."""
    every_updates: int = 0
    """The same by learner updates, which makes the rows of two equal runs agree but for their times; 0: by time."""
    tensorboard: bool = True
    """Write TensorBoard events into the run folder."""
    dashboard: bool = True
    """A live dashboard where the output is a terminal; plain lines otherwise."""
    hooks: tuple[str, ...] = ()
    """Names of hooks: ``wandb``, ``mlflow``, and what installed packages bring in by the entry point ``offbeat.hooks``:
    code that is called after evaluations, checkpoints and lines of metrics. See docs/runtime.md."""
    project: str = "offbeat"
    """Project of Weights & Biases, or experiment of MLflow, that those hooks report to."""
    run_name: str = ""
    """What the run is called there; empty: as its folder."""
    tags: tuple[str, ...] = ()
    """Tags that it gets there."""
