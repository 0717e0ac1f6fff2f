"""Environments that start processes of their own and end them in ``close``."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

LOG = "STARTERS_LOG"
"""Environment variable: the file that these write a line to for each process that they start."""
HELD = (1 << 0) | (1 << 1) | (1 << 14)
"""SIGHUP, SIGINT and SIGTERM in the masks of /proc/PID/status."""


def held_back(pid: int) -> list[str]:
    """Which masks of a process hold one of these three: ignored or blocked; on Linux."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    masks = dict(line.split(":", 1) for line in lines if line.startswith(("SigIgn", "SigBlk")))
    return [name for name, mask in masks.items() if int(mask, 16) & HELD]


def log(*words: object) -> None:
    """Append a line."""
    with Path(os.environ[LOG]).open("a") as file:
        file.write(" ".join(map(str, words)) + "\n")


class Starter(gymnasium.Env[np.ndarray, int]):
    """Starts ``sleep``, needs it at every step, and ends it as anybody would."""

    observation_space = gymnasium.spaces.Box(0.0, 1.0, (2,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self) -> None:
        self._process: Any = self.started()
        time.sleep(0.05)  # it has come to its own program
        log("started", self._process.pid, *held_back(self._process.pid))
        self._steps = 0

    def started(self) -> Any:
        """The process."""
        return subprocess.Popen(["sleep", "300"])

    def gone(self) -> bool:
        """Whether it has ended by itself."""
        return self._process.poll() is not None

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        """A start."""
        super().reset(seed=seed)
        self._steps = 0
        return self.np_random.random(2, np.float32), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Ten to an episode."""
        if self.gone():
            raise RuntimeError("the process of this environment is gone")
        self._steps += 1
        return self.np_random.random(2, np.float32), 1.0, self._steps == 10, False, {}

    def close(self) -> None:
        """End it and wait for it."""
        if self._process is not None:
            began, process, self._process = time.monotonic(), self._process, None
            process.terminate()
            (process.wait if hasattr(process, "wait") else process.join)()
            log("closed", process.pid, f"{time.monotonic() - began:.3f}")


class Forker(Starter):
    """The same with ``multiprocessing``, by a fork: what it starts keeps the handlers of its parent."""

    def started(self) -> Any:
        """The process."""
        process = multiprocessing.get_context("fork").Process(target=time.sleep, args=(300,))
        process.start()
        return process

    def gone(self) -> bool:
        """Whether it has ended by itself."""
        return not self._process.is_alive()


class Stuck(Starter):
    """Never comes back from its second step, so that nothing of it is ever closed."""

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """The first is well."""
        if self._steps == 1:
            time.sleep(1000)
        return super().step(action)


def vector(num_envs: int) -> gymnasium.vector.VectorEnv[Any, Any, Any]:
    """Each in a process of its own."""
    return gymnasium.vector.AsyncVectorEnv([Starter] * num_envs)
