"""What every driver of ``bench replay`` does: the data, the clock, the memory, a check of what was read, a report.

A contender is one store in one configuration. It is filled, its memory is read, and then each of its operations is
called again and again for some seconds. Needs only Python 3.9 and NumPy: the interpreter is the peer's.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from statistics import median
from typing import Any, Protocol

import numpy as np

STREAMS, BLOCK = 32, 20
"""Environments, and rows of each that are appended together. Contenders with one stream append the product at once."""
SIZE, STACK = 84, 4
"""Frames are [SIZE, SIZE] bytes; networks see STACK of them."""
BATCH, N_STEPS, DISCOUNT = 512, 3, 0.99
"""Transitions per batch, and steps of their returns."""
SEQUENCES, BURN_IN, LENGTH, TAIL = 64, 40, 80, 5
"""Sequences per batch, and their rows: before those that are trained on, trained on, after them."""
ALPHA, BETA = 0.6, 0.4
"""Exponents of priorities and of importance weights."""
WARM_UP, FEWEST = 2, 3
"""Calls of each operation that do not count, and the least number that do."""
REPORT_S = 5.0
"""While a store is filled it says so this often. Unit: seconds."""
MISREAD = 0.01
"""Share of a batch whose frames may not follow each other: items at the seam of a ring that is one stream."""


class Contender(Protocol):
    """A store to be measured. Made with the options and the frames [STREAMS x BLOCK, SIZE, SIZE] to append."""

    period: int
    """Frames that follow each other before the first of them comes again."""
    steps: int
    """Steps from its observations to its next observations."""
    capacity: int
    """Rows that fill it."""
    held: int
    """Transitions that can be drawn from it once it is full; known after ``prepare``."""

    def allocate(self) -> None:
        """Make the store."""

    def append(self) -> None:
        """Append STREAMS x BLOCK rows, so that they can be drawn."""

    def prepare(self) -> None:
        """Make what only the measurements need; the memory has been read."""

    def sample(self) -> tuple[Any, Any, Any]:
        """Observations and next observations [BATCH, STACK, SIZE, SIZE], and what names the transitions."""

    def draw(self) -> Any:
        """Only choose as many transitions, with their importance weights."""

    def update(self, names: Any, priority: np.ndarray) -> None:
        """New priorities [BATCH] float32."""

    def sample_sequences(self) -> tuple[Any, Any] | None:
        """Observations [rows, SEQUENCES, STACK, SIZE, SIZE] and names; None if it has no sequences."""

    def update_sequences(self, names: Any, priority: np.ndarray) -> None:
        """New priorities [SEQUENCES] float32."""


class Lines:
    """Lines of JSON on the standard output, which is this class's alone: what others print goes to standard error."""

    def __init__(self) -> None:
        self._lines = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)

    def write(self, **values: Any) -> None:
        """One line."""
        self._lines.write(json.dumps(values) + "\n")
        self._lines.flush()


def arguments(variants: tuple[str, ...]) -> argparse.Namespace:
    """``transitions`` to hold, ``seconds`` per operation, ``memory`` for stores that keep a frame more than once."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--transitions", type=int, default=50_000)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--memory", type=int, default=2**30)
    parser.add_argument("--variant", choices=variants, default=variants[0])
    return parser.parse_args()


def drive(package: str, make: Callable[[Any, np.ndarray], Contender], workloads: dict[str, str]) -> None:
    """Measure the contender that ``make`` gives and report; ``workloads``: variant -> what it is, in words."""
    options = arguments(tuple(workloads))
    lines = Lines()
    if not sys.stdin.isatty():
        threading.Thread(target=_end_with_parent, daemon=True).start()
    lines.write(version=_version(package), torch=_version("torch"), workload=workloads[options.variant])
    frames = np.random.default_rng(0).integers(0, 256, (STREAMS * BLOCK, SIZE, SIZE), np.uint8)
    lines.write(result=measure(make(options, frames), frames, options.seconds, lines))


def measure(contender: Contender, frames: np.ndarray, seconds: float, lines: Lines) -> dict[str, Any]:
    """Everything that is measured of a contender, as plain numbers; None where it has no such operation."""
    before = memory()["pss"]
    contender.allocate()
    filled_rows_per_s = fill(contender, lines)
    after = memory()
    contender.prepare()
    check(contender, frames)
    rng = np.random.default_rng(1)
    append = clock({"append": contender.append}, seconds)
    names: list[Any] = [None]

    def sample() -> None:
        names[0] = contender.sample()[2]

    def update() -> None:
        contender.update(names[0], rng.random(BATCH, np.float32))

    parts = clock({"sample": sample, "update": update, "draw": contender.draw}, seconds)
    return {
        "held": contender.held,
        "fill_rows_per_s": filled_rows_per_s,
        "append_rows_per_s": len(frames) / append["append"],
        "transitions_s": parts["sample"] + parts["update"],
        "draw_s": parts["draw"],
        "assemble_s": parts["sample"] - parts["draw"],
        "update_s": parts["update"],
        "sequences_s": clock_sequences(contender, seconds, rng),
        "bytes_per_transition": (after["pss"] - before) / contender.held,
        "pss_bytes": after["pss"],
        "rss_bytes": after["rss"],
    }


def fill(contender: Contender, lines: Lines) -> float:
    """Append until the store is full and begins to overwrite; rows per second."""
    started = told = time.perf_counter()
    rows = 0
    while rows < contender.capacity + STREAMS * BLOCK:
        contender.append()
        rows += STREAMS * BLOCK
        if time.perf_counter() > told + REPORT_S:
            told = time.perf_counter()
            lines.write(filled=rows)
    return rows / (time.perf_counter() - started)


def clock(operations: dict[str, Callable[[], Any]], seconds: float) -> dict[str, float]:
    """Median seconds of a call of each operation; they are called in turns, for ``seconds`` in all."""
    times: dict[str, list[float]] = {name: [] for name in operations}
    for call in list(operations.values()) * WARM_UP:
        call()
    deadline = time.perf_counter() + seconds
    while time.perf_counter() < deadline or min(map(len, times.values())) < FEWEST:
        for name, call in operations.items():
            started = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - started)
    return {name: median(took) for name, took in times.items()}


def clock_sequences(contender: Contender, seconds: float, rng: np.random.Generator) -> float | None:
    """Median seconds to draw, assemble and update a batch of sequences."""
    if contender.sample_sequences() is None:
        return None

    def both() -> None:
        drawn = contender.sample_sequences()
        assert drawn is not None
        contender.update_sequences(drawn[1], rng.random(SEQUENCES, np.float32))

    return clock({"both": both}, seconds)["both"]


def check(contender: Contender, frames: np.ndarray) -> None:
    """Refuse a contender whose batches are not made of the frames that were appended, each after the one before it."""
    observation, following, _ = contender.sample()
    stack, period = (STACK, SIZE, SIZE), contender.period
    then = _follow(_numbers(observation, frames, (BATCH, *stack), period), period, contender.steps)
    _agree("next observations", then, _numbers(following, frames, (BATCH, *stack), period))
    sequences = contender.sample_sequences()
    if sequences is None:
        return
    rows, got = BURN_IN + LENGTH + TAIL, len(sequences[0])
    if got not in (rows, rows + 1):
        raise ValueError(f"sequences: expected {rows} rows or one more, got {got}")
    numbers = _numbers(sequences[0], frames, (got, SEQUENCES, *stack), period)
    _agree("rows of sequences", _follow(numbers[:-1], period, 1), numbers[1:])


def _numbers(observation: Any, frames: np.ndarray, shape: tuple[int, ...], period: int) -> np.ndarray:
    """Which of ``frames`` each frame of ``observation`` is, [..., STACK]; -1: none of them."""
    observation = np.asarray(observation)
    if observation.shape != shape or observation.dtype != np.uint8:
        raise ValueError(f"observations: expected uint8{list(shape)}, got {observation.dtype}{list(observation.shape)}")
    known = {frame[0, :16].tobytes(): number for number, frame in enumerate(frames)}
    heads = np.ascontiguousarray(observation[..., 0, :16]).reshape(-1, 16)
    numbers = np.array([known.get(head.tobytes(), -1) for head in heads]).reshape(shape[:-2])
    some = (slice(0, 1),) * (len(shape) - 4) + (slice(0, 16),)
    if (numbers[some] < 0).any() or not np.array_equal(frames[numbers[some]], observation[some]):
        raise ValueError("observations: these are not the frames that were appended")
    _agree("frames of stacks", _follow(numbers[..., :-1], period, 1), numbers[..., 1:])
    return numbers


def _follow(numbers: np.ndarray, period: int, steps: int) -> np.ndarray:
    """The frames that come ``steps`` later."""
    return numbers - numbers % period + (numbers + steps) % period


def _agree(what: str, expected: np.ndarray, got: np.ndarray) -> None:
    """Raise ValueError unless nearly all stacks [..., k] are as expected."""
    wrong = float((expected != got).any(-1).mean())
    if wrong > MISREAD:
        raise ValueError(f"{what}: {wrong:.1%} of the stacks are not as they were appended; allowed: {MISREAD:.0%}")


def memory() -> dict[str, int]:
    """Proportional and resident set size of this process in bytes; 0 where the system does not tell."""
    sizes = {"pss": 0, "rss": 0}
    with suppress(OSError), open("/proc/self/smaps_rollup") as text:
        for line in text:
            name = line.split(":")[0].lower()
            if name in sizes:
                sizes[name] = int(line.split()[1]) * 1024
    return sizes


def _end_with_parent() -> None:
    import_module("peer_counter" if __name__ == "replay_driver" else f"{__package__}.peer_counter").end_with_parent()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
