"""Films show what an environment draws, at its own speed, from the first picture of an episode to the last."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from PIL import Image

import offbeat
from offbeat.commands.scores import record
from offbeat.report.record import record_run
from tests.report.test_record import decode_mp4, gif_seconds
from tests.scoring.test_evaluate import make_run
from tests.zoo.entry import Entry
from tests.zoo.runs import run_of


class Brightens(gymnasium.Env[np.ndarray, int]):
    """Ends after five steps. Its picture is 40 brighter after each; the observation does not show that."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}  # noqa: RUF012
    observation_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode, self.t = render_mode, 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.t = 0
        return np.zeros(2, np.float32), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.t += 1
        return np.zeros(2, np.float32), 0.0, self.t == 5, False, {}

    def render(self) -> Any:
        return np.full((240, 240, 3), 40 * self.t, np.uint8) if self.render_mode == "rgb_array" else None


class Fast(Brightens):
    metadata = {"render_modes": ["rgb_array"], "render_fps": 90}  # noqa: RUF012


class Odd(Brightens):
    metadata = {"render_modes": ["rgb_array"], "render_fps": "fast"}  # noqa: RUF012


class Stubborn(Brightens):
    """Says that it can draw, and cannot be made to."""

    def __init__(self, render_mode: str | None = None) -> None:
        if render_mode:
            raise RuntimeError("no screen")
        super().__init__()


def plain() -> gymnasium.Env[np.ndarray, int]:
    return Brightens()


def handed_on(size: int = 3, render_mode: str | None = None) -> gymnasium.Env[np.ndarray, int]:
    return Brightens(render_mode)


def several(num_envs: int, render_mode: str | None = None) -> gymnasium.vector.VectorEnv[Any, Any, Any]:
    return gymnasium.vector.SyncVectorEnv([partial(Brightens, render_mode)] * num_envs)


EPISODE = [0, 40, 80, 120, 160, 200]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("films") / "run"
    run_of(Entry("brightens", Brightens), "impala", folder)
    return folder


@pytest.fixture
def registered() -> Iterator[None]:
    gymnasium.register("Brightens-v0", entry_point=Brightens, max_episode_steps=3)
    yield
    del gymnasium.registry["Brightens-v0"]


def shown(path: Path) -> list[int]:
    """Brightness of each picture, to the nearest 10."""
    if path.suffix == ".mp4":
        means = [frame.mean() for frame in decode_mp4(path)[0]]
    else:
        with Image.open(path) as image:
            means = []
            for index in range(getattr(image, "n_frames", 1)):
                image.seek(index)
                means.append(np.asarray(image.convert("RGB")).mean())
    return [round(float(mean) / 10) * 10 for mean in means]


def filmed(run: Path, out: Path, factory: Any, episodes: int = 2) -> tuple[list[int], list[str]]:
    """(brightness of each picture, lines that were said)."""
    said: list[str] = []
    return shown(record_run(run, out, episodes=episodes, env_factory=factory, say=said.append)), said


@pytest.mark.parametrize("kind", ["mp4", "gif"])
def test_a_class_is_made_to_draw_itself_at_its_own_speed_to_the_last_picture(
    run: Path, tmp_path: Path, kind: str
) -> None:
    out = tmp_path / f"a.{kind}"
    assert filmed(run, out, Brightens) == (EPISODE * 2, [])
    assert (gif_seconds(out) if kind == "gif" else 12 / decode_mp4(out)[1]["fps"]) == pytest.approx(12 / 20)


@pytest.mark.parametrize("factory", [handed_on, partial(handed_on, size=4), several, partial(Brightens, "rgb_array")])
def test_what_takes_render_mode_is_filmed_as_it_draws(run: Path, tmp_path: Path, factory: Any) -> None:
    assert filmed(run, tmp_path / "a.gif", factory) == (EPISODE * 2, [])


@pytest.mark.usefixtures("registered")
@pytest.mark.filterwarnings("ignore:.*Using the latest versioned")
@pytest.mark.parametrize("name", ["Brightens-v0", "Brightens"])
def test_ids_are_filmed_as_they_draw_with_or_without_their_version(tmp_path: Path, name: str) -> None:
    run = make_run(tmp_path / "run", "impala-cartpole", ("env", name))
    path = offbeat.record(run, tmp_path / "a.gif", episodes=2)
    assert shown(path) == EPISODE[:4] * 2  # truncated after 3 steps: that picture too
    assert gif_seconds(path) == pytest.approx(8 / 20)
    partly = partial(gymnasium.make, "Brightens-v0")
    assert shown(offbeat.record(run, tmp_path / "b.gif", env_factory=partly)) == EPISODE[:4]


def test_where_it_is_not_made_to_draw_a_line_says_so(run: Path, tmp_path: Path) -> None:
    bars, (line,) = filmed(run, tmp_path / "a.mp4", plain)
    assert len(bars) == 12 and len(set(bars)) == 1
    assert "was made with render_mode=None, so its observations are shown" in line
    assert f"let {__name__}.plain take an argument render_mode and hand it on" in line
    bars, (first, second) = filmed(run, tmp_path / "b.mp4", Stubborn)
    assert len(bars) == 12 and len(set(bars)) == 1
    assert "cannot be made with render_mode='rgb_array': RuntimeError: no screen" in first
    assert "so its observations are shown" in second
    with pytest.warns(UserWarning, match="so its observations are shown"):
        offbeat.record(run, tmp_path / "c.gif", env_factory=plain)


def test_a_speed_that_is_none_is_said(run: Path, tmp_path: Path) -> None:
    pictures, (line,) = filmed(run, tmp_path / "a.gif", Odd, 1)
    assert pictures == EPISODE
    assert line == "render_fps='fast' is no number of pictures per second: its own speed is not known"
    assert gif_seconds(tmp_path / "a.gif") == pytest.approx(6 / 10)


def test_a_fast_gif_leaves_pictures_out_but_no_last_one(run: Path, tmp_path: Path) -> None:
    assert filmed(run, tmp_path / "a.mp4", Fast)[0] == EPISODE * 2
    pictures, _ = filmed(run, tmp_path / "a.gif", Fast)
    assert pictures.count(200) == 2 and 6 < len(pictures) < 12
    assert gif_seconds(tmp_path / "a.gif") == pytest.approx(12 / 90, abs=0.05)
    with Image.open(tmp_path / "a.gif") as image:
        for index in range(len(pictures)):
            image.seek(index)
            assert image.info["duration"] >= 20


@pytest.mark.parametrize(("options", "fps"), [((), 15), ((("eval_env.frame_skip", "1"),), 60)])
def test_atari_is_filmed_to_the_last_picture_at_the_speed_of_the_console(
    tmp_path: Path, options: tuple[tuple[str, str], ...], fps: int
) -> None:
    pytest.importorskip("ale_py")
    run = make_run(tmp_path / "run", "impala-atari", ("eval_env.max_steps", "7"), *options)
    pictures, meta = decode_mp4(record_run(run, tmp_path / "a.mp4", episodes=2))
    assert len(pictures) == 2 * (7 + 1)
    assert meta["fps"] == fps


def test_a_film_that_is_cut_says_so(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "bright.py").write_text(f"from {__name__} import Brightens\n")
    asked = [str(run), "--env", "bright:Brightens", "--episodes", "3", "--out", str(tmp_path / "a.gif")]
    record([*asked, "--max-seconds", "0.4"])
    assert shown(tmp_path / "a.gif") == [*EPISODE, *EPISODE[:2]]
    assert "the film ends after 0.4 s, in the middle of an episode; --max-seconds sets" in capsys.readouterr().err
    record(asked)
    assert shown(tmp_path / "a.gif") == EPISODE * 3
    assert capsys.readouterr().err == ""
