"""What a run folder holds, read for the page of ``offbeat report``: whatever is torn or missing is named, never raised.

A run folder may be half written, of an older version, or somebody else's: nothing that it says is taken for granted.
"""

from __future__ import annotations

import csv
import fcntl
import json
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from offbeat.config.presets import read_toml
from offbeat.errors import UserError
from offbeat.report.curves import Curve, curve_of
from offbeat.report.realtime import summarise
from offbeat.report.trace import Lane, read_lanes
from offbeat.run.folders import CONFIG
from offbeat.run.log import FILE_NAME as LOG
from offbeat.run.metrics import WORK
from offbeat.run.provenance import FILE_NAME as ENVIRONMENT
from offbeat.run.realtime_files import read_recording
from offbeat.run.records import PERIODIC, read_records
from offbeat.runtime.spans import FOLDER as TRACE
from offbeat.scoring.compare import flat_options

State = Literal["running", "finished", "stopped", "begun"]
"""``running``: a process holds the run's lock; ``begun``: nobody does, and nothing was recorded."""

FILES = (CONFIG, "metrics.jsonl", "progress.csv", LOG)
"""Any of these makes a folder worth a page."""
UNNAMED = "unknown"
"""What is called so for want of a name."""
FILMS = (".mp4", ".gif")
KEPT = ("evaluation", "validation", "final", "final_summary", "restart", "ledger", "staleness")
"""Kinds of records that are kept as they are."""
NUMBERS = {
    "episode": ("return",), "evaluation": ("mean",), "validation": ("mean",), "final": ("mean",),
}  # fmt: skip
"""Kind -> what a record without is left out, beside time and counters."""
TEXTS = ("kind", "role", "policy", "set")
"""Names whose values are text; under all others only numbers are kept, so returns one by one are not."""
SPENT = (*WORK, "wait_s")
"""Times of roles that add up to where their time went."""
LARGEST = 1e100
"""Numbers from here on are taken for damage."""
LONGEST_LOG = 1 << 20
"""So much of the end of run.log is read. Unit: bytes."""
TROUBLE = re.compile(
    r"\b(error|warning|traceback|failed|fails|cannot|lost|killed|died|hangs?|hung|replaced|silent|skipped|undone|"
    r"missed|broken|torn|full|missing|given up|not finite|no room|too slow|no sign)\b|\w(Error|Warning)\b",
    re.IGNORECASE,
)
"""What a line of run.log says that is worth a look."""


@dataclass(frozen=True)
class Facts:
    """One run as the page shows it; what is not known is empty or None."""

    run: Path
    state: State
    config: dict[str, Any]
    """config.toml as it is."""
    curve: Curve
    """Of an ``UNNAMED`` agent and environment where config.toml names none."""
    records: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """Kind -> its records in order, of ``KEPT``."""
    spent: dict[str, dict[str, float]] = field(default_factory=dict)
    """Role -> what it did -> seconds, added up over the run (``SPENT``)."""
    newest: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Role -> its newest periodic record."""
    progress: dict[str, np.ndarray] = field(default_factory=dict)
    """Column of progress.csv -> its values [rows]; NaN where a cell is empty or no number."""
    log: list[str] = field(default_factory=list)
    """Lines of run.log."""
    environment: dict[str, Any] = field(default_factory=dict)
    """environment.json as it is."""
    film: Path | None = None
    """The newest film in RUN/videos."""
    lanes: list[Lane] = field(default_factory=list)
    """The recorded time line."""
    realtime: dict[str, Any] = field(default_factory=dict)
    """Numbers of a realtime run, as of ``offbeat.report.realtime.summarise``."""
    missing: list[str] = field(default_factory=list)
    """What is missing or torn, a sentence each."""

    @property
    def total_frames(self) -> int:
        """Length that the run is to have; 0: not known."""
        total = self.config.get("total_frames")
        return total if isinstance(total, int) else 0

    @property
    def frames(self) -> int:
        """How far it went. Unit: environment frames."""
        return int(self.curve.end[0])

    @property
    def seconds(self) -> float:
        """Wall time of the run."""
        return max(self.last("seconds") or 0.0, float(self.curve.end[2]))

    @property
    def named(self) -> bool:
        """Whether config.toml says what the run is."""
        return _names(self.config)

    @property
    def trouble(self) -> list[str]:
        """Lines of run.log that are worth a look."""
        return [line for line in self.log if TROUBLE.search(line)]

    def last(self, column: str) -> float | None:
        """The newest known value of a column of progress.csv."""
        values = self.progress.get(column, np.empty(0))
        known = values[np.isfinite(values)]
        return float(known[-1]) if len(known) else None


def read_facts(run: Path) -> Facts:
    """Everything in a run folder. UserError where the folder holds nothing of a run."""
    if not any((run / name).exists() for name in FILES):
        raise UserError(f"{str(run)!r} is no run folder: it holds none of {', '.join(FILES)}")
    missing: list[str] = []
    config = _config(run, missing)
    sifted = Sifted()
    records = sifted.take(read_records(run / "metrics.jsonl"))
    curve = curve_of(run, config if _names(config) else {"agent": {"name": UNNAMED}, "env": {"id": UNNAMED}}, records)
    if not sifted.lines:
        missing.append(_nothing_in(run / "metrics.jsonl", "there are no curves, evaluations and books yet"))
    progress = _progress(run / "progress.csv", missing)
    facts = Facts(
        run, "begun", config, curve, sifted.kept, sifted.spent, sifted.newest, progress, _log(run / LOG, missing),
        _environment(run / ENVIRONMENT, missing), _film(run), _lanes(run, missing), _realtime(run, config, missing),
        missing,
    )  # fmt: skip
    return replace(facts, state=_state(facts))


class Sifted:
    """Looks at every record on its way to the curve, keeps what else is shown, and leaves out what is not whole."""

    def __init__(self) -> None:
        self.lines = 0
        self.kept: dict[str, list[dict[str, Any]]] = {}
        self.spent: dict[str, dict[str, float]] = {}
        self.newest: dict[str, dict[str, Any]] = {}

    def take(self, records: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """The records that are whole, each kept or added up where it goes by."""
        for record in records:
            kind, role = record.get("kind"), record.get("role", "")
            needed = ("time", "frames", "agent_steps", *NUMBERS.get(str(kind), ()))
            if (
                not isinstance(kind, str)
                or not isinstance(role, str)
                or not all(is_number(record.get(n)) for n in needed)
            ):
                continue
            self.lines += 1
            record = {name: value for name, value in record.items() if name in TEXTS or is_number(value)}
            if kind in KEPT:
                self.kept.setdefault(kind, []).append(record)
            elif kind in PERIODIC:
                self.newest[role] = record
                spent = self.spent.setdefault(role, {})
                for name in SPENT:
                    if name in record:
                        spent[name] = spent.get(name, 0.0) + float(record[name])
            yield record


def is_number(value: object) -> bool:
    """Whether it is a finite number, and no larger one than anything here can count to."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < LARGEST


def running(run: Path) -> bool:
    """Whether a process holds the lock of the run: it is being trained."""
    try:
        with open(run / ".lock", "rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
    except OSError:  # there is none, it cannot be read, or this file system has no locks
        return False
    return False


def _state(facts: Facts) -> State:
    if running(facts.run):
        return "running"
    if facts.total_frames and facts.frames >= facts.total_frames:
        return "finished"
    return "stopped" if facts.frames or any(facts.records.values()) else "begun"


def _names(config: dict[str, Any]) -> bool:
    """Whether it names agent and environment."""
    agent, env = config.get("agent"), config.get("env")
    return isinstance(agent, dict) and "name" in agent and isinstance(env, dict) and "id" in env


def _nothing_in(path: Path, so: str) -> str:
    return f"{path.name} {'holds no whole line yet' if path.is_file() else 'is not there'}: {so}."


def _config(run: Path, missing: list[str]) -> dict[str, Any]:
    if not (run / CONFIG).is_file():
        missing.append(f"{CONFIG} is not there: the options are not known.")
        return {}
    try:
        config = read_toml(run / CONFIG)
        flat_options("", config)
    except (UserError, RecursionError) as error:
        missing.append(f"The options are not known: {error}.")
        return {}
    if not _names(config):
        missing.append(f"{CONFIG} names no agent or no environment: it is torn, or no run's.")
    return config


def _progress(path: Path, missing: list[str]) -> dict[str, np.ndarray]:
    """Columns of progress.csv; a row that a crash tore is left out."""
    try:
        text = _read(path).decode("utf-8", "replace").replace("\0", "")
    except OSError as error:
        missing.append(f"progress.csv cannot be read ({error.strerror}): speed over time is not known.")
        return {}
    rows = list(csv.reader(text[: text.rfind("\n") + 1].splitlines()))
    header = rows[0] if rows else []
    whole = [[_float(cell) for cell in row] for row in rows[1:] if len(row) == len(header)]
    if not whole:
        missing.append("progress.csv holds no whole row yet: speed over time is not known.")
        return {}
    return dict(zip(header, np.array(whole, np.float64).T, strict=True))


def _read(path: Path, most: int = 1 << 30) -> bytes:
    """The end of a file. Raises OSError, also for what is none: opening a named pipe would wait for its other end."""
    if path.exists() and not path.is_file():
        raise OSError(0, "it is no file")
    with open(path, "rb") as file:
        file.seek(max(0, file.seek(0, 2) - most))
        return file.read(most)


def _float(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        return math.nan


def _log(path: Path, missing: list[str]) -> list[str]:
    """The last lines of run.log."""
    try:
        lines = _read(path, LONGEST_LOG + 1).decode("utf-8", "replace").splitlines()
    except OSError as error:
        missing.append(f"run.log cannot be read ({error.strerror}): warnings are not known.")
        return []
    return lines[1 if path.stat().st_size > LONGEST_LOG else 0 :]


def _environment(path: Path, missing: list[str]) -> dict[str, Any]:
    try:
        found = json.loads(_read(path))
    except (OSError, ValueError, RecursionError) as error:
        why = getattr(error, "strerror", None) or error
        missing.append(f"{path.name} cannot be read ({why}): machine and versions are not known.")
        return {}
    return found if isinstance(found, dict) else {}


def _film(run: Path) -> Path | None:
    """The newest film of the run itself, not what a link leads to elsewhere; drafts begin with a dot."""
    try:
        films = [path for path in (run / "videos").iterdir() if path.suffix.lower() in FILMS and path.is_file()]
        films = [film for film in films if film.name[0] != "." and film.resolve().is_relative_to(run.resolve())]
        return max(films, key=lambda film: film.stat().st_mtime, default=None)
    except OSError:  # there is no such folder, or one was removed meanwhile
        return None


def _lanes(run: Path, missing: list[str]) -> list[Lane]:
    if not (run / TRACE).is_dir():
        return []
    try:
        lanes = read_lanes(run)
    except (OSError, ValueError, TypeError, KeyError) as error:
        missing.append(f"The recorded time line cannot be read: {error}.")
        return []
    return [lane for lane in lanes if lane.end > lane.begin]


def _realtime(run: Path, config: dict[str, Any], missing: list[str]) -> dict[str, Any]:
    realtime = config.get("realtime")
    if not isinstance(realtime, dict) or not realtime.get("fps"):
        return {}
    try:
        return summarise(read_recording(run))
    except (UserError, KeyError, TypeError, ZeroDivisionError) as error:
        missing.append(f"What the realtime environment counted is not known: {error}.")
        return {}
