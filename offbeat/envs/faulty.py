"""Environments that break on purpose, so that what a run does about it can be tested with a real one.

``toy/raise@500`` is ``toy/counting`` that misbehaves on the 500th ``send`` after it was made. Faults: ``FAULTS``.
"""

from __future__ import annotations

import ctypes
import os
import re
import signal
import time
from dataclasses import replace

import numpy as np

from offbeat.envs.base import EnvConfig, VectorEnv
from offbeat.envs.toy import ToyVector
from offbeat.types import ArrayDict, EnvStep

ERRORS: dict[str, type[BaseException]] = {
    "raise": RuntimeError,
    "pipe": BrokenPipeError,
    "eof": EOFError,
    "exit": SystemExit,
    "interrupt": KeyboardInterrupt,
}
"""Fault -> the exception that it raises. Emulators behind pipes raise the second and third."""
FAULTS = {
    **{name: f"raises {error.__name__} after N steps" for name, error in ERRORS.items()},
    "close": "raises RuntimeError when it is closed after N steps",
    "hang": "never answers again after N steps",
    "gil": "the same, in C code that lets no other thread run",
    "slow": "takes a second for each step from step N on",
    "kill": "kills its own process with SIGKILL after N steps",
    "print": "prints a thousand characters in each step from step N on",
    "nan": "gives NaN rewards from step N on",
}
"""Fault -> what it does."""
_PATTERN = re.compile(rf"({'|'.join(FAULTS)})@(\d+)")


def is_faulty(name: str) -> bool:
    """Is ``name`` (without ``toy/``) a fault and the step at which it happens?"""
    return _PATTERN.fullmatch(name) is not None


def healthy(config: EnvConfig) -> EnvConfig:
    """The same without the fault."""
    return replace(config, id="toy/counting")


def make_faulty(config: EnvConfig, num_envs: int) -> FaultyVector:
    """The environment of an id such as ``toy/hang@500``."""
    return broken(ToyVector(healthy(config), num_envs), config.id.removeprefix("toy/"))


def broken(inner: VectorEnv, fault: str) -> FaultyVector:
    """``inner`` with a fault such as ``hang@500``. ValueError for one that there is not."""
    match = _PATTERN.fullmatch(fault)
    if match is None:
        raise ValueError(f"toy/{fault} is not toy/<fault>@<steps>; faults: {', '.join(FAULTS)}")
    return FaultyVector(inner, match[1], int(match[2]))


class FaultyVector:
    """``inner`` until the ``after``-th ``send``; then ``fault`` happens."""

    def __init__(self, inner: VectorEnv, fault: str, after: int) -> None:
        self.spec, self.num_envs, self.batch_size = inner.spec, inner.num_envs, inner.batch_size
        self._inner, self._fault, self._after = inner, fault, after
        self._sent = 0

    def reset(self, seed: int) -> None:
        """Start the inner environment; the count of steps goes on."""
        self._inner.reset(seed)

    def recv(self) -> EnvStep:
        """The inner environment's rows, with NaN rewards where that is the fault."""
        rows = self._inner.recv()
        if self._fault == "nan" and self._sent >= self._after:
            rows.reward = np.full_like(rows.reward, np.nan)
        return rows

    def send(self, action: np.ndarray) -> None:
        """Pass the actions on, or break."""
        self._sent += 1
        if self._sent >= self._after:
            self._break()
        self._inner.send(action)

    def state(self) -> ArrayDict:
        """The inner environment's state and the count of steps."""
        return self._inner.state() | {"sent": np.array(self._sent, np.int64)}

    def load_state(self, state: ArrayDict) -> None:
        """Go back to a saved state."""
        self._inner.load_state({name: array for name, array in state.items() if name != "sent"})
        self._sent = int(state["sent"])

    def close(self) -> None:
        """Close the inner environment."""
        self._inner.close()
        if self._fault == "close" and self._sent >= self._after:
            raise RuntimeError(f"toy/close: raised on purpose when closed after step {self._sent}")

    def _break(self) -> None:
        if self._fault in ERRORS:
            raise ERRORS[self._fault](f"toy/{self._fault}: raised on purpose at step {self._sent}")
        if self._fault == "slow":
            time.sleep(1.0)
        if self._fault == "print":
            print("x" * 1000, flush=True)
        if self._fault == "gil":
            ctypes.PyDLL(None).sleep(10**6)
        if self._fault == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        while self._fault == "hang":
            time.sleep(3600)
