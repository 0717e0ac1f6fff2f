"""Prints what deterministic runs learn, as hashes of their weights: ``python -m tests.weight_hashes [NAME ...]``.

For changes of the structure that must not change what runs compute: run it with both commits, on one machine, and
compare. Each line gives a run, its updates, and the sha256 of the flat weight vector in parameter order, straight and
after a resume from a checkpoint half-way.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from offbeat.agents.make import make_agent
from offbeat.config.run_config import RunConfig, apply_overrides, load_preset
from offbeat.envs.registry import env_spec
from offbeat.run.train import resume, train
from offbeat.storage.checkpoint import find, load

HALF = 100
"""Updates between two checkpoints."""
COMMON = {
    "seed": 7, "device": "cpu", "out": "", "evaluation.at_end": False, "evaluation.every_frames": 0,
    "log.tensorboard": False, "log.dashboard": False, "checkpoint.every_updates": HALF, "checkpoint.every_s": 0,
    "checkpoint.keep": 100, "replay.tolerance": 0,
}  # fmt: skip
SMALL_REPLAY = {"replay.capacity": 8000, "replay.samplers.0.min_rows": 500}
SOME_GAMES = {"actor.envs_per_worker": 8, "learner.batch_size": 8, "actor.env_threads": 1, "learner.threads": 1}

RUNS: dict[str, tuple[str, int, dict[str, Any]]] = {
    "impala-catch": ("impala-catch", 33_000, {}),
    "impala-catch-mean": ("impala-catch", 49_000, {"agent.reduction": "mean", "learner.batch_size": 24}),
    "impala-tmaze": ("impala-tmaze", 210_000, {}),
    "dqn-minatar": ("dqn-minatar", 4_000, SMALL_REPLAY),
    "rainbow-minatar": ("rainbow-minatar", 4_000, SMALL_REPLAY),
    "apex-catch": ("apex-catch", 4_600, {}),
    "r2d2-tmaze": ("r2d2-tmaze", 11_000, SMALL_REPLAY),
    "impala-atari-bf16": ("impala-atari", 33_000, SOME_GAMES | {"learner.precision": "bf16"}),
    "impala-atari-fp32": ("impala-atari", 33_000, SOME_GAMES | {"learner.precision": "fp32"}),
    "apex-small": ("apex-small", 15_500, SMALL_REPLAY | SOME_GAMES),
}
"""Name -> preset, environment frames for 200 updates, options."""
ENGINES: dict[str, dict[str, Any]] = {"inline": {"engine": "inline"}, "lockstep": {"deterministic": True}}


def quietly(function: Any, *arguments: Any) -> Any:
    """The function's result; what it prints is shown only if it fails."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            return function(*arguments)
    except BaseException:
        print(said.getvalue())
        raise


def weights_of(config: RunConfig, run: Path) -> tuple[int, str]:
    """Updates and hash of the newest checkpoint."""
    parts, meta = load(find(run))
    network = make_agent(config.agent_name, config.agent, env_spec(config.env, None)).network
    saved = {name.removeprefix("weights/"): value for name, value in parts["learner"].items()}
    flat = np.concatenate([saved[name].numpy().ravel() for name, _ in network.named_parameters()])
    return meta["counters"]["updates"], hashlib.sha256(flat.tobytes()).hexdigest()[:24]


def hash_run(name: str, engine: str, folder: Path) -> str:
    """One line: the run trained to its end, and resumed half-way."""
    preset, frames, options = RUNS[name]
    run = folder / f"{name}-{engine}"
    chosen = COMMON | {"total_frames": frames, "out": str(run)} | options | ENGINES[engine]
    config = apply_overrides(load_preset(preset), chosen.items())
    quietly(train, config)
    updates, straight = weights_of(config, run)
    saved = sorted((run / "checkpoints").glob("[0-9]*"))
    for path in saved[1:]:
        shutil.rmtree(path)
    half = weights_of(config, run)[0]
    quietly(resume, run)
    again, resumed = weights_of(config, run)
    same = "same" if (again, resumed) == (updates, straight) else f"DIFFERENT {again} {resumed}"
    shutil.rmtree(run)
    return f"{name:<20} {engine:<9} {updates:>4} updates {straight}; resumed at {half}: {same}"


def main(names: list[str]) -> None:
    """All runs, or those whose names are given."""
    with tempfile.TemporaryDirectory() as folder:
        for name in names or RUNS:
            for engine in ENGINES:
                print(hash_run(name, engine, Path(folder)), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
