"""``offbeat bench gpu``: what a GPU makes of real runs, within a given time, as a table in Markdown.

Each preset is trained twice with its learner on the GPU: its actors ask an inference server there, or run the network
themselves on the processor. Every run has its share of the time, its start included, and is ended when that is over; a
run that fails costs its own row only. What is not used goes to those after it.
"""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from offbeat.bench.gpu_watch import GpuWatch, describe_gpu, make_look
from offbeat.bench.live import LiveRun
from offbeat.bench.parts import rows_of_update
from offbeat.bench.throughput import WARM_UP_S, EndToEnd, steady_state
from offbeat.config.auto import choose_device, decide
from offbeat.config.run_config import RunConfig, apply_overrides, load_preset
from offbeat.config.validation import check_device, validate
from offbeat.errors import UserError
from offbeat.run.provenance import describe_machine

PRESETS = ("impala-atari", "impala-atari-deep", "apex-small")
"""What is measured unless others are named: Nature's network, the deep one with its LSTM, replay."""
ACTING = {"server": "inference server on the device", "actor": "actors, each on the processor"}
"""``actor.inference`` -> how the table calls it."""
STOP_S = 6.0
"""Of each run's share, for its end. Unit: seconds."""
LEAST_S = 10.0
"""Less than this is no share for a run. Unit: seconds."""
COLUMNS = (
    "preset", "acting", "frames/s", "GPU busy", "learner waits", "rows trained per step", "policy lag",
    "cores kept busy", "first update", "measured",
)  # fmt: skip


@dataclass
class Row:
    """One run, and what came of it."""

    preset: str
    acting: str
    """``server`` or ``actor``."""
    command: str
    """What trains the same."""
    precision: str = ""
    run: EndToEnd | None = None
    busy: float | None = None
    """Share of time in which the GPU computed, in percent; None: not known."""
    trouble: str = "not run"
    """Why there is no ``run``; beside one, why ``busy`` is not known."""


def bench_gpu(
    presets: Sequence[str] = PRESETS,
    *,
    device: str = "cuda",
    minutes: float = 8.0,
    options: Iterable[tuple[str, Any]] = (),
    out: Path | None = None,
    file: Path | None = None,
) -> list[Row]:
    """Measure each preset in both ways on ``device`` within ``minutes``; the rows of the table, which is printed.

    Args:
        presets: names or files.
        device: where learners and servers are to compute; ``cpu`` rehearses it without a GPU.
        minutes: all of it together.
        options: of each run, laid over its preset.
        out: where the table is written too, after every run; None: ``results/gpu_<unix time>.md``.
        file: where everything is written as JSON; None: nowhere.

    Raises ``UserError`` where there is no such device. On Ctrl-C what was measured until then is printed and written.
    """
    device, began = choose_device(device), time.monotonic()
    check_device("device", device)
    out = out or Path("results") / f"gpu_{int(time.time())}.md"
    options = list(options)
    rows = [Row(preset, acting, command_of(preset, acting, device, options)) for preset in presets for acting in ACTING]
    named = list(presets) * (tuple(presets) != PRESETS)
    words = [*named, f"--device {device}", f"--minutes {minutes:g}", *(f"--{name} {value}" for name, value in options)]
    about = {"command": " ".join(["offbeat bench gpu", *words])} | describe(device)
    try:
        with told_to_end():
            ready = [(row, config) for row in rows if (config := prepare(row, device, options)) is not None]
            for number, (row, config) in enumerate(ready):
                left = began + 60 * minutes - time.monotonic()
                share = left / (len(ready) - number)
                print(f"{number + 1} of {len(ready)}, {share:.0f} s: {row.command}", file=sys.stderr, flush=True)
                measure(row, config, share)
                write(rows, about, out, file)
    finally:
        write(rows, about, out, file)
        print(as_markdown(rows, about))
        print(f"\nwritten to {out}", file=sys.stderr)
    return rows


@contextmanager
def told_to_end() -> Iterator[None]:
    """SIGTERM is taken for Ctrl-C, so that no run is left behind."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def prepare(row: Row, device: str, options: Iterable[tuple[str, Any]]) -> RunConfig | None:
    """What is run for ``row``; None, and noted there, where it cannot run here. That costs the others no time."""
    own = [("device", device), ("actor.inference", row.acting)]
    try:
        config = apply_overrides(load_preset(row.preset), [*own, *options])
        validate(config)
    except Exception as error:  # an environment that is not installed, an option that only others have
        row.trouble = said(error)
        return None
    config = decide(config)
    row.precision = config.learner.precision
    return config


def measure(row: Row, config: RunConfig, share_s: float) -> None:
    """Run ``config`` for ``share_s`` seconds, start and end included, and note in ``row`` what came of it."""
    deadline = time.monotonic() + share_s - STOP_S
    try:
        if share_s < LEAST_S:
            raise UserError(f"only {share_s:.0f} s were left for it")
        batch_rows, watch = rows_of_update(config), GpuWatch(make_look(config.device))
        with LiveRun(config, deadline=deadline, stop_s=STOP_S) as run:
            row.run = steady_state(
                run,
                share_s,
                batch_rows,
                warm_up_s=min(WARM_UP_S, share_s / 10),
                until=deadline - min(3.0, share_s / 10),  # a report may be late
                watch=watch,
            )
        row.busy, row.trouble = watch.busy, watch.trouble
    except KeyboardInterrupt:
        row.trouble = "interrupted"
        raise
    except Exception as error:  # whatever a run fails of: the others are measured all the same
        row.trouble = said(error)


def said(error: Exception) -> str:
    """Why a run failed, for its row."""
    return f"failed: {error}" if isinstance(error, UserError) else f"failed: {type(error).__name__}: {error}"


def command_of(preset: str, acting: str, device: str, options: Iterable[tuple[str, Any]]) -> str:
    """The command that trains as a row says."""
    words = [f"--{name} {value}" for name, value in options]
    return " ".join(["offbeat train", preset, f"--device {device}", f"--actor.inference {acting}", *words])


def describe(device: str) -> dict[str, str]:
    """Where and with what it is measured."""
    machine = describe_machine()
    return {
        "GPU": describe_gpu(device),
        "torch": torch.__version__,
        "processor": f"{machine['cores']} cores of {machine['processor']}, {machine['memory_gib']} GiB",
        "system": machine["system"],
    }


def as_markdown(rows: Sequence[Row], about: dict[str, str]) -> str:
    """The table, with where it was measured before it and the commands behind it."""
    head = [f"{name}: {f'`{text}`' if name == 'command' else text}  " for name, text in about.items()]
    table = [f"| {' | '.join(COLUMNS)} |", "|---|---|" + "---:|" * (len(COLUMNS) - 2)]
    table += [f"| {' | '.join(cells(row))} |" for row in rows]
    told = dict.fromkeys(row.trouble for row in rows if row.run is not None and row.trouble)
    notes = [f"GPU busy is not known: {_line(text)}" for text in told]
    commands = ["```", *dict.fromkeys(row.command for row in rows), "```"]
    return "\n".join([*head, "", *table, "", *notes, *([""] if notes else []), *commands])


def cells(row: Row) -> list[str]:
    """What the table shows of one run."""
    name = f"`{row.preset}`" + (f", {row.precision}" if row.precision else "")
    run, acting = row.run, ACTING[row.acting]
    if run is None:
        return [name, acting, _line(row.trouble), *["-"] * (len(COLUMNS) - 3)]

    def known(value: float | None, factor: float, text: str) -> str:
        return "-" if value is None else text.format(factor * value)

    return [
        name,
        acting,
        f"{run.frames_per_s:,.0f}",
        known(row.busy, 1, "{:.0f} %"),
        known(run.learner_wait, 100, "{:.0f} %"),
        f"{run.samples_per_step:.2f}",
        known(run.policy_lag, 1, "{:.1f}"),
        f"{run.cores_used:.2f}",
        f"{run.start_s:.1f} s",
        f"{run.seconds:.0f} s",
    ]


def write(rows: Sequence[Row], about: dict[str, str], out: Path, file: Path | None) -> None:
    """The table, and everything as JSON, as far as it is known."""
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(as_markdown(rows, about) + "\n")
    if file is not None:
        file.write_text(json.dumps({"about": about, "rows": [asdict(row) for row in rows]}, indent=1) + "\n")


def _line(text: str) -> str:
    """``text`` as one cell: its last words, as tracebacks end with what happened."""
    line = " ".join(text.replace("|", "/").split())
    return line if len(line) <= 160 else f"{line[:60]} … {line[-95:]}"
