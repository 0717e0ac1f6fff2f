"""Opening files that somebody else made or broke: regular ones alone, and whatever is wrong said in one line."""

from __future__ import annotations

import os
import stat
import tokenize
from io import BufferedReader
from pathlib import Path

from safetensors import SafetensorError

BROKEN = (
    OSError, RuntimeError, ValueError, KeyError, TypeError, AttributeError, OverflowError, MemoryError, SyntaxError,
    SafetensorError, tokenize.TokenError,
)  # fmt: skip
"""What reading a file that is none of ours may raise; the last comes from NumPy's reading of a header."""


def stat_regular(file: Path) -> os.stat_result:
    """Of a regular file, or of one that a link leads to; ValueError for anything else, which is never opened."""
    seen = os.stat(file)
    if not stat.S_ISREG(seen.st_mode):
        raise ValueError(f"{file.name} is no regular file")
    return seen


def open_regular(file: Path) -> BufferedReader:
    """Open a regular file; a FIFO that takes its place meanwhile is not waited for."""
    stat_regular(file)
    return open(os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")


def one_line(text: str) -> str:
    """One line that any terminal can show, however strange the names in it."""
    shown = "".join(letter if letter.isprintable() else " " for letter in text)
    return " ".join(shown.encode("utf-8", "replace").decode().split())[:500]
