"""Videos of a run's agent: mp4 (H.264, which browsers play) through imageio-ffmpeg's own ffmpeg, GIF through Pillow."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from offbeat.config.validation import check_range
from offbeat.errors import UserError

FORMATS = ("mp4", "gif")
GIF_LEAST_MS = 20
"""Browsers show what a GIF holds for shorter than this five times too long. Unit: milliseconds."""


def record_run(
    run: Path,
    out: Path | None = None,
    format: str = "mp4",
    episodes: int = 1,
    policy: str | None = None,
    seed: int = 0,
    *,
    max_seconds: float = 120.0,
    checkpoint: Path | str | None = None,
    say: Callable[[str], None] | None = None,
    **own: Any,
) -> Path:
    """Film whole episodes played with a run's newest weights.

    Args:
        run: run folder.
        out: file to write; default: one in ``run/videos`` named after the weights. Its ending wins over ``format``.
        policy: ``greedy`` or ``sampled``; None: as the run's evaluation.
        seed: of the environment and the drawn actions.
        max_seconds: the video ends here even if the episode goes on, which ``say`` is told. Unit: seconds of video.
        checkpoint: other weights than the newest, see ``offbeat.run.load.load_agent``.
        say: is told in a line where the agent plays by another policy than ``policy``, where observations are filmed
            though the environment could draw itself, and what closing raises.
        own: the run's ``env_factory``, ``agent_factory`` or ``torso``, if it had one of the user's.

    Returns:
        The file. UserError where the format is unknown, its encoder missing, or ``out`` cannot be written, before
        anything is played.
    """
    from offbeat.agents.base import policy_name
    from offbeat.envs.closing import closed_after
    from offbeat.report.pictures import open_camera
    from offbeat.run.load import restore
    from offbeat.run.written import draft_of
    from offbeat.scoring.evaluate import choose_policy, play_episodes
    from offbeat.types import EnvStep

    check_range("evaluation.episodes", episodes, "episodes")
    check_range("seed", seed)
    run = Path(run)
    kind = video_format(out.suffix[1:] if out is not None and out.suffix else format)
    loaded = restore(run, checkpoint=checkpoint, **own)
    greedy = choose_policy(loaded, policy, say)
    if out is None:
        out = run / "videos" / f"{loaded.agent_steps:012d}_{policy_name(loaded.agent, greedy)}_{seed}.{kind}"
    draft_of(out).unlink()  # says before anything is played where it cannot be written
    camera = open_camera(loaded.config.eval_env, own.get("env_factory"), say)
    with closed_after(camera.env, loaded.config.eval_env.id, say), VideoFile(out, camera.fps, kind) as video:

        def film(step: EnvStep) -> None:
            frame = camera.picture(step)
            if frame is None:
                return
            try:
                video.add(frame, last=not step.valid[step.env_ids == 0].all())
            except ValueError as error:  # looked at one by one, they still may be of several sizes
                raise UserError(f"{loaded.config.eval_env.id}: its pictures cannot be filmed: {error}") from error

        played = play_episodes(
            camera.env, loaded.agent, episodes=episodes, greedy=greedy, seed=seed, on_step=film,
            stop=lambda: video.seconds >= max_seconds,
        )  # fmt: skip
    if say is not None and not played.complete:
        say(f"the film ends after {max_seconds:g} s, in the middle of an episode; --max-seconds sets another length")
    return out


def record_frames(frames: Iterable[np.ndarray], out: Path, fps: float, format: str | None = None) -> Path:
    """Write pictures [H, W, 3] uint8, all of one size, as a video; the format is ``out``'s ending unless given."""
    with VideoFile(out, fps, video_format(format or out.suffix[1:])) as video:
        for frame in frames:
            video.add(frame)
    return out


def video_format(name: str) -> str:
    """``name`` if it is a known format whose encoder is installed. Raises ``UserError``."""
    if name not in FORMATS:
        raise UserError(f"video format {name!r} is unknown; allowed: {', '.join(FORMATS)}")
    if name == "mp4":
        try:
            import imageio_ffmpeg  # noqa: F401
        except ImportError as error:
            remedy = 'pip install "offbeat[video]", or use --format gif'
            raise UserError(f"mp4 needs imageio-ffmpeg, which is not installed; {remedy}") from error
    return name


class VideoFile:
    """A video that grows frame by frame. It appears at ``path`` complete, when closed without an error."""

    def __init__(self, path: Path, fps: float, format: str) -> None:
        """``fps``: frames per second; ``format``: one of ``FORMATS``."""
        self.path, self.fps, self.format = Path(path), fps, format
        self.frames = 0
        self._size: tuple[int, ...] = ()
        self._partial = self.path.with_name(f".{self.path.name}.partial.{format}")
        self._encoder: Generator[None, Any, None] | None = None
        self._images: list[tuple[int, Any, bool]] = []  # of a GIF: beginning in ms, picture, whether it must stay

    @property
    def seconds(self) -> float:
        """Length of the video so far."""
        return self.frames / self.fps

    def add(self, frame: np.ndarray, last: bool = False) -> None:
        """Append a picture [H, W, 3] uint8. ValueError where it is none or its size differs from the first one's.

        A GIF of more than 50 pictures a second leaves some out, but none that is the ``last`` of an episode.
        """
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
            raise ValueError(f"frame is {frame.dtype} {list(frame.shape)}; expected uint8 [H, W, 3]")
        if self._size and frame.shape[:2] != self._size:
            raise ValueError(f"frame is {list(frame.shape[:2])}, the first one was {list(self._size)}; all must agree")
        if not self._size:
            self._size = frame.shape[:2]
            self.path.parent.mkdir(parents=True, exist_ok=True)
        self.frames += 1
        if self.format == "gif":
            self._add_image(frame, last)
            return
        if self._encoder is None:
            self._encoder = self._start_encoder()
        self._encoder.send(np.ascontiguousarray(_even(frame)))

    def close(self) -> None:
        """Finish the file. ValueError if there was no frame."""
        if not self.frames:
            raise ValueError(f"{self.path}: a video needs at least one frame")
        if self._encoder is not None:
            self._encoder.close()
            self._encoder = None
        if self.format == "gif":
            starts = [start for start, _, _ in self._images] + [_gif_ms(self.frames, self.fps)]
            durations = [max(GIF_LEAST_MS, after - before) for before, after in pairwise(starts)]
            first, *rest = [image for _, image, _ in self._images]
            first.save(
                self._partial, save_all=True, append_images=rest, duration=durations, loop=0, optimize=False
            )  # fmt: skip
            self._images.clear()
        os.replace(self._partial, self.path)

    def __enter__(self) -> VideoFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is None:
            self.close()
            return
        if self._encoder is not None:
            self._encoder.close()
        self._partial.unlink(missing_ok=True)

    def _add_image(self, frame: np.ndarray, last: bool) -> None:
        """Append a picture of a GIF, unless it were shown too shortly."""
        from PIL import Image

        start = _gif_ms(self.frames - 1, self.fps)
        if self._images and start - self._images[-1][0] < GIF_LEAST_MS:
            if not last:
                return
            if not self._images[-1][2]:
                start = self._images.pop()[0]
        image = Image.fromarray(frame).quantize(colors=64, dither=Image.Dither.NONE)
        self._images.append((start, image, last))

    def _start_encoder(self) -> Generator[None, Any, None]:
        from imageio_ffmpeg import write_frames

        height, width = (side + side % 2 for side in self._size)
        encoder: Generator[None, Any, None] = write_frames(
            str(self._partial), (width, height), fps=self.fps, codec="libx264", pix_fmt_in="rgb24",
            pix_fmt_out="yuv420p", macro_block_size=1, quality=8, output_params=["-movflags", "+faststart"],
        )  # fmt: skip
        encoder.send(None)
        return encoder


def _even(frame: np.ndarray) -> np.ndarray:
    """``frame`` with its last row or column repeated where a side is odd: 4:2:0 video has even sides."""
    height, width = frame.shape[:2]
    return np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")


def _gif_ms(frames: int, fps: float) -> int:
    """When a GIF's frame of that number begins: it counts in hundredths of a second, so rounding never adds up."""
    return 10 * round(frames / fps * 100)
