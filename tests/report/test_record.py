"""Videos: what comes out of a decoder is what went in."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from offbeat.envs.base import EnvConfig
from offbeat.envs.gymnasium import GymnasiumVector
from offbeat.envs.module_ids import ModuleId
from offbeat.errors import UserError
from offbeat.report.pictures import draw_bars, draw_image, draw_observation, enlarge, open_camera
from offbeat.report.record import VideoFile, record_frames, record_run, video_format
from tests.scoring.test_evaluate import make_run


def moving_square(count: int, height: int = 61, width: int = 80) -> list[np.ndarray]:
    """A white square that moves 3 pixels to the right with every frame, on a blue ground."""
    frames = []
    for index in range(count):
        frame = np.zeros((height, width, 3), np.uint8)
        frame[..., 2] = 120
        frame[20:36, 3 * index : 3 * index + 16] = 255
        frames.append(frame)
    return frames


def decode_mp4(path: Path) -> tuple[np.ndarray, dict]:
    import imageio_ffmpeg

    reader = imageio_ffmpeg.read_frames(str(path))
    meta = next(reader)
    width, height = meta["size"]
    return np.stack([np.frombuffer(frame, np.uint8).reshape(height, width, 3) for frame in reader]), meta


def gif_seconds(path: Path) -> float:
    """Length of a GIF."""
    with Image.open(path) as image:
        total = 0
        for index in range(image.n_frames):
            image.seek(index)
            total += image.info["duration"]
    return total / 1000


def test_mp4_decodes_to_the_frames(tmp_path: Path) -> None:
    frames = moving_square(20)
    path = record_frames(frames, tmp_path / "videos" / "a.mp4", fps=15)
    decoded, meta = decode_mp4(path)
    assert decoded.shape == (20, 62, 80, 3)  # the odd height was made even
    assert (meta["codec"], meta["fps"]) == ("h264", 15)
    assert meta["pix_fmt"].startswith("yuv420p")
    for wanted, got in zip(frames, decoded[:, :61], strict=True):
        assert np.abs(wanted.astype(int) - got).mean() < 8
    centres = [np.argwhere(frame[..., 0] > 128)[:, 1].mean() for frame in decoded]
    assert np.diff(centres) == pytest.approx(np.full(19, 3.0), abs=0.3)
    assert [entry.name for entry in path.parent.iterdir()] == ["a.mp4"]


def test_gif_decodes_to_the_frames_at_the_right_speed(tmp_path: Path) -> None:
    frames = moving_square(20)
    with Image.open(record_frames(frames, tmp_path / "a.gif", fps=15)) as image:
        assert image.n_frames == 20
        total = 0
        for index, wanted in enumerate(frames):
            image.seek(index)
            total += image.info["duration"]
            assert np.abs(wanted.astype(int) - np.asarray(image.convert("RGB"))).mean() < 3
    assert total == pytest.approx(1000 * 20 / 15, abs=10)


def test_frames_that_are_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"frame is float64 \[4, 4, 3\]; expected uint8"):
        record_frames([np.zeros((4, 4, 3))], tmp_path / "a.gif", fps=1)
    with pytest.raises(ValueError, match=r"frame is \[5, 4\], the first one was \[4, 4\]"):
        record_frames([np.zeros((n, 4, 3), np.uint8) for n in (4, 5)], tmp_path / "a.gif", fps=1)
    with pytest.raises(ValueError, match="at least one frame"):
        record_frames([], tmp_path / "a.gif", fps=1)


@pytest.mark.parametrize("kind", ["mp4", "gif"])
def test_a_broken_recording_leaves_nothing_behind(tmp_path: Path, kind: str) -> None:
    def stop_half_way() -> None:
        with VideoFile(tmp_path / f"a.{kind}", 15, kind) as video:
            for frame in moving_square(5):
                video.add(frame)
            raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        stop_half_way()
    assert list(tmp_path.iterdir()) == []


def test_unknown_format_and_missing_encoder_are_user_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="video format 'avi' is unknown; allowed: mp4, gif"):
        video_format("avi")
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(UserError, match=r"pip install \"offbeat\[video\]\", or use --format gif"):
        video_format("mp4")
    assert video_format("gif") == "gif"


def test_images_are_shown_as_grey_colour_or_one_colour_per_channel() -> None:
    grey = np.arange(12, dtype=np.uint8).reshape(1, 3, 4)
    assert (draw_image(grey) == grey[0][..., None]).all()
    colour = np.arange(36, dtype=np.uint8).reshape(3, 3, 4)
    assert (draw_image(colour)[..., 1] == colour[1]).all()
    floats = np.array([[0.0, 0.5], [1.0, 0.25]])
    assert draw_image(floats)[..., 0].tolist() == [[0, 127], [255, 63]]
    channels = np.eye(4, dtype=bool).reshape(4, 2, 2)
    assert len({tuple(pixel) for pixel in draw_image(channels).reshape(-1, 3)}) == 4


def test_vectors_are_shown_as_bars_up_and_down() -> None:
    shown = draw_bars(np.array([1.0, -1.0, 1e9, 0.0]))
    lit = [(shown[:, i * 24 + 12] != shown[0, 0]).any(1).nonzero()[0] for i in range(4)]
    assert lit[0].min() < 120
    assert lit[0].max() == 120
    assert lit[1].min() == 120
    assert lit[1].max() > 120
    assert lit[2].min() < lit[0].min()
    assert draw_observation({"a": np.zeros(3), "b": np.zeros(())}).shape == (240, 96, 3)


def test_small_pictures_are_enlarged_by_whole_factors() -> None:
    image = np.random.default_rng(0).integers(0, 255, (10, 12, 3)).astype(np.uint8)
    large = enlarge(image)
    assert large.shape == (240, 288, 3)
    assert (large[::24, ::24] == image).all()
    assert enlarge(large) is not None
    assert enlarge(large).shape == large.shape


def test_gymnasium_environments_draw_themselves() -> None:
    pytest.importorskip("pygame")
    camera = open_camera(EnvConfig(id="CartPole-v1"))
    camera.env.reset(0)
    shown = camera.picture(camera.env.recv())
    assert shown is not None
    assert shown.shape == (400, 600, 3)
    assert camera.fps == 50
    camera.env.close()


@pytest.mark.parametrize("factory", [None, ModuleId("gymnasium:CartPole-v1")])
def test_of_those_that_are_stepped_at_once_a_single_one_draws_itself(factory: ModuleId | None) -> None:
    camera = open_camera(EnvConfig(id="CartPole-v1", vectorised="yes"), factory)
    assert isinstance(camera.env, GymnasiumVector) and camera.env.render is not None
    assert camera.env.num_envs == 1 and camera.fps == 50
    camera.env.close()


def test_a_run_that_steps_them_at_once_is_filmed(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", "impala-cartpole", ("env.vectorised", "yes"), ("eval_env.vectorised", "yes"))
    assert gif_seconds(record_run(run, tmp_path / "film.gif", max_seconds=0.2)) > 0


def test_without_its_drawing_library_the_observation_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pygame", None)
    camera = open_camera(EnvConfig(id="CartPole-v1"))
    camera.env.reset(0)
    step = camera.env.recv()
    with pytest.warns(UserWarning, match="CartPole-v1 draws no pictures"):
        shown = camera.picture(step)
    assert shown is not None
    assert shown.shape == (720, 288, 3)  # four bars
    assert camera.picture(step) is not None  # and says so once
    camera.env.close()


@pytest.mark.parametrize("kind", ["mp4", "gif"])
def test_a_run_is_filmed_from_its_folder(tmp_path: Path, kind: str) -> None:
    run = make_run(tmp_path / "run", "impala-catch")
    path = record_run(run, None, kind, 2)
    assert path.parent == run / "videos"
    assert path.suffix == f".{kind}"
    if kind == "gif":
        frames = round(gif_seconds(path) * 10)  # 10 pictures a second; equal ones are stored once
    else:
        frames = len(decode_mp4(path)[0])
    rows = _rows(run)
    assert frames == 2 * rows  # every row of both episodes, the final one too


def _rows(run: Path) -> int:
    from offbeat.config.run_config import read_config

    return read_config(run / "config.toml").env.length


def test_a_video_ends_at_its_longest_length(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", "impala-catch")
    path = record_run(run, tmp_path / "short.gif", episodes=50, max_seconds=3.0)
    assert gif_seconds(path) == pytest.approx(3)


def test_atari_is_filmed_in_colour(tmp_path: Path) -> None:
    pytest.importorskip("ale_py")
    run = make_run(tmp_path / "run", "impala-atari")
    path = record_run(run, tmp_path / "pong.gif", episodes=1, max_seconds=2.0)
    with Image.open(path) as image:
        last = np.asarray(image.convert("RGB"))
    assert gif_seconds(path) == pytest.approx(2, abs=0.01)
    assert last.shape[1] >= 160
    assert np.ptp(last.astype(int), axis=2).max() > 30  # colours
