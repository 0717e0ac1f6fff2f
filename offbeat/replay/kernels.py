"""Compiled inner loops over bytes of frames: four single frames become one stack whose channels lie side by side.

A stack is written as one 32-bit word per pixel, the oldest frame in the lowest byte, so that in memory (little-endian)
it is an image [H, W, 4]: the layout in which convolutions are fastest.

Large batches are written past the caches (non-temporal stores): they would push everything else out, and each line
would be read before it is written. Frames are asked for one stack before they are needed, because where the next one
lies is known and processors do not guess across pages.

Both are instructions that numba has no words for and does not promise to take: they are tried once on a small stack,
and where they fail a loop of plain words stands in.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any, cast

import numba
import numpy as np
from llvmlite import ir
from numba.extending import intrinsic

from offbeat.algorithms.compiling import compiled
from offbeat.errors import failure

DEPTH = 4
"""Frames per stack that these loops know."""
PIECE = 16
"""Pixels that are woven at a time: their bytes fill one vector register on every machine."""
LINE = 64
"""Bytes of a cache line; arrays that ``empty_words`` gives begin on one."""
LARGE = 4 * 2**20
"""Bytes of stacks from which on they are written past the caches: what a core has of its own is smaller."""
LITTLE_ENDIAN = sys.byteorder == "little"


def _inline(function: Callable[..., Any]) -> Callable[..., None]:
    """What compiled code calls to have instructions put in its place; ``function`` gives their signature and maker."""
    made: Any = intrinsic(function)
    return cast("Callable[..., None]", made)


def _instructions(addresses: int, write: Callable[[Any, Any], Any]) -> tuple[Any, Any]:
    """For ``_inline``: what ``write`` (builder, values) adds, given so many addresses."""

    def generate(context: Any, builder: Any, _: Any, values: Any) -> Any:
        write(builder, values)
        return context.get_dummy_value()

    return numba.types.void(*[numba.types.intp] * addresses), generate


def _weave(builder: Any, values: Any, past_caches: bool) -> None:
    """PIECE words at ``to`` from the pixels of four frames; all five are addresses."""
    *frames, to = values
    vector = ir.VectorType(ir.IntType(8), PIECE)
    pixels = [builder.load(builder.inttoptr(frame, vector.as_pointer()), align=1) for frame in frames]
    pairs = ir.VectorType(ir.IntType(16), PIECE // 2)
    at = 0
    for half in range(2):
        older = builder.bitcast(_zip(builder, pixels[0], pixels[1], half, PIECE), pairs)
        newer = builder.bitcast(_zip(builder, pixels[2], pixels[3], half, PIECE), pairs)
        for quarter in range(2):
            place = builder.add(to, ir.Constant(to.type, at))
            words = _zip(builder, older, newer, quarter, PIECE // 2)
            pointer = builder.inttoptr(place, pairs.as_pointer())
            stored = builder.store(words, pointer, align=PIECE if past_caches else 1)
            if past_caches:
                stored.set_metadata("nontemporal", builder.module.add_metadata([ir.Constant(ir.IntType(32), 1)]))
            at += PIECE


def _zip(builder: Any, left: Any, right: Any, half: int, count: int) -> Any:
    """One half of what ``left`` and ``right`` [count] are together when their elements alternate."""
    order = [side * count + half * count // 2 + k for k in range(count // 2) for side in range(2)]
    return builder.shuffle_vector(left, right, ir.Constant(ir.VectorType(ir.IntType(32), count), order))


def _prefetch(builder: Any, values: Any) -> None:
    """Ask for the cache line at an address; any address may be asked for."""
    pointer, number = ir.IntType(8).as_pointer(), ir.IntType(32)
    kind = ir.FunctionType(ir.VoidType(), [pointer, number, number, number])
    ask = builder.module.declare_intrinsic("llvm.prefetch", [pointer], kind)
    to_read, to_level_2, data = number(0), number(2), number(1)
    builder.call(ask, [builder.inttoptr(values[0], pointer), to_read, to_level_2, data])


@_inline
def _weave_cached(_: Any, first: Any, second: Any, third: Any, last: Any, to: Any) -> Any:
    """``_weave`` through the caches."""
    return _instructions(DEPTH + 1, lambda builder, values: _weave(builder, values, False))


@_inline
def _weave_past(_: Any, first: Any, second: Any, third: Any, last: Any, to: Any) -> Any:
    """``_weave`` past the caches; ``to`` lies on PIECE bytes."""
    return _instructions(DEPTH + 1, lambda builder, values: _weave(builder, values, True))


@_inline
def _prefetch_line(_: Any, at: Any) -> Any:
    """Ask for the cache line at an address."""
    return _instructions(1, _prefetch)


@_inline
def _finish_writes(_: Any) -> Any:
    """What was written past the caches is there before anything that is written from now on."""
    return _instructions(0, lambda builder, _values: builder.fence("seq_cst"))


@compiled
def push_frame(stack: np.ndarray, frame: np.ndarray, start: np.ndarray, repeat: bool) -> None:
    """Drop the oldest frames of ``stack`` [n, P] uint32 and add ``frame`` [n, P] uint8.

    Where ``start`` [n] the stack then holds only ``frame``: four times if ``repeat``, else after three black ones.
    """
    for i in range(stack.shape[0]):
        if start[i]:
            spread = np.uint32(0x01010101) if repeat else np.uint32(0x01000000)
            for p in range(stack.shape[1]):
                stack[i, p] = np.uint32(frame[i, p]) * spread
        else:
            for p in range(stack.shape[1]):
                stack[i, p] = (stack[i, p] >> np.uint32(8)) | (np.uint32(frame[i, p]) << np.uint32(24))


def empty_words(*shape: int) -> np.ndarray:
    """An array [*shape] uint32 that begins on a cache line, for ``gather_stacks`` to write to."""
    count = int(np.prod(shape))
    memory = np.empty(count + LINE // 4, np.uint32)
    skip = -memory.ctypes.data % LINE // 4
    return memory[skip : skip + count].reshape(shape)


def gather_stacks(
    frames: np.ndarray,
    ring: int,
    stream: np.ndarray,
    row: np.ndarray,
    age: np.ndarray,
    black: bool,
    out: np.ndarray,
    begin: int,
    end: int,
) -> None:
    """``out`` [T, B, P] uint32 = the stacks shown at ``row`` [T, B] int64 of ``stream`` [B] int64, oldest frame lowest;
    those of the items ``begin`` to ``end`` (exclusive) among B, the others stay as they are.

    ``frames`` [streams * ring, P] uint8 holds the streams' rings one after the other, row t at t % ring. ``age`` [T, B]
    counts rows since the episode's first one; frames before that are black if ``black``, else the first one.
    """
    if missing():
        _gather_words(frames, ring, stream, row, age, black, out, begin, end)
    else:
        _gather_vectors(frames, ring, stream, row, age, black, out, begin, end, LARGE)


@functools.cache
def missing() -> str:
    """Why stacks cannot be written in whole vectors here; empty if they can."""
    return failure(_agrees)


def _agrees() -> bool:
    """Whether a small stack is right, through the caches and past them."""
    pixels = LINE + PIECE + PIECE // 4  # whole vectors, and a few words that are left
    frames = (np.arange(DEPTH * pixels) % 251).astype(np.uint8).reshape(DEPTH, pixels)
    right = np.ascontiguousarray(frames.T).view(np.uint32).ravel()
    stream, rows = np.zeros(2, np.int64), np.full((1, 2), DEPTH - 1)
    for large in (LARGE, 0):
        words = empty_words(1, 2, pixels)
        words.fill(0)  # memory may hold the right words of before
        _gather_vectors(frames, DEPTH, stream, rows, rows, False, words, 0, 2, large)
        if not (words == right).all():
            return False
    return True


@compiled
def _gather_words(
    frames: np.ndarray,
    ring: int,
    stream: np.ndarray,
    row: np.ndarray,
    age: np.ndarray,
    black: bool,
    out: np.ndarray,
    begin: int,
    end: int,
) -> None:
    """``gather_stacks`` word by word."""
    nothing, found = np.zeros(frames.shape[1], np.uint8), np.empty(DEPTH, np.int64)
    for b in range(begin, end):
        for t in range(row.shape[0]):
            _find_frames(len(frames), ring, stream[b], row[t, b], age[t, b], black, found)
            _write_words(frames, nothing, found, out[t, b], 0)


@compiled
def _gather_vectors(
    frames: np.ndarray,
    ring: int,
    stream: np.ndarray,
    row: np.ndarray,
    age: np.ndarray,
    black: bool,
    out: np.ndarray,
    begin: int,
    end: int,
    large: int,
) -> None:
    """``gather_stacks`` in vectors; past the caches where ``out`` has ``large`` bytes or more."""
    if begin >= end:
        return
    steps = row.shape[0]
    nothing = np.zeros(frames.shape[1], np.uint8)
    aligned = out.ctypes.data % PIECE == 0 and frames.shape[1] % (PIECE // 4) == 0
    past_caches = aligned and out.size * 4 >= large
    here, ahead = np.empty(DEPTH, np.int64), np.empty(DEPTH, np.int64)
    _find_frames(len(frames), ring, stream[begin], row[0, begin], age[0, begin], black, ahead)
    for i in range(begin * steps, end * steps):  # item by item: the stacks of one share frames
        here[:] = ahead
        if i + 1 < end * steps:
            t, b = (i + 1) % steps, (i + 1) // steps
            _find_frames(len(frames), ring, stream[b], row[t, b], age[t, b], black, ahead)
        _write_stack(frames, nothing, here, ahead, out[i % steps, i // steps], past_caches)
    _finish_writes()


@compiled
def _find_frames(count: int, ring: int, stream: int, row: int, age: int, black: bool, found: np.ndarray) -> None:
    """Where the frames of a stack lie among ``count``, [4] int64, oldest first; -1: a black one."""
    newest = row % ring
    for back in range(DEPTH):
        at = newest - min(back, age)
        if at < 0:
            at += ring
        # rows that are refused afterwards may lie anywhere
        at = min(max(stream * ring + at, 0), count - 1)
        found[DEPTH - 1 - back] = -1 if black and back > age else at


@compiled
def _write_stack(
    frames: np.ndarray, nothing: np.ndarray, here: np.ndarray, ahead: np.ndarray, out: np.ndarray, past_caches: bool
) -> None:
    """``out`` [P] = the stack of the frames ``here`` [4]; meanwhile ask for the frames ``ahead`` [4]."""
    size, start, zeros = frames.shape[1], frames.ctypes.data, nothing.ctypes.data
    first = start + here[0] * size if here[0] >= 0 else zeros
    second = start + here[1] * size if here[1] >= 0 else zeros
    third = start + here[2] * size if here[2] >= 0 else zeros
    last, to = start + here[3] * size, out.ctypes.data
    whole = size - size % PIECE
    for line in range(0, whole, LINE):
        for k in range(DEPTH):
            _prefetch_line(start + ahead[k] * size + line)
        for p in range(line, min(line + LINE, whole), PIECE):
            if past_caches:
                _weave_past(first + p, second + p, third + p, last + p, to + 4 * p)
            else:
                _weave_cached(first + p, second + p, third + p, last + p, to + 4 * p)
    _write_words(frames, nothing, here, out, whole)


@compiled
def _write_words(frames: np.ndarray, nothing: np.ndarray, found: np.ndarray, out: np.ndarray, first_pixel: int) -> None:
    """``out`` [P] from ``first_pixel`` on = the stack of the frames ``found`` [4]."""
    first = frames[found[0]] if found[0] >= 0 else nothing
    second = frames[found[1]] if found[1] >= 0 else nothing
    third = frames[found[2]] if found[2] >= 0 else nothing
    last = frames[found[3]]
    for p in range(first_pixel, len(out)):
        older = np.uint32(first[p]) | (np.uint32(second[p]) << np.uint32(8))
        newer = (np.uint32(third[p]) << np.uint32(16)) | (np.uint32(last[p]) << np.uint32(24))
        out[p] = np.uint32(older | newer)
