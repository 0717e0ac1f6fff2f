"""Pictures of what an environment shows: its own where it can draw itself, else its observation made visible."""

from __future__ import annotations

import textwrap
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium.envs.registration import load_env_creator

from offbeat.envs.base import EnvConfig, Misbehaved, VectorEnv
from offbeat.envs.shown import ALLOWED, picture_of
from offbeat.errors import UserError
from offbeat.types import EnvStep

SMALLEST_SIDE = 240
"""Pictures with a shorter side than this are enlarged by a whole factor. Unit: pixels."""

BACKGROUND = np.array([24, 26, 32], np.uint8)

PALETTE = np.array(
    [
        [230, 159, 0], [86, 180, 233], [0, 158, 115], [240, 228, 66], [213, 94, 0], [204, 121, 167], [148, 103, 189],
        [255, 255, 255], [127, 127, 127], [23, 190, 207],
    ],
    np.uint8,
)  # fmt: skip
"""Colours of an observation's channels where there are more than three (MinAtar)."""


TEXT_COLUMNS, TEXT_LINES = 64, 24
"""Size of a picture of text; longer lines are broken, what does not fit is left out. Unit: characters."""
TEXT_FPS = 1.0
"""Pictures of text per second: people read them."""


class Camera:
    """One environment, or one game of several players, and pictures of it after each of its rows."""

    def __init__(self, env: VectorEnv, render: Callable[[], Any] | None = None, fps: float | None = None) -> None:
        """``render`` draws the environment as it is now, as ``picture_of`` takes it; without it, or where its first
        picture is None, the observation is drawn.

        ``fps``: pictures per second at the speed that people play; default: 60 Hz over the frame skip, 10 without one.
        """
        self.env, self._render, self._drew = env, render, False
        self.fps = fps or (60 / env.spec.frame_skip if env.spec.frame_skip > 1 else 10.0)

    def picture(self, step: EnvStep) -> np.ndarray | None:
        """A picture [H, W, 3] uint8 of environment 0 after ``step``; None where ``step`` has no row of it.

        UserError where the environment gives what is no picture.
        """
        rows = np.flatnonzero(step.env_ids == 0)
        if not len(rows):
            return None
        drawn = self._drawn()
        if drawn is None:
            drawn = draw_observation({key: value[rows[0]] for key, value in step.observation.items()})
        return enlarge(drawn)

    def _drawn(self) -> np.ndarray | None:
        """What the environment draws; None where it cannot, for ever once it gave None, or is not installed whole."""
        if self._render is None:
            return None
        env_id = self.env.spec.id
        try:
            given = self._render()
            if given is not None:
                picture = picture_of(given, env_id)
                self._drew = True
                return picture
        except gymnasium.error.DependencyNotInstalled as error:
            self._render = None
            warnings.warn(f"{env_id} draws no pictures, its observations are shown: {error}", stacklevel=2)
            return None
        except Misbehaved as error:
            raise UserError(str(error)) from error
        if self._drew:
            raise UserError(f"{env_id}: render() gave None, before that pictures; {ALLOWED}")
        self._render = None
        warnings.warn(f"{env_id}: render() gave None, so its observations are shown", stacklevel=2)
        return None


def open_camera(config: EnvConfig, factory: Any = None) -> Camera:
    """One environment of ``config``, made such that it draws itself where it can.

    Atari games play on a single emulator, whose screen is filmed in colour; Gymnasium environments render
    ``rgb_array``; a user's vector environment may have a method ``render() -> [H, W, 3] uint8`` of its own, or a method
    ``text() -> str`` whose text is shown (Hanabi). ``factory``: makes the user's own environment, which draws itself if
    it was made with ``render_mode="rgb_array"``.
    """
    from offbeat.envs.atari_games import find_game
    from offbeat.envs.registry import env_spec, make_env

    if factory is not None:
        return _own_camera(config, factory)
    if find_game(config.id) is not None:
        config = replace(config, backend="ale-single")
    elif (fps := _gymnasium_fps(config.id)) is not None:
        made: list[gymnasium.Env[Any, Any]] = []

        def make() -> gymnasium.Env[Any, Any]:
            made.append(gymnasium.make(config.id, render_mode="rgb_array"))
            return made[-1]

        return Camera(make_env(config, 1, factory=make), lambda: made[-1].render(), fps)
    env = make_env(config, env_spec(config).players)
    render, text = getattr(env, "render", None), getattr(env, "text", None)
    if render is None and text is not None:
        return Camera(env, lambda: draw_text(text()), TEXT_FPS)
    return Camera(env, render)


def _own_camera(config: EnvConfig, factory: Any) -> Camera:
    """A camera before an environment of the user's own."""
    from offbeat.envs.factories import makes_one_env
    from offbeat.envs.registry import env_spec, make_env

    made: list[gymnasium.Env[Any, Any]] = []

    def noting() -> gymnasium.Env[Any, Any]:
        made.append(factory())
        return made[-1]

    if not makes_one_env(factory):
        env = make_env(config, env_spec(config, factory).players, factory=factory)
        return Camera(env, getattr(env, "render", None))
    env = make_env(config, 1, factory=noting)
    draws = made[-1].render_mode == "rgb_array"
    fps = made[-1].metadata.get("render_fps") if draws else None
    return Camera(env, made[-1].render if draws else None, float(fps) if fps else None)


def _gymnasium_fps(env_id: str) -> float | None:
    """Pictures per second of a Gymnasium id that can draw itself; None for all others."""
    try:
        spec = gymnasium.spec(env_id)
        entry = load_env_creator(spec.entry_point) if isinstance(spec.entry_point, str) else spec.entry_point
    except (gymnasium.error.Error, ImportError, AttributeError, ValueError):
        return None
    metadata = getattr(entry, "metadata", {})
    if "rgb_array" not in metadata.get("render_modes", ()):
        return None
    return float(metadata.get("render_fps", 30))


def draw_observation(observation: dict[str, np.ndarray]) -> np.ndarray:
    """One observation as a picture [H, W, 3]: its first image, else every number as a bar."""
    images = [value for value in observation.values() if value.ndim in (2, 3) and min(value.shape[-2:]) > 1]
    if images:
        return draw_image(images[0])
    return draw_bars(np.concatenate([np.ravel(value).astype(np.float64) for value in observation.values()]))


def draw_image(image: np.ndarray) -> np.ndarray:
    """An image [H, W] or [C, H, W] as [H, W, 3] uint8: grey, RGB, or one colour per channel where there are others.

    Floats are shown from 0 (black) to their largest value (white), or 1 if that is larger.
    """
    planes = image[None] if image.ndim == 2 else image
    if planes.dtype != np.uint8:
        planes = planes.astype(np.float64)
        planes = np.clip(planes / max(1.0, float(planes.max(initial=0))) * 255, 0, 255).astype(np.uint8)
    if len(planes) == 1:
        return np.repeat(planes[0][..., None], 3, axis=2)
    if len(planes) == 3:
        return np.ascontiguousarray(planes.transpose(1, 2, 0))
    picture = np.broadcast_to(BACKGROUND, (*planes.shape[1:], 3)).copy()
    for index, plane in enumerate(planes):
        picture[plane > 0] = PALETTE[index % len(PALETTE)]
    return picture


def draw_bars(values: np.ndarray, height: int = 240, width: int = 24) -> np.ndarray:
    """Numbers [n] as bars up or down from the middle, squashed by ``x / (1 + |x|)`` so that any size fits."""
    picture = np.broadcast_to(BACKGROUND, (height, max(1, len(values)) * width, 3)).copy()
    middle = height // 2
    picture[middle] = 127
    for index, value in enumerate(np.nan_to_num(values)):
        reach = round(value / (1 + abs(value)) * (middle - 4))
        top, bottom = sorted((middle, middle - reach))
        picture[top : bottom + 1, index * width + 4 : (index + 1) * width - 4] = PALETTE[index % len(PALETTE)]
    return picture


def draw_text(text: str) -> np.ndarray:
    """Text as a picture [H, W, 3] of ``TEXT_COLUMNS`` by ``TEXT_LINES`` characters of one width."""
    from matplotlib import get_data_path
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.truetype(str(Path(get_data_path()) / "fonts" / "ttf" / "DejaVuSansMono.ttf"), 16)
    width, height = round(font.getlength("x") * TEXT_COLUMNS) + 20, 20 * TEXT_LINES + 20
    picture = Image.new("RGB", (width, height), tuple(BACKGROUND.tolist()))
    pen = ImageDraw.Draw(picture)
    broken = [part for line in text.splitlines() for part in textwrap.wrap(line, TEXT_COLUMNS) or [""]]
    for number, line in enumerate(broken[:TEXT_LINES]):
        pen.text((10, 10 + 20 * number), line, font=font, fill="white")
    return np.asarray(picture)


def enlarge(image: np.ndarray, smallest: int = SMALLEST_SIDE) -> np.ndarray:
    """``image`` [H, W, 3] with every pixel repeated so that its shorter side is at least ``smallest``."""
    factor = max(1, -(-smallest // min(image.shape[:2])))
    return image.repeat(factor, axis=0).repeat(factor, axis=1)
