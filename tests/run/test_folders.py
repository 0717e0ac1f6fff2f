"""Finding run folders."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from offbeat.errors import UserError
from offbeat.run.folders import find_run, list_runs


def make(folder: Path, age_s: float) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.toml").touch()
    os.utime(folder / "config.toml", (1e9 - age_s, 1e9 - age_s))
    return folder


def test_a_run_or_the_newest_one_in_a_folder_of_runs(tmp_path: Path) -> None:
    old, new = make(tmp_path / "a", 10), make(tmp_path / "b", 5)
    older = make(tmp_path / "c", 20)
    (tmp_path / "d").mkdir()
    (tmp_path / "e" / "config.toml").mkdir(parents=True)
    assert list_runs(tmp_path) == [older, old, new]
    assert find_run(tmp_path) == new
    assert find_run(str(old)) == old


@pytest.mark.parametrize(("name", "why"), [("empty", "it holds no config.toml"), ("nothing", "it does not exist")])
def test_what_is_no_run_is_refused(tmp_path: Path, name: str, why: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=f"is no run folder: {why}; name one, or a folder of runs"):
        find_run(tmp_path / name)
    assert list_runs(tmp_path / name) == []
