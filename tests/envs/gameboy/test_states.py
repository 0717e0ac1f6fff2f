"""States made by playing: the list of buttons, and that a task starts from what came of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from offbeat.cli import main
from offbeat.envs.base import EnvConfig
from offbeat.envs.gameboy.folders import ROMS
from offbeat.envs.gameboy.states import parse_keys
from offbeat.envs.registry import make_env
from offbeat.errors import UserError
from tests.envs.gameboy.stand_in import folder_of, stand_in


def test_lists_of_buttons() -> None:
    assert parse_keys("wait:120 START a+B:30") == [
        ((), 120), (("START",), 4), ((), 4), (("A", "B"), 30), ((), 4)
    ]  # fmt: skip
    assert parse_keys("") == [] and parse_keys("wait") == [((), 4)]


@pytest.mark.parametrize("word", ["X", "A:0", "A:b", "A+", "wait+A", "1"])
def test_what_is_no_button_is_refused(word: str) -> None:
    with pytest.raises(UserError, match="is none; allowed are B, SELECT, START, UP"):
        parse_keys(f"A {word}")


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["gameboy", *arguments]) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    return line


@pytest.mark.parametrize(("backend", "package"), [("pyboy", "pyboy"), ("retro", "stable_retro")])
def test_a_state_is_made_and_played(
    backend: str,
    package: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Our blocks stand in for a cartridge of the user's: the title is waited for, and the state is before a game."""
    pytest.importorskip(package)
    pytest.importorskip("cv2")
    stand_in(monkeypatch, "tetris", "blocks")
    folder = folder_of(tmp_path / "Tetris-GameBoy", "blocks", {})
    common = ("--folder", str(tmp_path), "--backend", backend)
    shown = tmp_path / "shown.png"
    line = ("state", "tetris", "TypeA_Level0", "--keys", "wait:90", "--picture", str(shown), *common)
    assert main(["gameboy", *line]) == 0
    file = Path(capsys.readouterr().out.strip())
    assert file == folder / f"TypeA_Level0.{'state' if backend == 'retro' else 'pyboy'}" and file.is_file()
    assert Image.open(shown).size == (160, 144)
    more = ("state", "tetris", "TypeA_Level1", "--from", "TypeA_Level0", "--keys", "SELECT:2", *common)
    assert main(["gameboy", *more]) == 0
    capsys.readouterr()
    env = make_env(EnvConfig(id="gameboy/tetris", folder=str(tmp_path), backend=backend, advance=False), 2)  # type: ignore[arg-type]
    env.reset(0)
    assert env.recv().first.all()
    env.send(np.array([5, 5]))
    assert env.recv().valid.all()
    env.close()
    wrong = ("state", "tetris", "x", "--from", "nowhere", "--keys", "A", *common)
    assert "there is no saved state" in said(capsys, *wrong)


def test_errors_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "needs one of: state, play, rom; got 'stat'; did you mean 'state'?" in said(capsys, "stat")
    assert "no Game Boy task is called 'tetri'; did you mean 'tetris'?" in said(
        capsys, "state", "tetri", "x", "--keys", "A"
    )
    assert "say what to play" in said(capsys, "state", "tetris", "x")
    pytest.importorskip("pyboy")
    pytest.importorskip("cv2")
    nowhere = ("--folder", str(tmp_path / "no"))
    assert "there is no folder" in said(capsys, "state", "tetris", "x", "--keys", "A", *nowhere)
    assert "gameboy/blocks has starts of its own" in said(capsys, "state", "blocks", "x", "--keys", "A")
    assert "a state's name is of letters" in said(capsys, "state", "tetris", "../x", "--keys", "A")
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    assert "there is no display" in said(capsys, "play", "blocks")


def test_free_cartridges_are_handed_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["gameboy", "rom", "blocks", str(tmp_path / "b.gb")]) == 0
    assert (tmp_path / "b.gb").read_bytes() == (ROMS / "blocks.gb").read_bytes()
    assert "unknown cartridge 'bloks'" in said(capsys, "rom", "bloks", str(tmp_path / "c.gb"))
    assert "cannot be written" in said(capsys, "rom", "blocks", str(tmp_path / "no" / "c.gb"))
