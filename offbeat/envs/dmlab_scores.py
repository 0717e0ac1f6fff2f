"""What random play and humans score on the thirty levels of DMLab-30, and scores as percentages of the way between.

Values: Espeholt et al. 2018 (IMPALA), as their code and its descendants print them. Means over whole episodes at the
levels' own length, in raw reward. Two levels are trained on in one variant (``_train``) and scored in another
(``_test``), which is what their values are of.
"""

from __future__ import annotations

from collections.abc import Mapping

SCORES: dict[str, tuple[float, float]] = {
    "rooms_collect_good_objects": (0.073, 10.0),
    "rooms_exploit_deferred_effects": (8.501, 85.65),
    "rooms_select_nonmatching_object": (0.312, 65.9),
    "rooms_watermaze": (4.065, 54.0),
    "rooms_keys_doors_puzzle": (4.135, 53.8),
    "language_select_described_object": (-0.07, 389.5),
    "language_select_located_object": (1.929, 280.7),
    "language_execute_random_task": (-5.913, 254.05),
    "language_answer_quantitative_question": (-0.33, 184.5),
    "lasertag_one_opponent_small": (-0.224, 12.65),
    "lasertag_three_opponents_small": (-0.214, 18.55),
    "lasertag_one_opponent_large": (-0.083, 18.6),
    "lasertag_three_opponents_large": (-0.102, 31.5),
    "natlab_fixed_large_map": (2.173, 36.9),
    "natlab_varying_map_regrowth": (2.989, 24.45),
    "natlab_varying_map_randomized": (7.346, 42.35),
    "skymaze_irreversible_path_hard": (0.1, 100.0),
    "skymaze_irreversible_path_varied": (14.4, 100.0),
    "psychlab_arbitrary_visuomotor_mapping": (0.163, 58.75),
    "psychlab_continuous_recognition": (0.224, 58.3),
    "psychlab_sequential_comparison": (0.129, 39.5),
    "psychlab_visual_search": (0.085, 78.5),
    "explore_object_locations_small": (3.575, 74.45),
    "explore_object_locations_large": (4.673, 65.65),
    "explore_obstructed_goals_small": (6.76, 206.0),
    "explore_obstructed_goals_large": (2.61, 119.5),
    "explore_goal_locations_small": (7.66, 267.5),
    "explore_goal_locations_large": (3.14, 194.5),
    "explore_object_rewards_few": (2.073, 77.7),
    "explore_object_rewards_many": (2.438, 106.7),
}
"""Level -> (random, human) mean return."""

IN_TWO = ("rooms_collect_good_objects", "rooms_exploit_deferred_effects")
"""Levels of which there is one to train on and one to test on."""


def scored_level(env_id: str) -> str | None:
    """The key of ``SCORES`` that an id names, such as ``dmlab/rooms_watermaze``; either variant of one in two."""
    if not env_id.startswith("dmlab/"):
        return None
    name = env_id.rsplit("/", 1)[1]
    plain = name.removesuffix("_train").removesuffix("_test")
    level = plain if plain in IN_TWO else name
    return level if level in SCORES else None


def human_normalised(env_id: str, score: float) -> float | None:
    """100 (score − random) / (human − random): 0 is random play, 100 a human. None for what is not in ``SCORES``.

    Args:
        env_id: environment id.
        score: mean return of whole episodes, in raw reward.
    """
    level = scored_level(env_id)
    if level is None:
        return None
    random, human = SCORES[level]
    return 100 * (score - random) / (human - random)


def capped_mean(scores: Mapping[str, float], cap: float = 100.0) -> float:
    """The mean over levels of min(cap, human-normalised score): the score of a multi-task agent on DMLab-30.

    Args:
        scores: environment id -> mean return, of one or more levels; the published number is of all thirty.
        cap: what a level counts at most. Unit: percent. IMPALA's papers cap at 100.

    Raises ValueError for an id without reference scores, for a level that is given twice and where there is none.
    """
    levels: dict[str, float] = {}
    for env_id, score in scores.items():
        level, normalised = scored_level(env_id), human_normalised(env_id, score)
        if level is None or normalised is None:
            raise ValueError(f"{env_id!r} is no level of DMLab-30; expected dmlab/ and one of {', '.join(SCORES)}")
        if level in levels:
            raise ValueError(f"{env_id!r}: level {level} is given twice; its score is that of the test variant")
        levels[level] = min(cap, normalised)
    if not levels:
        raise ValueError("no scores; expected one level of DMLab-30 at least")
    return sum(levels.values()) / len(levels)
