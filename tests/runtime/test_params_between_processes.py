"""Versioned weights under one publisher and two readers in other processes."""

from __future__ import annotations

import multiprocessing
import os
from functools import partial
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


def use_in_place_for_a_while(params: SharedParams, index: int, ended: Any) -> None:
    """Pin again and again and look at the weights for longer than a publication takes; codes as above."""
    store, last = params.store.reader(index), -1
    for _ in range(PULLS // 3):
        flat, (version, _, _) = store.pin()
        for _ in range(3):
            if float(flat.min()) != version or float(flat.max()) != version:
                os._exit(3)
        if version < last:
            os._exit(4)
        last = version
    store.release()
    with ended.get_lock():
        ended.value += 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("in_place", [False, True], ids=["copied", "in place"])
@pytest.mark.parametrize("forced", [False, True], ids=["fences", "locks"])
def test_nobody_ever_sees_a_torn_vector(forced: bool, in_place: bool) -> None:
    torch.set_num_threads(1)
    fork = multiprocessing.get_context("fork")
    params = SharedParams(SIZE, make_guard(force=forced), readers=2)
    params.store.publish(torch.zeros(SIZE), 0)
    ended = fork.Value("i", 0)
    if in_place:
        read = [partial(use_in_place_for_a_while, params, index, ended) for index in range(2)]
    else:
        read = [partial(read_for_a_while, params, ended)] * 2
    readers = [fork.Process(target=target, daemon=True) for target in read]
    for reader in readers:
        reader.start()
    version = 0
    while ended.value < len(readers) and all(reader.exitcode in (None, 0) for reader in readers):
        version += params.store.publish(torch.full((SIZE,), version + 1.0), version + 1)
    for reader in readers:
        reader.join(60)
    assert [reader.exitcode for reader in readers] == [0, 0]
    assert params.store.version() == version
