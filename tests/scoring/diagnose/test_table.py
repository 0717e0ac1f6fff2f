"""The table of judges, and what is said of a run."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from offbeat.scoring.diagnose import table
from offbeat.scoring.diagnose.record import Layer, Seen
from offbeat.scoring.diagnose.table import JUDGES, Diagnosis, diagnose_run, judge_all, numbers
from tests.house_rules.source import ROOT
from tests.scoring.diagnose.broken import Run
from tests.scoring.diagnose.made import RISING, fresh, record


def test_names_are_told_apart():
    assert len({judge.name for judge in JUDGES}) == len(JUDGES) == len({judge.find for judge in JUDGES})


def test_nothing_is_found_of_nothing_and_what_was_missing_is_said():
    found, unjudged = judge_all(record())
    assert found == {}
    assert unjudged["stale replay"] == "policy_lag, target"
    assert set(unjudged) == {judge.name for judge in JUDGES if judge.needs}


def test_what_does_no_harm_is_not_asked_of_runs_that_learn():
    frozen = {"entropy": 0.69, "updates": 500.0}
    assert "entropy frozen" in judge_all(record(learner=frozen, returns=RISING[::-1]))[0]
    assert judge_all(record(learner=frozen, returns=RISING))[0] == {}


def test_what_is_said():
    seen = fresh([-1.0, 1.0], observations={"x": Seen(-2.0, 3.0, 0, True, False)}, layers=(Layer("a", "relu", 8, 1),))
    made = record(learner={"entropy": [1.0, 0.5], "frames": 2000}, lines=2, returns=RISING, fresh=seen)
    found, unjudged = judge_all(made)
    look = Diagnosis(Path("run"), made, found, unjudged, "")
    assert look.lines() == [
        f"nothing unusual in {len(JUDGES) - len(unjudged)} of {len(JUDGES)} checks",
        "numbers: frames 2,000; episodes 200; return 0.5 to 10.5; entropy 1 to 0.5; rewards -1 to 1; "
        "observation 'x' -2 to 3; a 1 of 8 silent",
    ]
    broken = replace(look, findings={"silent units": table.updates.Finding("a", "b", "c")}, unplayed="ValueError: gone")
    first, *_, last = broken.lines()
    assert first == "silent units: a; usual: b; try: c"
    assert last == "judged from the record alone, as the run could not be played: ValueError: gone"
    plain = json.loads(json.dumps(broken.plain(), allow_nan=False))
    assert plain["findings"] == [{"name": "silent units", "seen": "a", "usual": "b", "options": "c"}]
    assert plain["numbers"] == numbers(made) and plain["unplayed"] == "ValueError: gone"


def test_a_run_that_cannot_be_played_is_judged_by_its_record(tmp_path):
    run = Run("impala-catch", 400, {"actor.envs_per_worker": 2, "learner.batch_size": 2}).make(tmp_path / "run")

    def gone(**options):
        raise OSError("the simulator is gone")

    found = diagnose_run(run, env_factory=gone)
    assert found.record.fresh is None
    assert "rewards never seen" not in found.unjudged and found.unjudged["silent units"] == "layers"
    assert found.lines()[-1].startswith("judged from the record alone") and found.unplayed


@pytest.mark.parametrize("judge", JUDGES, ids=lambda judge: judge.name)
def test_the_documents_have_a_row_for_each(judge):
    star = "*" if judge.unless_learning else ""
    assert f"| {judge.name}{star} |" in (ROOT / "docs" / "my_run_does_not_learn.md").read_text()
