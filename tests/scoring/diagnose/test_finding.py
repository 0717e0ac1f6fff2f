"""Findings and judges as such."""

from __future__ import annotations

from offbeat.scoring.diagnose.finding import Finding, Judge
from tests.scoring.diagnose.made import record


def test_a_finding_is_one_line():
    assert Finding("7 seen", "1", "agent.x").line("ratios") == "ratios: 7 seen; usual: 1; try: agent.x"


def test_a_judge_says_what_it_needs():
    judge = Judge("entropy", lambda record: None, ("entropy", "fresh"))
    assert judge.missing(record()) == ["entropy", "fresh"]
    assert judge.missing(record(learner={"entropy": 1.0})) == ["fresh"]
