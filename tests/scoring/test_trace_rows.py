"""Traces of runs and of documents: they must fit the run they lie in, or the row that names them."""

from __future__ import annotations

import json
import shutil
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from offbeat.cli import main
from offbeat.errors import UserError
from offbeat.run.train import train
from offbeat.scoring.trace_rows import traces_at, verify_scores
from offbeat.storage.traces import SUFFIX, pack, read_trace
from tests.house_rules.source import ROOT
from tests.runtime.parts import small_config

DOCUMENT = ROOT / "docs" / "results" / "traces"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that leaves a trace of its final evaluation."""
    out = tmp_path_factory.mktemp("traced") / "run"
    config = small_config(
        out=str(out), evaluation__at_end=True, evaluation__trace_actions=True, evaluation__episodes=4
    )  # fmt: skip
    return train(config).run


def verified(path: Path) -> tuple[bool, list[str]]:
    """Whether all is equal, and what was said."""
    said: list[str] = []
    return verify_scores([path], say=said.append), said


def copied(run: Path, to: Path) -> tuple[Path, Path]:
    """A copy of the run, and its trace."""
    shutil.copytree(run, to)
    (trace,) = (to / "traces").glob(f"*{SUFFIX}")
    return to, trace


def test_a_run_leaves_the_trace_of_its_score(run: Path, tmp_path: Path) -> None:
    equal, said = verified(run)
    assert equal, said
    assert said[-1].startswith("1 trace in ") and said[-1].endswith("all equal")
    assert main(["verify", "score", str(run)]) == 0
    moved = shutil.copy(next((run / "traces").glob("*")), tmp_path / f"alone{SUFFIX}")
    assert verified(Path(moved))[0], "also without its run"


def changed(trace: Path, **facts: Any) -> None:
    """Write the trace anew with other facts, and the hashes that fit them."""
    found = read_trace(trace)
    trace.write_bytes(pack(found.facts | facts, found.arrays))


def test_what_is_not_of_its_run_is_refused(run: Path, tmp_path: Path) -> None:
    folder, trace = copied(run, tmp_path / "weights")
    changed(trace, weights="0" * 64)
    equal, said = verified(folder)
    assert not equal and "weights 0000000000000000... are not those of" in said[0]

    folder, trace = copied(run, tmp_path / "options")
    facts = read_trace(trace).facts
    changed(trace, env=facts["env"] | {"reward_clip": 0.25})
    equal, said = verified(folder)
    assert not equal and "option reward_clip=0.25 where" in said[0]

    folder, trace = copied(run, tmp_path / "scores")
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    other = [json.loads(line) for line in lines]
    for record in other:
        if record["kind"] == "evaluation":
            record["returns"] = [value + 1 for value in record["returns"]]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in other))
    equal, said = verified(folder)
    assert not equal and "its scores are not those of" in said[0]
    assert "played all the same" in said[0], "which of both is true is said too"
    assert main(["verify", "score", str(folder)]) == 1


def test_where_there_is_no_trace_it_is_said(run: Path, tmp_path: Path) -> None:
    folder, trace = copied(run, tmp_path / "none")
    trace.unlink()
    with pytest.raises(UserError, match="has no action traces: 'offbeat eval RUN --trace-actions' leaves one"):
        traces_at(folder)
    with pytest.raises(UserError):
        traces_at(tmp_path / "nowhere")


def document(folder: Path, run: Path, **changes: Any) -> Path:
    """A folder with one row and its trace."""
    folder.mkdir()
    (trace,) = (run / "traces").glob(f"*{SUFFIX}")
    shutil.copy(trace, folder / f"a{SUFFIX}")
    found = read_trace(trace)
    row = {"name": "catch", "trace": f"a{SUFFIX}", "content": found.content, "games": 4}
    row |= {"mean": float(np.mean(found.arrays["score"]))} | changes
    text = "".join(f"{name} = {json.dumps(value)}\n" for name, value in row.items() if value is not None)
    (folder / "rows.toml").write_text(f"[[row]]\n{text}")
    return folder


def test_rows_of_a_document(run: Path, tmp_path: Path) -> None:
    assert verified(document(tmp_path / "fine", run))[0]
    for name, change, said in (
        ("mean", {"mean": 0.123}, "the row says 4 of 0.123"),
        ("games", {"games": 5}, "the row says 5 of"),
        ("content", {"content": "ab" * 32}, "it is another trace"),
    ):
        equal, lines = verified(document(tmp_path / name, run, **change))
        assert not equal and said in lines[0], lines
    with pytest.raises(UserError, match="a row lacks content"):
        traces_at(document(tmp_path / "lacking", run, content=None))
    stranger = document(tmp_path / "stranger", run)
    shutil.copy(stranger / f"a{SUFFIX}", stranger / f"b{SUFFIX}")
    with pytest.raises(UserError, match=r"has no row for .*b\.trace"):
        traces_at(stranger)


def test_what_this_repository_cites_is_named_in_its_results() -> None:
    rows = tomllib.loads((DOCUMENT / "rows.toml").read_text())["row"]
    text = (ROOT / "docs" / "results.md").read_text()
    assert rows and [row["name"] for row in rows if f"`{row['name']}`" not in text] == []
    assert len(traces_at(DOCUMENT)) == len(rows)


def test_the_quickest_row_of_this_repository_is_equal() -> None:
    """All of them: ``make verify-results``."""
    smallest = min(traces_at(DOCUMENT), key=lambda found: found.path.stat().st_size)
    assert verified(smallest.path)[0]
