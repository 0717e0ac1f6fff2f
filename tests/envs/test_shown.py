"""What render() gives is shown where it can only mean one thing, and refused in one line elsewhere."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import offbeat
from offbeat.cli import main
from offbeat.envs.base import EnvConfig, Misbehaved
from offbeat.envs.registry import make_env
from offbeat.envs.shown import picture_of
from offbeat.errors import UserError
from offbeat.report.pictures import Camera
from tests.zoo.entry import Entry
from tests.zoo.manners import Draws
from tests.zoo.runs import run_of

GREY = np.arange(12, dtype=np.uint8).reshape(3, 4)
COLOUR = np.arange(45, dtype=np.uint8).reshape(3, 5, 3)
RGBA = np.concatenate([COLOUR, np.full((3, 5, 1), 9, np.uint8)], 2)
SAME: list[tuple[str, Any, np.ndarray]] = [
    ("colour", COLOUR, COLOUR),
    ("grey", GREY, np.repeat(GREY[..., None], 3, 2)),
    ("grey with an axis", GREY[..., None], np.repeat(GREY[..., None], 3, 2)),
    ("alpha", RGBA, COLOUR),
    ("int64", COLOUR.astype(np.int64), COLOUR),
    ("bool", GREY > 5, np.where(GREY > 5, 255, 0)[..., None].repeat(3, 2)),
    ("float32", np.array([[[0, 0.5, 1]]], np.float32), np.array([[[0, 128, 255]]])),
    ("list", COLOUR.tolist(), COLOUR),
]
WRONG: list[tuple[Any, str]] = [
    (np.moveaxis(COLOUR, -1, 0), r"uint8 \[3, 3, 5\]"),
    (np.zeros((8, 8, 2), np.uint8), r"uint8 \[8, 8, 2\]"),
    (np.zeros((2, 8, 8, 3), np.uint8), r"uint8 \[2, 8, 8, 3\]"),
    (np.zeros((0, 8, 3), np.uint8), r"uint8 \[0, 8, 3\]"),
    (np.zeros(3, np.uint8), r"uint8 \[3\]"),
    (np.full((8, 8, 3), 7.5), r"float64 \[8, 8, 3\] from 7\.5 to 7\.5"),
    (np.full((8, 8, 3), np.nan), r"float64 \[8, 8, 3\] from nan to nan"),
    (np.full((8, 8, 3), 300), r"int64 \[8, 8, 3\] from 300 to 300"),
    (np.zeros((8, 8, 3), complex), r"complex128 \[8, 8, 3\]"),
    ("a drawing", "str 'a drawing'"),
    ([[1, 2], [3]], r"list \[\[1, 2\], \[3\]\]"),
    ([COLOUR, GREY], "list "),
]
ALLOWED = r"; expected uint8 \[H, W, 3\] \(also \[H, W\], \[H, W, 1\], \[H, W, 4\], or floats from 0 to 1\)$"


@pytest.mark.parametrize(("given", "shown"), [case[1:] for case in SAME], ids=[case[0] for case in SAME])
def test_what_can_only_mean_one_thing_is_shown(given: Any, shown: np.ndarray) -> None:
    picture = picture_of(given, "mine")
    assert picture.dtype == np.uint8 and np.array_equal(picture, shown)


@pytest.mark.parametrize(("given", "said"), WRONG)
def test_the_rest_is_said_in_one_line(given: Any, said: str) -> None:
    with pytest.raises(Misbehaved, match=f"^mine: render\\(\\) gave {said}.*{ALLOWED}") as caught:
        picture_of(given, "mine")
    assert len(str(caught.value).splitlines()) == 1 and len(str(caught.value)) < 250


class Shrinks(Draws):
    """Its pictures become smaller."""

    def render(self) -> Any:
        return np.zeros((300 - self.t, 300, 3), np.uint8)


class Blind(Draws):
    """Draws nothing, or stops drawing in its third step."""

    def __init__(self, sees: int = 0) -> None:
        super().__init__("rgb_array")
        self.sees = sees

    def render(self) -> Any:
        return super().render() if self.t < self.sees else None


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shown") / "run"
    run_of(Entry("draws", partial(Draws, "rgb_array")), "impala", folder)
    return folder


@pytest.mark.parametrize("given", [GREY, RGBA, COLOUR / 255.0])
def test_films_of_them_are_made(given: np.ndarray, run: Path, tmp_path: Path) -> None:
    path = offbeat.record(run, tmp_path / "a.gif", env_factory=partial(Draws, "rgb_array", given))
    with Image.open(path) as image:
        assert image.size in ((320, 240), (400, 240))


def test_one_that_draws_nothing_shows_observations_and_says_so_once(run: Path, tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="render") as said:
        assert offbeat.record(run, tmp_path / "a.gif", env_factory=Blind).stat().st_size > 0
    lines = [str(one.message) for one in said if "render" in str(one.message)]
    assert lines == ["zoo: render() gave None, so its observations are shown"]


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (partial(Draws, "rgb_array", COLOUR.astype(complex)), r"render\(\) gave complex128 \[3, 5, 3\]"),
        (
            partial(Shrinks, "rgb_array"),
            r"its pictures cannot be filmed: frame is \[299, 300\], .* \[300, 300\]",
        ),
        (partial(Blind, 3), r"render\(\) gave None, before that pictures"),
    ],
)
def test_films_that_cannot_be_made_end_in_one_line(make: Any, says: str, run: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"^zoo: {says}"):
        offbeat.record(run, tmp_path / "a.gif", env_factory=make)
    assert not list(tmp_path.iterdir())


def test_the_command_line_says_it_in_one_line(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "drawn.py").write_text(
        "from tests.zoo.manners import Draws\ndef make():\n    return Draws('rgb_array', 'no picture')\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert main(["record", str(run), "--env", "drawn:make", "--format", "gif"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("offbeat: error: zoo: render() gave str 'no picture'; expected uint8 [H, W, 3]")


def test_the_check_says_the_same() -> None:
    for given in (GREY, RGBA, COLOUR / 255.0):
        assert not offbeat.check_env(partial(Draws, "rgb_array", given), steps=20).warnings
    (line,) = offbeat.check_env(partial(Draws, "rgb_array", np.zeros((3, 8, 8))), steps=20).warnings
    assert (
        "render() gave float64 [3, 8, 8]" in line and "expected uint8 [H, W, 3]" in line and "films of it fail" in line
    )
    (line,) = offbeat.check_env(Blind, steps=20).warnings
    assert "render() gave None" in line and "films of it show observations" in line


def test_pictures_of_vectors_are_looked_at_too() -> None:
    env = make_env(EnvConfig(id="toy/catch"), 1)
    env.reset(0)
    with pytest.raises(UserError, match=r"^toy/catch: render\(\) gave complex128 \[2, 2\]"):
        Camera(env, lambda: np.zeros((2, 2), complex)).picture(env.recv())
