"""Each environment of the zoo trains for a moment and its agent acts on it, or is refused in its own line."""

from __future__ import annotations

import os
import re
from collections import Counter
from pathlib import Path

import pytest

import offbeat
from tests.zoo.entries import ZOO
from tests.zoo.entry import Entry
from tests.zoo.manners import NeedsClose
from tests.zoo.runs import line, run_of

pytestmark = pytest.mark.filterwarnings("ignore")
by_name = pytest.mark.parametrize("entry", ZOO, ids=[entry.name for entry in ZOO])


def test_names_are_unique() -> None:
    names = Counter(entry.name for entry in ZOO)
    assert max(names.values()) == 1 and len(names) > 40


@by_name
def test_it_trains_or_is_refused_in_its_line(entry: Entry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "run"
    if not entry.says:
        trains(entry, run)
        return
    with pytest.raises(BaseException) as caught:
        run_of(entry, entry.agents[0], run)
    assert re.search(entry.says, line(caught.value)), line(caught.value)
    assert run.exists() == (entry.at == "run")


def trains(entry: Entry, run: Path) -> None:
    """Train, load, and act as the environment is spoken to."""
    result = run_of(entry, entry.agents[0], run)
    assert result.finished and result.updates >= 5
    agent = offbeat.load(run, env_factory=entry.make)
    if not entry.single:
        return
    env = entry.make()
    observation, info = env.reset(seed=3)
    action = agent.act(observation, action_mask=info.get("action_mask"))
    assert env.action_space.contains(action), action


def test_everything_is_closed(tmp_path: Path) -> None:
    (entry,) = [entry for entry in ZOO if entry.name == "needs-close"]
    before = NeedsClose.opened
    run_of(entry, "impala", tmp_path / "run")
    agent = offbeat.load(tmp_path / "run", env_factory=NeedsClose)
    assert agent.spec.action.num_actions == 3
    assert NeedsClose.opened == before


def test_a_run_in_a_relative_folder_survives_a_change_of_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (entry,) = [entry for entry in ZOO if entry.name == "wanders"]
    result = run_of(entry, "impala", Path("run"))
    assert os.getcwd() != str(tmp_path)
    assert (tmp_path / "run" / "config.toml").exists() and result.finished
