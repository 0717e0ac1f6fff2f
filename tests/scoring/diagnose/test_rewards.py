"""Judges of rewards, on records that are made up."""

from __future__ import annotations

import numpy as np
import pytest

from offbeat.scoring.diagnose import rewards
from tests.scoring.diagnose.made import RISING, fresh, record


@pytest.mark.parametrize(
    ("returns", "seen"),
    [
        ([0.0] * 30, "all of 30 training episodes returned 0"),
        ([-200.0] * 30, "all of 30 training episodes returned -200"),
        ([0.0] * 499 + [1.0], "all but 1 of 500 training episodes returned 0"),
        ([0.0] * 490 + [1.0] * 10, None),
        ([0.0] * 29 + [1.0], None),  # too few to call it rare
        (RISING, None),
    ],
)
def test_unseen(returns, seen):
    found = rewards.unseen(record(returns=returns))
    assert (found and found.seen) == seen


SIGN = {"env.reward_clip": "sign"}


@pytest.mark.parametrize(
    ("raw", "options", "found"),
    [
        ([1.0, 1000.0] * 20, SIGN, True),  # always paid, and all the same
        ([0.0, 1.0, 1000.0, 500.0] * 20, SIGN, False),  # a third of them is not changed
        ([0.0, 2.0, 1000.0, 500.0] * 20, SIGN, True),  # all are, and they differ by 500
        ([0.0, 0.0, 4.0, 7.0] * 20, SIGN, False),  # Breakout's
        ([1.0, 1000.0] * 20, {}, False),
        ([0.0, -1.0, 1.0] * 20, SIGN, False),
        ([0.0, 2.0, 1000.0] * 4, SIGN, False),  # 8 rewards are too few
        ([0.0, 2.0, 1000.0, np.nan] * 20, SIGN, True),
    ],
)
def test_clipped(raw, options, found):
    values = np.array(raw)
    trained = np.sign(values) if options else values
    judged = rewards.clipped(record(options=options, fresh=fresh(trained, raw)))
    assert (judged is not None) is found


def test_clipping_is_told_from_scaling():
    raw = np.array([0.0, 2.0, 1000.0] * 20)
    options = {"env.reward_clip": "clamp", "env.reward_scale": 0.5}
    judged = rewards.clipped(record(options=options, fresh=fresh(np.clip(raw, -1, 1) * 0.5, raw)))
    assert (
        judged is not None and "changes 100% of the rewards, which are 2 to 1000 and become 0.5 to 0.5" in judged.seen
    )
    assert rewards.clipped(record(options=options, fresh=fresh(raw * 0.5, raw))) is None


@pytest.mark.parametrize(
    ("given", "learner", "seen"),
    [
        ([0.0, 99.0], {}, None),
        ([0.0, -100.0], {}, "rewards up to 100 are trained on"),
        ([0.0, 1e-4], {}, "rewards up to 0.0001 are trained on"),
        ([0.0, 0.0], {}, None),  # that is for another judge
        ([1.0], {"value_mean": [0, 0, 0, 0, 0, 0, 0, -300]}, "rewards up to 1 are trained on, values reach 300"),
        ([1.0], {"q_max": [999, 0, 0, 0, 0, 0, 0, 0]}, None),  # long ago
        ([np.nan, 1.0], {}, None),
    ],
)
def test_scale(given, learner, seen):
    found = rewards.scale(record(learner=learner, fresh=fresh(given)))
    assert (found and found.seen) == seen
    options = {"agent.normalise_reward": True}
    assert rewards.scale(record(options=options, learner=learner, fresh=fresh(given))) is None


def test_scale_without_fresh_rows_goes_by_values():
    assert rewards.scale(record(learner={"target_mean": 1e4})).seen == "values reach 10000"
    assert rewards.scale(record()) is None
