"""What is played once training is done, in which order, and what is said and written of it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from offbeat.acting.final_sets import FinalConfig
from offbeat.envs.base import EnvConfig
from offbeat.runtime.engines.endings import LAST, score_final_weights


class Run:
    """A conductor and a logger that write down; set ``number`` has the mean ``10 * number``."""

    def __init__(self, final: FinalConfig, at_end: bool = True, cut: int = -1) -> None:
        self.played: list[tuple[int, int]] = []
        self.said: list[str] = []
        self.records: list[tuple[str, str, dict[str, Any]]] = []
        self.ticks, self.evaluations, self._cut = 0, 7, cut
        evaluation = SimpleNamespace(at_end=at_end, episodes=5)
        config = SimpleNamespace(evaluation=evaluation, final=final, env=EnvConfig(), final_env=EnvConfig())
        self.world, self.logger, self.say = SimpleNamespace(config=config), self, self.said.append

    def play(self, number: int, part: int) -> dict[str, Any]:
        """As the evaluator; broken off at the part that is to be cut."""
        self.played.append((number, part))
        return {} if part == self._cut else {"complete": True, "mean": 10.0 * part, "std": 1.0, "episodes": 3}

    def record(self, role: str, kind: str, values: dict[str, Any]) -> None:
        """A line of metrics.jsonl."""
        self.records.append((role, kind, values))

    def tick(self) -> None:
        """Hooks are told."""
        self.ticks += 1


def test_the_evaluation_comes_first_and_then_each_set() -> None:
    run = Run(FinalConfig(sets=2, episodes=3))
    assert score_final_weights(run.play, run)  # type: ignore[arg-type]
    assert run.played == [(7 + LAST, 0), (0, 1), (0, 2)]
    assert run.records == [("supervisor", "final_summary", {"test_mean": 15.0, "test_std": 5.0, "test_sets": 2})]
    assert run.said[1] == "playing 3 episodes of seed=0, 1 of 2"
    assert "mean of 2 test sets  15.00" in run.said[-1] and run.ticks == 2


def test_what_is_not_wanted_is_not_played() -> None:
    run = Run(FinalConfig())
    assert score_final_weights(run.play, run) and run.played == [(7 + LAST, 0)]  # type: ignore[arg-type]
    run = Run(FinalConfig(), at_end=False)
    assert score_final_weights(run.play, run) and (run.played, run.said) == ([], [])  # type: ignore[arg-type]
    run = Run(FinalConfig(sets=1), at_end=False)
    assert score_final_weights(run.play, run) and run.played == [(0, 1)]  # type: ignore[arg-type]


@pytest.mark.parametrize(("cut", "played"), [(0, 1), (2, 3)])
def test_a_stop_ends_it_without_a_summary(cut: int, played: int) -> None:
    run = Run(FinalConfig(sets=3), cut=cut)
    assert not score_final_weights(run.play, run)  # type: ignore[arg-type]
    assert len(run.played) == played and run.records == []
