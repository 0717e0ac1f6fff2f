"""What records say of themselves."""

from __future__ import annotations

import numpy as np
import pytest

from tests.scoring.diagnose.made import RISING, fresh, record


def test_a_series_holds_the_finite_numbers_in_order():
    made = record(learner={"entropy": [1.0, None, 3.0, 4.0, 5.0]}, lines=5)
    assert made.series("entropy").tolist() == [1.0, 3.0, 4.0, 5.0]
    assert made.late("entropy").tolist() == [4.0, 5.0]
    assert made.series("loss").tolist() == []
    assert made.late("loss").tolist() == []


def test_how_a_number_moves_is_not_said_too_early():
    assert record(learner={"entropy": [1.0, 2.0], "updates": 100}, lines=2).moving("entropy").tolist() == [1.0, 2.0]
    assert record(learner={"entropy": [1.0, 2.0], "updates": 99}, lines=2).moving("entropy").tolist() == []
    assert record(learner={"entropy": [1.0, None], "updates": 100}, lines=2).moving("entropy").tolist() == []


def test_the_newest_counter_is_that_of_either_file():
    made = record(learner={"updates": [1.0, 7.0]}, lines=2, progress=[{"updates": 3.0}, {"updates": 9.0}])
    assert made.last("updates") == 9.0
    assert record(learner={"updates": [1.0, 7.0]}, lines=2).last("updates") == 7.0
    assert record().last("updates") == 0.0


def test_a_column_is_the_second_half_without_empty_cells():
    made = record(progress=[{"learner_wait": 0.0}, {"learner_wait": 0.1}, {"learner_wait": 0.5}, {}])
    assert made.column("learner_wait").tolist() == [0.5]


@pytest.mark.parametrize(
    ("returns", "learns"),
    [
        (RISING, True),
        ([0.0, 1.0] * 100, False),
        (RISING[::-1], False),
        (RISING + [0.0, 1.0] * 100, False),  # what was learnt is lost again
        (RISING + [2.5, 3.5] * 100, False),  # a quarter of it is left
        ([0.0, 1.0] * 5 + [0.4, 1.4] * 5, False),  # chance, with so few
        ([0.0, 1.0] * 500 + [0.4, 1.4] * 500, True),
        (RISING + [5.5, 6.0] * 100, True),  # half of it is left
        ([0.0] * 5 + [9.0] * 5, False),  # too few to say
        ([0.0, 10.0] * 50 + [0.5, 10.5] * 50, False),  # within chance
    ],
)
def test_returns_rise_or_do_not(returns, learns):
    assert record(returns=returns).learns is learns


def test_windows_are_means_of_tenths():
    returns = np.arange(300.0)
    assert record(returns=returns).windows == (returns[:30].mean(), returns[-30:].mean(), returns[-30:].mean())
    falls = returns[::-1]
    assert record(returns=falls).windows == (falls[:30].mean(), falls[-30:].mean(), falls[:30].mean())
    assert all(np.isnan(one) for one in record(returns=[1.0] * 19).windows)


def test_it_knows_what_it_holds():
    bare = record()
    assert bare.known == frozenset()
    full = record(
        "apex-catch", learner={"td_error": 1.0, "frames": 10.0}, returns=[0.0] * 20, fresh=fresh(), cores=2,
        progress=[{}] * 4,
    )  # fmt: skip
    assert full.known >= {"td_error", "frames", "episodes", "fresh", "cores", "exploration", "target", "waits"}
    assert not full.known & {"layers", "actions"}
    assert not record(options={"engine": "inline"}, cores=2, progress=[{}] * 4).known & {"cores", "waits"}


def test_paced_is_what_comes_fresh():
    assert record("impala-catch").paced
    assert not record("apex-catch").paced


def test_the_largest_reward_is_finite():
    assert fresh([-3.0, np.nan, 2.0, np.inf]).largest == 3.0
    assert fresh([]).largest == 0.0
