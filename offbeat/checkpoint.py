"""Checkpoints: safetensors, JSON and .npy in a folder that is complete or not there.

``RUN/checkpoints/<agent steps, 12 digits>/`` holds for each *part* (``learner``, ``streams``, ``actor-0``, ...) one
``<part>.safetensors`` and, for large NumPy arrays, ``<part>.<i>.npy`` (never pickled); ``meta.json``; and
``manifest.json`` with size and sha256 of every file, written last. All of it is written to ``.tmp-<agent steps>``
beside the others, fsynced, and then renamed once. What the parts mean is the callers' business; one convention only:
entries ``weights/<name>`` of the part ``learner`` are the network's weights, see ``load_weights``.

Streams are saved whole: the cost of a checkpoint grows with the replay, not with what is new in it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

Array = Tensor | np.ndarray
Arrays = Mapping[str, Array]

FORMAT = 1
"""Version of the folder's layout; a reader refuses any other."""
WEIGHTS = "weights/"
"""Entries of the part ``learner`` that are network weights have names that start so."""
LARGE_BYTES = 64 << 20
"""NumPy arrays from this size on get an .npy file of their own, which is written without a second copy in memory."""

_PART = re.compile(r"[A-Za-z0-9_-]+")
_FOLDER = re.compile(r"(\.old-)?([0-9]{12,})")
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CheckpointConfig:
    """When a run is saved and how much of it."""

    every_s: float = 600.0
    """Save after so many seconds; 0: never by time. Not used in deterministic runs."""
    every_updates: int = 0
    """Save after so many learner updates, at the next round boundary; 0: never by count."""
    keep: int = 3
    """Newest checkpoints that are kept."""
    replay: bool = True
    """Save the streams too. Without them a resumed run is not bit-identical."""
    max_replay_gb: float = 8.0
    """Leave the streams out, with a warning, where they are larger than this. Unit: GiB."""


class CheckpointError(RuntimeError):
    """A checkpoint could not be written or read; the message names the path, the reason and the remedy."""


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint on disk."""

    path: Path
    agent_steps: int
    manifest: dict[str, Any]


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

    def commit(self, meta: Mapping[str, Any], keep: int) -> Path:
        """Make the checkpoint visible in one rename, remove all but the ``keep`` (>= 1) newest, and return its folder.

        ``meta`` is anything that JSON can hold. Of two checkpoints at the same agent steps the later one stays.
        """
        with self._abort_on_error(), _explained(self.path, 0):
            strangers = sorted({file.name for file in self.path.iterdir()} - self.files)
            if strangers:
                raise CheckpointError(f"{self.path}: {', '.join(strangers)} belong to parts that were never adopted")
            _write_json(self.path / "meta.json", meta)
            listed = {name: _fingerprint(self.path / name) for name in sorted({*self.files, "meta.json"})}
            manifest = {"format": FORMAT, "agent_steps": self.agent_steps, "files": listed}
            _write_json(self.path / "manifest.json", manifest)
            _sync(self.path)
            target = self.path.with_name(f"{self.agent_steps:012d}")
            if target.exists():
                os.replace(target, self.path.with_name(f".old-{target.name}"))
            os.replace(self.path, target)
            _sync(target.parent)
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
    """Start a checkpoint of ``run`` at ``agent_steps``; removes what killed writers left. One draft at a time."""
    clean(run)
    path = Path(run) / "checkpoints" / f".tmp-{agent_steps:012d}"
    with _explained(path, 0):
        path.mkdir(parents=True)
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
        shutil.rmtree(path, ignore_errors=True)
    for path in sorted((Path(run) / "checkpoints").glob(".old-*")):
        target = path.with_name(path.name.removeprefix(".old-"))
        if target.exists():
            shutil.rmtree(path, ignore_errors=True)
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


def newest(
    run: Path, report: Callable[[str], None] = _log.warning, only: Collection[str] | None = None
) -> Checkpoint | None:
    """The newest complete checkpoint of ``run``, or None.

    A checkpoint is complete if its manifest is there and size and sha256 of each file agree with it. Each broken one
    that is skipped is named to ``report``, with the reason. ``only``: hash just the files of these parts (sizes of all
    are still compared), for readers that want nothing else.
    """
    folder = Path(run) / "checkpoints"
    found = [(path, match) for path in _entries(folder) if (match := _FOLDER.fullmatch(path.name))]
    found.sort(key=lambda entry: (int(entry[1][2]), entry[1][1] is None), reverse=True)
    for path, _ in found:
        try:
            return _verified(path, only)
        except CheckpointError as error:
            report(f"skipped a broken checkpoint: {error}")
    return None


def load(checkpoint: Checkpoint) -> tuple[dict[str, dict[str, Array]], dict[str, Any]]:
    """Every part (part -> name -> array, on the CPU, tensors as tensors and NumPy as NumPy) and the meta data.

    Contents are mapped, and read from disk only when they are touched: a role that wants its own part pays for no
    other. Writing into them changes the copy in memory, never the file.
    """
    parts = {}
    for name in checkpoint.manifest["files"]:
        if name.endswith(".safetensors"):
            parts[name.removesuffix(".safetensors")] = _read_part(checkpoint.path / name)
    return parts, json.loads((checkpoint.path / "meta.json").read_text())


def load_weights(source: Path | Checkpoint) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The network's weights (name -> tensor) and the meta data.

    ``source``: a run (its newest checkpoint is read), the folder of a checkpoint, or a checkpoint. CheckpointError if
    there is no complete one.
    """
    if isinstance(source, Checkpoint):
        checkpoint = source
    elif (Path(source) / "manifest.json").exists():
        checkpoint = _verified(Path(source), only=("learner",))
    else:
        latest = newest(source, only=("learner",))
        if latest is None:
            raise CheckpointError(f"{source}: no complete checkpoint; expected one in {Path(source) / 'checkpoints'}")
        checkpoint = latest
    with safe_open(checkpoint.path / "learner.safetensors", framework="pt") as file:
        names = [name for name in file.keys() if name.startswith(WEIGHTS)]  # noqa: SIM118, it is no dict
        weights = {name.removeprefix(WEIGHTS): file.get_tensor(name) for name in names}
    return weights, json.loads((checkpoint.path / "meta.json").read_text())


def _entries(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []


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


def _read_part(file: Path) -> dict[str, Array]:
    described = _describe(file)
    arrays: dict[str, Array] = {
        name: np.load(file.parent / npy, mmap_mode="c", allow_pickle=False) for name, npy in described["npy"].items()
    }
    with safe_open(file, framework="pt") as opened:
        for name in opened.keys():  # noqa: SIM118, it is no dict
            tensor = opened.get_tensor(name)
            arrays[name] = tensor.numpy() if name in described["numpy"] else tensor
    return arrays


def _verified(path: Path, only: Collection[str] | None = None) -> Checkpoint:
    """The checkpoint in ``path``; CheckpointError says what is wrong with it."""
    try:
        manifest = json.loads((path / "manifest.json").read_text())
        if manifest["format"] != FORMAT:
            raise CheckpointError(f"{path}: format {manifest['format']} is not {FORMAT}; read it with its own version")
        if manifest["agent_steps"] != int(path.name.removeprefix(".old-")):
            raise CheckpointError(f"{path}: manifest.json is of agent step {manifest['agent_steps']}")
        files = dict(manifest["files"])
        if "meta.json" not in files:
            raise CheckpointError(f"{path}: manifest.json does not list meta.json")
        for name, expected in files.items():
            if Path(name).name != name:
                raise CheckpointError(f"{path}: manifest.json names a file outside the folder: {name!r}")
            size = (path / name).stat().st_size
            if size != expected["size"]:
                raise CheckpointError(f"{path}: {name} has {size} bytes, the manifest says {expected['size']}")
            wanted = only is None or name == "meta.json" or name.split(".")[0] in only
            if wanted and _sha256(path / name) != expected["sha256"]:
                raise CheckpointError(f"{path}: the contents of {name} do not match the manifest's sha256")
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: {Path(str(error.filename)).name} is missing") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error})") from error
    return Checkpoint(path, manifest["agent_steps"], manifest)


def _prune(latest: Path, keep: int) -> None:
    """Remove checkpoints older than the ``keep`` newest complete ones. Any newer than ``latest`` is a broken one."""
    steps = int(latest.name)
    older = {int(path.name): path for path in _entries(latest.parent) if path.name.isdigit() and int(path.name) < steps}
    kept = 1
    for _, path in sorted(older.items(), reverse=True):
        if kept < keep:
            kept += _sizes_agree(path)
            continue
        doomed = path.with_name(f".tmp-{path.name}")
        os.replace(path, doomed)  # a writer killed in the middle of the removal must not leave half a checkpoint
        shutil.rmtree(doomed, ignore_errors=True)


def _sizes_agree(path: Path) -> bool:
    try:
        _verified(path, only=())
    except CheckpointError:
        return False
    return True


def _fingerprint(file: Path) -> dict[str, Any]:
    return {"size": file.stat().st_size, "sha256": _sha256(file)}


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


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
        free = shutil.disk_usage(parent).free if parent.is_dir() else free
        room = f"needs {needed / 2**20:.1f} MiB, {free / 2**20:.1f} MiB free"
        raise CheckpointError(
            f"cannot write {path}: {error}; {room}; earlier checkpoints are untouched: "
            "make room, or lower checkpoint.keep or checkpoint.max_replay_gb"
        ) from error
