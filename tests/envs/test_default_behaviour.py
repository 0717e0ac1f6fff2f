"""What acts where no decision is ready."""

from __future__ import annotations

import numpy as np
import pytest

from offbeat.envs.default_behaviour import DefaultBehaviour
from offbeat.types import ActionSpec

BOX = ActionSpec("continuous", shape=(2,), low=(1.0, -1.0), high=(2.0, 1.0))


def test_nothing_is_the_action_nearest_to_zeros():
    assert DefaultBehaviour(BOX, "noop", 0, 0).action().tolist() == [[1.0, 0.0]]
    assert DefaultBehaviour(ActionSpec("multi_discrete", nvec=(3, 4)), "noop", 2, 0).action().tolist() == [[2, 2]]
    with pytest.raises(ValueError, match=r"delay.noop_action=3 is no action here; allowed are 0 to 2"):
        DefaultBehaviour(ActionSpec("multi_discrete", nvec=(3, 4)), "noop", 3, 0)
    with pytest.raises(ValueError, match="leave it at 0"):
        DefaultBehaviour(BOX, "noop", 1, 0)


def test_repeat_is_of_decisions_of_this_episode():
    play = DefaultBehaviour(ActionSpec("discrete", 5), "repeat", 1, 0)
    assert play.action().tolist() == [1]
    play.decided(np.array([4]))
    assert play.action().tolist() == [4]
    play.start()
    assert play.action().tolist() == [1]


@pytest.mark.parametrize("spec", [ActionSpec("discrete", 3), ActionSpec("multi_discrete", nvec=(3, 2)), BOX,
                                  ActionSpec("continuous", shape=(2,))])  # fmt: skip
def test_random_actions_cover_the_space_and_come_back_with_the_state(spec):
    play = DefaultBehaviour(spec, "random", 0, 7)
    saved = play.state()
    drawn = np.concatenate([play.action() for _ in range(200)])
    assert drawn.dtype == spec.array.dtype and drawn.shape == (200, *spec.array.shape)
    again = DefaultBehaviour(spec, "random", 0, 8)
    again.load_state(saved)
    assert np.array_equal(drawn, np.concatenate([again.action() for _ in range(200)]))
    if spec.choices:
        for part, choices in zip(drawn.reshape(200, -1).T, spec.choices, strict=True):
            assert set(part) == set(range(choices))
    elif spec.low:
        assert (drawn >= spec.low).all() and (drawn <= spec.high).all() and drawn.std() > 0.2


def test_only_legal_actions_where_there_is_a_mask():
    spec = ActionSpec("multi_discrete", nvec=(3, 2))
    legal = np.array([False, True, True, False, True])
    assert DefaultBehaviour(spec, "noop", 0, 0).action(legal).tolist() == [[1, 1]]
    drawn = np.concatenate([DefaultBehaviour(spec, "random", 0, seed).action(legal) for seed in range(40)])
    assert set(drawn[:, 0]) == {1, 2} and set(drawn[:, 1]) == {1}
    play = DefaultBehaviour(spec, "noop", 0, 0)
    assert play.is_legal(np.array([[2, 1]]), legal) and not play.is_legal(np.array([[0, 1]]), legal)
