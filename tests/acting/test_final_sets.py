"""The sets that a run ends with: which there are, what is refused, and what their scores add up to."""

from __future__ import annotations

import numpy as np
import pytest

from offbeat.acting.final_sets import FinalConfig, SetScore, final_sets, summary, table
from offbeat.envs.base import EnvConfig
from offbeat.errors import UserError

TRAINED = EnvConfig(id="toy/catch", length=6, max_steps=3)
SCORED = EnvConfig(id="toy/catch", length=6, max_steps=9, sticky=0.25)


def test_sets_that_differ_in_their_seeds() -> None:
    sets = final_sets(FinalConfig(sets=3), TRAINED, SCORED)
    assert [(one.name, one.seed, one.test) for one in sets] == [
        ("seed=0", 0, True),
        ("seed=1", 1, True),
        ("seed=2", 2, True),
    ]
    assert {one.env for one in sets} == {SCORED}
    assert final_sets(FinalConfig(), TRAINED, SCORED) == []


def test_sets_that_differ_in_an_option_and_the_one_that_was_trained_on() -> None:
    config = FinalConfig(values=(4, 5), vary="max_steps", train_set=True)
    sets = final_sets(config, TRAINED, SCORED)
    assert [(one.name, one.env.max_steps, one.test) for one in sets] == [
        ("train", 3, False), ("max_steps=4", 4, True), ("max_steps=5", 5, True),
    ]  # fmt: skip
    assert {one.env.sticky for one in sets} == {0.25}, "all else is as in final_env, also on what was trained on"
    assert len({one.seed for one in sets}) == 3


@pytest.mark.parametrize(
    ("config", "says"),
    [
        (FinalConfig(sets=2, values=(1,)), r"final.sets=2 with final.values=\[1\]"),
        (FinalConfig(sets=2, train_set=True), "final.train_set=true without final.values"),
        (FinalConfig(values=(1,), vary="lenght"), "unknown final.vary 'lenght'; did you mean 'length'"),
        (FinalConfig(values=(1,), vary="sticky"), "unknown final.vary 'sticky'"),
    ],
)
def test_options_that_contradict_each_other_are_refused(config: FinalConfig, says: str) -> None:
    with pytest.raises(UserError, match=says):
        final_sets(config, TRAINED, SCORED)


def test_means_are_over_the_test_sets_alone() -> None:
    scores = [
        SetScore("train", False, 9.0, 0.5, 200), SetScore("a", True, 1.0, 0.25, 200),
        SetScore("b", True, 4.0, 1.0, 200), SetScore("c", True, 4.0, 1.0, 200),
    ]  # fmt: skip
    found = summary(scores)
    assert found == {"test_mean": 3.0, "test_std": pytest.approx(np.sqrt(2.0)), "test_sets": 3, "train_mean": 9.0}
    assert "train_mean" not in summary(scores[1:])
    assert table(scores).splitlines() == [
        "set                  mean   std  episodes",
        "train                9.00  0.50       200",
        "a                    1.00  0.25       200",
        "b                    4.00  1.00       200",
        "c                    4.00  1.00       200",
        "mean of 3 test sets  3.00  1.41",
    ]
