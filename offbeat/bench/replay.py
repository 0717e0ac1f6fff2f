"""``offbeat bench replay``: a full replay memory of Atari frames, its operations and its size, beside other libraries.

Each contender is a process of its own. In every round each is started once, filled, measured and ended
before the next one starts, so that only one of them takes memory; every other round runs in reverse order.
"""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from offbeat.bench.peers import catalogue
from offbeat.bench.peers.drivers import replay_driver as driver
from offbeat.bench.peers.measure import RunFailed
from offbeat.bench.peers.process import PeerRun
from offbeat.config.auto import usable_cores
from offbeat.config.memory import available_memory
from offbeat.errors import UserError
from offbeat.run.provenance import describe_machine, source_commit
from offbeat.runtime.spawning import native_threads

PEERS = {"cpprb": ("cpprb", ("n-step", "one-step")), "torchrl": ("TorchRL", ("frames", "stacks"))}
"""Option and driver -> title, and the configurations that are measured."""
FEWEST = 10_000
"""With fewer transitions the streams would be too short for the sequences."""
MOST_MEMORY_GIB = 8
"""What 1,000,000 transitions of offbeat may take in all."""
SPARE = 1.1
"""Memory asked for per byte of frames: what else is stored, and the batches."""
LONGEST_SILENCE_S = 300.0
"""A contender that reports nothing for so long counts as hung. Unit: seconds."""
LOOK_S = 0.1
"""Its report is looked at so often. Unit: seconds."""


@dataclass
class Row:
    """One contender and what was measured of it."""

    name: str
    peer: bool
    python: Path
    script: Path
    arguments: list[str]
    about: dict[str, Any] = field(default_factory=dict)
    """``version``, ``torch``, ``workload``; once it has run."""
    results: list[dict[str, Any]] = field(default_factory=list)
    """One per round, as ``replay_driver.measure`` gives them."""
    error: str = ""
    """Why it failed; it is not started again."""
    output: list[str] = field(default_factory=list)
    """The last lines that it then printed."""

    def values(self, name: str) -> list[float]:
        """What was measured, one per round; [] where it has no such operation."""
        return [result[name] for result in self.results if result[name] is not None]


@dataclass(frozen=True)
class Measure:
    """A section of the table."""

    title: str
    name: str
    factor: float = 1.0
    digits: int = 0
    rate: bool = False
    """Larger is better."""


MEASURES = (
    Measure("appending to the full store, rows/s", "append_rows_per_s", rate=True),
    Measure(f"batch of {driver.BATCH} transitions, ms", "transitions_s", 1e3, 2),
    Measure("  drawn, ms", "draw_s", 1e3, 2),
    Measure("  assembled, ms", "assemble_s", 1e3, 2),
    Measure("  priorities updated, ms", "update_s", 1e3, 2),
    Measure(
        f"{driver.SEQUENCES} sequences of {driver.BURN_IN} + {driver.LENGTH} + {driver.TAIL} rows, ms",
        "sequences_s",
        1e3,
        1,
    ),
    Measure("bytes per transition", "bytes_per_transition"),
    Measure("memory of the process (PSS), GiB", "pss_bytes", 2**-30, 2),
)


class DriverRun(PeerRun):
    """A driver that measures by itself and says so in its last line."""

    def __enter__(self) -> DriverRun:
        return self

    def result(self) -> dict[str, Any]:
        """Wait for what it measured. Raises ``RunFailed`` if it ends without, or is silent for too long."""
        count, moved_s = 0, time.monotonic()
        while True:
            ended = self._process.poll()
            lines = self._lines()
            if lines and "result" in lines[-1]:
                measured: dict[str, Any] = lines[-1]["result"]
                return measured
            if ended is not None:
                raise RunFailed(f"it ended with exit code {ended}", self.last_lines())
            if len(lines) > count:
                count, moved_s = len(lines), time.monotonic()
            if time.monotonic() - moved_s > LONGEST_SILENCE_S:
                raise RunFailed(f"no report for {LONGEST_SILENCE_S:g} s: it hangs", self.last_lines())
            time.sleep(LOOK_S)


def bench_replay(
    venvs: dict[str, str],
    *,
    transitions: int = 1_000_000,
    threads: int = 0,
    seconds: float = 5.0,
    rounds: int = 3,
    file: Path | None = None,
) -> dict[str, Any]:
    """Measure offbeat and the peers whose virtual environments are named; print a table; the report, also to ``file``.

    ``threads`` that each may use, 0: one for each core; ``seconds``: how long each operation is repeated in a round.
    Raises ``UserError`` before anything is started.
    """
    console = Console(highlight=False, markup=False)
    rows = make_rows(venvs, transitions, seconds)
    threads = threads or usable_cores()
    with native_threads(threads):  # as roles are started: freed memory kept; the same for all
        run_rounds(rows, rounds, console)
    report = summarise(rows, transitions, threads, seconds)
    console.print(as_table(report))
    for line in notes(report):
        console.print(line, soft_wrap=True)
    if file is not None:
        file.write_text(json.dumps(report, indent=1) + "\n")
    return report


def make_rows(venvs: dict[str, str], transitions: int, seconds: float) -> list[Row]:
    """offbeat, then each configuration of each peer. Raises ``UserError`` for what cannot run."""
    if transitions < FEWEST:
        raise UserError(f"--transitions={transitions} is out of range; allowed: {FEWEST} or more")
    need, free = SPARE * transitions * driver.SIZE**2, available_memory()
    if free and need > free:
        raise UserError(
            f"--transitions={transitions} takes {need / 2**30:.1f} GiB, but {free / 2**30:.1f} GiB are free; use "
            f"{int(transitions * free / need)} or fewer"
        )
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    options = [f"--transitions={transitions}", f"--seconds={seconds}", f"--memory={total // 4}"]
    own = ["offbeat.bench.replay_own", *options]
    rows = [Row("offbeat", False, Path(sys.executable), Path("-m"), own)]
    for peer, folder in venvs.items():
        title, variants = PEERS[peer]
        python, script = find_python(peer, folder), catalogue.DRIVERS / f"drive_{peer}.py"
        rows += [
            Row(f"{title} ({variant})", True, python, script, [*options, f"--variant={variant}"])
            for variant in variants
        ]
    return rows


def find_python(peer: str, folder: str) -> Path:
    """The interpreter of the virtual environment ``folder``. Raises ``UserError``."""
    python = Path(folder).expanduser().absolute() / "bin" / "python"
    if not python.is_file():
        raise UserError(
            f"--{peer} {folder}: no virtual environment ({python} does not exist); docs/replay.md shows how to make one"
        )
    return python


def run_rounds(rows: list[Row], rounds: int, console: Console) -> None:
    """Run each row once a round, every other round in reverse order; one that fails is left out from then on."""
    for number in range(rounds):
        for row in rows if number % 2 == 0 else rows[::-1]:
            if row.error:
                continue
            try:
                with DriverRun(row.python, row.script, row.arguments) as run:
                    try:
                        row.results.append(run.result())
                    finally:
                        row.about = run.about()
            except RunFailed as failure:
                row.error, row.output = str(failure), failure.output
            said = f"failed: {row.error}" if row.error else f"{1e3 * row.values('transitions_s')[-1]:.2f} ms a batch"
            console.print(f"round {number + 1} of {rounds}  {row.name}: {said}", soft_wrap=True)


def summarise(rows: list[Row], transitions: int, threads: int, seconds: float) -> dict[str, Any]:
    """Everything as plain data; each measured number as its values, one per round."""
    report: dict[str, Any] = {
        "transitions": transitions,
        "threads": threads,
        "seconds": seconds,
        "load_average": os.getloadavg()[0],
        "machine": describe_machine(),
        "commit": source_commit(),
        "fastest_peer": {},
        "rows": [],
    }
    for measure in MEASURES:
        peers = [row for row in rows if row.peer and row.values(measure.name)]
        best = {row.name: median(row.values(measure.name)) for row in peers}
        fastest = (max if measure.rate else min)(best, key=best.__getitem__, default=None)
        report["fastest_peer"][measure.name] = fastest
    for row in rows:
        names = row.results[0] if row.results else {}
        values = {name: row.values(name) for name in names}
        about = {"version": None, "torch": None, "workload": None} | row.about
        failed = {"error": row.error or None, "output": row.output}
        report["rows"].append({"name": row.name, "peer": row.peer, **about, "values": values, **failed})
    for line in report["rows"]:
        line["ratio"] = {measure.name: ratio(report, line, measure) for measure in MEASURES}
    return report


def ratio(report: dict[str, Any], line: dict[str, Any], measure: Measure) -> float | None:
    """How many times better than the best peer; None where one of them was not measured."""
    best = next((other for other in report["rows"] if other["name"] == report["fastest_peer"][measure.name]), None)
    if best is None or not line["values"].get(measure.name):
        return None
    own, other = median(line["values"][measure.name]), median(best["values"][measure.name])
    return own / other if measure.rate else other / own


def as_table(report: dict[str, Any]) -> Table:
    """The report for people: median and range over the rounds, and how many times better than the best peer."""
    title = f"{report['transitions']:,} transitions of Atari frames, at most {report['threads']} threads each"
    table = Table(title=title, box=box.SIMPLE_HEAD, show_edge=False, collapse_padding=True, pad_edge=False)
    table.add_column("", no_wrap=True)
    for name in ("median", "range", "ratio"):
        table.add_column(name, justify="right", no_wrap=True)
    for measure in MEASURES:
        table.add_section()
        table.add_row(measure.title)
        for line in report["rows"]:
            values = [measure.factor * value for value in line["values"].get(measure.name, [])]
            if not values:
                table.add_row(f"    {line['name']}", "failed" if line["error"] else "-")
                continue
            low, middle, high = (f"{value:,.{measure.digits}f}" for value in (min(values), median(values), max(values)))
            times = line["ratio"][measure.name]
            table.add_row(f"    {line['name']}", middle, f"{low}–{high}", "" if times is None else f"{times:.2f}")
    return table


def notes(report: dict[str, Any]) -> list[str]:
    """What the table leaves out: who ran what and held how much, what failed and why."""
    lines = ["ratio: how many times better than the best peer of its section; -: it has no such thing"]
    for line in report["rows"]:
        if line["error"]:
            lines.append(f"{line['name']} failed: {line['error']}" + ("; its last lines:" if line["output"] else ""))
            lines += [f"  {text}" for text in line["output"]]
            continue
        held = int(median(line["values"]["held"]))
        fewer = ": fewer than asked for, which favours it" if held < 0.99 * report["transitions"] else ""
        torch = f", torch {line['torch']}" if line["torch"] else ""
        lines.append(f"{line['name']} {line['version']}{torch}: {line['workload']}; held {held:,} transitions{fewer}")
        if not line["peer"]:
            took = median(line["values"]["pss_bytes"]) / 2**30
            lines.append(f"offbeat took {took:.2f} GiB in all; 1,000,000 transitions may take {MOST_MEMORY_GIB} GiB")
    lines.append(f"load average at the end {report['load_average']:.1f}; other work on the machine lowers every row")
    return lines
