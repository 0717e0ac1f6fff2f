"""``offbeat verify resume``: kills a run at random moments, resumes it each time, compares its end with a run never
killed.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from offbeat.config.run_config import RunConfig, to_toml
from offbeat.storage.checkpoint import load, newest

LONGEST_S = 3600.0
"""A single start of the run may take so long before it counts as hung. Unit: seconds."""


@dataclass(frozen=True)
class Comparison:
    """What two checkpoints have in common."""

    arrays: int
    """Arrays compared."""
    differing: tuple[str, ...]
    """Arrays and counters that are not equal bit for bit."""

    @property
    def equal(self) -> bool:
        """Whether nothing differs."""
        return not self.differing


def verify_resume(config: RunConfig, *, kills: int = 10, seed: int = 0, folder: Path | None = None) -> bool:
    """Run ``config`` in its deterministic mode once undisturbed and once killed ``kills`` times; print the comparison.

    Weights, optimiser, sampler, streams, environments, generators and counters must be equal bit for bit.
    """
    config = replace(config, deterministic=True, evaluation=replace(config.evaluation, at_end=False))
    if not config.checkpoint.every_updates:
        config = replace(config, checkpoint=replace(config.checkpoint, every_updates=10))
    work = Path(folder or tempfile.mkdtemp(prefix="offbeat-verify-"))
    whole, broken = work / "whole", work / "broken"
    with told_to_end():
        print(f"the run never killed: {whole}", flush=True)
        with _start_new(config, whole, work) as process:
            _finish(process)
        print(f"the run killed {kills} times: {broken}", flush=True)
        _run_with_kills(config, broken, work, kills, random.Random(seed))
    result = compare_checkpoints(whole, broken)
    print(f"compared {result.arrays} arrays: {'all equal bit for bit' if result.equal else 'DIFFERENT'}")
    for name in result.differing:
        print(f"  differs: {name}")
    if result.equal and folder is None:
        shutil.rmtree(work)
    elif not result.equal:
        print(f"both runs are kept in {work}")
    return result.equal


@contextmanager
def told_to_end() -> Iterator[None]:
    """SIGTERM ends what is inside as Ctrl-C does, so that no run is left behind."""

    def end(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def compare_checkpoints(left: Path, right: Path) -> Comparison:
    """Compare the newest checkpoints of two runs, array by array."""
    found = [newest(left), newest(right)]
    if found[0] is None or found[1] is None:
        return Comparison(0, ("one of the runs has no complete checkpoint",))
    (a, a_meta), (b, b_meta) = load(found[0]), load(found[1])
    different = [f"counter {k}" for k, v in a_meta["counters"].items() if v != b_meta["counters"].get(k)]
    names = {(part, name) for parts in (a, b) for part, arrays in parts.items() for name in arrays}
    for part, name in sorted(names):
        if name not in a.get(part, {}) or name not in b.get(part, {}):
            different.append(f"{part}/{name} is in one of them only")
        elif not _same_bits(np.asarray(a[part][name]), np.asarray(b[part][name])):
            different.append(f"{part}/{name}")
    return Comparison(len(names), tuple(different))


def _same_bits(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether both hold the same bytes: NaN equals itself, and 0.0 is not -0.0."""
    return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()


def _start_new(config: RunConfig, run: Path, work: Path) -> AbstractContextManager[subprocess.Popen[bytes]]:
    preset = work / f"{run.name}.toml"
    preset.write_text(to_toml(replace(config, out=str(run))))
    return _start("train", str(preset))


@contextmanager
def _start(*arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """``offbeat ...`` in a process group of its own, so that a kill takes all its roles; it is gone afterwards."""
    command = [sys.executable, "-m", "offbeat", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


def _finish(process: subprocess.Popen[bytes]) -> None:
    """Wait for the end; RuntimeError with its last lines if it failed."""
    output, _ = process.communicate(timeout=LONGEST_S)
    if process.returncode:
        raise RuntimeError(f"the run failed with exit code {process.returncode}:\n{output.decode()[-3000:]}")


def _run_with_kills(config: RunConfig, run: Path, work: Path, kills: int, rng: random.Random) -> None:
    """Start or resume ``kills`` times, each time killed at a random moment after its first new checkpoint; then
    finish.
    """
    for number in range(1, kills + 1):
        seen, started = _saved(run), time.monotonic()
        with _start("resume", str(run)) if seen >= 0 else _start_new(config, run, work) as process:
            while process.poll() is None and _saved(run) <= seen:
                if time.monotonic() - started > LONGEST_S:
                    raise RuntimeError(f"no checkpoint within {LONGEST_S:.0f} s")
                time.sleep(0.01)
            time.sleep(rng.uniform(0.0, 1.0) ** 2)
            if process.poll() is not None:
                _finish(process)
                print(f"  the run had ended before kill {number}; more frames give room for more kills", flush=True)
                return
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
        print(f"  kill {number}: after {time.monotonic() - started:.1f} s, {_saved(run):,} steps saved", flush=True)
    with _start("resume", str(run)) as process:
        _finish(process)


def _saved(run: Path) -> int:
    """Agent steps of the newest checkpoint; -1 if there is none."""
    found = [int(path.name) for path in (run / "checkpoints").glob("[0-9]*") if path.name.isdigit()]
    return max(found, default=-1)
