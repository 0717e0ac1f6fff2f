"""Frame stacks: built frame by frame while acting, rebuilt from single frames while reading, always the same stack.

Four grey frames of bytes, the common case, are kept with their channels side by side in memory (see ``kernels``); what
is handed out is [n, 4, H, W] in either case.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np

from offbeat.replay import kernels
from offbeat.replay.layout import StreamLayout
from offbeat.types import ArrayDict, ArraySpec, EnvSpec


class FrameStacker:
    """The newest frames of ``n`` environments, joined along axis 0, oldest first; never across an episode start.

    Stacks that ``push`` hands out are for reading, and only until the next ``push``.
    """

    def __init__(self, spec: StreamLayout | EnvSpec, n: int) -> None:
        self.frame_stack = spec.frame_stack
        self.stack_padding: Literal["zero", "repeat"] = spec.stack_padding
        keys = spec.stacked if spec.frame_stack > 1 else ()
        self._shapes = {
            key: spec.observation[key].shape for key in keys if packs(spec.observation[key], spec.frame_stack)
        }
        self._words = {key: np.zeros((n, shape[1] * shape[2]), np.uint32) for key, shape in self._shapes.items()}
        plain = [key for key in keys if key not in self._words]
        self._frames = {key: _deep(spec.observation[key], spec.frame_stack).zeros(n) for key in plain}
        self._fresh, self._any_fresh = np.ones(n, bool), True
        self._everyone = np.arange(n)

    def push(self, ids: np.ndarray, observation: Mapping[str, np.ndarray], first: np.ndarray) -> ArrayDict:
        """Add one frame for each of ``ids`` [k]; observations as networks see them, name -> [k, ...].

        ``observation`` holds single frames [k, ...], ``first`` [k] bool says which start an episode. An environment's
        very first frame counts as a start.
        """
        seen = dict(observation)
        if not self._words and not self._frames:
            self._met(ids)
            return seen
        start = np.asarray(first, bool) | self._fresh[ids]
        self._met(ids)
        for key in self._words:
            seen[key] = self._push_words(key, ids, observation[key], start)
        for key, frames in self._frames.items():
            frame = observation[key]
            channels = frame.shape[1]
            stack = np.empty((len(ids), *frames.shape[1:]), frames.dtype)
            stack[:, :-channels] = frames[ids, channels:]
            stack[:, -channels:] = frame
            if start.any():
                stack[start, :-channels] = 0
                if self.stack_padding == "repeat":
                    repeats = (1, self.frame_stack) + (1,) * (frame.ndim - 2)
                    stack[start] = np.tile(frame[start], repeats)
            frames[ids] = stack
            seen[key] = stack
        return seen

    def _met(self, ids: np.ndarray) -> None:
        """These environments have shown a frame."""
        if self._any_fresh:
            self._fresh[ids] = False
            self._any_fresh = bool(self._fresh.any())

    def _push_words(self, key: str, ids: np.ndarray, frame: np.ndarray, start: np.ndarray) -> np.ndarray:
        words, shape = self._words[key], self._shapes[key]
        frame = np.ascontiguousarray(frame).reshape(len(ids), -1)
        everyone = np.array_equal(ids, self._everyone)
        stack = words if everyone else words[ids]
        kernels.push_frame(stack, frame, start, self.stack_padding == "repeat")
        if not everyone:
            words[ids] = stack
        return unpack(stack, shape)

    def state(self) -> ArrayDict:
        """The frames held, for a checkpoint."""
        held = {key: unpack(words, self._shapes[key]) for key, words in self._words.items()} | self._frames
        return {"fresh": self._fresh.copy()} | {f"frames/{key}": np.array(frames) for key, frames in held.items()}

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Go back to a saved ``state``."""
        self._fresh[:], self._any_fresh = state["fresh"], True
        for key, frames in self._frames.items():
            frames[:] = state[f"frames/{key}"]
        for key, words in self._words.items():
            unpack(words, self._shapes[key])[:] = state[f"frames/{key}"]


def stack_rows(row: np.ndarray, age: np.ndarray, frame_stack: int) -> tuple[np.ndarray, np.ndarray]:
    """Which rows make up the stack shown at ``row`` [...]: rows, oldest first, and padding, both [..., frame_stack].

    ``age`` [...] counts rows since the episode's first one. Where ``padding`` is True there was no such frame: the row
    given there is the episode's first.
    """
    back = np.arange(frame_stack - 1, -1, -1)
    age = age[..., None]
    return row[..., None] - np.minimum(back, age), back > age


def packs(spec: ArraySpec, frame_stack: int) -> bool:
    """Whether stacks of such frames are kept as one 32-bit word per pixel: four grey images of bytes."""
    grey = spec.dtype == "uint8" and len(spec.shape) == 3 and spec.shape[0] == 1
    return grey and frame_stack == kernels.DEPTH and kernels.LITTLE_ENDIAN


def unpack(words: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Words [..., P] of frames of ``shape`` [1, H, W] as stacks [..., 4, H, W] over the same memory."""
    pixels: np.ndarray = words.view(np.uint8).reshape(*words.shape[:-1], *shape[1:], kernels.DEPTH)
    return np.moveaxis(pixels, -1, -3)


def _deep(spec: ArraySpec, frame_stack: int) -> ArraySpec:
    """The spec of ``frame_stack`` frames joined along axis 0."""
    return ArraySpec((spec.shape[0] * frame_stack, *spec.shape[1:]), spec.dtype)
