"""Files that commands write: whole or not at all, and refused in one line where they cannot be.

A run folder may be somebody else's, on a disk that only they write to. What is asked of it is then written elsewhere.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from offbeat.errors import UserError


@contextmanager
def written(path: Path) -> Iterator[Path]:
    """A draft to write to, which takes the place of ``path`` when the block ends without an error.

    ``UserError`` as of ``draft_of``.
    """
    draft = draft_of(path)
    try:
        yield draft
        os.replace(draft, path)
    except OSError as error:  # such as a full disk
        raise _refused(path, error.strerror or str(error)) from error
    finally:
        draft.unlink(missing_ok=True)


def draft_of(path: Path) -> Path:
    """An empty file beside ``path``, with the same ending; missing folders are made.

    ``UserError`` where nothing can be written there, or ``path`` is something else than a file.
    """
    draft = path.with_name(f".{path.name}.partial{path.suffix}")
    if path.exists() and not path.is_file():
        raise _refused(path, "it is a folder" if path.is_dir() else "it is no file")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.touch()
    except (FileExistsError, NotADirectoryError) as error:
        raise _refused(path, "it would lie in a file") from error
    except OSError as error:
        raise _refused(path, error.strerror or str(error)) from error
    return draft


def _refused(path: Path, why: str) -> UserError:
    return UserError(f"{path} cannot be written: {why}; name another file with --out FILE (in Python: out=)")
