"""Human-normalised scores of DMLab-30."""

from __future__ import annotations

import pytest

from offbeat.envs.dmlab import LEVELS, find_level
from offbeat.envs.dmlab_scores import IN_TWO, SCORES, capped_mean, human_normalised, scored_level


def test_there_are_thirty_levels_that_a_human_plays_better_than_chance() -> None:
    assert len(SCORES) == 30 and set(IN_TWO) <= set(SCORES) <= set(LEVELS)
    assert all(random < human for random, human in SCORES.values())
    assert all(str(find_level(f"dmlab/{name}")).startswith("contributed/dmlab30/") for name in SCORES)


def test_random_play_is_0_and_a_human_100() -> None:
    for level, (random, human) in SCORES.items():
        assert human_normalised(f"dmlab/{level}", random) == 0
        assert human_normalised(f"dmlab/{level}", human) == pytest.approx(100)
    assert human_normalised("dmlab/rooms_watermaze", 54.8) == pytest.approx(100 * (54.8 - 4.065) / (54 - 4.065))
    assert human_normalised("dmlab/rooms_select_nonmatching_object", 62.2) == pytest.approx(94.358, abs=1e-3)


def test_which_ids_are_scored() -> None:
    for name in ("rooms_collect_good_objects", "rooms_collect_good_objects_test", "rooms_collect_good_objects_train"):
        assert scored_level(f"dmlab/{name}") == "rooms_collect_good_objects"
    assert scored_level("dmlab/contributed/dmlab30/rooms_watermaze") == "rooms_watermaze"
    for other in ("rooms_watermaze", "dmlab/rooms_watermaze_test", "dmlab/seekavoid_arena_01", "Pong", "toy/catch", ""):
        assert scored_level(other) is None and human_normalised(other, 1.0) is None


def test_the_mean_over_levels_counts_none_above_the_cap() -> None:
    random, human = SCORES["rooms_watermaze"]
    scores = {"dmlab/rooms_watermaze": 2 * human - random, "dmlab/rooms_keys_doors_puzzle": 4.135}
    assert capped_mean(scores) == pytest.approx(50)
    assert capped_mean(scores, cap=150) == pytest.approx(75)
    below = {"dmlab/rooms_watermaze": 2 * random - human}
    assert capped_mean(below) == pytest.approx(-100)
    assert capped_mean({f"dmlab/{level}": human for level, (_, human) in SCORES.items()}) == pytest.approx(100)


def test_what_it_cannot_be_made_of_is_named() -> None:
    with pytest.raises(ValueError, match="'Pong' is no level of DMLab-30; expected dmlab/ and one of rooms_collect"):
        capped_mean({"Pong": 3.0})
    twice = {"dmlab/rooms_collect_good_objects_test": 1.0, "dmlab/rooms_collect_good_objects_train": 2.0}
    with pytest.raises(ValueError, match="level rooms_collect_good_objects is given twice"):
        capped_mean(twice)
    with pytest.raises(ValueError, match="no scores"):
        capped_mean({})
