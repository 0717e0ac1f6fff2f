"""Runs that were really broken on purpose are found out, each for what it is; healthy ones are left alone."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from offbeat.scoring.diagnose.table import JUDGES, Diagnosis, diagnose_run
from tests.scoring.diagnose.broken import BROKEN, HEALTHY, Run


def cases(runs: dict[str, Run]) -> list[object]:
    """Their names; those that take long are marked so."""
    return [pytest.param(name, marks=() if run.quick else pytest.mark.slow) for name, run in runs.items()]


@pytest.fixture(scope="module")
def diagnosed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Diagnosis]:
    """Trains a run of that name, once, and diagnoses it."""

    @functools.cache
    def of(name: str) -> Diagnosis:
        run = (BROKEN | HEALTHY)[name]
        folder = run.make(tmp_path_factory.mktemp("runs") / name.replace(" ", "-"))
        before = contents(folder)
        found = diagnose_run(folder, env_factory=run.env)
        assert contents(folder) == before, "the run folder stays as it is"
        return found

    return of


def contents(folder: Path) -> dict[str, str]:
    """Every file of a run, with what is in it."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize("name", cases(BROKEN))
def test_what_was_broken_is_found(name, diagnosed):
    found = diagnosed(name)
    assert not found.unplayed
    assert set(BROKEN[name].found) <= set(found.findings), found.lines()


@pytest.mark.parametrize("name", cases(HEALTHY))
def test_healthy_runs_are_left_alone(name, diagnosed):
    found = diagnosed(name)
    assert not found.unplayed
    assert found.findings == {}, found.lines()
    assert found.lines()[0] == f"nothing unusual in {len(JUDGES) - len(found.unjudged)} of {len(JUDGES)} checks"


def test_every_judge_has_a_run_that_was_broken_for_it():
    assert {name for run in BROKEN.values() for name in run.found} == {judge.name for judge in JUDGES}


def test_a_run_that_is_diagnosed_twice_says_the_same(diagnosed):
    first = diagnosed("cut off")
    again = diagnose_run(first.run, env_factory=BROKEN["cut off"].env)
    assert again.lines() == first.lines()
