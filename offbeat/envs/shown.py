"""What ``render`` gives as a picture, where it can only mean one thing."""

from __future__ import annotations

from typing import Any

import numpy as np

from offbeat.envs.base import Misbehaved
from offbeat.errors import in_short

ALLOWED = "expected uint8 [H, W, 3] (also [H, W], [H, W, 1], [H, W, 4], or floats from 0 to 1)"


def picture_of(given: Any, env_id: str) -> np.ndarray:
    """What ``render`` gave as uint8 [H, W, 3]: grey as colours, alpha left out, floats from 0 to 1 as 0 to 255.

    ``Misbehaved``, saying what it is, for all else.
    """
    try:
        picture = np.asarray(given)
    except ValueError:  # lists of unequal lengths
        picture = np.zeros(0)
    plain = isinstance(given, np.ndarray | np.generic)
    said = f"{picture.dtype} {list(picture.shape)}" if plain or picture.ndim > 1 else _short(given)
    if picture.ndim == 2:
        picture = picture[..., None]
    if picture.ndim != 3 or picture.shape[2] not in (1, 3, 4) or not picture.size or picture.dtype.kind not in "biuf":
        raise _wrong(env_id, said)
    if picture.dtype != np.uint8:
        picture = _as_bytes(picture, env_id, said)
    return np.repeat(picture, 3, axis=2) if picture.shape[2] == 1 else picture[..., :3]


def _as_bytes(picture: np.ndarray, env_id: str, said: str) -> np.ndarray:
    """Numbers of another kind than uint8 as such."""
    low, high, most = picture.min(), picture.max(), 255 if picture.dtype.kind in "iu" else 1
    if not (low >= 0 and high <= most):
        raise _wrong(env_id, f"{said} from {low:g} to {high:g}")
    return np.asarray(np.rint(picture * (255.0 / most)), np.uint8)


def _short(given: Any) -> str:
    return in_short(" ".join(f"{type(given).__name__} {given!r}".split()))


def _wrong(env_id: str, said: str) -> Misbehaved:
    return Misbehaved(f"{env_id}: render() gave {said}; {ALLOWED}")
