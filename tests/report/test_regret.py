"""A regret report as text and as JSON."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from offbeat.acting.scores import Evaluation
from offbeat.envs.delay_config import DelayConfig
from offbeat.report.regret import describe, numbers, text, write_regret
from offbeat.scoring.regret import Regret, parts_of

SEQUENTIAL = DelayConfig(mode="sequential", inference_frames=4)


def scored(mean: float, decisions: int) -> Evaluation:
    """Three episodes of 40 emulator frames, ten steps of four."""
    returns = mean + np.array([-1.0, 0.0, 1.0])
    return Evaluation(returns, np.full(3, decisions), policy="greedy", frames_each=np.full(3, 40))


@pytest.fixture
def regret() -> Regret:
    """One with a reference."""
    evaluations = {
        "undelayed": scored(8.0, 10), "every_frame": scored(5.0, 6), "as_run": scored(2.0, 2),
        "reference": scored(9.0, 10),
    }  # fmt: skip
    delays = {"undelayed": DelayConfig(), "every_frame": DelayConfig(inference_frames=4), "as_run": SEQUENTIAL}
    return Regret(Path("run"), Path("other"), evaluations, delays, parts_of(evaluations), None)


def test_the_tables_say_what_was_played_and_what_it_cost(regret: Regret) -> None:
    said = text(regret)
    lines = {line[:34].strip(): line.split() for line in said.splitlines()}
    assert lines["delayed, as the run"][4:] == ["3", "greedy", "2.000", "50.000", "80.0%", "sequential,", "4", "frames"]
    assert lines["delayed, an action in every frame"][6:9] == ["3", "greedy", "5.000"]
    parts = [line.split() for line in said.splitlines() if line.startswith(("learning", "delay ", "inaction", "sum"))]
    assert [(part[0], part[1], part[4]) for part in parts] == [
        ("learning", "1.000", "25.000"), ("delay", "3.000", "75.000"), ("inaction", "3.000", "75.000"),
        ("sum", "7.000", "175.000"),
    ]  # fmt: skip
    assert "The sum is 'reference, undelayed' minus 'delayed, as the run'" in said


def test_it_says_what_is_not_known(regret: Regret) -> None:
    evaluations = {name: one for name, one in regret.evaluations.items() if name != "reference"}
    alone = replace(regret, reference=None, evaluations=evaluations, parts=parts_of(evaluations))
    assert "not known without --reference" in text(alone)
    assert "The sum is 'this run, undelayed' minus" in text(alone)
    none = replace(alone, delays=dict.fromkeys(regret.delays, DelayConfig(history=3)))
    assert "The run has no delay: delay and inaction cost nothing." in text(none)
    assert "left 25.0% of its frames" in text(replace(alone, measured_inaction=0.25))
    given_up = {**evaluations, "as_run": replace(evaluations["as_run"], given_up=2)}
    assert "were given up" in text(replace(alone, evaluations=given_up))


def test_the_file_holds_every_number(regret: Regret, tmp_path: Path) -> None:
    path = write_regret(regret, tmp_path / "report")
    assert path == tmp_path / "report" / "regret.json"
    found = json.loads(path.read_text())
    assert found == numbers(regret)
    assert found["parts"]["sum"]["per_episode"]["value"] == 7.0
    assert found["evaluations"]["as_run"]["inaction_share"] == pytest.approx(0.8)
    assert found["evaluations"]["as_run"]["returns"] == [1.0, 2.0, 3.0]
    assert found["delays"]["as_run"]["mode"] == "sequential"


@pytest.mark.parametrize(
    ("delay", "said"),
    [
        (DelayConfig(history=3), "none"),
        (DelayConfig(inference_frames=2, period=2.5), "async, 2 frames, one every 2.5"),
        (DelayConfig(distribution="uniform", low=1, high=4), "async, 1 to 4 frames"),
        (replace(SEQUENTIAL, learn_frames=3), "sequential, 4 frames, learning 3"),
        (DelayConfig(semantics="published", inference_frames=5, noops=2), "published: 5 macro steps of 3"),
    ],
)
def test_delays_in_few_words(delay: DelayConfig, said: str) -> None:
    assert describe(delay) == said
