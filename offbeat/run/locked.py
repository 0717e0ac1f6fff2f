"""A file that only one process at a time may hold."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from offbeat.errors import UserError


@contextmanager
def locked(path: Path, taken: str, otherwise: str = "") -> Iterator[None]:
    """Hold the lock; it ends with the process, however that ends. ``UserError(taken)`` where another one has it.

    ``otherwise``: what to do where nothing can be written beside ``path``.
    """
    try:
        opened = path.open("w")
    except OSError as error:
        raise UserError(f"nothing can be written in {path.parent}: {error.strerror or error}{otherwise}") from error
    with opened as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(taken) from None
        yield
