"""What close() of an environment raises is one line, and loses neither scores nor films nor runs."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium
import pytest

import offbeat
from offbeat.envs.base import EnvConfig
from offbeat.envs.closing import close_env, close_envs
from offbeat.envs.registry import env_spec, make_env
from offbeat.report.watch import play_run
from tests.zoo.entry import Entry
from tests.zoo.manners import NeedsClose, Raises
from tests.zoo.runs import run_of
from tests.zoo.small import Small

RAISES = partial(Raises, "close")
LINE = r"zoo: close\(\) raised RuntimeError: broken in close \(manners\.py, line \d+\)"


class Exits(Small):
    """Ends the program when it is closed."""

    def close(self) -> None:
        raise SystemExit(3)


class Interrupted(Small):
    def close(self) -> None:
        raise KeyboardInterrupt


def test_what_it_raises_is_one_line() -> None:
    assert close_env(Small(), "mine") == ""
    line = close_env(Raises("close"), "mine")
    assert line.startswith("mine: close() raised RuntimeError: broken in close (manners.py, line ")
    assert "mine: close() raised SystemExit: 3" in close_env(Exits(), "mine")
    with pytest.raises(KeyboardInterrupt):
        close_env(Interrupted(), "mine")


def test_all_are_closed_and_each_line_is_said_once() -> None:
    before, many = NeedsClose.opened, [Raises("close"), NeedsClose(), Raises("close"), NeedsClose(), Exits()]
    first, second = close_envs(many, "mine").split("; ")
    assert "broken in close" in first and "SystemExit: 3" in second
    assert NeedsClose.opened == before


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of it."""
    folder = tmp_path_factory.mktemp("closing") / "run"
    assert run_of(Entry("raises", RAISES), "impala", folder).finished
    return folder


@pytest.mark.filterwarnings("default")
def test_a_score_stands(run: Path) -> None:
    with pytest.warns(UserWarning, match=f"{LINE}$"):
        assert len(offbeat.evaluate(run, episodes=2, env_factory=RAISES).returns) == 2


@pytest.mark.filterwarnings("default")
def test_a_film_stands(run: Path, tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match=f"{LINE}$"):
        assert offbeat.record(run, tmp_path / "a.gif", env_factory=RAISES).stat().st_size > 0


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("use", [offbeat.load, partial(offbeat.check_env, RAISES, steps=20)])
def test_looking_at_it_goes_on(use: Callable[..., Any], run: Path) -> None:
    if use is offbeat.load:
        with pytest.warns(UserWarning, match=f"{LINE}$"):
            assert use(run, env_factory=RAISES)
    else:
        assert use().ok


@pytest.mark.filterwarnings("default")
def test_what_was_shown_in_a_window_stands(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib import pyplot
    from matplotlib.backends import backend_registry

    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr(backend_registry, "list_builtin", lambda *_: ["agg"])
    monkeypatch.setattr(pyplot, "pause", lambda seconds: None)
    with pytest.warns(UserWarning, match=f"{LINE}$"):
        assert len(play_run(run, 1, env_factory=RAISES).returns) == 1


def test_the_command_line_says_it_in_one_line(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from offbeat.cli import main

    (tmp_path / "mine.py").write_text("from tests.envs.test_closing import RAISES\ndef make():\n    return RAISES()\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "modules", {**sys.modules})
    monkeypatch.chdir(tmp_path)
    assert main(["eval", str(run), "--env", "mine:make", "--episodes", "2"]) == 0
    shown = capsys.readouterr()
    assert "2 episodes" in shown.out and "Traceback" not in shown.err
    (line,) = [line for line in shown.err.splitlines() if line.startswith("offbeat: ")]
    assert "zoo: close() raised RuntimeError: broken in close" in line


@pytest.mark.parametrize("engine", ["inline", pytest.param("local", marks=pytest.mark.slow)])
def test_a_finished_run_is_finished(engine: str, tmp_path: Path) -> None:
    options = {"engine": engine, "evaluation.at_end": True}
    result = run_of(Entry("raises", RAISES), "impala", tmp_path / "run", **options)
    assert result.finished and result.evaluation_mean is not None
    said = (tmp_path / "run" / "run.log").read_text()
    for role in ("actor-0", "evaluator"):
        assert f"{role}: closing it failed: zoo: close() raised RuntimeError: broken in close (manners.py" in said
    assert "Traceback" not in said


def test_an_id_of_gymnasium_whose_close_raises_can_be_made() -> None:
    gymnasium.register("Unclosed-v0", RAISES)
    try:
        with pytest.warns(UserWarning, match=r"Unclosed-v0: close\(\) raised RuntimeError"):
            assert env_spec(EnvConfig(id="Unclosed-v0")).action.num_actions == 3
    finally:
        del gymnasium.registry["Unclosed-v0"]


class Third(NeedsClose):
    """The third of them cannot be made."""

    left = 2

    def __init__(self) -> None:
        if not Third.left:
            raise RuntimeError("no third one")
        Third.left -= 1
        super().__init__()


@pytest.mark.parametrize("closes", [True, False])
def test_what_was_made_is_closed_where_another_cannot_be_made(closes: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """And what closing raises does not hide why."""
    before = NeedsClose.opened
    monkeypatch.setattr(Third, "left", 2)
    if not closes:
        monkeypatch.setattr(Third, "close", Raises("close").close.__func__, raising=False)  # type: ignore[attr-defined]
        monkeypatch.setattr(Third, "called", lambda self, where: 1 / 0, raising=False)
    with pytest.raises(RuntimeError, match="no third one") as caught:
        make_env(EnvConfig(id="mine"), 3, factory=Third)
    assert caught.value.__cause__ is None
    assert (NeedsClose.opened == before) == closes
    NeedsClose.opened = before
