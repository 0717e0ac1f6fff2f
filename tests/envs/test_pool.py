"""What adapters of EnvPool share, with a stand-in for its module; the real one is tried in the adapters' own tests."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from offbeat.envs.base import StateUnsupported
from offbeat.envs.pool import Pool
from offbeat.types import ActionSpec, ArraySpec, EnvSpec

SPEC = EnvSpec("pooled", {"observation": ArraySpec((2,))}, ActionSpec("discrete", 3))


class Module:
    """Notes how a pool is made, and what is sent to it."""

    def __init__(self) -> None:
        self.made: list[dict[str, Any]] = []
        self.sent: list[tuple[np.ndarray, np.ndarray]] = []
        self.resets = 0

    def make(self, task: str, **options: Any) -> Any:
        """A pool that takes actions."""
        self.made.append({"task": task} | options)
        return SimpleNamespace(async_reset=self.reset, send=lambda *sent: self.sent.append(sent))

    def reset(self) -> None:
        """Count."""
        self.resets += 1


def pool(module: Module) -> Pool:
    """Three environments, two rows at a time."""
    made: Any = module
    return Pool(made, "Task-v1", SPEC, num_envs=3, batch_size=2, threads=1)


def test_each_begin_makes_one_anew_with_its_seed_and_resets_it() -> None:
    module = Module()
    vector = pool(module)
    vector.begin(7, limit=5)
    vector.begin(8)
    assert [made["task"] for made in module.made] == ["Task-v1", "Task-v1"]
    assert (module.made[0]["num_envs"], module.made[0]["batch_size"], module.made[0]["num_threads"]) == (3, 2, 1)
    assert module.made[0]["limit"] == 5 and "limit" not in module.made[1]
    assert module.made[0]["seed"] != module.made[1]["seed"]
    assert module.resets == 2


def test_actions_go_to_the_rows_of_the_last_recv() -> None:
    module = Module()
    vector = pool(module)
    vector.begin(0)
    vector._ids = np.array([2, 0])
    vector.send(np.array([1, 2]))
    ((action, ids),) = module.sent
    assert (action.tolist(), ids.tolist(), action.dtype, ids.dtype) == ([1, 2], [2, 0], np.int32, np.int32)
    with pytest.raises(ValueError, match="action"):
        vector.send(np.array([1]))


def test_one_that_is_not_begun_or_is_closed_takes_nothing() -> None:
    vector = pool(Module())
    with pytest.raises(RuntimeError, match=r"pooled needs reset\(\) first"):
        vector.send(np.array([1, 2]))
    vector.begin(0)
    vector.close()
    with pytest.raises(RuntimeError, match=r"pooled needs reset\(\) first"):
        vector.send(np.array([1, 2]))


def test_none_is_saved() -> None:
    vector = pool(Module())
    with pytest.raises(StateUnsupported, match="pooled can be neither saved nor replayed exactly"):
        vector.state()
    with pytest.raises(StateUnsupported, match="pooled can be neither saved nor replayed exactly"):
        vector.load_state({})
