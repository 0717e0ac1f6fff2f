"""Roles, counts and wiring of a run as data; ``offbeat graph PRESET`` prints it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from offbeat.config import RunConfig


@dataclass(frozen=True)
class Role:
    """One kind of role: how many there are, how many threads each has, the function that it runs."""

    name: str
    count: int
    threads: int
    function: str
    detail: str = ""


@dataclass(frozen=True)
class Wire:
    """A port from one role to another."""

    source: str
    target: str
    port: str
    carries: str


@dataclass(frozen=True)
class Topology:
    """All roles and wires of a run."""

    roles: tuple[Role, ...]
    wires: tuple[Wire, ...]


def topology(config: RunConfig) -> Topology:
    """What a configuration would start."""
    actor, learner = config.actor, config.learner
    envs = f"{actor.envs_per_worker} environments ({actor.env_threads} native threads)"
    samplers = " + ".join(f"{sampler.kind} {sampler.share:g}" for sampler in config.replay.samplers)
    roles = [
        Role("actor", actor.workers, actor.threads, "runtime.actor.run_actor", envs),
        Role(
            "learner",
            1,
            learner.threads,
            "runtime.learner.run_learner",
            f"batches of {learner.batch_size} unrolls x {learner.unroll_length} rows from {samplers}",
        ),
        Role(
            "evaluator",
            1,
            config.evaluation.threads,
            "runtime.evaluator.run_evaluator",
            f"{config.evaluation.envs} environments",
        ),
    ]
    wires = [
        Wire(
            "actor",
            "learner",
            "StreamWriter -> BatchSource",
            f"blocks of {learner.unroll_length} rows, through the streams",
        ),
        Wire("learner", "evaluator", "ParamStore", "weights, pulled for each evaluation"),
    ]
    if actor.inference == "server":
        roles.append(
            Role("inference", 1, config.inference.threads, "runtime.inference.run_inference", "batches requests")
        )
        wires += [
            Wire("actor", "inference", "Policy", "observations; actions come back"),
            Wire("learner", "inference", "ParamStore", f"weights, published every {learner.publish_every} updates"),
        ]
    else:
        wires.append(
            Wire("learner", "actor", "ParamStore", f"weights, published every {learner.publish_every} updates")
        )
    wires.append(Wire("every role", "main", "MetricSink", "records; errors; signs of life"))
    return Topology(tuple(roles), tuple(wires))


def describe(config: RunConfig) -> str:
    """The topology as text."""
    graph = topology(config)
    mode = "lock-step" if config.deterministic else "free-running"
    engine = "inline, one thread, fixed rounds" if config.engine == "inline" else f"local processes, {mode}"
    lines = [f"engine     {engine}", "", "roles"]
    for role in graph.roles:
        lines.append(
            f"  {role.count:>3} x {role.name:<10} {role.threads} torch thread(s)  {role.function:<34} {role.detail}"
        )
    lines += ["", "ports"]
    lines += [f"  {wire.source:>10} --> {wire.target:<10} {wire.port:<28} {wire.carries}" for wire in graph.wires]
    return "\n".join(lines)
