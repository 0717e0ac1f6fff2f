"""Metrics to MLflow: the hook ``mlflow``. ``MLFLOW_TRACKING_URI`` says where: a server, or ``file:`` and a folder."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag

from offbeat.config.log import LogConfig
from offbeat.errors import told
from offbeat.run.sinks.common import Numbers, keep_id, kept_id, options_of

TOGETHER_S = 5.0
"""Numbers are sent together about so often. Unit: seconds."""
MOST, PARAMS = 500, 100
"""Numbers and options of one request: a server takes 1000 and 100."""
LONGEST = 500
"""Characters of an option's value."""
STATUS = {"finished": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}
"""How the run ended -> what it is called there; one that was killed may go on."""


class Sink:
    """One run there for one run folder; it begins with the first line of metrics. What a server does not take later on
    is lost and said once: it is no reason to end a run.
    """

    def __init__(self, log: LogConfig, clock: Callable[[], float] = time.time) -> None:
        self._log, self._numbers, self._clock = log, Numbers(), clock
        self._client: Any = MlflowClient()  # refuses here what it has no use for
        self._id, self._waiting, self._sent_at = "", list[Any](), 0.0
        self._failed, self._ending = False, "failed"  # what is true of a run that is closed without having been told

    def on_metrics(self, event: dict[str, Any]) -> None:
        """Send the numbers of one line, over the environment frames."""
        if not self._id:
            self._begin(Path(event["run"]))
        now = self._clock()
        for name, value in self._numbers.of(event).items():
            self._waiting.append(Metric(name, value, int(now * 1000), int(event["frames"])))
        if now - self._sent_at > TOGETHER_S or len(self._waiting) >= MOST:
            self._send(now)

    def on_end(self, event: dict[str, Any]) -> None:
        """Note how the run ended."""
        self._ending = event["ending"]

    def close(self) -> None:
        """Send what is left, and how the run ended."""
        if self._id:
            self._send(self._clock())
            self._client.set_terminated(self._id, STATUS[self._ending])

    def _begin(self, run: Path) -> None:
        """The run over there: the one that was begun before, if this one goes on."""
        client, known = self._client, kept_id(run, "mlflow")
        if known:
            client.update_run(known, status="RUNNING")
        else:
            experiment = client.get_experiment_by_name(self._log.project)
            number = client.create_experiment(self._log.project) if experiment is None else experiment.experiment_id
            known = client.create_run(number, run_name=self._log.run_name or run.name).info.run_id
            keep_id(run, "mlflow", known)
            params = [Param(name, str(value)[:LONGEST]) for name, value in options_of(run).items()]
            for start in range(0, len(params), PARAMS):
                client.log_batch(known, params=params[start : start + PARAMS])
            client.log_batch(known, tags=[RunTag(tag, "") for tag in self._log.tags])
        self._id = known

    def _send(self, now: float) -> None:
        waiting, self._waiting, self._sent_at = self._waiting, [], now
        try:
            for start in range(0, len(waiting), MOST):
                self._client.log_batch(self._id, metrics=waiting[start : start + MOST])
        except Exception as error:  # of a server, a network, a disk
            if not self._failed:
                print(f"offbeat: mlflow does not take metrics: {told(error)}; those are lost", file=sys.stderr)
            self._failed = True
