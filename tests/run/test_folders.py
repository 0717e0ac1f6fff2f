"""Finding run folders."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from offbeat.errors import UserError
from offbeat.run.folders import find_run, list_runs, runs_among


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


RUN = 'seed = 0\n[agent]\nname = "impala"\n[env]\nid = "toy/catch"\n'


def test_what_is_no_run_is_passed_over_in_one_line(tmp_path: Path) -> None:
    for name, text in (("one", RUN), ("campaign/two", RUN), ("campaign/three", RUN), ("campaign/torn", "x = ")):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "config.toml").write_text(text)
    (tmp_path / "cargo").mkdir()
    (tmp_path / "cargo" / "config.toml").write_text("seed = 1\n[build]\n")
    (tmp_path / "empty").mkdir()
    (tmp_path / "half" / "checkpoints").mkdir(parents=True)
    (tmp_path / "campaign.csv").touch()
    os.utime(tmp_path / "campaign" / "two" / "config.toml", (2e9, 2e9))
    given = sorted(tmp_path.iterdir())
    said: list[str] = []
    runs = runs_among([*given, tmp_path / "one"], newest=False, say=said.append)
    assert [run.name for run in runs] == ["three", "two", "one"]
    (line,) = said
    assert line.startswith(f"passed over, as they are no runs: {tmp_path}/campaign/torn ({tmp_path}/campaign/torn/")
    for name in ("campaign.csv, ", "cargo (its config.toml has no [agent] name), ", "empty, ", "half"):
        assert f"{tmp_path}/{name}" in line
    said.clear()
    assert runs_among(given, newest=True, say=said.append) == [tmp_path / "campaign" / "two", tmp_path / "one"]
    assert said[0].startswith(f"{tmp_path}/campaign holds 2 runs, of which the newest is taken, two; ")
    said.clear()
    assert runs_among([tmp_path / "one"], newest=True, say=said.append) == [tmp_path / "one"] and not said
    with pytest.raises(UserError, match=r"none of these is a run folder or a folder of runs: .*empty, .*half; name"):
        runs_among([tmp_path / "empty", tmp_path / "half"], newest=False, say=said.append)
    with pytest.raises(UserError, match=r"misspelt.* is no run folder: it does not exist"):
        runs_among([tmp_path / "one", tmp_path / "misspelt"], newest=False, say=said.append)
