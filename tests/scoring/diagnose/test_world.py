"""Judges of the environment, on records that are made up."""

from __future__ import annotations

import numpy as np
import pytest

from offbeat.scoring.diagnose import world
from offbeat.scoring.diagnose.record import Seen
from tests.scoring.diagnose.made import fresh, record


def seen(*ones: Seen, **options):
    """A record in which observations looked so."""
    return record(options=options, fresh=fresh(observations={f"key{i}": one for i, one in enumerate(ones)}))


FINE = Seen(-1.0, 1.0, 0, True, False)


def test_numbers():
    assert world.numbers(seen(FINE)) is None
    found = world.numbers(seen(FINE, Seen(-1.0, 1.0, 7, True, False)))
    assert found.seen == "7 numbers of 'key1' are not finite"


def test_constant():
    still = Seen(1.0, 1.0, 0, False, False)
    assert world.constant(seen(still, FINE)) is None
    assert world.constant(seen(still, still)) is not None
    assert world.constant(seen()) is None


@pytest.mark.parametrize(
    ("low", "high", "scaled", "found"),
    [
        (-99.0, 99.0, False, False),
        (-100.0, 1.0, False, True),
        (0.0, 255.0, True, False),
        (np.inf, -np.inf, False, False),  # there was no number
    ],
)
def test_scale(low, high, scaled, found):
    one = Seen(low, high, 0, True, scaled)
    assert (world.scale(seen(FINE, one)) is not None) is found
    assert world.scale(seen(one, **{"agent.normalise": True})) is None


@pytest.mark.parametrize(
    ("steps", "returns", "limit", "found"),
    [(40_000, [], 0, True), (39_000, [], 0, False), (40_000, [1.0], 0, False), (40_000, [], 6_000, False)],
)
def test_endless(steps, returns, limit, found):
    options = {"actor.envs_per_worker": 4, "env.max_steps": limit}
    made = record(options=options, learner={"agent_steps": steps}, returns=returns)
    assert (world.endless(made) is not None) is found


@pytest.mark.parametrize(
    ("lengths", "found"), [([1, 2, 2, 9], True), ([2, 3, 3, 3], False), ([], False), ([np.nan, 9], False)]
)
def test_at_once(lengths, found):
    assert (world.at_once(record(lengths=lengths)) is not None) is found
