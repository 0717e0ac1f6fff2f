"""Metrics to Weights & Biases: the hook ``wandb``. ``WANDB_MODE=offline`` writes them into the run's folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import wandb

from offbeat.config.log import LogConfig
from offbeat.run.sinks.common import Numbers, keep_id, kept_id, options_of

EXIT = {"finished": 0, "stopped": 255, "failed": 1}
"""How the run ended -> its exit code there: 255 is what W&B itself gives a run that Ctrl-C ended."""


class Sink:
    """One run there for one run folder; it begins with the first line of metrics."""

    def __init__(self, log: LogConfig) -> None:
        self._log, self._numbers = log, Numbers()
        self._there: Any = None
        self._ending = "failed"  # what is true of a run that is closed without having been told

    def on_metrics(self, event: dict[str, Any]) -> None:
        """Send the numbers of one line, over the environment frames."""
        if self._there is None:
            self._there = self._begin(Path(event["run"]))
        if numbers := self._numbers.of(event):
            point = {name: event[name] for name in ("frames", "agent_steps", "updates", "seconds")}
            self._there.log(numbers | point)

    def on_end(self, event: dict[str, Any]) -> None:
        """Note how the run ended."""
        self._ending = event["ending"]

    def close(self) -> None:
        """Send what is left, and how the run ended."""
        if self._there is not None:
            self._there.finish(exit_code=EXIT[self._ending])

    def _begin(self, run: Path) -> Any:
        """The run over there: the one that was begun before, if this one goes on."""
        there = wandb.init(
            project=self._log.project,
            name=self._log.run_name or run.name,
            tags=list(self._log.tags),
            id=kept_id(run, "wandb") or None,
            resume="allow",
            dir=str(run),
            config=options_of(run),
            settings=wandb.Settings(console="off"),
        )
        keep_id(run, "wandb", there.id)
        there.define_metric("frames")
        there.define_metric("*", step_metric="frames")
        return there
