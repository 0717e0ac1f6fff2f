"""``offbeat bench throughput``: frames/s of a real run, beside its parts alone and the limit that they set.

The limit assumes perfect overlap and no other cost: cores x frame_skip / (t_env + t_forward + r x t_train) frames/s,
where times are those of one core at the best batch sizes, and r rows are trained on per agent step: what the run had,
not what it was told to. A transition is one row. A sequence is as many as it trains on, padding included, because that
costs the same; its burn-in and tail are part of what these rows cost. With the learner on a GPU the limit is the slower
of cores x frame_skip / (t_env + t_forward) and frame_skip / (r x t_train).
"""

from __future__ import annotations

import json
import math
import os
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean, median
from typing import Any

from rich.console import Console
from rich.table import Table

from offbeat.bench.live import LiveRun, Point, rows_before_training
from offbeat.bench.parts import Parts, measure_parts
from offbeat.config.auto import decide, usable_cores
from offbeat.config.run_config import RunConfig
from offbeat.config.validation import validate
from offbeat.envs.registry import env_spec

WARM_UP_S = 5.0
"""Training after its first update that does not count. Unit: seconds."""


@dataclass(frozen=True)
class EndToEnd:
    """What a real run reached in steady state."""

    frames_per_s: float
    samples_per_step: float
    """Rows trained on per agent step, padding and final observations included: r of the limit."""
    cores_used: float
    """Processor seconds of all processes per second."""
    step_cpu_s: float
    """Processor seconds of all processes per agent step."""
    start_s: float
    """From the command to the first report of an update, filling replay included. Unit: seconds."""
    memory_bytes: int
    policy_lag: float | None
    learner_wait: float | None
    real_share: float = 1.0
    """Share of the rows trained on that are transitions: neither padding nor final observations."""
    second_half: float | None = None
    """Frames/s of the second half of the measurement, as a multiple of those of the first: 1 where rates are steady."""
    seconds: float = 0.0
    """How long was measured. Unit: seconds."""


def bench_throughput(
    config: RunConfig, *, seconds: float = 20.0, rounds: int = 3, cores: int = 0, file: Path | None = None
) -> dict[str, Any]:
    """Measure parts and a run of ``seconds``, ``rounds`` times; print a table; the report, also written to ``file``.

    ``cores``: how many the limit counts on; 0: all that this process may use.
    """
    validate(config)
    config = decide(config)  # so that the parts compute in the precision of the run
    skip = env_spec(config.env).frame_skip
    cores = cores or usable_cores()
    fill = rows_before_training(config)
    before = f"{fill:,} rows and {WARM_UP_S:g} s of updates" if fill else f"{WARM_UP_S:g} s of updates"
    console = Console()
    parts: list[Parts] = []
    runs: list[EndToEnd] = []
    for number in range(rounds):
        what = f"parts alone, then {seconds:g} s of training after {before}"
        console.print(f"round {number + 1} of {rounds}: {what}", highlight=False)
        parts.append(measure_parts(config, max(1.0, seconds / 10)))
        runs.append(measure_run(config, seconds, parts[-1].batch_rows))
    report = summarise(config, parts, runs, cores, skip)
    console.print(as_table(report))
    if file is not None:
        file.write_text(json.dumps(report, indent=1) + "\n")
    return report


def measure_run(config: RunConfig, seconds: float, batch_rows: int) -> EndToEnd:
    """Train until replay has its least rows, for ``WARM_UP_S`` after the first update, and ``seconds`` more; what
    happened in the latter. ``batch_rows``: rows that an update trains on.
    """
    with LiveRun(config) as run:
        return steady_state(run, seconds, batch_rows, warm_up_s=WARM_UP_S)


def steady_state(
    run: LiveRun,
    seconds: float,
    batch_rows: int,
    *,
    warm_up_s: float = WARM_UP_S,
    until: float = math.inf,
    watch: AbstractContextManager[object] | None = None,
) -> EndToEnd:
    """What happens in ``run`` in ``seconds`` that begin ``warm_up_s`` after its first update.

    Args:
        run: as it starts.
        seconds: how long is measured.
        batch_rows: rows that an update trains on.
        warm_up_s: training that does not count. Unit: seconds.
        until: ``time.monotonic()`` at which measuring ends, even if ``seconds`` are not over.
        watch: looks at something else just as long as is measured.
    """
    start_s = run.wait_for_first_update()
    begin = first = run.next_point()
    while first.seconds < begin.seconds + warm_up_s:
        first = run.next_point()
    with watch if watch is not None else nullcontext():
        cpu = run.processor_s()
        points = [run.next_point()]
        while points[-1].seconds < first.seconds + seconds and time.monotonic() < until:
            points.append(run.next_point())
        cpu = run.processor_s() - cpu
    return end_to_end([first, *points], batch_rows, cpu_s=cpu, start_s=start_s, memory_bytes=run.memory_bytes())


def end_to_end(points: list[Point], batch_rows: int, *, cpu_s: float, start_s: float, memory_bytes: int) -> EndToEnd:
    """What the learner's reports say of the time between the first of ``points`` and the last."""
    first, last = points[0], points[-1]
    took = last.seconds - first.seconds
    steps = last.agent_steps - first.agent_steps
    rows = (last.updates - first.updates) * batch_rows
    lags = [point.policy_lag for point in points[1:] if point.policy_lag is not None]
    waits = [point.learner_wait for point in points[1:] if point.learner_wait is not None]
    return EndToEnd(
        frames_per_s=(last.frames - first.frames) / took,
        samples_per_step=rows / steps,
        cores_used=cpu_s / took,
        step_cpu_s=cpu_s / steps,
        start_s=start_s,
        memory_bytes=memory_bytes,
        policy_lag=mean(lags) if lags else None,
        learner_wait=mean(waits) if waits else None,
        real_share=(last.samples - first.samples) / rows if rows else 1.0,
        second_half=second_half(points),
        seconds=took,
    )


def second_half(points: list[Point]) -> float | None:
    """Steps/s after the report nearest to the middle, as a multiple of those before it; None with too few reports."""
    first, last = points[0], points[-1]
    middle = min(points, key=lambda point: abs(2 * point.seconds - first.seconds - last.seconds))
    if middle in (first, last) or middle.agent_steps == first.agent_steps:
        return None
    before = (middle.agent_steps - first.agent_steps) / (middle.seconds - first.seconds)
    return (last.agent_steps - middle.agent_steps) / (last.seconds - middle.seconds) / before


def summarise(config: RunConfig, parts: list[Parts], runs: list[EndToEnd], cores: int, skip: int) -> dict[str, Any]:
    """Everything as plain data; each measured number as its values, one per round."""
    learner_on_gpu = config.learner.device.startswith("cuda") or (
        config.learner.device == "auto" and config.device.startswith("cuda")
    )
    limits = [
        limit(part, run.samples_per_step, cores, skip, learner_on_gpu) for part, run in zip(parts, runs, strict=True)
    ]
    return {
        "preset": config.preset,
        "env": config.env.id,
        "precision": config.learner.precision,
        "channels_last": config.learner.channels_last,
        "compile": config.learner.compile,
        "cores": cores,
        "frame_skip": skip,
        "samples_per_insert": config.replay.samples_per_insert,
        "load_average": os.getloadavg()[0],
        "parts": {
            "env_s": [part.env_s for part in parts],
            "forward_s": {size: [part.forward_s[size] for part in parts] for size in parts[0].forward_s},
            "train_s": {size: [part.train_s[size] for part in parts] for size in parts[0].train_s},
        },
        "runs": [asdict(run) for run in runs],
        "limit": limits,
        "ratio": [run.frames_per_s / bound for run, bound in zip(runs, limits, strict=True)],
    }


def limit(parts: Parts, samples_per_step: float, cores: int, skip: int, learner_on_gpu: bool = False) -> float:
    """The machine's limit in frames/s (see the module's first lines)."""
    acting, training = parts.env_s + parts.best_forward_s, samples_per_step * parts.best_train_s
    if learner_on_gpu:
        return skip / max(acting / cores, training)
    return cores * skip / (acting + training)


def as_table(report: dict[str, Any]) -> Table:
    """The report for people: median and range over the rounds."""
    skip, parts, runs = report["frame_skip"], report["parts"], report["runs"]
    arithmetic = report["precision"] + " channels-last" * report["channels_last"] + " compiled" * report["compile"]
    name = f"{report['preset'] or 'run'} ({report['env']})"
    table = Table(title=f"{name}, {arithmetic}, {report['cores']} cores, frame skip {skip}")
    table.add_column("")
    for name in ("median", "lowest", "highest"):
        table.add_column(name, justify="right")
    table.add_column("unit")

    def row(name: str, values: list[float], unit: str, digits: int = 0) -> None:
        numbers = (median(values), min(values), max(values))
        table.add_row(name, *(f"{number:,.{digits}f}" for number in numbers), unit)

    row("environments alone", [1 / value for value in parts["env_s"]], "steps/s per core")
    for size, values in sorted(parts["forward_s"].items()):
        row(f"forward of {size}", [1 / value for value in values], "steps/s per core")
    for size, values in sorted(parts["train_s"].items()):
        row(f"training on {size} rows", [1 / value for value in values], "rows/s per core")
    table.add_section()
    row("limit of the machine", report["limit"], "frames/s")
    row("end to end", [run["frames_per_s"] for run in runs], "frames/s")
    row("share of the limit", [100 * ratio for ratio in report["ratio"]], "%", 1)
    table.add_section()
    row("cores kept busy", [run["cores_used"] for run in runs], "cores", 2)
    row("CPU per step", [1e6 * run["step_cpu_s"] for run in runs], "µs, all roles")
    ideal = [report["cores"] * skip / bound * 1e6 for bound in report["limit"]]
    row("... at the limit", ideal, "µs")
    asked = f"told to: {report['samples_per_insert']:g}" if report["samples_per_insert"] else ""
    row("rows trained per step", [run["samples_per_step"] for run in runs], asked, 2)
    if any(run["real_share"] < 1 for run in runs):
        row("... that are transitions", [100 * run["real_share"] for run in runs], "%", 1)
    for name, key, factor, unit in (
        ("policy lag", "policy_lag", 1, "updates"),
        ("learner waits", "learner_wait", 100, "%"),
        ("frames/s, second half", "second_half", 100, "% of the first"),
    ):
        known = [factor * run[key] for run in runs if run[key] is not None]
        if known:
            row(name, known, unit, 1)
    row("memory, all roles", [run["memory_bytes"] / 2**20 for run in runs], "MiB (PSS)")
    row("start to first update", [run["start_s"] for run in runs], "s", 1)
    table.caption = (
        f"load average at the end {report['load_average']:.1f}; other work on the machine lowers 'end to end'"
    )
    return table
