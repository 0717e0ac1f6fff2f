"""Loops as machine code."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

_Function = TypeVar("_Function", bound=Callable[..., Any])


def compiled(function: _Function) -> _Function:
    """``function`` as machine code: kept on disk between processes, and run without Python's lock.

    Divisions follow numpy (no exception for 0): Python's check keeps a loop from being vectorised, five times slower.
    """
    made: Any = numba.njit(nogil=True, cache=True, error_model="numpy")(function)
    return cast(_Function, made)


def compiled_sum(function: _Function) -> _Function:
    """The same for loops that add up: in another order than written, though always the same, to use whole registers."""
    made: Any = numba.njit(nogil=True, cache=True, error_model="numpy", fastmath={"reassoc"})(function)
    return cast(_Function, made)
