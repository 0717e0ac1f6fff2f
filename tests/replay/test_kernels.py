"""Compiled loops over frames, against numpy."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest

from offbeat.replay import kernels
from offbeat.replay.stacking import stack_rows
from offbeat.replay.threads import share_out


@pytest.fixture(params=["vectors", "words"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Stacks are written with instructions that numba does not promise to take, and without."""
    if request.param == "words":
        monkeypatch.setattr(kernels, "missing", lambda: "forced")
    elif kernels.missing():
        pytest.skip(kernels.missing())
    return request.param


@pytest.fixture
def tried_anew() -> Iterator[None]:
    """What numba takes is tried again, in the test and after it."""
    kernels.missing.cache_clear()
    yield
    kernels.missing.cache_clear()


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


def gathered(pixels: int, streams: int, steps: int, black: bool, threads: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Stacks [T, B, 4, P] of random rows, as they came and as they should be."""
    rng, ring = np.random.default_rng(1), 9
    frames = rng.integers(0, 256, (streams * ring, pixels), dtype=np.uint8)
    stream = rng.integers(0, streams, 7)
    row, age = rng.integers(-20, 90, (steps, 7)), rng.integers(0, 6, (steps, 7))
    words = kernels.empty_words(steps, 7, pixels)
    assert words.ctypes.data % kernels.LINE == 0
    gather = partial(kernels.gather_stacks, frames, ring, stream, row, age, black, words)
    share_out(gather, len(stream), threads)
    source, padding = stack_rows(row, age, 4)
    want = frames[stream[:, None] * ring + source % ring]  # [T, B, 4, P]
    if black:
        want[padding] = 0
    return np.moveaxis(words.view(np.uint8).reshape(*words.shape, 4), -1, -2), want


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("black", [False, True])
@pytest.mark.parametrize("pixels", [6, 16, 37, 64, 87, 7056])
def test_gather_stacks(pixels: int, black: bool) -> None:
    got, want = gathered(pixels, 3, 5, black)
    assert np.array_equal(got, want)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("threads", [1, 2, 9])  # nine: more than items
@pytest.mark.parametrize("pixels", [84, 87])  # stacks that lie on 16 bytes each, and stacks that don't
def test_gather_stacks_past_the_caches(pixels: int, threads: int) -> None:
    count = kernels.LARGE // (4 * 7 * pixels) + 1
    got, want = gathered(pixels, 2, count, True, threads)
    assert got.nbytes >= kernels.LARGE
    assert np.array_equal(got, want)


@pytest.mark.usefixtures("way")
def test_gather_no_stacks() -> None:
    words, none = kernels.empty_words(2, 0, 16), np.empty((2, 0), np.int64)
    gather = partial(kernels.gather_stacks, np.zeros((9, 16), np.uint8), 9, none[0], none, none, True, words)
    share_out(gather, 0, 2)
    assert words.shape == (2, 0, 16)


def nothing_written(*_: Any) -> None:
    """As instructions that have become others."""


def not_compiled(*_: Any) -> None:
    """As instructions that numba no longer takes."""
    raise AttributeError("no type of vectors")


@pytest.mark.usefixtures("tried_anew")
@pytest.mark.parametrize(
    ("change", "said"),
    [(nothing_written, "it gives other results"), (not_compiled, "AttributeError: no type of vectors")],
)
def test_where_vectors_fail_words_stand_in(change: Any, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "_gather_vectors", change)
    got, want = gathered(87, 3, 5, True)
    assert kernels.missing() == said
    assert np.array_equal(got, want)


@pytest.mark.usefixtures("tried_anew")
def test_only_past_the_caches_wrong_is_wrong_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def write(*given: Any) -> None:
        kernels._gather_words(*given[:-1])
        given[6][:] += given[-1] == 0  # large = 0: all is large

    monkeypatch.setattr(kernels, "_gather_vectors", write)
    assert kernels.missing() == "it gives other results"
