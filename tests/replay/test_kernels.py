"""Compiled loops over frames, against numpy."""

from __future__ import annotations

import numpy as np
import pytest

from offbeat.replay import kernels


def planes(words: np.ndarray) -> np.ndarray:
    """Stacks [n, 4, P] of words [n, P]."""
    return np.moveaxis(words.view(np.uint8).reshape(*words.shape, 4), -1, 1)


@pytest.mark.parametrize("repeat", [False, True])
def test_push_frame(repeat: bool) -> None:
    rng = np.random.default_rng(0)
    stack = rng.integers(0, 2**32, (5, 7), dtype=np.uint32)
    frame = rng.integers(0, 256, (5, 7), dtype=np.uint8)
    start = np.array([False, True, False, False, True])
    expected = np.concatenate([planes(stack)[:, 1:], frame[:, None]], 1)
    expected[start, :3] = frame[start][:, None] if repeat else 0
    kernels.push_frame(stack, frame, start, repeat)
    assert np.array_equal(planes(stack), expected)


def test_gather_stacks() -> None:
    rng = np.random.default_rng(1)
    ring = rng.integers(0, 256, (9, 6), dtype=np.uint8)
    source = rng.integers(0, 9, (20, 4))
    black = rng.random((20, 4)) < 0.4
    black[:, 3] = False  # the newest frame is always there
    out = np.empty((20, 6), np.uint32)
    kernels.gather_stacks(ring, source, black, out)
    assert np.array_equal(planes(out), np.where(black[..., None], 0, ring[source]))
