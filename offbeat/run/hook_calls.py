"""When hooks are called, with what, and what their answers do to the run.

What happens is noted where it happens, and told between two things that the main process does, where nothing is half
done: a hook may take its time, raise, or ask for the run's end.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

from offbeat.errors import told
from offbeat.run.hooks import STOP, Hook, HookFailed
from offbeat.run.records import evaluations
from offbeat.runtime.conductor import Conductor, EndNow, Overdue

OF_EVALUATIONS = ("mean", "std", "min", "max", "iqm", "low", "high", "episodes", "policy", "returns", "lengths")
"""What ``on_evaluation`` is told of a record of that kind, beside the point of the run that the weights are from."""
HEADER = ("time", "role", "kind", "frames", "agent_steps")
"""What each line of metrics.jsonl begins with."""


class HookCalls:
    """The hooks of one run. Used by the main process alone, from one thread."""

    def __init__(self, hooks: Sequence[Hook]) -> None:
        self._hooks, self._closing = list(hooks), list(hooks)
        self._waiting: deque[tuple[str, dict[str, Any]]] = deque()
        self._run, self._best = "", -math.inf
        self._seconds: Callable[[], float] = lambda: 0.0
        self.failure: HookFailed | None = None
        """Of the first hook that raised."""

    def begin(self, run: Path, seconds: Callable[[], float]) -> None:
        """Learn the run's folder, whose files are cut to where the run goes on, and its clock."""
        self._run, self._seconds = str(run), seconds
        if self.wanted("on_evaluation"):
            self._best = max((_number(one.get("mean")) for one in evaluations(run)), default=-math.inf)

    def wanted(self, moment: str) -> bool:
        """Whether any hook is called then."""
        return any(moment in hook.calls for hook in self._hooks)

    def line(self, line: Mapping[str, Any], updates: int) -> None:
        """A line of metrics.jsonl, written when the learner had done so many updates."""
        if line["kind"] == "evaluation" and self.wanted("on_evaluation"):
            self._best = max(self._best, _number(line["mean"]))
            event = self._point(line, line.get("updates", updates), line["time"])
            event |= {name: line.get(name) for name in OF_EVALUATIONS}
            event["best"] = self._best if math.isfinite(self._best) else None
            self._waiting.append(("on_evaluation", event))
        if self.wanted("on_metrics"):
            values = {name: value for name, value in line.items() if name not in HEADER}
            event = self._point(line, updates, line["time"])
            event |= {"role": line["role"], "kind": line["kind"], "values": values}
            self._waiting.append(("on_metrics", event))

    def saved(self, path: Path, counters: Mapping[str, int]) -> None:
        """A checkpoint is complete."""
        if self.wanted("on_checkpoint"):
            event = self._point(counters, counters["updates"], round(self._seconds(), 3)) | {"path": str(path)}
            self._waiting.append(("on_checkpoint", event))

    def _point(self, counters: Mapping[str, Any], updates: int, seconds: float) -> dict[str, Any]:
        """What every event begins with."""
        point = {"frames": counters["frames"], "agent_steps": counters["agent_steps"], "updates": updates}
        return {"run": self._run, **point, "seconds": seconds}

    def deliver(self, conductor: Conductor) -> None:
        """Call the hooks with what has happened since; they may ask the conductor for the run's end."""
        while self._waiting:
            moment, event = self._waiting.popleft()
            for hook in [hook for hook in self._hooks if moment in hook.calls]:
                self._call(hook, moment, event, conductor)

    def _call(self, hook: Hook, moment: str, event: dict[str, Any], conductor: Conductor) -> None:
        """Call one hook, with data of its own. One that raises or has to be broken off is called no more."""
        who = hook.name if len(hook.calls) == 1 and moment in hook.name else f"{hook.name}, {moment}"
        try:
            conductor.may_cut = True
            try:
                answer = hook.calls[moment](deepcopy(event))
            finally:
                conductor.may_cut = False
        except EndNow:
            raise
        except Overdue:
            self._hooks.remove(hook)
            conductor.say(f"{who} was broken off: the run is to end and it had not returned")
        except BaseException as error:  # SystemExit too: it would end the program without saving
            self._hooks.remove(hook)
            raised = f"{who} raised {shown(error)}"
            conductor.say(f"{raised}: the run ends")
            if self.failure is None:
                self.failure = HookFailed(raised)
                self.failure.__cause__ = error
            conductor.ask_to_stop(f"{who} failed")
        else:
            if answer is STOP:
                conductor.say(f"{who} returned offbeat.STOP: the run ends")
                conductor.ask_to_stop(who)

    def drop(self) -> None:
        """Call nobody any more: the user wants the run to end at once."""
        self._hooks, self._closing, self._waiting = [], [], deque()

    def end(self, conductor: Conductor, ending: str = "finished", reason: str = "") -> None:
        """Tell what has not been told yet, and how the run ended; then close the hooks. What raises only then is said
        and changes nothing.

        ``ending``: finished, stopped (saved, to be resumed) or failed; ``reason``: who stopped it, or the error.
        """
        self.deliver(conductor)
        if self.failure is not None:
            ending, reason = "failed", str(self.failure)
        event: dict[str, Any] = {"ending": ending, "reason": reason}
        if self.wanted("on_end"):
            counters = {name: getattr(conductor, name) for name in ("frames", "agent_steps", "updates")}
            event |= self._point(counters, counters["updates"], round(self._seconds(), 3))
        closing, self._closing = self._closing, []
        for hook in closing:
            if hook in self._hooks and "on_end" in hook.calls:
                _at_last(hook, "on_end", partial(hook.calls["on_end"], deepcopy(event)), conductor)
            if hook.close is not None:
                _at_last(hook, "close", hook.close, conductor)


def _at_last(hook: Hook, moment: str, call: Callable[[], object], conductor: Conductor) -> None:
    """Call something whose failure can end no run any more."""
    try:
        call()
    except EndNow:
        raise
    except BaseException as error:
        conductor.say(f"{hook.name}: {moment} raised {shown(error)}")


def shown(error: BaseException) -> str:
    """An exception in one line, also one whose text cannot be made."""
    try:
        return told(error)
    except Exception:
        return type(error).__name__


def _number(value: Any) -> float:
    """A mean return as a number; that of no episodes is below all others."""
    return float(value) if isinstance(value, int | float) else -math.inf
