"""Checkpoints with names of their own: found, replaced in one step, kept for ever, and none that a run goes on from."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from offbeat.errors import UserError
from offbeat.storage import reading
from offbeat.storage.checkpoint import CheckpointError, begin, find, load_weights, newest, save
from offbeat.storage.named import BEST, EXTRA, chosen, is_named, is_there


def numbered(run: Path, steps: int, value: float = 0.0, keep: int = 2) -> Path:
    """An ordinary checkpoint."""
    parts = {"learner": {"weights/w": np.full(3, value)}, "streams": {"streams/head": np.zeros(2)}}
    return save(run, steps, parts, {"counters": {"agent_steps": steps}}, keep=keep)


def best(run: Path, steps: int, value: float) -> Path:
    """The checkpoint ``best``."""
    draft = begin(run, steps)
    draft.write("learner", {"weights/w": np.full(3, value)})
    return draft.commit({"counters": {"agent_steps": steps}}, name=BEST)


def weight(source: Path) -> float:
    """What all of its weights are."""
    return float(load_weights(source)[0]["w"][0])


def test_the_best_one_replaces_the_one_before_and_is_no_newest(tmp_path: Path) -> None:
    numbered(tmp_path, 5, 5.0)
    assert not is_there(tmp_path, BEST)
    assert best(tmp_path, 70, 1.0) == chosen(tmp_path, "best") == tmp_path / "checkpoints" / "best"
    best(tmp_path, 90, 2.0)
    assert is_there(tmp_path, BEST) and weight(chosen(tmp_path, "best")) == 2.0
    assert find(chosen(tmp_path, "best")).agent_steps == 90
    found = newest(tmp_path)
    assert found is not None and found.agent_steps == 5 and weight(tmp_path) == 5.0
    for steps in range(6, 12):
        numbered(tmp_path, steps, keep=1)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["000000000011", "best"]


def test_a_copy_that_is_kept_outlives_what_it_is_a_copy_of(tmp_path: Path) -> None:
    draft = begin(tmp_path, 30)
    draft.write("learner", {"weights/w": np.full(3, 7.0)})
    draft.write("streams", {"streams/head": np.zeros(2)})
    extra = draft.keep_copy(EXTRA, {"counters": {}}, ("learner",))
    path = draft.commit({"counters": {}}, keep=1)
    assert sorted(file.name for file in extra.iterdir()) == ["learner.safetensors", "manifest.json", "meta.json"]
    assert (path / "streams.safetensors").exists()
    assert os.stat(extra / "learner.safetensors").st_ino == os.stat(path / "learner.safetensors").st_ino
    shutil.rmtree(path)
    assert weight(chosen(tmp_path, "extra")) == 7.0


def test_a_disk_without_links_gets_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*arguments: object, **options: object) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(os, "link", none)
    draft = begin(tmp_path, 30)
    draft.write("learner", {"weights/w": np.full(3, 7.0)})
    draft.keep_copy(EXTRA, {"counters": {}}, ("learner",))
    assert weight(chosen(tmp_path, "extra")) == 7.0


def test_a_writer_that_was_killed_while_it_replaced_one_loses_neither(tmp_path: Path) -> None:
    folder = best(tmp_path, 3, 1.0)
    os.replace(folder, folder.with_name(".old-best"))
    assert is_there(tmp_path, BEST)
    begin(tmp_path, 9).abort()  # the next writer
    assert weight(chosen(tmp_path, "best")) == 1.0
    shutil.copytree(folder, folder.with_name(".old-best"))
    begin(tmp_path, 9).abort()
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["best"]


def test_one_that_is_replaced_while_it_is_read_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = best(tmp_path, 3, 1.0)
    verified, looks = reading.verified, []

    def replaced(path: Path, only: object = None) -> object:
        looks.append(path)
        if len(looks) == 1:
            best(tmp_path, 4, 2.0)
            raise CheckpointError("the contents do not match")
        return verified(path, only)  # type: ignore[arg-type]

    monkeypatch.setattr(reading, "verified", replaced)
    assert weight(folder) == 2.0 and len(looks) == 2
    (folder / "learner.safetensors").write_bytes(b"broken")
    with pytest.raises(CheckpointError, match=r"learner.safetensors has 6 bytes"):
        load_weights(folder)


def test_names_that_are_not_there_are_refused_with_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no checkpoint 'best': there is none yet"):
        chosen(tmp_path, "best")
    numbered(tmp_path, 20)
    numbered(tmp_path, 100)
    best(tmp_path, 20, 0.0)
    assert chosen(tmp_path, "100") == chosen(tmp_path, "000000000100") == tmp_path / "checkpoints" / "000000000100"
    for wrong in ("extra", "99", "../best", ""):
        with pytest.raises(UserError, match=rf"has no checkpoint '{wrong}': there are best, 20, 100"):
            chosen(tmp_path, wrong)
    with pytest.raises(ValueError, match="name='other': expected one of best, extra"):
        begin(tmp_path, 1).commit({}, name="other")


def test_a_run_may_be_called_best(tmp_path: Path) -> None:
    run = tmp_path / "best"
    run.mkdir()
    numbered(run, 5, 3.0)
    assert not is_named(run) and weight(run) == 3.0
    assert is_named(run / "checkpoints" / "best")
