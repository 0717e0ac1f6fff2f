"""Reading checkpoints, also those that somebody else made or broke; ``checkpoint.py`` says what they consist of.

Nothing in the folder is trusted: what is no regular file is never opened, no header is believed before it was compared
with the file's size, and whatever is wrong becomes a ``CheckpointError`` of one line. A run may save and remove
checkpoints meanwhile: readers then look again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import math
import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from safetensors import safe_open
from torch import Tensor

from offbeat.storage.named import identity, is_named
from offbeat.storage.regular import BROKEN, one_line, open_regular, stat_regular

Array = Tensor | np.ndarray
T = TypeVar("T")

FORMAT = 1
"""Version of the folder's layout; a reader refuses any other."""
WEIGHTS = "weights/"
"""Entries of the part ``learner`` that are network weights have names that start so."""
MOST_LOOKS = 100
"""A reader looks so often at a folder that changes each time, as a run that saves without pause makes it."""
MOST_JSON_BYTES = 16 << 20
"""No manifest and no meta data are as long as this."""
COUNTERS = ("agent_steps", "updates", "frames", "total_frames", "evaluations", "resumes", "version")
"""Meta data of these names, and everything under ``counters``, are whole numbers."""

FOLDER = re.compile(r"(\.old-)?([0-9]{12,})")
"""Names of checkpoints' folders; ``.old-`` where a replacement of the same agent steps was cut short."""
_FILE = re.compile(r"meta\.json|[A-Za-z0-9_-]+(\.safetensors|\.[0-9]+\.npy)")
_NUMPY_DTYPES = {"F64", "F32", "F16", "I64", "I32", "I16", "I8", "U64", "U32", "U16", "U8", "BOOL", "C64"}
_DTYPES = _NUMPY_DTYPES | {"BF16", "F8_E4M3", "F8_E4M3FNUZ", "F8_E5M2", "F8_E5M2FNUZ"}
_log = logging.getLogger(__name__)


class CheckpointError(RuntimeError):
    """A checkpoint could not be written or read; the message names the path, the reason and the remedy."""


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint on disk."""

    path: Path
    agent_steps: int
    manifest: dict[str, Any]
    meta: dict[str, Any]


@dataclass(frozen=True)
class ArrayInfo:
    """What a header says of an array, by the names of safetensors (``F32``) or of NumPy (``float32``)."""

    dtype: str
    shape: tuple[int, ...]


def newest(
    run: Path,
    report: Callable[[str], None] = _log.warning,
    only: Collection[str] | None = None,
    accept: Callable[[Checkpoint], None] | None = None,
) -> Checkpoint | None:
    """The newest complete checkpoint of ``run``, or None.

    A checkpoint is complete if its manifest is there, size and sha256 of each file agree with it, and the files are
    what their names say. Each broken one that is skipped is named to ``report``, with the reason.

    Args:
        run: run folder.
        report: is told of each checkpoint that is skipped.
        only: look into just the files of these parts (sizes of all are still compared), for readers that want no more.
        accept: raises ``CheckpointError`` for a checkpoint that lacks what this reader needs; it is skipped too.
    """
    return _read_newest(Path(run), lambda checkpoint: checkpoint, report, only, accept)


def find(source: Path, only: Collection[str] | None = None) -> Checkpoint:
    """The newest complete checkpoint of the run ``source``, or the one whose folder it is; CheckpointError if none."""
    return _read(source, lambda checkpoint: checkpoint, only, None)


def load(checkpoint: Checkpoint) -> tuple[dict[str, dict[str, Array]], dict[str, Any]]:
    """Every part (part -> name -> array, on the CPU, tensors as tensors and NumPy as NumPy) and the meta data.

    Contents are mapped, and read from disk only when they are touched: a role that wants its own part pays for no
    other. Writing into them changes the copy in memory, never the file.
    """
    with _explained(checkpoint.path):
        return {part: _arrays(checkpoint, part) for part in parts_of(checkpoint)}, checkpoint.meta


def load_weights(source: Path | Checkpoint) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The network's weights (name -> tensor) and the meta data.

    ``source``: a run (its newest checkpoint is read), the folder of a checkpoint, or a checkpoint. CheckpointError if
    there is no complete one.
    """
    return _read(source, _weights, ("learner",), needs_weights)


def parts_of(checkpoint: Checkpoint) -> list[str]:
    """Names of the checkpoint's parts."""
    return [n.removesuffix(".safetensors") for n in checkpoint.manifest["files"] if n.endswith(".safetensors")]


def contents(checkpoint: Checkpoint, part: str) -> dict[str, ArrayInfo]:
    """What ``part`` holds, by its headers alone: name -> dtype and shape; nothing where there is no such part."""
    if part not in parts_of(checkpoint):
        return {}
    with _explained(checkpoint.path):
        return _headers(checkpoint.path, part, checkpoint.manifest["files"])


def needs_weights(checkpoint: Checkpoint) -> None:
    """For ``accept``: CheckpointError where there are no network weights."""
    if not any(name.startswith(WEIGHTS) for name in contents(checkpoint, "learner")):
        raise CheckpointError(f"{checkpoint.path}: there are no network weights in it")


def verified(path: Path, only: Collection[str] | None = None) -> Checkpoint:
    """The checkpoint in ``path``; CheckpointError says what is wrong with it."""
    with _explained(path):
        manifest = _manifest(path)
        files = manifest["files"]
        for name, expected in files.items():
            size = stat_regular(path / name).st_size
            if size != expected["size"]:
                raise CheckpointError(f"{path}: {name} has {size} bytes, the manifest says {expected['size']}")
            wanted = only is None or name == "meta.json" or name.split(".")[0] in only
            if wanted and sha256(path / name) != expected["sha256"]:
                raise CheckpointError(f"{path}: the contents of {name} do not match the manifest's sha256")
        checkpoint = Checkpoint(path, manifest["agent_steps"], manifest, _meta(path))
        for part in parts_of(checkpoint):
            if only is None or part in only:
                _headers(path, part, files)
        return checkpoint


def sha256(file: Path) -> str:
    """Of a file's contents, in hexadecimal."""
    with open_regular(file) as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _read(
    source: Path | Checkpoint,
    read: Callable[[Checkpoint], T],
    only: Collection[str] | None,
    accept: Callable[[Checkpoint], None] | None,
) -> T:
    """``read`` of a checkpoint, the one in a folder, or the newest of a run; CheckpointError if there is none."""
    if isinstance(source, Checkpoint):
        if accept is not None:
            accept(source)
        return read(source)
    if is_named(Path(source)) or os.path.lexists(Path(source) / "manifest.json"):
        for left in reversed(range(MOST_LOOKS)):
            before = identity(Path(source))
            try:
                return _read(verified(Path(source), only), read, only, accept)
            except CheckpointError:
                if not left or identity(Path(source)) == before:
                    raise  # no other one of its name has taken its place meanwhile
    value = _read_newest(Path(source), read, _log.warning, only, accept)
    if value is None:
        raise CheckpointError(f"{source}: no complete checkpoint; expected one in {Path(source) / 'checkpoints'}")
    return value


def _read_newest(
    run: Path,
    read: Callable[[Checkpoint], T],
    report: Callable[[str], None],
    only: Collection[str] | None,
    accept: Callable[[Checkpoint], None] | None,
) -> T | None:
    """``read`` of the newest complete checkpoint, from the top again where the run has changed the folder meanwhile."""
    folder, told = run / "checkpoints", set[str]()
    for _ in range(MOST_LOOKS):
        before = _entries(folder)
        for name in sorted(before, key=_age, reverse=True):
            try:
                checkpoint = verified(folder / name, only)
                if accept is not None:
                    accept(checkpoint)
                value = read(checkpoint)
            except CheckpointError as error:
                if _entries(folder) != before:
                    break
                if name not in told:
                    report(f"skipped a broken checkpoint: {error}")
                told.add(name)
            else:
                if _entries(folder).get(name) == before[name]:
                    return value
                break  # another one of the same agent steps may have taken its place while it was read
        else:
            return None
    raise CheckpointError(f"{folder}: changed each of the {MOST_LOOKS} times that it was read; try again")


def _entries(folder: Path) -> dict[str, tuple[int, int]]:
    """The folders of checkpoints, and what tells each from another one of the same name."""
    try:
        with os.scandir(folder) as found:
            stats = {entry.name: entry.stat(follow_symlinks=False) for entry in found if FOLDER.fullmatch(entry.name)}
    except FileNotFoundError:  # no run, or one that has just removed an entry
        return _entries(folder) if folder.is_dir() else {}
    except NotADirectoryError:
        return {}
    except OSError as error:
        raise CheckpointError(one_line(f"{folder}: cannot be read ({error})")) from error
    return {name: (seen.st_ino, seen.st_ctime_ns) for name, seen in stats.items()}


def _age(name: str) -> tuple[int, bool]:
    """Newer checkpoints have larger ones."""
    return int(name.removeprefix(".old-")), not name.startswith(".old-")


def _manifest(path: Path) -> dict[str, Any]:
    """``manifest.json``, checked all through."""
    manifest = _json(path / "manifest.json")
    if not isinstance(manifest, dict):
        raise CheckpointError(f"{path}: cannot be read (manifest.json is no table of names and values)")
    if manifest.get("format") != FORMAT:
        raise CheckpointError(
            one_line(f"{path}: format {manifest.get('format')!r} is not {FORMAT}; read it with its own version")
        )
    steps, match = manifest.get("agent_steps"), FOLDER.fullmatch(path.name)
    if not _is_count(steps) or (match and steps != int(match[2])):
        raise CheckpointError(one_line(f"{path}: manifest.json is of agent step {steps!r}"))
    files = manifest.get("files")
    if not isinstance(files, dict):
        raise CheckpointError(f"{path}: cannot be read (manifest.json lists no files)")
    for name, expected in files.items():
        if not _FILE.fullmatch(name):
            where = "outside the folder" if "/" in name or name in (".", "..") else "that is of no part"
            raise CheckpointError(one_line(f"{path}: manifest.json names a file {where}: {name!r}"))
        if not (
            isinstance(expected, dict) and _is_count(expected.get("size")) and isinstance(expected.get("sha256"), str)
        ):
            raise CheckpointError(f"{path}: cannot be read (manifest.json gives no size and sha256 of {name})")
    if "meta.json" not in files:
        raise CheckpointError(f"{path}: manifest.json does not list meta.json")
    return manifest


def _meta(path: Path) -> dict[str, Any]:
    """``meta.json``; counters in it are numbers that can be counted on."""
    meta = _json(path / "meta.json")
    counters = meta.get("counters", {}) if isinstance(meta, dict) else None
    if not isinstance(counters, dict):
        raise CheckpointError(f"{path}: cannot be read (meta.json or its counters are no table of names and values)")
    named = [(name, value) for name, value in counters.items()]
    named += [(name, meta[name]) for name in COUNTERS if name in meta]
    for name, value in named:
        if not _is_count(value):
            raise CheckpointError(one_line(f"{path}: meta.json has {value!r} as {name!r}; a whole number is needed"))
    return meta


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _headers(path: Path, part: str, files: Mapping[str, Any]) -> dict[str, ArrayInfo]:
    """Name -> what the headers say; any error where they cannot be true."""
    described, found = _described(path, part, files), dict[str, ArrayInfo]()
    for name, npy in described["npy"].items():
        array = _map_npy(path / npy)
        found[name] = ArrayInfo(array.dtype.name, array.shape)
    with safe_open(path / f"{part}.safetensors", framework="pt") as opened:
        for name in opened.keys():  # noqa: SIM118, it is no dict
            header = opened.get_slice(name)
            info = ArrayInfo(header.get_dtype(), tuple(header.get_shape()))
            allowed = _NUMPY_DTYPES if name in described["numpy"] else _DTYPES
            if info.dtype not in allowed or name in found:
                raise ValueError(f"{part}.safetensors: {name!r} is of dtype {info.dtype}, or there twice")
            found[name] = info
    return found


def _described(path: Path, part: str, files: Mapping[str, Any]) -> dict[str, Any]:
    """What ``write_part`` noted in the header: which entries are NumPy's, and which lie in files of their own."""
    stat_regular(path / f"{part}.safetensors")
    with safe_open(path / f"{part}.safetensors", framework="pt") as opened:
        described = json.loads((opened.metadata() or {})["part"])
    if not (isinstance(described, dict) and isinstance(described["numpy"], list)):
        raise ValueError(f"{part}.safetensors: its header does not describe a part")
    for name in described["npy"].values():
        if name not in files:
            raise ValueError(f"{part}.safetensors: {name!r} is missing")
        stat_regular(path / name)
    return described


def _arrays(checkpoint: Checkpoint, part: str) -> dict[str, Array]:
    """The arrays of one part, mapped."""
    path = checkpoint.path
    described = _described(path, part, checkpoint.manifest["files"])
    arrays: dict[str, Array] = {name: _map_npy(path / npy) for name, npy in described["npy"].items()}
    with safe_open(path / f"{part}.safetensors", framework="pt") as opened:
        for name in opened.keys():  # noqa: SIM118, it is no dict
            tensor = opened.get_tensor(name)
            arrays[name] = tensor.numpy() if name in described["numpy"] else tensor
    return arrays


def _weights(checkpoint: Checkpoint) -> tuple[dict[str, Tensor], dict[str, Any]]:
    with _explained(checkpoint.path), safe_open(checkpoint.path / "learner.safetensors", framework="pt") as opened:
        names = [name for name in opened.keys() if name.startswith(WEIGHTS)]  # noqa: SIM118, it is no dict
        return {name.removeprefix(WEIGHTS): opened.get_tensor(name) for name in names}, checkpoint.meta


def _map_npy(file: Path) -> np.ndarray:
    """The array in an .npy file, mapped; never pickled, never larger than the file."""
    with open_regular(file) as opened:
        version = np.lib.format.read_magic(opened)
        read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
        shape, fortran, dtype = read(opened)
        offset, size = opened.tell(), os.fstat(opened.fileno()).st_size
    if dtype.kind not in "biufc":
        raise ValueError(f"{file.name} holds dtype {dtype}, not numbers or bool")
    if min(shape, default=0) < 0 or offset + math.prod(shape) * dtype.itemsize != size:
        raise ValueError(f"{file.name} is no array of shape {list(shape)}")
    return np.memmap(file, dtype, "c", offset, shape, "F" if fortran else "C")


def _json(file: Path) -> Any:
    with open_regular(file) as opened:
        text = opened.read(MOST_JSON_BYTES + 1)
    if len(text) > MOST_JSON_BYTES:
        raise ValueError(f"{file.name} is longer than {MOST_JSON_BYTES >> 20} MiB")
    return json.loads(text)


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn whatever a broken file raises into one line."""
    try:
        yield
    except CheckpointError:
        raise
    except FileNotFoundError as error:
        raise CheckpointError(one_line(f"{path}: {Path(str(error.filename)).name} is missing")) from error
    except BROKEN as error:
        reason = f"{type(error).__name__}: {error}" if isinstance(error, (KeyError, RecursionError)) else str(error)
        raise CheckpointError(one_line(f"{path}: cannot be read ({reason or type(error).__name__})")) from error
