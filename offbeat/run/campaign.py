"""Campaigns: a table of runs in a TOML file, worked off one after the other or side by side; stop it at any time and
start it again. docs/campaigns.md says what such a file holds.

Each run is an ``offbeat train`` of its own in ``OUT/<name>-seed<seed>``. Finished ones are left alone, begun ones are
resumed, and one that was stopped in its final evaluation plays it again.
"""

from __future__ import annotations

import shutil
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from offbeat.config.auto import shared_out, usable_cores, wanted_cores
from offbeat.errors import UserError
from offbeat.run.campaign_file import Campaign, Env, read_campaign
from offbeat.run.dashboard import clock_text
from offbeat.run.locked import locked
from offbeat.run.passing_on import Command, Crew, crew
from offbeat.run.planned import Further, Planned

Steps = Iterator[tuple[str, list[str]]]
"""(name of the further score, or '' where it is trained; arguments) of the commands that a run needs, one by one."""
LOGS = "logs"
"""Folder beside the runs' folders, for the output of those that go side by side."""
FINISHED = "finished"
"""What is said of a run that needs nothing more."""
UNSCORED = "scores are missing"
"""The same of one whose further scores are not all played yet."""
TAIL_BYTES = 1 << 14
"""So much of a log's end is looked at for the last line."""


@dataclass
class Job:
    """A run's way through the campaign."""

    run: Planned
    title: str
    state: str
    """How far it was when the campaign was started, as ``list_runs`` says it."""
    cores: int = 0
    """Cores that it gets where others run beside it; 0: it runs alone."""
    steps: Steps = field(default_factory=lambda: iter(()))
    doing: str = ""
    """The further score that is played for; empty while it is trained."""
    since: float = 0.0
    """When that was begun, on the monotonic clock."""

    @property
    def name(self) -> str:
        """What lines call it now."""
        return f"{self.title}, {self.doing}" if self.doing else self.title

    @property
    def log(self) -> Path:
        """Where its output goes if others run beside it."""
        return self.run.folder.parent / LOGS / f"{self.run.folder.name}.log"


def run_campaign(
    path: Path, report: Callable[[Campaign], object], *, at_once: int | None = None, env: Env | None = None
) -> int:
    """Work off a campaign, and ``report`` of what it left in its folder; returns how many runs failed.

    Args:
        path: the campaign's file.
        report: is called with it at the end.
        at_once: how many run at a time; None: as the file says, or as many as the cores allow.
        env: an environment for all runs, see ``read_campaign``.

    Raises ``UserError`` for a file that cannot run, and where another campaign works in the same folder.
    """
    campaign = read_campaign(path, env)
    campaign.out.mkdir(parents=True, exist_ok=True)
    taken = f"another campaign is at work in {campaign.out}; wait for its end, or stop it with Ctrl-C"
    with locked(campaign.out / ".lock", taken):
        jobs, most = plan(campaign, at_once)
        print(summary(campaign, jobs, most), flush=True)
        failed = _Work(jobs, most).off()
        report(campaign)
    return failed


def list_runs(campaign: Campaign, at_once: int | None = None) -> str:
    """What ``run_campaign`` would do, a line for each run."""
    jobs, most = plan(campaign, at_once)
    return "\n".join([summary(campaign, jobs, most), *(f"{job.title}: {job.state}" for job in jobs)])


def summary(campaign: Campaign, jobs: list[Job], most: int) -> str:
    """How many runs there are, how far they are, and how many ``plan`` lets run at a time."""
    firsts = [job.state.split()[0].rstrip(":") for job in jobs]
    said = {"finished": "finished", "scores": "to be scored", "begun": "begun", "train": "to begin"}
    counted = ", ".join(f"{firsts.count(first)} {text}" for first, text in said.items() if first in firsts)
    settings = len({run.name for run in campaign.runs})
    runs = f"{len(jobs)} run{'s' * (len(jobs) > 1)} of {settings} setting{'s' * (settings > 1)}"
    pace = "" if {*firsts} == {FINISHED} else "; one at a time" if most == 1 else f"; up to {most} at a time"
    return f"{campaign.file}: {runs} in {campaign.out}: {counted}{pace}"


def plan(campaign: Campaign, at_once: int | None) -> tuple[list[Job], int]:
    """All runs in their order, and how many may run at a time.

    Where nobody says how many, a run begins when the cores that it wants are free. Where somebody does, all get an
    equal share of the cores.
    """
    runs = campaign.runs
    jobs = [Job(run, f"[{place}/{len(runs)}] {run.folder}", _state(run)) for place, run in enumerate(runs, 1)]
    left = [job for job in jobs if job.state != FINISHED]
    stated, cores = at_once or campaign.at_once, usable_cores()
    limit = min(stated or len(left), len(left))
    if limit < 2:
        return jobs, 1
    for job in left:
        job.cores = max(1, cores // limit) if stated else wanted_cores(job.run.config())
    return jobs, limit if stated else max(1, _together([job.cores for job in left], cores))


def _together(wanted: list[int], cores: int) -> int:
    """How many in a row fit into the cores."""
    most = 0
    for first in range(len(wanted)):
        taken = 0
        for place in range(first, len(wanted)):
            taken += wanted[place]
            if taken > cores:
                break
            most = max(most, place - first + 1)
    return most


class _Work:
    """Runs and scores what is not there yet, until everything is or somebody stops it."""

    def __init__(self, jobs: list[Job], most: int) -> None:
        """``most``: how many at a time. More than one: each writes to its log, and only events are printed here."""
        self._waiting, self._most, self._cores = deque(jobs), most, usable_cores()
        self._at_work: dict[Command, Job] = {}
        self._failed, self._unfinished = 0, 0

    def off(self) -> int:
        """Do it; how much failed."""
        with crew() as commands:
            while True:
                while self._waiting and not commands.asked and self._room():
                    self._begin(commands, self._waiting.popleft())
                if not self._at_work:
                    break
                ended = commands.wait()
                job = self._at_work.pop(ended)
                self._ended(job, ended.returncode, bool(commands.asked))
                if not commands.asked:
                    self._next(commands, job)
            if commands.asked or self._unfinished:
                print("stopped; start the campaign again to go on", flush=True)
        return self._failed

    def _room(self) -> bool:
        """Whether the next one may begin beside those at work."""
        if not self._at_work:
            return True
        taken = sum(job.cores for job in self._at_work.values())
        fits = taken + self._waiting[0].cores <= max(self._cores, self._most)
        return fits and len(self._at_work) < self._most

    def _begin(self, commands: Crew, job: Job) -> None:
        if job.state in (FINISHED, UNSCORED):
            print(f"{job.title}: finished already", flush=True)
        if job.state == FINISHED:
            return
        alone = self._most == 1 or job.cores >= self._cores
        job.steps = _steps(job.run, {} if alone else shared_out(job.run.config(), job.cores))
        self._next(commands, job)

    def _next(self, commands: Crew, job: Job) -> None:
        """Start the command that the run needs next, if it needs one."""
        try:
            job.doing, arguments = next(job.steps, ("", []))
        except UserError as error:
            if self._most == 1:
                raise
            self._failed += 1
            print(f"{job.title}: failed: {error}", flush=True)
            return
        if arguments:
            log = None if self._most == 1 else job.log
            verb = {"train": "begun", "resume": "resumed", "eval": "played for"}[arguments[0]]
            print(f"{job.name}: {' '.join(arguments) if log is None else f'{verb}, output in {log}'}", flush=True)
            job.since = time.monotonic()
            job.log.parent.mkdir(exist_ok=True)
            self._at_work[commands.start(arguments, log)] = job

    def _ended(self, job: Job, code: int, asked: bool) -> None:
        """Count and say how a command ended."""
        further = next((one for one in job.run.scores if one.name == job.doing), None)
        scored = job.run.score(further) is not None
        if (asked or code == 0) and not scored:
            self._unfinished += 1
            if self._most == 1:  # somebody has stopped this very run, and means the campaign
                self._waiting.clear()
        elif code != 0:
            self._failed += 1
        if code != 0 and further is None:
            job.steps = iter(())  # what has no weights is not scored
        if self._most > 1:
            print(f"{job.name}: {_outcome(job, further, code, scored, asked)}", flush=True)


def _outcome(job: Job, further: Further | None, code: int, scored: bool, asked: bool) -> str:
    """How a command ended, for the line that says so."""
    score = job.run.score(further)
    if score is not None and (code == 0 or scored):
        took = clock_text(time.monotonic() - job.since)
        played = f"over {score['episodes']} episodes at {score['frames']:,} frames"
        return f"finished, score {score['mean']:.4g} {played}, after {took}"
    if asked or code == 0:
        return f"stopped ({job.log})"
    how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    return f"failed, {how}: {_last_line(job.log)} ({job.log})"


def _last_line(log: Path) -> str:
    """The last line of a log that says something."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - TAIL_BYTES))
        lines = file.read().decode(errors="replace").splitlines()
    return next((line.strip() for line in reversed(lines) if line.strip()), "it has said nothing")


def _steps(run: Planned, shared: dict[str, int]) -> Steps:
    """What is still to be done for a run."""
    if run.score() is None:
        yield "", _arguments(run, shared)
    for further in run.scores if run.score() is not None else ():
        if run.score(further) is None:
            yield further.name, run.scoring(further)


def _arguments(run: Planned, shared: dict[str, int]) -> list[str]:
    """Train, or resume if there is a checkpoint; what is left of a run without one is removed."""
    if run.folder.exists():
        with locked(
            run.folder / ".lock",
            f"another process is training in {run.folder}; wait for its end, or stop it with Ctrl-C",
        ):
            if run.begun():
                return run.going_on()
            shutil.rmtree(run.folder, ignore_errors=True)
    return run.command(shared)


def _state(run: Planned) -> str:
    """How far it is, and the command that it needs next."""
    if run.score() is not None:
        missing = any(run.score(further) is None for further in run.scores)
        return UNSCORED if missing else FINISHED
    return f"begun: {' '.join(run.going_on())}" if run.begun() else " ".join(run.command())
