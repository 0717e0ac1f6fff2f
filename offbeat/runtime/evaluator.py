"""The evaluator: whole episodes in environments of its own, with a copy of the current weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch

from offbeat.acting.episodes import play_episodes
from offbeat.acting.scores import Evaluation
from offbeat.envs.base import Misbehaved, VectorEnv
from offbeat.envs.closing import close_env
from offbeat.runtime.host import Host
from offbeat.runtime.policy import LocalPolicy
from offbeat.runtime.ports import MetricSink, StopSignal
from offbeat.runtime.services import Services


@dataclass(frozen=True)
class EvaluationConfig:
    """When and how the agent is scored during a run."""

    every_frames: int = 1_000_000
    """An evaluation starts each time the run has come so many environment frames further; 0: only at the end."""
    episodes: int = 10
    """Whole episodes per evaluation; a game of several players is one."""
    envs: int = 10
    """Environments that play them, in parallel; each plays an equal share so that short episodes are not favoured.
    Where a new run is given ``episodes`` alone, the most up to this number that share them equally."""
    policy: Literal["greedy", "sampled"] = "sampled"
    """Most probable action, or one drawn from the policy. Value-based agents have none to draw from: they take the best
    action either way (Rainbow, where ``sampled``: under its noise), and records name what was played."""
    longest: int = 100_000
    """An episode that has not ended after so many agent steps is given up and left out of the score, which says so; 0:
    all are waited for. Unit: agent steps."""
    at_end: bool = True
    """One evaluation of the final weights."""
    threads: int = 1
    """Torch threads of the evaluator."""
    hang_timeout_s: float = 120.0
    """An evaluator that shows no life for so long while it plays is reported with its stack, and the run ends.
    Unit: seconds."""


def run_evaluator(
    envs: VectorEnv,
    policy: LocalPolicy,
    metrics: MetricSink,
    stop: StopSignal,
    config: EvaluationConfig,
    *,
    seed: int,
) -> Evaluation:
    """One evaluation: take the newest weights, play whole episodes, report raw scores with the counters that
    belong to those weights.

    A stop in the middle ends it; what was played until then is returned but not reported.
    """
    version = policy.refresh()
    result = play_episodes(
        envs,
        policy.agent,
        episodes=config.episodes,
        greedy=config.policy == "greedy",
        seed=seed,
        stop=stop.is_set,
        version=version,
        longest=config.longest,
    )
    if result.complete:
        metrics.write("evaluation", result.record() | policy.point._asdict())
    return result


def build_evaluator(services: Services) -> Evaluator:
    """The evaluator from what its engine offers."""
    return Evaluator(services)


class Evaluator(Host):
    """The evaluator with environments of its own, made at the first evaluation. It needs nothing of a checkpoint."""

    def __init__(self, services: Services) -> None:
        super().__init__(services)
        self._services = services
        self._envs: VectorEnv | None = None
        self._policy: LocalPolicy | None = None

    def evaluate(self, number: int) -> dict[str, Any]:
        """Score the newest published weights. ``number`` seeds the games."""
        services = self._services
        config: EvaluationConfig = services.config
        torch.set_num_threads(config.threads)
        if self._envs is None or self._policy is None:
            self._envs = services.envs(config.envs, threads=config.threads, scored=True)
            self._policy = LocalPolicy(services.agent(services.device), services.weights(), config.envs, seed=0)
        stop, seed = services.stop(early=True), services.seeds(number)[0]
        result = run_evaluator(self._envs, self._policy, services.metrics, stop, config, seed=seed)
        return {"mean": result.mean, "complete": result.complete}

    def close(self) -> None:
        """Close the environments."""
        if self._envs is not None and (line := close_env(self._envs, self._envs.spec.id)):
            raise Misbehaved(line)
