"""How a run ends whose training is done, in every engine: the last evaluation, then the sets of environments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from offbeat.acting.final_sets import FinalSet, SetScore, final_sets, summary, table
from offbeat.runtime.conductor import Conductor

Play = Callable[[int, int], dict[str, Any]]
"""Has the evaluator play: number of the evaluation, and which of its exams. Its answer, {} if it was broken off."""
LAST = 1_000_000
"""Added to the number of the evaluation of the final weights: its games are those of no other."""


def score_final_weights(play: Play, conductor: Conductor) -> bool:
    """Play the last evaluation and the final sets, as far as they are wanted; False once one was broken off."""
    config = conductor.world.config
    scores, sets = config.evaluation, final_sets(config.final, config.env, config.final_env)
    if scores.at_end:
        conductor.say(f"training is done; playing {scores.episodes} episodes with the final weights")
        if not play(conductor.evaluations + LAST, 0).get("complete"):
            return False
    return not sets or _score_sets(play, conductor, sets)


def _score_sets(play: Play, conductor: Conductor, sets: list[FinalSet]) -> bool:
    """Play each set, and say what they add up to."""
    found: list[SetScore] = []
    for part, one in enumerate(sets, 1):
        conductor.say(f"playing {conductor.world.config.final.episodes} episodes of {one.name}, {part} of {len(sets)}")
        answer = play(0, part)
        if not answer.get("complete"):
            return False
        found.append(SetScore(one.name, one.test, answer["mean"], answer["std"], answer["episodes"]))
        conductor.tick()
    conductor.logger.record("supervisor", "final_summary", summary(found))
    conductor.say(table(found))
    return True
