"""What a run leaves behind in the process that trained it: nothing, whatever way it ended."""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from offbeat.config.run_config import RunConfig, apply_overrides, load_preset
from offbeat.run.train import resume, train
from offbeat.runtime.supervisor import RoleFailed

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc is Linux's")


def small(out: Path, **overrides: Any) -> RunConfig:
    """A short run on Catch."""
    options = {
        "out": str(out), "device": "cpu", "total_frames": 200, "actor.envs_per_worker": 4, "learner.batch_size": 4,
        "learner.unroll_length": 5, "evaluation.every_frames": 0, "evaluation.at_end": False, "log.tensorboard": True,
    }  # fmt: skip
    options |= {name.replace("__", "."): value for name, value in overrides.items()}
    return apply_overrides(load_preset("debug"), options.items())


def left_over() -> tuple[list[str], int, int]:
    """Open files by what they are, mappings of the streams' memory, and threads."""
    gc.collect()
    names = []
    for descriptor in os.listdir("/proc/self/fd"):
        try:
            names.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        except OSError:  # the listing's own
            continue
    kept = sorted(name.partition("[")[0] for name in names if "/tmp/" not in name or "deleted" in name)
    mapped = Path("/proc/self/maps").read_text().count("memfd:offbeat")
    return kept, mapped, threading.active_count()


ENDS = {
    "inline": {"engine": "inline"},
    "local": {"engine": "local"},
    "lockstep": {"engine": "local", "deterministic": True},
    "a role fails inline": {"engine": "inline", "env__id": "toy/raise@20"},
    "a role fails": {"engine": "local", "env__id": "toy/raise@20"},
    "a role dies in lockstep": {"engine": "local", "deterministic": True, "env__id": "toy/kill@20"},
}


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A first run starts what stays: multiprocessing's tracker, torch's threads, compiled loops."""
    for number, options in enumerate((ENDS["local"], ENDS["inline"])):
        train(small(tmp_path_factory.mktemp("warm") / str(number), **options))


@pytest.mark.parametrize(
    "how", [pytest.param(name, marks=pytest.mark.slow) if "lockstep" in name else name for name in ENDS]
)
def test_runs_leave_no_files_and_no_memory_behind(how: str, warm: None, tmp_path: Path) -> None:
    before = left_over()
    ends_well = "fails" not in how and "dies" not in how
    try:
        train(small(tmp_path / "run", **ENDS[how]))
        assert ends_well
    except (RuntimeError, RoleFailed):
        assert not ends_well
    assert left_over() == before


def test_a_stopped_run_leaves_nothing_either(warm: None, tmp_path: Path) -> None:
    before = left_over()
    timer = threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGTERM))
    timer.start()
    assert not train(small(tmp_path / "run", engine="inline", total_frames=10**9)).finished
    timer.join()
    assert left_over() == before


def test_stacks_that_a_killed_run_left_are_removed(tmp_path: Path) -> None:
    result = train(small(tmp_path / "run", engine="inline"))
    stale = result.run / ".stack-actor-0-4711"
    stale.write_text("of a process that is gone")
    resume(result.run, total_frames=400)
    assert not stale.exists()


def test_training_in_a_thread_other_than_the_main_one(tmp_path: Path) -> None:
    """Its roles end with that thread, and so not before the run does."""
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(train(small(tmp_path / "run", engine="local"))))
    thread.start()
    thread.join(120)
    assert found
    assert found[0].finished
    deadline = time.monotonic() + 10
    while any(name.startswith("offbeat-") for name in children()):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def children() -> list[str]:
    """Names of this process's children."""
    import multiprocessing

    return [process.name for process in multiprocessing.active_children()]
