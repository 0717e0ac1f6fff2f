"""The sets of environments that the final weights of a run are scored on, and what their scores add up to.

Papers give a mean and its spread over sets: three seeds of DMLab, five of Atari, three ranges of Procgen's levels that
were never trained on beside the ones that were.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, NamedTuple

import numpy as np

from offbeat.envs.base import EnvConfig
from offbeat.errors import UserError, unknown

TRAIN = "train"
"""Name of the set that was trained on."""


@dataclass(frozen=True)
class FinalConfig:
    """Sets of environments that the final weights are scored on, after the last evaluation and by ``offbeat eval
    --sets``. Off unless ``sets`` or ``values`` is set."""

    sets: int = 0
    """Test sets in ``final_env`` that differ in the seed alone, which is 0, 1, 2, ...; 0: none. Source: R2AC's
    published code has 3 of 100 episodes on DMLab and 5 of 30 on Atari."""
    values: tuple[int, ...] = ()
    """In place of ``sets``: one test set for each of these values of the option ``vary``. Source: R2AC's published
    code has Procgen's levels from 1000, 1200 and 1400 on, 200 of each, and 200 episodes."""
    vary: str = "start_level"
    """The option of ``final_env`` that has the ``values``."""
    train_set: bool = False
    """One set more, before the others, in which the option ``vary`` is as in ``env``: what was trained on. It is in no
    mean over test sets."""
    episodes: int = 100
    """Whole episodes per set."""
    envs: int = 10
    """Environments that play them, as of ``evaluation.envs``."""
    policy: Literal["greedy", "sampled"] = "greedy"
    """As of ``evaluation.policy``. Source: R2AC's published code takes the most probable action here."""

    @property
    def wanted(self) -> bool:
        """Whether there are any sets."""
        return bool(self.sets or self.values)


class FinalSet(NamedTuple):
    """One set of environments."""

    name: str
    """``train``, the value that the set differs in (``start_level=1000``), or its seed (``seed=2``)."""
    env: EnvConfig
    seed: int
    """Of the environments and the drawn actions."""
    test: bool
    """Whether it is one of those that the mean over test sets is of."""


class SetScore(NamedTuple):
    """How the agent did on one set."""

    name: str
    test: bool
    mean: float
    """Of the returns of whole episodes, raw reward."""
    std: float
    """Of the returns; divides by n."""
    episodes: int


def final_sets(config: FinalConfig, env: EnvConfig, final_env: EnvConfig) -> list[FinalSet]:
    """The sets, in the order in which they are played; none where none are wanted.

    Args:
        config: which sets.
        env: environments of training.
        final_env: what the sets have in common.

    Raises:
        UserError: the options contradict each other, or environments have no such option with whole numbers.
    """
    if config.sets and config.values:
        raise UserError(
            f"final.sets={config.sets} with final.values={list(config.values)}: sets differ in their seeds or in the "
            "option final.vary; give one of the two"
        )
    if config.train_set and not config.values:
        raise UserError("final.train_set=true without final.values: sets that differ in seeds alone have no such set")
    if not config.values:
        return [FinalSet(f"seed={seed}", final_env, seed, True) for seed in range(config.sets)]
    check_vary(config.vary)
    trained = [(TRAIN, getattr(env, config.vary), False)] if config.train_set else []
    varied = [*trained, *((f"{config.vary}={value}", value, True) for value in config.values)]
    return [
        FinalSet(name, replace(final_env, **{config.vary: value}), seed, test)
        for seed, (name, value, test) in enumerate(varied)
    ]


def check_vary(name: str) -> None:
    """Raise ``UserError``, naming the nearest, where ``name`` is no option of environments with whole numbers."""
    numbers = [field.name for field in fields(EnvConfig) if field.type == "int"]
    if name not in numbers:
        raise unknown("final.vary", name, numbers)


def summary(scores: Sequence[SetScore]) -> dict[str, Any]:
    """What the scores of sets add up to: mean and standard deviation over the means of the test sets (divides by n),
    how many those are, and the mean on what was trained on, if that was played.
    """
    means = np.array([score.mean for score in scores if score.test], np.float64)
    found = {"test_mean": float(means.mean()), "test_std": float(means.std()), "test_sets": len(means)}
    trained = [score.mean for score in scores if not score.test]
    return found | ({"train_mean": trained[0]} if trained else {})


def table(scores: Sequence[SetScore]) -> str:
    """The scores as a small table for people, the mean over the test sets below it."""
    total = summary(scores)
    shown = [(score.name, f"{score.mean:.2f}", f"{score.std:.2f}", str(score.episodes)) for score in scores]
    over = f"mean of {total['test_sets']} test sets"
    rows = [("set", "mean", "std", "episodes"), *shown]
    rows.append((over, f"{total['test_mean']:.2f}", f"{total['test_std']:.2f}", ""))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = []
    for name, *numbers in rows:
        cells = [f"{number:>{width}}" for number, width in zip(numbers, widths[1:], strict=True)]
        lines.append("  ".join([f"{name:<{widths[0]}}", *cells]).rstrip())
    return "\n".join(lines)
