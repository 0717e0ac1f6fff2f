"""Versioned weights under one publisher and two readers in other processes."""

from __future__ import annotations

import multiprocessing
import os
from typing import Any

import numpy as np
import pytest
import torch

from offbeat.runtime.params import SLOTS, ParamStore, SharedParams, param_arrays
from offbeat.runtime.shm import make_guard

SIZE = 60_000
PULLS = 1500


def private(size: int) -> ParamStore:
    """A store over this process's own memory."""
    return ParamStore({name: np.zeros(spec.shape, spec.dtype) for name, spec in param_arrays(size).items()})


def read_for_a_while(params: SharedParams, ended: Any) -> None:
    """Pull again and again; exit code 3 for a torn vector, 4 for a version that went back."""
    flat, last = torch.zeros(SIZE), -1
    for _ in range(PULLS):
        version = params.store.pull(flat)
        if float(flat.min()) != version or float(flat.max()) != version:
            os._exit(3)
        if version < last:
            os._exit(4)
        last = version
    with ended.get_lock():
        ended.value += 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("forced", [False, True], ids=["fences", "locks"])
def test_nobody_ever_sees_a_torn_vector(forced: bool) -> None:
    torch.set_num_threads(1)
    fork = multiprocessing.get_context("fork")
    params = SharedParams(SIZE, make_guard(force=forced))
    params.store.publish(torch.zeros(SIZE), 0)
    ended = fork.Value("i", 0)
    readers = [fork.Process(target=read_for_a_while, args=(params, ended), daemon=True) for _ in range(2)]
    for reader in readers:
        reader.start()
    version = 0
    while ended.value < len(readers) and all(reader.exitcode in (None, 0) for reader in readers):
        version += 1
        params.store.publish(torch.full((SIZE,), float(version)), version)
    for reader in readers:
        reader.join(60)
    assert [reader.exitcode for reader in readers] == [0, 0]
    assert params.store.version() == version


def test_a_reader_that_is_overtaken_copies_again(monkeypatch: pytest.MonkeyPatch) -> None:
    store = private(4)
    store.publish(torch.full((4,), 1.0), 1)
    flat, real = torch.zeros(4), torch.Tensor.copy_
    overtaken = []

    def slow_copy(self: torch.Tensor, source: torch.Tensor, *rest: Any) -> torch.Tensor:
        if not overtaken:
            overtaken.append(True)
            for version in range(2, 2 + SLOTS):
                store.publish(torch.full((4,), float(version)), version)
        return real(self, source, *rest)

    monkeypatch.setattr(torch.Tensor, "copy_", slow_copy)
    assert store.pull(flat) == SLOTS + 1
    assert flat.tolist() == [SLOTS + 1.0] * 4
    assert store.retries == 1


def test_versions_only_grow() -> None:
    store = private(2)
    assert store.version() == -1
    with pytest.raises(RuntimeError, match="no weights have been published"):
        store.pull(torch.zeros(2))
    assert store.publish(torch.ones(2), 0)
    assert store.publish(torch.full((2,), 3.0), 7)
    with pytest.raises(ValueError, match="version=7"):
        store.publish(torch.ones(2), 7)
    flat = torch.zeros(2)
    assert store.pull(flat) == 7 == store.version()
    assert flat.tolist() == [3.0, 3.0]
