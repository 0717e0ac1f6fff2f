"""Compiled inner loops over bytes of frames: four single frames become one stack whose channels lie side by side.

A stack is written as one 32-bit word per pixel, the oldest frame in the lowest byte, so that in memory (little-endian)
it is an image [H, W, 4]: the layout in which convolutions are fastest.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np

DEPTH = 4
"""Frames per stack that these loops know."""
LITTLE_ENDIAN = sys.byteorder == "little"

_Function = TypeVar("_Function", bound=Callable[..., Any])


def compiled(function: _Function) -> _Function:
    """``function`` as machine code: kept on disk between processes, and run without Python's lock.

    Divisions follow numpy (no exception for 0): Python's check keeps a loop from being vectorised, five times slower.
    """
    made: Any = numba.njit(nogil=True, cache=True, error_model="numpy")(function)
    return cast(_Function, made)


@compiled
def push_frame(stack: np.ndarray, frame: np.ndarray, start: np.ndarray, repeat: bool) -> None:
    """Drop the oldest frames of ``stack`` [n, P] uint32 and add ``frame`` [n, P] uint8.

    Where ``start`` [n] the stack then holds only ``frame``: four times if ``repeat``, else after three black ones.
    """
    for i in range(stack.shape[0]):
        if start[i]:
            spread = np.uint32(0x01010101) if repeat else np.uint32(0x01000000)
            for p in range(stack.shape[1]):
                stack[i, p] = np.uint32(frame[i, p]) * spread
        else:
            for p in range(stack.shape[1]):
                stack[i, p] = (stack[i, p] >> np.uint32(8)) | (np.uint32(frame[i, p]) << np.uint32(24))


@compiled
def gather_stacks(ring: np.ndarray, source: np.ndarray, black: np.ndarray, out: np.ndarray) -> None:
    """``out`` [n, P] uint32 = stacks of the rows ``source`` [n, 4], oldest first, of ``ring`` [R, P] uint8.

    Frames where ``black`` [n, 4] is True are zeros.
    """
    for i in range(out.shape[0]):
        first, second, third, last = ring[source[i, 0]], ring[source[i, 1]], ring[source[i, 2]], ring[source[i, 3]]
        keep_first = np.uint32(0) if black[i, 0] else np.uint32(0xFF)
        keep_second = np.uint32(0) if black[i, 1] else np.uint32(0xFF)
        keep_third = np.uint32(0) if black[i, 2] else np.uint32(0xFF)
        for p in range(out.shape[1]):
            out[i, p] = (
                (np.uint32(first[p]) & keep_first)
                | ((np.uint32(second[p]) & keep_second) << np.uint32(8))
                | ((np.uint32(third[p]) & keep_third) << np.uint32(16))
                | (np.uint32(last[p]) << np.uint32(24))
            )
