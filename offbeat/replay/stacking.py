"""Frame stacks: built frame by frame while acting, rebuilt from single frames while reading, always the same stack."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np

from offbeat.replay.layout import StreamLayout
from offbeat.types import ArrayDict, ArraySpec, EnvSpec


class FrameStacker:
    """The newest frames of ``n`` environments, joined along axis 0, oldest first; never across an episode start."""

    def __init__(self, spec: StreamLayout | EnvSpec, n: int) -> None:
        self.frame_stack = spec.frame_stack
        self.stack_padding: Literal["zero", "repeat"] = spec.stack_padding
        keys = spec.stacked if spec.frame_stack > 1 else ()
        self._frames = {key: _deep(spec.observation[key], spec.frame_stack).zeros(n) for key in keys}
        self._fresh = np.ones(n, bool)

    def push(self, ids: np.ndarray, observation: Mapping[str, np.ndarray], first: np.ndarray) -> ArrayDict:
        """Add one frame for each of ``ids`` [k]; observations as networks see them, name -> [k, ...].

        ``observation`` holds single frames [k, ...], ``first`` [k] bool says which start an episode. An environment's
        very first frame counts as a start.
        """
        start = np.asarray(first, bool) | self._fresh[ids]
        self._fresh[ids] = False
        seen = dict(observation)
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

    def state(self) -> ArrayDict:
        """The frames held, for a checkpoint."""
        return {"fresh": self._fresh.copy()} | {f"frames/{key}": frames.copy() for key, frames in self._frames.items()}

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Go back to a saved ``state``."""
        self._fresh[:] = state["fresh"]
        for key, frames in self._frames.items():
            frames[:] = state[f"frames/{key}"]


def stack_rows(row: np.ndarray, age: np.ndarray, frame_stack: int) -> tuple[np.ndarray, np.ndarray]:
    """Which rows make up the stack shown at ``row`` [...]: rows, oldest first, and padding, both [..., frame_stack].

    ``age`` [...] counts rows since the episode's first one. Where ``padding`` is True there was no such frame: the row
    given there is the episode's first.
    """
    back = np.arange(frame_stack - 1, -1, -1)
    age = age[..., None]
    return row[..., None] - np.minimum(back, age), back > age


def _deep(spec: ArraySpec, frame_stack: int) -> ArraySpec:
    """The spec of ``frame_stack`` frames joined along axis 0."""
    return ArraySpec((spec.shape[0] * frame_stack, *spec.shape[1:]), spec.dtype)
