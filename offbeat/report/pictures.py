"""Pictures of what an environment shows: its own where it can draw itself, else its observation made visible."""

from __future__ import annotations

import textwrap
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from numbers import Real
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from offbeat.envs.base import EnvConfig, Misbehaved, VectorEnv
from offbeat.envs.shown import ALLOWED, picture_of
from offbeat.errors import UserError, called, told
from offbeat.types import EnvStep

SMALLEST_SIDE = 240
"""Pictures with a shorter side than this are enlarged by a whole factor. Unit: pixels."""

SCREEN_HZ = 60.0
"""Frames per second of an Atari console."""

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


Say = Callable[[str], None]


def warn(text: str) -> None:
    """Say it as Python does."""
    warnings.warn(text, stacklevel=3)


class Camera:
    """One environment, or one game of several players, and pictures of it after each of its rows."""

    def __init__(
        self, env: VectorEnv, render: Callable[[], Any] | None = None, fps: float | None = None, say: Say = warn
    ) -> None:
        """``render`` draws the environment as it is now, as ``picture_of`` takes it; without it, or where its first
        picture is None, the observation is drawn.

        ``fps``: pictures per second at the speed that people play; default: 60 Hz over the frame skip, 10 without one.
        ``say`` is told where the environment was to draw itself and does not.
        """
        self.env, self._render, self._drew, self._say = env, render, False, say
        self.fps = fps or (SCREEN_HZ / env.spec.frame_skip if env.spec.frame_skip > 1 else 10.0)

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
            self._say(f"{env_id} draws no pictures, its observations are shown: {error}")
            return None
        except Misbehaved as error:
            raise UserError(str(error)) from error
        if self._drew:
            raise UserError(f"{env_id}: render() gave None, before that pictures; {ALLOWED}")
        self._render = None
        self._say(f"{env_id}: render() gave None, so its observations are shown")
        return None


def open_camera(config: EnvConfig, factory: Any = None, say: Say | None = None) -> Camera:
    """One environment of ``config``, made such that it draws itself where it can.

    Atari games play on a single emulator, whose screen is filmed in colour. Gymnasium environments, those of a user's
    ``factory`` and of entry points included, are made with ``render_mode="rgb_array"`` if they can draw and what makes
    them takes that argument; ``render_fps`` of their ``metadata`` is the speed. A user's vector environment may have a
    method ``render() -> [H, W, 3] uint8`` of its own, or a method ``text() -> str`` whose text is shown (Hanabi).
    ``say`` (default: a Python warning) is told where observations are shown although the environment could draw.
    """
    from offbeat.envs.atari_games import find_game
    from offbeat.envs.factories import makes_one_env
    from offbeat.envs.game_lists import scored
    from offbeat.envs.registry import env_spec, frame_rate, make_env, single_factory

    say = say or warn
    if config.ids:
        say(f"of {config.id} the first game is shown")
        return Camera(make_env(scored(config), 1), None, frame_rate(config))
    factory = factory or single_factory(config.id)
    if factory is not None:
        return _single_camera(config, factory, say) if makes_one_env(factory) else _batch_camera(config, factory, say)
    atari = find_game(config.id) is not None
    env = make_env(replace(config, backend="ale-single") if atari else config, env_spec(config).players)
    render, text = getattr(env, "render", None), getattr(env, "text", None)
    if render is None and text is not None:
        return Camera(env, lambda: draw_text(text()), TEXT_FPS)
    return Camera(env, render, frame_rate(config))


def _single_camera(config: EnvConfig, factory: Any, say: Say) -> Camera:
    """A camera before one environment of Gymnasium, which is made anew where it was not made to draw itself."""
    from offbeat.envs.factories import PICTURES, names_pictures
    from offbeat.envs.registry import make_env
    from offbeat.envs.vectorised import singly

    made: list[gymnasium.Env[Any, Any]] = []

    def make(maker: Any) -> VectorEnv:
        def noting() -> gymnasium.Env[Any, Any]:
            made.append(maker())
            return made[-1]

        return make_env(singly(config), 1, factory=noting)

    env = make(factory)
    if made[-1].render_mode != PICTURES and names_pictures(made[-1]):
        env = _made_to_draw(env, make, factory, say)
    shown = made[-1]
    draws = shown.render_mode == PICTURES
    if not draws and names_pictures(shown):
        say(
            f"{config.id} was made with render_mode={shown.render_mode!r}, so its observations are shown; to film what "
            f"it draws, let {called(factory)} take an argument render_mode and hand it on to the environment"
        )
    return Camera(env, shown.render if draws else None, _render_fps(shown, say), say)


def _made_to_draw(env: VectorEnv, make: Callable[[Any], VectorEnv], factory: Any, say: Say) -> VectorEnv:
    """``env`` anew, to draw itself; the same again where what makes it does not take or stand ``render_mode``."""
    from offbeat.envs.closing import close_env
    from offbeat.envs.factories import PICTURES, drawing

    maker = drawing(factory)
    if maker is None:
        return env
    if line := close_env(env, env.spec.id):
        say(line)
    try:
        return make(maker)
    except Exception as error:  # of the user's
        say(f"{env.spec.id} cannot be made with render_mode={PICTURES!r}: {told(error)}")
        return make(factory)


def _batch_camera(config: EnvConfig, factory: Any, say: Say) -> Camera:
    """A camera before the first environment of a batch of the user's own."""
    from offbeat.envs.factories import PICTURES, drawing
    from offbeat.envs.registry import env_spec, make_env
    from offbeat.envs.vector import GymnasiumVectorEnv

    players = env_spec(config, factory).players
    env = make_env(config, players, factory=drawing(factory) or factory)
    if not isinstance(env, GymnasiumVectorEnv):
        return Camera(env, getattr(env, "render", None), _render_fps(env, say), say)
    several = env.made
    draws = several.render_mode == PICTURES
    return Camera(env, (lambda: _first(several.render())) if draws else None, _render_fps(several, say), say)


def _first(pictures: Any) -> Any:
    """The first environment's picture of those that a batch draws."""
    return pictures[0] if pictures is not None and len(pictures) else None


def _render_fps(env: Any, say: Say) -> float | None:
    """Pictures per second as the environment's meta data say; None where they do not."""
    metadata = getattr(env, "metadata", None)
    given = metadata.get("render_fps") if isinstance(metadata, Mapping) else None
    if given is None:
        return None
    if isinstance(given, Real) and 0 < float(given) < float("inf"):
        return float(given)
    say(f"render_fps={given!r} is no number of pictures per second: its own speed is not known")
    return None


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
