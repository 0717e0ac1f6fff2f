"""Checkpoints that are called something: beside the newest ones, which are called by their agent steps.

None of them is one that a run goes on from, and none is ever removed.
"""

from __future__ import annotations

import os
from pathlib import Path

from offbeat.errors import UserError

BEST, EXTRA = "best", "extra"
NAMED = (BEST, EXTRA)
"""The best weights that a validation has found, and those of ``checkpoint.extra_at``."""


def chosen(run: Path, which: str) -> Path:
    """The folder of a run's checkpoint by its name or its agent steps; nothing is read of it.

    UserError, naming all that are there, where there is none of that name.
    """
    folder = Path(run) / "checkpoints"
    steps = sorted(int(path.name) for path in folder.glob("[0-9]*") if path.name.isdecimal())
    there = [*(name for name in NAMED if is_there(run, name)), *map(str, steps)]
    wanted = str(int(which)) if which.isdecimal() else which
    if wanted not in there:
        allowed = f"there are {', '.join(there)}" if there else "there is none yet"
        raise UserError(f"{folder} has no checkpoint {which!r}: {allowed}")
    return folder / (f"{int(which):012d}" if which.isdecimal() else which)


def is_there(run: Path, name: str) -> bool:
    """Whether a run has the checkpoint ``name``; one that is being replaced just now counts."""
    return any((Path(run) / "checkpoints" / before / "manifest.json").is_file() for before in (name, f".old-{name}"))


def is_named(folder: Path) -> bool:
    """Whether this is the place of a checkpoint with a name of its own; a run may be called so too."""
    return folder.name in NAMED and folder.absolute().parent.name == "checkpoints"


def identity(folder: Path) -> tuple[int, int] | None:
    """What tells a folder from another one of its name; None while there is none."""
    try:
        seen = os.stat(folder)
    except OSError:
        return None
    return seen.st_ino, seen.st_ctime_ns
