"""Many action traces: those of a run, which must fit its options, weights and scores; those of a document, whose rows
are in a file ``rows.toml`` beside them; or any.
"""

from __future__ import annotations

import json
import time
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from offbeat.acting.trace_facts import weights_hash
from offbeat.errors import UserError
from offbeat.run.folders import CONFIG, find_run
from offbeat.run.load import run_config
from offbeat.scoring.traces import Verdict, differing, verify_trace
from offbeat.storage.checkpoint import CheckpointError, load_weights
from offbeat.storage.named import NAMED
from offbeat.storage.traces import FOLDER, SUFFIX, Trace, shown

ROWS = "rows.toml"
"""Beside the traces of a document: a table ``[[row]]`` for each of its rows."""
CITED = ("name", "trace", "content", "games", "mean")
"""What a row must say: what it is called, its file, the file's content hash, how many games, their mean return."""

Also = Callable[[Trace], str]


@dataclass(frozen=True)
class Found:
    """A trace to be checked, and what it has to fit."""

    path: Path
    also: Also = field(default=lambda trace: "")
    """What else is wrong with it, in a line; empty: nothing."""


def verify_scores(paths: Iterable[str | Path], factory: Any = None, say: Callable[[str], object] = print) -> bool:
    """Check all traces at ``paths``: files, runs, folders of runs (the newest is taken) and folders of traces.

    ``say`` is told a line for each, and one at the end. Returns whether all were equal. UserError where there is none.
    """
    started = time.perf_counter()
    verdicts: list[Verdict] = []
    for found in [found for path in paths for found in traces_at(Path(path).expanduser())]:
        verdicts.append(verify_trace(found.path, factory, found.also))
        say(verdicts[-1].line())
    equal = sum(verdict.ok for verdict in verdicts)
    whole = "all equal" if equal == len(verdicts) else f"{len(verdicts) - equal} REFUSED"
    rows = "1 trace" if len(verdicts) == 1 else f"{len(verdicts)} traces"
    say(f"{rows} in {time.perf_counter() - started:.1f} s: {whole}")
    return equal == len(verdicts)


def traces_at(path: Path) -> list[Found]:
    """The traces at a path, in the order of their names. UserError where there is none."""
    if path.is_file() or path.suffix == SUFFIX:
        return [Found(path)]
    if (path / ROWS).is_file():
        return _of_document(path)
    inside = sorted(path.glob(f"**/*{SUFFIX}")) if path.is_dir() and not (path / CONFIG).is_file() else []
    if inside and not any((folder / CONFIG).is_file() for trace in inside for folder in trace.parents):
        return [Found(trace) for trace in inside]
    run = find_run(path)
    own = sorted((run / FOLDER).glob(f"*{SUFFIX}"))
    if not own:
        raise UserError(
            f"{run} has no action traces: 'offbeat eval RUN --trace-actions' leaves one, a run with "
            "--evaluation.trace-actions one for each evaluation"
        )
    return [Found(trace, partial(fits_run, run)) for trace in own]


def fits_run(run: Path, trace: Trace) -> str:
    """In what a trace in a run's folder is not of that run; empty: in nothing that can be told.

    Options are compared where it was played as the run plays by itself, weights where the run still has those of that
    point, scores where they are in its metrics.
    """
    facts, config = trace.facts, run_config(run)
    kind = facts.get("kind")
    if kind == "evaluation" and (found := differing(facts, config.eval_env, f"{run}/{CONFIG}")):
        return found
    at = facts.get("at")
    point = at if isinstance(at, Mapping) else {}
    for folder in _checkpoints(run):
        if _steps(folder) == point.get("agent_steps"):
            try:
                here = weights_hash(load_weights(folder)[0])
            except CheckpointError:
                continue  # a broken one proves nothing; whoever reads the run is told of it
            if here != facts.get("weights"):
                return f"weights {shown(facts.get('weights'))[:16]}... are not those of {folder}, {here[:16]}..."
    scored = _scores(run, point.get("updates"), str(kind), facts.get("set")) if kind in ("evaluation", "final") else []
    if scored and not any(np.array_equal(trace.arrays.get("score", np.zeros(0)), one) for one in scored):
        return f"its scores are not those of {run}/metrics.jsonl after {point.get('updates'):.0f} updates"
    return ""


def _checkpoints(run: Path) -> list[Path]:
    """Folders of whole checkpoints."""
    folder = run / "checkpoints"
    return [path for path in sorted(folder.glob("*")) if path.name.isdecimal() or path.name in NAMED]


def _steps(folder: Path) -> Any:
    """Agent steps of a checkpoint, as its manifest says."""
    try:
        return json.loads((folder / "manifest.json").read_bytes()).get("agent_steps")
    except (OSError, ValueError, AttributeError):
        return None


def _scores(run: Path, updates: Any, kind: str, which: Any) -> list[np.ndarray]:
    """Returns of the run's own evaluations with the weights after so many updates."""
    try:
        lines = (run / "metrics.jsonl").read_text().splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if record.get("kind") == kind and record.get("updates") == updates and record.get("set") == which:
            found.append(np.array(record.get("returns", []), np.float64))
    return found


def _of_document(folder: Path) -> list[Found]:
    """The traces that the rows of a document name, in their order. UserError where a row or a trace is missing."""
    file = folder / ROWS
    try:
        rows = tomllib.loads(file.read_text()).get("row", [])
    except (OSError, ValueError) as error:
        raise UserError(f"{file} cannot be read: {error}") from error
    for row in rows if isinstance(rows, list) else [{}]:
        lacking = [name for name in CITED if not isinstance(row, dict) or name not in row]
        if lacking:
            raise UserError(f"{file}: a row lacks {', '.join(lacking)}; each has {', '.join(CITED)}")
    named = [folder / str(row["trace"]) for row in rows]
    strangers = sorted(set(folder.glob(f"**/*{SUFFIX}")) - set(named))
    if strangers or not named:
        raise UserError(f"{file} has no row for {strangers[0] if strangers else 'anything'}")
    return [Found(path, partial(fits_row, row)) for path, row in zip(named, rows, strict=True)]


def fits_row(row: Mapping[str, Any], trace: Trace) -> str:
    """In what a trace is not what the row of a document says; empty: in nothing. Options that the row names under
    ``env`` are compared one by one.
    """
    env: Any = trace.facts.get("env")
    wanted: Any = row.get("env", {})
    for name, value in wanted.items() if isinstance(wanted, Mapping) and isinstance(env, Mapping) else ():
        if env.get(name) != value:
            return f"row {row['name']!r}: option {name}={shown(env.get(name))} where the row says {value}"
    if trace.content != row["content"]:
        return f"row {row['name']!r}: it is another trace: content {trace.content}, the row says {row['content']}"
    score = trace.arrays.get("score", np.zeros(0))
    mean = float(score.mean()) if len(score) else float("nan")
    if len(score) != row["games"] or f"{mean:.4g}" != f"{row['mean']:.4g}":
        says = f"the row says {row['games']} of {row['mean']}"
        return f"row {row['name']!r}: {len(score)} games of mean {mean:.4g}, {says}"
    return ""
