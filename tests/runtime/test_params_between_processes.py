"""Versioned weights under one publisher and two readers in other processes."""

from __future__ import annotations

import multiprocessing
import os
from typing import Any

import pytest
import torch

from offbeat.runtime.params import SharedParams
from offbeat.runtime.shm import make_guard

SIZE = 60_000
PULLS = 1500


def read_for_a_while(params: SharedParams, ended: Any) -> None:
    """Pull again and again; exit code 3 for a torn vector, 4 for a version that went back."""
    flat, last = torch.zeros(SIZE), -1
    for _ in range(PULLS):
        version = params.store.pull(flat).updates
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
