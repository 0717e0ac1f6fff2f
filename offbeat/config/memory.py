"""How much memory can still be taken: the machine's, and what control groups (containers) leave of it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

UNLIMITED = 2**62
"""Limits from here on are none; version 1 writes such a number where there is none."""


def available_memory(root: Path = Path("/")) -> int:
    """Bytes that can still be taken: the least of the machine's free memory and what each control group has left.

    ``root``: where ``proc`` and the file systems that it names lie; another one in tests.
    """
    free = [os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")] if hasattr(os, "sysconf") else []
    rows = dict(line.split(":", 1) for line in _lines(root / "proc/meminfo") if ":" in line)
    if "MemAvailable" in rows:
        free = [int(rows["MemAvailable"].split()[0]) * 1024]
    free += [left for folder in control_groups(root) if (left := _left(folder)) is not None]
    return max(0, min(free)) if free else UNLIMITED


def control_groups(root: Path = Path("/")) -> list[Path]:
    """Folders of the control groups that limit this process's memory, each with all groups around it.

    A limit holds for everything below its group (in version 1 it may be told not to), so the tightest on the way up to
    the root counts. Where a container sees only a part of the tree, its outermost group is what is mounted. Version 1
    has a tree of its own for memory.
    """
    paths = dict[str, str]()  # "" is version 2
    for line in _lines(root / "proc/self/cgroup"):
        number, controllers, path = line.split(":", 2)
        if number == "0" and not controllers:
            paths["cgroup2"] = path
        elif "memory" in controllers.split(","):
            paths["cgroup"] = path
    found = []
    for kind, mounted, point in _mounts(root):
        if kind in paths:
            within = _within(paths[kind], mounted)
            found += [point / within]
            around = (point / part for part in within.parents)
            found += [folder for folder in around if _number(folder / "memory.use_hierarchy") != 0]
    return list(dict.fromkeys(found))


def _mounts(root: Path) -> Iterator[tuple[str, str, Path]]:
    """Kind, group that is mounted, and place of the file systems of control groups that may limit memory."""
    for line in _lines(root / "proc/self/mountinfo"):
        left, _, right = line.partition(" - ")
        fields, (kind, _, options) = left.split(" "), right.split(" ", 2)
        if kind == "cgroup2" or (kind == "cgroup" and "memory" in options.split(",")):
            yield kind, _unescaped(fields[3]), root / _unescaped(fields[4]).lstrip("/")


def _within(path: str, mounted: str) -> PurePosixPath:
    """The group ``path`` as seen from the group that is ``mounted``: the latter itself where it lies outside of it."""
    group = PurePosixPath(path)
    if ".." in group.parts or not group.is_relative_to(mounted):
        return PurePosixPath(".")
    return group.relative_to(mounted)


def _left(folder: Path) -> int | None:
    """Bytes that the group in ``folder`` may still take; None without a limit."""
    limits = [_number(folder / name) for name in ("memory.max", "memory.high", "memory.limit_in_bytes")]
    limit = min((number for number in limits if number is not None), default=UNLIMITED)
    used = [_number(folder / name) for name in ("memory.current", "memory.usage_in_bytes")]
    if limit >= UNLIMITED or used == [None, None]:
        return None
    # Cached files count as used and are given back; version 1 says total_ where it means all groups below too.
    cache = [int(line.split()[1]) for line in _lines(folder / "memory.stat") if "inactive_file" in line]
    return limit - max(number for number in used if number is not None) + (cache[-1] if cache else 0)


def _number(file: Path) -> int | None:
    """The number in a file; None where there is no file, or none in it (``max``)."""
    text = " ".join(_lines(file))
    return int(text) if text.isdecimal() else None


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text().splitlines()
    except OSError:  # not Linux, or not for us to see
        return []


def _unescaped(text: str) -> str:
    """Spaces and the like are written as octal numbers."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)
