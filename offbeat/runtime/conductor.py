"""What the main process decides in every engine: when to evaluate and validate, when to save, when to stop; and how a
save is put together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from offbeat.runtime.validations import Validations
from offbeat.runtime.world import World, is_deterministic
from offbeat.storage.checkpoint import CheckpointError, Draft, begin
from offbeat.storage.named import BEST, EXTRA, is_there

Save = Callable[[Path], dict[str, Any]]
"""Asks every role for its part in that folder; returns ``counters`` and the names of the ``parts`` written."""


class EndNow(KeyboardInterrupt):
    """Raised by a signal handler: the user wants the run to end at once, without saving."""


FIRST_SAVE_S = 60.0
"""A new run is saved after so long at most: who kills it in its first minutes keeps something. Unit: seconds."""


class Overdue(BaseException):
    """Raised by a signal handler in the middle of a round that does not come to its end although a stop was asked."""


class Logger(Protocol):
    """Takes the records of all roles, in the main process. Nothing that goes wrong with its files raises."""

    def record(self, role: str, kind: str, values: Mapping[str, float]) -> None:
        """Take one record of a role."""

    def progress(self, updates: int, agent_steps: int, frames: int) -> None:
        """Say where the learner is between two of its records."""

    def tick(self) -> None:
        """Called at least about once a second."""

    def flush(self) -> None:
        """Write what is buffered to the files."""

    def offsets(self) -> dict[str, Any]:
        """What a checkpoint must remember, as JSON can hold it."""


class Listener(Protocol):
    """Hears of what happens in a run, in the main process."""

    def saved(self, path: Path, counters: Mapping[str, int]) -> None:
        """Note that a checkpoint is complete."""

    def deliver(self, conductor: Conductor) -> None:
        """Tell the user's code what has happened; it may take its time, and ask for the run's end."""


class Conductor:
    """Schedules of a run, in the main process.

    Args:
        world: of the run.
        run: run folder.
        logger: takes every record.
        say: prints a line to the user and the run's log.
        meta: what the checkpoint that this run goes on from held, or {}.
        listener: hears of checkpoints, and tells the user's hooks.
    """

    def __init__(
        self,
        world: World,
        run: Path,
        logger: Logger,
        say: Callable[[str], None],
        meta: dict[str, Any],
        listener: Listener | None = None,
    ) -> None:
        self.world, self.run, self.logger, self.say = world, run, logger, say
        self._listener = listener
        self.evaluations = int(meta.get("evaluations", 0))
        self.resumes = int(meta.get("resumes", -1)) + 1
        counters = meta.get("counters", {})
        self.updates, self.agent_steps = int(counters.get("updates", 0)), int(counters.get("agent_steps", 0))
        self.frames = int(counters.get("frames", self.agent_steps * world.spec.frame_skip))
        """Environment frames of the run so far; checkpoints of before count none."""
        validation, fixed = world.config.validation, is_deterministic(world.config)
        self.validations = Validations(validation, world.clock, fixed=fixed, saved=meta.get("validation", {}))
        self._extra_at = world.config.checkpoint.extra_at
        """Agent steps of the checkpoint that is kept for ever; 0: there is none to come."""
        if self._extra_at and is_there(run, EXTRA):
            self._extra_at = 0
        self._extra_tried = False
        self._saved_updates = self.updates
        self._saved_at, self._saved = self.world.clock.now(), bool(meta)
        self.stop_reason: str | None = None
        self._stop_asked = 0.0
        self.may_cut = False
        """Whether ``Overdue`` may be raised now: roles or hooks are at work in this thread, nothing is being saved."""
        self.described: dict[str, Any] = {}
        """What the meta data of checkpoints say of the run itself."""
        self.unsaved: str | None = None
        """Why the newest checkpoint could not be written; None if it was."""
        self.groups: Callable[[], list[int]] = list
        """Process groups of the run beside our own, which a terminal tells nothing."""

    def post(self) -> None:
        """Put the counters that a resumed run starts from on the notice board, before any role looks at it."""
        board = self.world.board
        for name in ("updates", "agent_steps", "frames"):
            board[name][0] = getattr(self, name)

    def progress(self, updates: int, agent_steps: int, frames: int) -> None:
        """Where the learner is now."""
        self.updates, self.agent_steps, self.frames = updates, agent_steps, frames
        self.logger.progress(updates, agent_steps, frames)

    def tick(self) -> None:
        """Called at least about once a second, where nothing is half done: what is due is written, shown and told."""
        self.logger.tick()
        if self._listener is not None:
            self._listener.deliver(self)

    def finished(self) -> bool:
        """Whether the run has all its frames."""
        return self.frames >= self.world.config.total_frames

    def pretrains(self) -> bool:
        """Whether the learner may have updates to make before the first frame."""
        return not self.frames and self.world.config.demonstrations.pretrain_steps > 0

    def evaluation_due(self) -> bool:
        """Whether the next evaluation of the schedule should start; counts it."""
        every = self.world.config.evaluation.every_frames
        config = self.world.config
        if not every or self.frames < (self.evaluations + 1) * every:
            return False
        if config.evaluation.at_end and self.frames >= config.total_frames:
            return False  # the last evaluation follows at once
        self.evaluations = self.frames // every
        return True

    def validation_due(self) -> bool:
        """Whether a validation should start; counts it."""
        return self.stop_reason is None and self.validations.due(self.agent_steps)

    def validated(self, answer: Mapping[str, Any], save: Save) -> None:
        """A validation has ended; ``answer``: of who has played it, {} if it was broken off. Where no mean before was
        as high, ``save`` writes the weights that were played, which become the checkpoint ``best``.
        """
        complete, mean = bool(answer.get("complete")), float(answer.get("mean", float("nan")))
        if not self.validations.done(mean, complete):
            return
        try:
            path, counters = self._keep_best(save, mean)
        except (CheckpointError, OSError) as error:
            self.say(f"the best weights could not be saved, and those of before are kept: {error}")
            return
        self.validations.best = mean
        self.say(f"best validation so far: {mean:.6g} at {counters['frames']:,} frames; its weights are in {path}")

    def _keep_best(self, save: Save, mean: float) -> tuple[Path, dict[str, int]]:
        """Write the checkpoint ``best``; its folder, and the point of the run that its weights are from."""
        draft = begin(self.run, self.agent_steps)
        try:
            answer = save(draft.path)
            counters: dict[str, int] = answer["counters"]
            draft.agent_steps = counters["agent_steps"]
            for part in answer["parts"]:
                draft.adopt(part)
            return draft.commit(self._meta(counters) | {"validation_mean": mean}, name=BEST), counters
        except BaseException:
            draft.abort()
            raise

    def _meta(self, counters: dict[str, int]) -> dict[str, Any]:
        """What every checkpoint says of itself: of the run, and of the point that its weights are from."""
        return self.described | {
            "counters": counters,
            "total_frames": self.world.config.total_frames,
            "frames": counters["frames"],
            "version": counters["updates"],
        }

    def _extra_due(self, agent_steps: int) -> bool:
        return 0 < self._extra_at <= agent_steps

    def checkpoint_due(self) -> bool:
        """Whether it is time to save."""
        config = self.world.config.checkpoint
        if self._extra_due(self.agent_steps) and not self._extra_tried:
            return True
        if config.every_updates and self.updates - self._saved_updates >= config.every_updates:
            return True
        if not config.every_s or self.world.config.deterministic or self.world.config.engine == "inline":
            return False
        every_s = config.every_s if self._saved else min(config.every_s, FIRST_SAVE_S)
        return self.world.clock.now() - self._saved_at >= every_s

    def save(self, save: Save) -> Path | None:
        """Write a checkpoint. None if the disk does not take it: the run goes on and the older ones stay."""
        self._saved_updates, self._saved_at, self._saved = self.updates, self.world.clock.now(), True
        try:
            draft = begin(self.run, self.agent_steps)
            try:
                answer = save(draft.path)
                if answer.get("note"):
                    self.say(answer["note"])
                counters = answer["counters"]
                draft.agent_steps = counters["agent_steps"]
                for part in answer["parts"]:
                    draft.adopt(part)
                self.logger.flush()
                meta = self._meta(counters) | {
                    "evaluations": self.evaluations,
                    "validation": self.validations.state(),
                    "resumes": self.resumes,
                    "metrics": self.logger.offsets(),
                }
                self._keep_extra(draft, meta)
                path = draft.commit(meta, self.world.config.checkpoint.keep)
            except BaseException:
                draft.abort()
                raise
        except (CheckpointError, OSError) as error:
            self.unsaved = str(error)
            goes_on = "" if self.stop_reason else " the run goes on and"
            self.say(f"checkpoint failed,{goes_on} earlier ones are kept: {error}")
            return None
        self.unsaved = None
        for name in ("updates", "agent_steps", "frames"):  # the learner may be further than it was when it was asked
            setattr(self, name, max(getattr(self, name), counters[name]))
        if self._listener is not None:
            self._listener.saved(path, counters)
        return path

    def _keep_extra(self, draft: Draft, meta: dict[str, Any]) -> None:
        """Keep the learner's part of ``draft`` for ever, if its time has come. Before the draft counts itself: a run
        that goes on from it then has both.
        """
        if not self._extra_due(draft.agent_steps):
            return
        self._extra_tried = True
        path = draft.keep_copy(EXTRA, meta, ("learner",))
        self._extra_at = 0
        self.say(f"extra checkpoint at {draft.agent_steps:,} agent steps, which is kept: {path}")

    def stopping_s(self) -> float:
        """Seconds since the run was asked to stop; 0 if it was not."""
        return 0.0 if self.stop_reason is None else self.world.clock.now() - self._stop_asked

    def ask_to_stop(self, reason: str) -> None:
        """End the run at the next boundary, saving it. An evaluation that is being played is broken off."""
        if self.stop_reason is None:
            self.stop_reason, self._stop_asked = reason, self.world.clock.now()
        self.world.board["leaving"][0] = 1
