"""The evaluator: whole episodes in environments of its own, with a copy of the current weights.

Validations, and the sets that a run ends with, are the same with other options: each is an ``Exam``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch

from offbeat.acting.episodes import play_episodes
from offbeat.acting.scores import Evaluation
from offbeat.acting.trace_facts import Played, trace_name, traced
from offbeat.acting.tracing import Tracer
from offbeat.envs.base import EnvConfig, Misbehaved, VectorEnv
from offbeat.envs.closing import close_env, closed_after, warn
from offbeat.envs.game_lists import scored
from offbeat.errors import UserError
from offbeat.runtime.host import Host
from offbeat.runtime.policy import LocalPolicy
from offbeat.runtime.ports import MetricSink, StopSignal
from offbeat.runtime.services import Services, Write
from offbeat.storage.checkpoint import WEIGHTS


@dataclass(frozen=True)
class EvaluationConfig:
    """When and how the agent is scored during a run."""

    every_frames: int = 1_000_000
    """An evaluation starts each time the run has come so many environment frames further; 0: only at the end."""
    episodes: int = 10
    """Whole episodes per evaluation; a game of several players is one. Of a list of games, of each so many."""
    envs: int = 10
    """Environments that play them, in parallel, of a list of games so many for each; each plays an equal share so that
    short episodes are not favoured. Where a new run is given ``episodes`` alone, the most up to this number that share
    them equally."""
    policy: Literal["greedy", "sampled"] = "sampled"
    """Most probable action, or one drawn from the policy. Value-based agents have none to draw from: they take the best
    action either way (Rainbow, where ``sampled``: under its noise), and records name what was played."""
    longest: int = 100_000
    """An episode that has not ended after so many agent steps is given up and left out of the score, which says so; 0:
    all are waited for. Unit: agent steps."""
    at_end: bool = True
    """One evaluation of the final weights."""
    trace_actions: bool = False
    """Each evaluation, and each set of ``[final]``, leaves every action, reward and score in a file in ``RUN/traces``,
    which ``offbeat verify score`` plays again. Validations leave none."""
    threads: int = 1
    """Torch threads of the evaluator."""
    hang_timeout_s: float = 120.0
    """An evaluator that shows no life for so long while it plays is reported with its stack, and the run ends.
    Unit: seconds."""


@dataclass(frozen=True)
class Exam:
    """What an evaluator plays."""

    kind: str
    """Of the record that it leaves: ``evaluation``, ``validation`` or ``final``."""
    env: EnvConfig
    """Options of the environments."""
    config: EvaluationConfig
    """How many episodes of them, and how."""
    seed: int | None = None
    """Of the environments; None: from the run's seed and the number of the evaluation."""
    about: Mapping[str, Any] = field(default_factory=dict)
    """What the record says of it besides."""


def run_evaluator(
    envs: VectorEnv,
    policy: LocalPolicy,
    metrics: MetricSink,
    stop: StopSignal,
    config: EvaluationConfig,
    *,
    seed: int,
    kind: str = "evaluation",
    about: Mapping[str, Any] | None = None,
    games: int = 1,
    tracer: Tracer | None = None,
) -> Evaluation:
    """One evaluation: take the newest weights, play whole episodes, of each game so many, report raw scores with the
    counters that belong to those weights, and ``about``, in a record of that ``kind``.

    A stop in the middle ends it; what was played until then is returned but not reported. ``tracer`` takes down what is
    played.
    """
    version = policy.refresh()
    result = play_episodes(
        envs,
        policy.agent,
        episodes=config.episodes * games,
        greedy=config.policy == "greedy",
        seed=seed,
        stop=stop.is_set,
        version=version,
        longest=config.longest,
        tracer=tracer,
    )
    if result.complete:
        metrics.write(kind, result.record() | policy.point._asdict() | dict(about or {}))
    return result


def build_evaluator(services: Services) -> Evaluator:
    """The evaluator from what its engine offers."""
    return Evaluator(services)


class Evaluator(Host):
    """The evaluator with environments of its own, made at the first evaluation. It needs nothing of a checkpoint.

    Its section of the configuration are its exams; the environments of the first, which comes again and again, are
    kept.
    """

    def __init__(self, services: Services) -> None:
        super().__init__(services)
        self._services = services
        self._exams: tuple[Exam, ...] = services.config
        self._envs: VectorEnv | None = None
        self._policy: LocalPolicy | None = None

    def evaluate(self, number: int, part: int = 0) -> dict[str, Any]:
        """Score the newest published weights by exam ``part``. ``number`` seeds the games, if the exam does not."""
        exam = self._exams[part]
        torch.set_num_threads(exam.config.threads)
        if part == 0:
            self._envs = self._make(exam) if self._envs is None else self._envs
            return self._play(exam, self._envs, number)
        envs = self._make(exam)
        with closed_after(envs, envs.spec.id):
            return self._play(exam, envs, number)

    def _make(self, exam: Exam) -> VectorEnv:
        count = exam.config.envs * len(exam.env.games)
        return self._services.envs(count, threads=exam.config.threads, like=scored(exam.env))

    def _play(self, exam: Exam, envs: VectorEnv, number: int) -> dict[str, Any]:
        """One exam, in these environments."""
        services = self._services
        if self._policy is None:
            self._policy = LocalPolicy(services.agent(services.device), services.weights(), envs.num_envs, seed=0)
        stop = services.stop(early=True)
        seed = services.seeds(number)[0] if exam.seed is None else exam.seed
        wanted = exam.config.trace_actions and exam.kind != "validation"
        tracer = Tracer(envs.num_envs) if wanted else None
        result = run_evaluator(
            envs, self._policy, services.metrics, stop, exam.config, seed=seed, kind=exam.kind, about=exam.about,
            games=len(exam.env.games), tracer=tracer,
        )  # fmt: skip
        if tracer is not None and result.complete:
            self._leave(exam, envs, tracer, replace(result, at=self._policy.point._asdict()), seed)
        scores = {"mean": result.mean, "std": result.std, "episodes": len(result.returns)}
        return scores | {"complete": result.complete}

    def _leave(self, exam: Exam, envs: VectorEnv, tracer: Tracer, result: Evaluation, seed: int) -> None:
        """Write the trace of what was played; of evaluations at the same point of the run the last one stays."""
        assert self._policy is not None, "it has just played"
        services, config = self._services, scored(exam.env)
        about = {"kind": exam.kind, "run": services.run} | ({"set": exam.about["set"]} if "set" in exam.about else {})
        episodes = exam.config.episodes * len(exam.env.games)
        played = Played(config, seed, episodes, exam.config.longest, deterministic=not services.free, about=about)
        weights = self._policy.agent.network.state_dict()
        name = trace_name(exam.kind, int(result.at["frames"]), str(about.get("set", "")))
        try:
            services.keep_trace(name, traced(envs, tracer, result, played, weights, beat=services.stop().is_set))
        except UserError as error:  # a full disk, or more games than a trace holds: no run ends for it
            warn(f"no action trace was left: {error}")

    def save(self, write: Write) -> dict[str, Any]:
        """Write the weights that were played last, as the learner's part of a checkpoint that holds nothing else."""
        assert self._policy is not None, "there is something to save once it has played"
        weights = self._policy.agent.network.state_dict()
        write("learner", {f"{WEIGHTS}{name}": value for name, value in weights.items()})
        return {"counters": self._policy.point._asdict(), "parts": ["learner"]}

    def close(self) -> None:
        """Close the environments."""
        if self._envs is not None and (line := close_env(self._envs, self._envs.spec.id)):
            raise Misbehaved(line)
