"""``offbeat bench peers``: every round runs each library once; medians, ranges and ratios of what was measured."""

from __future__ import annotations

import importlib.metadata
import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import torch
from rich import box
from rich.console import Console
from rich.table import Table

from offbeat.bench.peers import catalogue
from offbeat.bench.peers.catalogue import PEERS, Plan
from offbeat.bench.peers.measure import Live, OffbeatRun, RunFailed, Sample, measure
from offbeat.bench.peers.process import PeerRun
from offbeat.config.run_config import RunConfig
from offbeat.run.provenance import describe_machine, source_commit


@dataclass
class Row:
    """One contender and what was measured of it."""

    name: str
    peer: bool
    about: dict[str, Any]
    """``version``, ``torch``, ``workload``, ``counts``, ``precision``, ``compile``; as far as known."""
    start: Callable[[], Live]
    samples: list[Sample] = field(default_factory=list)
    error: str = ""
    """Why it failed; it is not started again."""
    output: list[str] = field(default_factory=list)
    """The last lines that it then printed."""

    @property
    def label(self) -> str:
        """Name and precision: offbeat has a row of each."""
        return f"{self.name} ({self.about['precision']})"

    @property
    def frames_per_s(self) -> float:
        """Median of the rounds; 0 without one."""
        return median([sample.frames_per_s for sample in self.samples]) if self.samples else 0.0


def bench_peers(plan: Plan, *, seconds: float = 30.0, rounds: int = 3, file: Path | None = None) -> dict[str, Any]:
    """Measure everybody for ``seconds``, ``rounds`` times, interleaved; print a table; the report, also to ``file``."""
    console = Console(highlight=False, markup=False)
    table = make_rows(plan)
    run_rounds(table, seconds, rounds, console)
    report = summarise(plan, table, seconds)
    console.print(as_table(report))
    for line in notes(report):
        console.print(line, soft_wrap=True)
    if file is not None:
        file.write_text(json.dumps(report, indent=1) + "\n")
    return report


def make_rows(plan: Plan) -> list[Row]:
    """Peers, then offbeat."""
    rows = [peer_row(plan, peer, python) for peer, python in plan.pythons.items()]
    return rows + [offbeat_row(config) for config in plan.configs]


def peer_row(plan: Plan, peer: str, python: Path) -> Row:
    """A peer run by its own Python. All drivers compute in float32 and compile nothing."""
    arguments = ["--task", plan.task, "--game", plan.game]
    arguments += ["--frame-skip", str(plan.frame_skip), "--device", plan.device]
    script = catalogue.DRIVERS / f"drive_{peer}.py"
    about = {"precision": "fp32", "compile": False}
    return Row(PEERS[peer].title, True, about, lambda: PeerRun(python, script, arguments))


def offbeat_row(config: RunConfig) -> Row:
    """A run of offbeat."""
    actor, learner = config.actor, config.learner
    acting = f"{actor.workers} worker{'s' * (actor.workers > 1)} x {actor.envs_per_worker} environments"
    learning = f"unroll {learner.unroll_length}, batch {learner.batch_size}"
    about = {
        "version": importlib.metadata.version("offbeat"),
        "torch": torch.__version__,
        "workload": f"{config.preset or config.agent_name}, {acting}, {learning}",
        "counts": "frames of the transitions trained on",
        "precision": learner.precision,
        "compile": learner.compile,
    }
    return Row("offbeat", False, about, lambda: OffbeatRun(config))


def run_rounds(rows: list[Row], seconds: float, rounds: int, console: Console) -> None:
    """Run each row once a round, every other round in reverse order; one that fails is left out from then on."""
    for number in range(rounds):
        for row in rows if number % 2 == 0 else rows[::-1]:
            if row.error:
                continue
            try:
                with row.start() as live:
                    try:
                        row.samples.append(measure(live, seconds))
                    finally:
                        row.about |= live.about() if isinstance(live, PeerRun) else {}
            except RunFailed as failure:
                row.error, row.output = str(failure), failure.output
            said = f"failed: {row.error}" if row.error else f"{row.samples[-1].frames_per_s:,.0f} frames/s"
            console.print(f"round {number + 1} of {rounds}  {row.label}: {said}", soft_wrap=True)


def summarise(plan: Plan, rows: list[Row], seconds: float) -> dict[str, Any]:
    """Everything as plain data; each measured number as its values, one per round."""
    peers = [row for row in rows if row.peer and row.samples]
    fastest = max(peers, key=lambda row: row.frames_per_s, default=None)
    return {
        "preset": plan.configs[0].preset,
        "task": plan.task,
        "game": plan.game,
        "frame_skip": plan.frame_skip,
        "device": plan.device,
        "same_network": plan.same_network,
        "seconds": seconds,
        "load_average": os.getloadavg()[0],
        "machine": describe_machine(),
        "commit": source_commit(),
        "fastest_peer": fastest.name if fastest else None,
        "rows": [
            {
                "name": row.name,
                "peer": row.peer,
                **row.about,
                **columns(row.samples),
                "ratio": row.frames_per_s / fastest.frames_per_s if fastest and row.samples else None,
                "error": row.error or None,
                "output": row.output,
            }
            for row in rows
        ],
    }


def columns(samples: list[Sample]) -> dict[str, list[float]]:
    """Field of ``Sample`` -> its values."""
    return {name: [asdict(sample)[name] for sample in samples] for name in Sample.__dataclass_fields__}


def as_table(report: dict[str, Any]) -> Table:
    """The report for people: median and range over the rounds."""
    cores = report["machine"]["cores"]
    title = f"{report['task']}: {report['game']}, frame skip {report['frame_skip']}, {report['device']}, {cores} cores"
    table = Table(title=title, box=box.SIMPLE_HEAD, show_edge=False, collapse_padding=True, pad_edge=False)
    for name in ("", "version", "dtype"):
        table.add_column(name, no_wrap=name != "dtype", overflow="fold")
    for name in ("frames/s", "range", "ratio", "cores", "GiB"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in report["rows"]:
        cells = [row["name"], row.get("version") or "?", row["precision"] + (" compiled" if row["compile"] else "")]
        rates = row["frames_per_s"]
        if not rates:
            table.add_row(*cells, "failed")
            continue
        cells += [f"{median(rates):,.0f}", f"{min(rates):,.0f}–{max(rates):,.0f}"]
        cells.append("" if row["ratio"] is None else f"{row['ratio']:.2f}")
        cells += [f"{median(row['cores_used']):.2f}", f"{median(row['memory_bytes']) / 2**30:.2f}"]
        table.add_row(*cells)
    return table


def notes(report: dict[str, Any]) -> list[str]:
    """What the table leaves out: what ran, what failed and why, and what makes the comparison unfair."""
    fastest = report["fastest_peer"] or "(none was measured)"
    lines = [f"ratio: to the fastest peer, {fastest}; GiB: memory of all its processes (PSS)"]
    for row in {row["name"]: row for row in report["rows"] if row.get("workload")}.values():
        lines.append(f"{row['name']}: {row['workload']}; counts {row['counts']}; torch {row['torch']}")
    if not report["same_network"]:
        lines.append("These options give offbeat another network than the peers have: compare with care.")
    lines.append(f"load average at the end {report['load_average']:.1f}; other work on the machine lowers every row")
    for row in report["rows"]:
        if row["error"]:
            lines.append(f"{row['name']} failed: {row['error']}" + ("; its last lines:" if row["output"] else ""))
            lines += [f"  {line}" for line in row["output"]]
    return lines
