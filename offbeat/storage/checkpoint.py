"""Checkpoints: safetensors, JSON and .npy in a folder that is complete or not there.

``RUN/checkpoints/<agent steps, 12 digits>/`` (or one of the names in ``named.py``) holds for each *part* (``learner``,
``streams``, ``actor-0``, ...) one ``<part>.safetensors`` and, for large NumPy arrays, ``<part>.<i>.npy`` (never
pickled); ``meta.json``; and ``manifest.json`` with size and sha256 of every file, written last. All of it is written to
``.tmp-<agent steps>`` beside the others, fsynced, and then renamed once. What the parts mean is the callers' business;
one convention only: entries ``weights/<name>`` of the part ``learner`` are the network's weights, see ``load_weights``.

Streams are saved whole: the cost of a checkpoint grows with the replay, not with what is new in it. This file writes;
reading, whose names are offered here too, is in ``offbeat.storage.reading``.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shutil
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from offbeat.storage.named import NAMED
from offbeat.storage.reading import (
    FOLDER,
    FORMAT,
    WEIGHTS,
    Array,
    ArrayInfo,
    Checkpoint,
    CheckpointError,
    contents,
    find,
    load,
    load_weights,
    needs_weights,
    newest,
    parts_of,
    sha256,
    verified,
)

__all__ = [
    "FORMAT", "WEIGHTS", "Array", "ArrayInfo", "Arrays", "Checkpoint", "CheckpointConfig", "CheckpointError",
    "Draft", "begin", "clean", "contents", "find", "load", "load_weights", "needs_weights", "newest",
    "parts_of", "save", "verified", "write_part",
]  # fmt: skip

Arrays = Mapping[str, Array]

LARGE_BYTES = 64 << 20
"""NumPy arrays from this size on get an .npy file of their own, which is written without a second copy in memory."""

_PART = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True)
class CheckpointConfig:
    """When a run is saved and how much of it."""

    every_s: float = 600.0
    """Save after so many seconds, a new run after one minute at most; 0: never by time. Not used in deterministic
    runs, nor inline."""
    every_updates: int = 0
    """Save after so many learner updates, at the next round boundary; 0: never by count."""
    keep: int = 3
    """Newest checkpoints that are kept."""
    extra_at: int = 0
    """Keep the weights and the optimiser's statistics of the first round at or after so many agent steps for ever, as
    the checkpoint ``extra``, once; 0: no such. Unit: agent steps."""
    replay: bool = True
    """Save the streams too. Without them a resumed run is not bit-identical."""
    max_replay_gb: float = 8.0
    """Leave the streams out, with a warning, where they are larger than this. Unit: GiB."""


@dataclass
class Draft:
    """A checkpoint that is being written; nobody sees it before ``commit``.

    Roles in other processes write their parts with ``write_part(draft.path, ...)``; ``adopt`` then takes them in.
    Every error on the way removes the draft and leaves earlier checkpoints as they were.
    """

    run: Path
    agent_steps: int
    path: Path
    files: set[str] = field(default_factory=set)

    def write(self, part: str, arrays: Arrays) -> None:
        """Write one part: name -> tensor or array of numbers or bool. CheckpointError if the disk is full."""
        with self._abort_on_error():
            self.files.update(file.name for file in write_part(self.path, part, arrays))

    def adopt(self, part: str) -> None:
        """Take in a part that another process wrote with ``write_part``; CheckpointError if it is torn."""
        with self._abort_on_error():
            file = self.path / f"{part}.safetensors"
            try:
                described = _describe(file)
            except (OSError, SafetensorError, ValueError, KeyError) as error:
                raise CheckpointError(f"{file}: part {part!r} was not written completely ({error})") from error
            self.files.update({file.name, *described["npy"].values()})

    def keep_copy(self, name: str, meta: Mapping[str, Any], parts: Collection[str]) -> Path:
        """Keep these parts of what was written so far as the checkpoint ``name`` too, and return its folder.

        Their files lie on the disk once where it has links, and stay when this draft, or what becomes of it, is gone.
        """
        copy = Draft(self.run, self.agent_steps, self.path.with_name(f".tmp-{name}"))
        with self._abort_on_error(), copy._abort_on_error(), _explained(copy.path, 0):
            copy.path.mkdir()
            for file in sorted(file for file in self.files if file.split(".")[0] in parts):
                _link(self.path / file, copy.path / file)
                copy.files.add(file)
        return copy.commit(meta, name=name)

    def commit(self, meta: Mapping[str, Any], keep: int = 0, name: str = "") -> Path:
        """Make the checkpoint visible in one rename, remove all but the ``keep`` newest, and return its folder.

        ``meta`` is anything that JSON can hold. Of two checkpoints at the same agent steps the later one stays.
        ``keep``: 0: none is removed. ``name``: one of ``NAMED``, which takes the place of an earlier one; it is none of
        those that a run goes on from, and never removed.
        """
        if name and name not in NAMED:
            raise ValueError(f"name={name!r}: expected one of {', '.join(NAMED)}")
        with self._abort_on_error(), _explained(self.path, 0):
            strangers = sorted({file.name for file in self.path.iterdir()} - self.files)
            if strangers:
                raise CheckpointError(f"{self.path}: {', '.join(strangers)} belong to parts that were never adopted")
            _write_json(self.path / "meta.json", meta)
            listed = {name: _fingerprint(self.path / name) for name in sorted({*self.files, "meta.json"})}
            manifest = {"format": FORMAT, "agent_steps": self.agent_steps, "files": listed}
            _write_json(self.path / "manifest.json", manifest)
            _sync(self.path)
            target = self.path.with_name(name or f"{self.agent_steps:012d}")
            if target.exists():
                os.replace(target, self.path.with_name(f".old-{target.name}"))
            os.replace(self.path, target)
            _sync(target.parent)
        _end_replacements(self.run)
        if keep and not name:
            clean(self.run)
            _prune(target, keep)
        return target

    def abort(self) -> None:
        """Remove the draft; harmless when it is gone already."""
        shutil.rmtree(self.path, ignore_errors=True)

    @contextlib.contextmanager
    def _abort_on_error(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self.abort()
            raise


def begin(run: Path, agent_steps: int) -> Draft:
    """Start a checkpoint of ``run`` at ``agent_steps``; removes what killed writers left. One draft at a time.

    CheckpointError where the run's folder is gone: it is not made anew, as checkpoints alone cannot be resumed from.
    """
    path = Path(run) / "checkpoints" / f".tmp-{agent_steps:012d}"
    with _explained(path, 0):
        path.parent.mkdir(exist_ok=True)
        clean(run)
        path.mkdir()
    return Draft(Path(run), agent_steps, path)


def save(run: Path, agent_steps: int, parts: Mapping[str, Arrays], meta: Mapping[str, Any], *, keep: int) -> Path:
    """Write a whole checkpoint from one process: ``begin``, ``Draft.write`` for each part, ``Draft.commit``."""
    draft = begin(run, agent_steps)
    for part, arrays in parts.items():
        draft.write(part, arrays)
    return draft.commit(meta, keep)


def clean(run: Path) -> None:
    """Remove drafts of killed writers, and end a replacement that was cut short. Only the run's writer may call it."""
    for path in sorted((Path(run) / "checkpoints").glob(".tmp-*")):
        _remove(path)
    _end_replacements(run)


def _end_replacements(run: Path) -> None:
    for path in sorted((Path(run) / "checkpoints").glob(".old-*")):
        target = path.with_name(path.name.removeprefix(".old-"))
        if target.exists():
            _remove(path)
        else:
            os.replace(path, target)


def write_part(folder: Path, part: str, arrays: Arrays) -> list[Path]:
    """Write one part into a draft's folder, fsynced, and return its files. CheckpointError if the disk is full."""
    if not _PART.fullmatch(part):
        raise CheckpointError(f"part name {part!r} is not allowed; use letters, digits, '-' and '_'")
    file = folder / f"{part}.safetensors"
    files, tensors, npy, from_numpy = [file], dict[str, Tensor](), dict[str, str](), list[str]()
    with _explained(file, sum(array.nbytes for array in arrays.values())):
        for name, array in arrays.items():
            if isinstance(array, np.ndarray) and array.nbytes >= LARGE_BYTES:
                files.append(folder / f"{part}.{len(npy)}.npy")
                npy[name] = files[-1].name
                np.save(files[-1], array, allow_pickle=False)
                continue
            if isinstance(array, np.ndarray):
                from_numpy.append(name)
            tensors[name] = _plain(part, name, array)
        described = json.dumps({"numpy": from_numpy, "npy": npy})
        save_file(tensors, file, metadata={"part": described})
        for written in files:
            _sync(written)
    return files


def _plain(part: str, name: str, array: Array) -> Tensor:
    """A dense CPU tensor that shares no memory with another entry (safetensors refuses aliases)."""
    if isinstance(array, Tensor):
        return array.detach().to("cpu", copy=True).contiguous()
    try:
        return torch.from_numpy(np.array(array, order="C"))
    except TypeError as error:
        raise CheckpointError(f"{part}: array {name!r} has dtype {array.dtype}, not numbers or bool") from error


def _describe(file: Path) -> dict[str, Any]:
    with safe_open(file, framework="pt") as opened:
        described: dict[str, Any] = json.loads(opened.metadata()["part"])
    for name in described["npy"].values():
        if Path(name).name != name or not (file.parent / name).is_file():
            raise ValueError(f"{name} is missing")
    return described


def _prune(latest: Path, keep: int) -> None:
    """Remove checkpoints older than the ``keep`` newest complete ones. Any newer than ``latest`` is a broken one."""
    steps = int(latest.name)
    whole = (path for path in latest.parent.iterdir() if FOLDER.fullmatch(path.name) and path.name.isdecimal())
    older = {int(path.name): path for path in whole if int(path.name) < steps}
    kept = 1
    for _, path in sorted(older.items(), reverse=True):
        if kept < keep:
            kept += _sizes_agree(path)
            continue
        doomed = path.with_name(f".tmp-{path.name}")
        os.replace(path, doomed)  # a writer killed in the middle of the removal must not leave half a checkpoint
        _remove(doomed)


def _remove(path: Path) -> None:
    """Remove a folder, or what somebody else put in its place; what cannot be removed stays."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
        return
    with contextlib.suppress(OSError):
        path.unlink()


def _sizes_agree(path: Path) -> bool:
    try:
        verified(path, only=())
    except CheckpointError:
        return False
    return True


def _link(source: Path, target: Path) -> None:
    """The same file under another name; a copy where the disk has no links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
        _sync(target)


def _fingerprint(file: Path) -> dict[str, Any]:
    return {"size": file.stat().st_size, "sha256": sha256(file)}


def _write_json(file: Path, content: Any) -> None:
    file.write_text(json.dumps(content, indent=1))
    _sync(file)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def _explained(path: Path, needed: int) -> Iterator[None]:
    """Turn the operating system's errors into one clear line; refuse at once what cannot fit."""
    parent = next(folder for folder in (path, *path.parents) if folder.is_dir())
    free = shutil.disk_usage(parent).free
    try:
        if needed > free:
            raise OSError("not enough room on the disk")
        yield
    except (OSError, SafetensorError) as error:
        if not path.parent.is_dir() or getattr(error, "errno", None) == errno.ENOENT:
            raise CheckpointError(
                f"cannot write {path}: its folder was removed or moved while the run was at work; nothing is saved"
            ) from error
        if getattr(error, "errno", None) in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise CheckpointError(
                f"cannot write {path}: {error}; earlier checkpoints are untouched: make the folder writable"
            ) from error
        free = shutil.disk_usage(parent).free if parent.is_dir() else free
        room = f"needs {needed / 2**20:.1f} MiB, {free / 2**20:.1f} MiB free"
        raise CheckpointError(
            f"cannot write {path}: {error}; {room}; earlier checkpoints are untouched: "
            "make room, or lower checkpoint.keep or checkpoint.max_replay_gb"
        ) from error
