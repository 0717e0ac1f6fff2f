"""Which host belongs to which role."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from offbeat.checkpoint import find, load
from offbeat.runtime.hosts import ActorHost, EvaluatorHost, InferenceHost, LearnerHost
from offbeat.runtime.ports import MetricSink
from offbeat.runtime.world import World


def make_host(
    world: World, role: str, metrics: MetricSink, *, free: bool, incarnation: int = 0, checkpoint: Path | None = None
) -> Any:
    """The host of ``role``. ``free``: it runs at its own pace; ``checkpoint``: folder of the one that is loaded, the
    same for every role, or of a run, for its newest.
    """
    if role == "evaluator":
        return EvaluatorHost(world, metrics)
    if role == "inference":
        return InferenceHost(world, metrics)
    loaded, counters = None, None
    if checkpoint is not None:
        loaded, meta = load(find(checkpoint, only=(role,)))  # the parent has verified the rest
        counters = meta["counters"]
    if role == "learner":
        return LearnerHost(world, metrics, loaded=loaded, counters=counters, free=free)
    index = int(role.removeprefix("actor-"))
    return ActorHost(world, index, metrics, incarnation=incarnation, loaded=loaded, free=free)
