"""Action traces as files: one evaluation each, small, and safe to read whoever wrote them.

A file is ``MAGIC``; four sizes, little-endian (format, bytes of the packed head, of the head, of the packed body); the
head, JSON packed by zlib; the body, arrays one behind the other, packed by zlib; and the sha256 of it all unpacked. The
head holds facts (plain data), what the arrays are called and look like, and marks: the beginning of a hash of each fact
and each array, by which a reader can say what was changed in a file whose sha256 does not fit.

Nothing in a file is believed before it was compared: no size is larger than what is allowed, and nothing is unpacked
beyond the size that the file itself says. Whatever is wrong becomes a ``TraceError`` of one line.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import stat
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from offbeat.errors import UserError, in_short

MAGIC = b"offbeat actions\n"
FORMAT = 1
"""Version of the file's layout; a reader refuses any other."""
SUFFIX = ".trace"
"""What names of trace files end in."""
FOLDER = "traces"
"""Folder of a run that holds its action traces."""
MOST_HEAD = 1 << 20
"""No head is longer. Unit: bytes."""
MOST_BODY = 128 << 20
"""Nor are all arrays of a file together. Unit: bytes."""
MOST_ARRAYS = 32
DTYPES = ("uint8", "uint16", "uint32", "int32", "int64", "float32", "float64")
"""What arrays may be of, little-endian."""

_SIZES = struct.Struct("<IIIQ")
_DIGEST = hashlib.sha256().digest_size


@dataclass(frozen=True)
class Trace:
    """What a file holds."""

    facts: dict[str, Any]
    """Plain data, as JSON can hold it."""
    arrays: dict[str, np.ndarray]
    """Name -> array; read-only where they were read."""
    content: str = ""
    """sha256 of all that, in hexadecimal."""


class TraceError(UserError):
    """A file is no action trace, or was damaged or changed; the message says what is wrong."""

    def __init__(self, text: str, trace: Trace | None = None) -> None:
        super().__init__(text)
        self.trace = trace
        """What could be read of it all the same."""


def pack(facts: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> bytes:
    """A file's bytes. TraceError where the arrays are larger than a reader takes, ValueError for what is no number."""
    plain = {name: _little(name, array) for name, array in arrays.items()}
    shapes = [[name, array.dtype.name, list(array.shape)] for name, array in plain.items()]
    marks = {name: _mark(value) for name, value in _parts(facts, plain)}
    head = _json({"facts": dict(facts), "arrays": shapes, "marks": marks})
    body = b"".join(array.tobytes() for array in plain.values())
    if len(head) > MOST_HEAD or len(body) > MOST_BODY or len(plain) > MOST_ARRAYS:
        raise TraceError(
            f"a trace of {len(plain)} arrays, {len(head):,} bytes of facts and {len(body):,} of arrays is too large: "
            f"{MOST_ARRAYS}, {MOST_HEAD:,} and {MOST_BODY:,} are allowed; play fewer episodes"
        )
    packed = zlib.compress(head, 9), zlib.compress(body, 9)
    sizes = _SIZES.pack(FORMAT, len(packed[0]), len(head), len(packed[1]))
    return MAGIC + sizes + packed[0] + packed[1] + _digest(head, body)


def unpack(data: bytes, name: str = "the trace") -> Trace:
    """What a file's bytes hold. TraceError, in which ``name`` stands for the file.

    Where only the sha256 does not fit, the error says what was changed, and its ``trace`` is what could be read.
    """
    head, body = _halves(data, name)
    facts, arrays, marks = _contents(head, body, name)
    digest = _digest(head, body)
    trace = Trace(facts, arrays, digest.hex())
    if digest != data[-_DIGEST:]:
        changed = _changed(trace, marks)
        what = ", ".join(changed[:5]) if changed else "something in it, or the hash itself,"
        raise TraceError(f"{name}: its content hash does not fit: {what} changed after it was written", trace)
    return trace


def shown(text: object) -> str:
    """Text out of a file as it may be shown: short, and without what a terminal would obey."""
    plain = in_short(str(text))
    return plain if plain.isprintable() else in_short(ascii(plain))


def write_trace(path: Path, data: bytes) -> Path:
    """Write a file's bytes: whole or not at all, missing folders too. UserError where that cannot be."""
    draft = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.write_bytes(data)
        os.replace(draft, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)
        raise UserError(f"{path} cannot be written: {error.strerror or error}") from error
    return path


def read_trace(path: Path) -> Trace:
    """What the file holds; TraceError says what is wrong with it. Nothing but a regular file is ever opened."""
    try:
        seen = os.stat(path)
        if not stat.S_ISREG(seen.st_mode):
            raise TraceError(f"{path}: it is no file")
        most = len(MAGIC) + _SIZES.size + MOST_HEAD + MOST_BODY + _DIGEST
        if seen.st_size > most:
            raise TraceError(f"{path}: {seen.st_size:,} bytes are no action trace, which has {most:,} at most")
        with open(path, "rb") as opened:
            data = opened.read(most)
    except OSError as error:
        raise TraceError(f"{path}: cannot be read ({error.strerror or error})") from error
    return unpack(data, str(path))


def _halves(data: bytes, name: str) -> tuple[bytes, bytes]:
    """Head and body, unpacked."""
    at = len(MAGIC) + _SIZES.size
    if not data.startswith(MAGIC):
        raise TraceError(f"{name}: it is no action trace: it does not begin as one")
    if len(data) < at + _DIGEST:
        raise TraceError(f"{name}: it is cut short: {len(data)} bytes")
    version, packed_head, head, packed_body = _SIZES.unpack(data[len(MAGIC) : at])
    if version != FORMAT:
        raise TraceError(f"{name}: format {version} is not {FORMAT}; read it with the offbeat that wrote it")
    whole = at + packed_head + packed_body + _DIGEST
    if whole != len(data):
        raise TraceError(f"{name}: it has {len(data):,} bytes where its sizes say {whole:,}")
    if head > MOST_HEAD:
        raise TraceError(f"{name}: a head of {head:,} bytes; {MOST_HEAD:,} are allowed")
    middle = at + packed_head
    text = _inflated(data[at:middle], head, f"{name}: its head")
    return text, _inflated(data[middle:-_DIGEST], _body_size(text, name), f"{name}: its body")


def _inflated(packed: bytes, size: int, what: str) -> bytes:
    """``packed``, which must have exactly ``size`` bytes unpacked; never more than one more is made of it."""
    unpacker = zlib.decompressobj()
    try:
        data = unpacker.decompress(packed, size + 1)
    except zlib.error as error:
        raise TraceError(f"{what} is damaged: {error}") from error
    if len(data) != size or not unpacker.eof or unpacker.unused_data:
        raise TraceError(f"{what} is damaged: it does not have the {size:,} bytes that it should")
    return data


def _body_size(head: bytes, name: str) -> int:
    """Bytes of all arrays that the head describes."""
    return sum(math.prod(shape) * np.dtype(dtype).itemsize for _, dtype, shape in _described(head, name)[1])


def _described(head: bytes, name: str) -> tuple[dict[str, Any], list[tuple[str, str, tuple[int, ...]]], dict[str, str]]:
    """Facts, what the arrays look like, and marks, as far as the head can be true."""
    try:
        found = json.loads(head, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise TraceError(f"{name}: its head is damaged: {in_short(str(error))}") from error
    parts = [found.get(part) for part in ("facts", "arrays", "marks")] if isinstance(found, dict) else [None] * 3
    facts, listed, marks = parts
    if not isinstance(facts, dict) or not isinstance(listed, list) or not isinstance(marks, dict):
        raise TraceError(f"{name}: its head is damaged: it lacks facts, arrays or marks")
    if len(listed) > MOST_ARRAYS:
        raise TraceError(f"{name}: {len(listed)} arrays; {MOST_ARRAYS} are allowed")
    arrays, total = list[tuple[str, str, tuple[int, ...]]](), 0
    for entry in listed:
        if not _is_shape(entry) or entry[0] in {known for known, _, _ in arrays}:
            raise TraceError(f"{name}: its head is damaged: {in_short(repr(entry))} describes no array")
        total += math.prod(entry[2]) * np.dtype(entry[1]).itemsize
        if total > MOST_BODY:
            raise TraceError(f"{name}: arrays of more than the {MOST_BODY:,} bytes that are allowed")
        arrays.append((entry[0], entry[1], tuple(entry[2])))
    return facts, arrays, marks


def _is_shape(entry: Any) -> bool:
    """Whether it is [name, dtype, shape] of an array that there may be."""
    if not (isinstance(entry, list) and len(entry) == 3):
        return False
    name, dtype, shape = entry
    if not (isinstance(name, str) and isinstance(dtype, str) and dtype in DTYPES and isinstance(shape, list)):
        return False
    whole = all(type(size) is int and 0 <= size <= MOST_BODY for size in shape)
    return whole and len(shape) <= 8 and math.prod(max(size, 1) for size in shape) <= MOST_BODY


def _contents(head: bytes, body: bytes, name: str) -> tuple[dict[str, Any], dict[str, np.ndarray], dict[str, str]]:
    """Facts, arrays and marks of a head and a body whose sizes fit."""
    facts, listed, marks = _described(head, name)
    arrays, at = dict[str, np.ndarray](), 0
    for key, dtype, shape in listed:
        kind, count = np.dtype(dtype).newbyteorder("<"), math.prod(shape)
        arrays[key] = np.frombuffer(body, kind, count, at).reshape(shape).astype(dtype, copy=False)
        at += count * kind.itemsize
    return facts, arrays, marks


def _refuse_constant(text: str) -> None:
    raise ValueError(f"{text} is no number")


def _little(name: str, array: np.ndarray) -> np.ndarray:
    if array.dtype.name not in DTYPES:
        raise ValueError(f"array {name!r} is of {array.dtype}; allowed are {', '.join(DTYPES)}")
    return np.ascontiguousarray(array, array.dtype.newbyteorder("<")).reshape(array.shape)


def _digest(head: bytes, body: bytes) -> bytes:
    found = hashlib.sha256(MAGIC + _SIZES.pack(FORMAT, 0, len(head), len(body)))
    found.update(head)
    found.update(body)
    return found.digest()


def _changed(trace: Trace, marks: Mapping[str, str]) -> list[str]:
    """Facts and arrays that do not fit their marks, as far as can be told."""
    try:
        return [shown(part) for part, value in _parts(trace.facts, trace.arrays) if marks.get(part) != _mark(value)]
    except (ValueError, RecursionError):  # facts that no writer makes: deeper than any, or larger than a number
        return []


def _parts(facts: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Iterator[tuple[str, Any]]:
    """Every fact, by its dotted name, and every array."""
    for name, value in facts.items():
        if isinstance(value, Mapping):
            yield from ((f"{name}.{key}", item) for key, item in _parts(value, {}))
        else:
            yield name, value
    for name, array in arrays.items():
        yield f"array {name}", array


def _mark(value: Any) -> str:
    data = value.tobytes() if isinstance(value, np.ndarray) else _json(value)
    return hashlib.sha256(data).hexdigest()[:8]


def _json(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
