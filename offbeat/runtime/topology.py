"""The roles of a run as a table: engines, supervisor, memory check, tracing and ``offbeat graph`` go by it alone.

A new role is one file, with its loop and what builds it, and one row here.
"""

from __future__ import annotations

import importlib
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

from offbeat.acting.final_sets import final_sets
from offbeat.runtime.evaluator import Exam
from offbeat.runtime.settings import Settings
from offbeat.types import ItemSpec

PROCESS_BYTES = 350 * 2**20
"""Memory of one role's process before it does anything: Python, torch, an emulator. Measured on Linux."""
BESIDE_REALTIME = 10
"""How much lower the priority is of roles that compute beside an environment that never waits."""
CLOCK_PART = "virtual_clock"
"""The part of a checkpoint that says when whose turn is, in runs on a virtual clock; no role is called so."""

Turn = Literal["act", "learn", "after", "serve", "asked", "paced"]


@dataclass(frozen=True)
class Role:
    """One kind of role."""

    kind: str
    """What its instances are called: ``learner``; ``actor-0``, ``actor-1``, ... where they are ``numbered``."""
    build: str
    """``module:function`` that makes an instance where it is to be, from its services: a ``Host``."""
    loop: str
    """The function that reads as what the role does."""
    config: Any = None
    """Its section of the configuration, which its services hand it."""
    seed: int = 0
    """Tells the seeds of this kind of role from those of others; 0: by its name."""
    count: int = 1
    numbered: bool = False
    first: int = 0
    """Number of the first instance; more than 0 where another row has those before it."""
    threads: int = 1
    """Torch threads of each instance."""
    devices: tuple[str, ...] = ("cpu",)
    """Instance i computes on entry i, counted round."""
    turn: Turn = "after"
    """When it is its turn in a round: it acts, it learns, it comes after the learner; or it has none, because it serves
    others while they run freely, works only when it is asked, or by a clock. Where roles run freely, all but those that
    are asked do."""
    owns_streams: bool = False
    """Each instance appends to streams of its own."""
    keeper: bool = False
    """It holds what the run has learnt: always goes on from a checkpoint, can be asked to save after it has failed."""
    saved: bool = False
    """It writes a part of checkpoints in runs with a fixed schedule, and goes on from it."""
    part: str = ""
    """It always goes on from the part of a checkpoint that the instance of this name has written; empty: its own."""
    hang_timeout_s: float = 60.0
    """It may show no life for so long while it should be at work. Unit: seconds."""
    hang_option: str = ""
    """The option that says so."""
    long_start: bool = False
    """Its first step may take minutes (compiling), and is taken for a sign of life until its host is ``warm``."""
    replaced: int = 0
    """How often, all instances together, a dead or hung one is replaced; 0: it ends the run."""
    limit: str = ""
    """The option that says so."""
    together: bool = False
    """All with this mark go on together or not at all: where one is replaced, so are the others."""
    nice: int = 0
    """Lower priority of its processes; scores can wait, for instance."""
    calls: Mapping[str, str] = field(default_factory=dict)
    """Method, as its host reaches it -> name of its span in a recorded time line; {} stands for the first argument."""
    detail: str = ""
    """For readers."""

    def __post_init__(self) -> None:
        """Draw a number from the name where none is given. ValueError for a row that could never run."""
        if self.turn not in (turns := get_args(Turn)):
            raise ValueError(f"role {self.kind}: turn={self.turn!r} is not allowed; choose one of: {', '.join(turns)}")
        if self.count < 0 or (self.count > 1 and not self.numbered):
            raise ValueError(f"role {self.kind}: count={self.count} instances need names of their own: numbered=True")
        if not self.seed:
            object.__setattr__(self, "seed", zlib.crc32(self.kind.encode()))

    def names(self) -> list[str]:
        """The instances."""
        numbers = range(self.first, self.first + self.count)
        return [f"{self.kind}-{number}" for number in numbers] if self.numbered else [self.kind]

    def device(self, index: int) -> str:
        """Where instance ``index`` computes."""
        return self.devices[index % len(self.devices)]

    def builder(self) -> Any:
        """The function that ``build`` names."""
        module, _, name = self.build.partition(":")
        if not module or not name:
            raise ValueError(f"role {self.kind}: build={self.build!r} is no 'module:function'")
        return getattr(importlib.import_module(module), name)


@dataclass(frozen=True)
class Wire:
    """A port from one role to another, for readers."""

    source: str
    target: str
    port: str
    carries: str


@dataclass(frozen=True)
class Topology:
    """All roles and wires of a run."""

    roles: tuple[Role, ...]
    wires: tuple[Wire, ...] = ()

    def __post_init__(self) -> None:
        """Raise ValueError where two instances, or an instance and a part of checkpoints, have the same name."""
        names = self.names()
        if twice := {name for name in names if names.count(name) > 1 or name in ("streams", CLOCK_PART)}:
            raise ValueError(f"roles: the names {sorted(twice)} are taken; call them otherwise")

    def names(self) -> list[str]:
        """Every instance of every role, in the order in which they are started."""
        return [name for role in self.roles for name in role.names()]

    def row(self, name: str) -> Role:
        """The row of an instance. KeyError if there is none of that name."""
        return self._place(name)[0]

    def index(self, name: str) -> int:
        """Which instance of its kind this is."""
        row, place = self._place(name)
        return row.first + place

    def _place(self, name: str) -> tuple[Role, int]:
        for role in self.roles:
            if name in role.names():
                return role, role.names().index(name)
        raise KeyError(f"there is no role {name!r}; there are {', '.join(self.names())}")

    def of(self, kind: str) -> list[str]:
        """The instances of one kind; none where the run has no such role."""
        return [name for role in self.roles if role.kind == kind for name in role.names()]

    def that(self, column: str, value: Any = True) -> list[str]:
        """The instances of the rows that have this value in a column."""
        return [name for role in self.roles if getattr(role, column) == value for name in role.names()]

    def nbytes(self, inline: bool) -> int:
        """Memory of all processes before they do anything, the main one included."""
        return PROCESS_BYTES * (1 if inline else 1 + len(self.names()))


def topology(config: Settings, items: ItemSpec) -> Topology:
    """What a configuration starts for an agent that trains on ``items``."""
    fixed = config.engine == "inline" or config.deterministic  # in rounds every actor acts by itself
    serves = config.actor.inference == "server" and not fixed
    restarts = 0 if fixed or not config.learner.mirror_every else config.learner.max_restarts
    validators = [_validator(config)] if config.validation.wanted else []
    roles = [*_learners(config, items, restarts), _evaluator(config), *validators]
    if config.realtime.fps:
        roles = [replace(role, nice=max(role.nice, BESIDE_REALTIME)) for role in roles]
        return Topology((*roles, _realtime_env(config), _realtime_actor(config)), tuple(_realtime_wires(config)))
    roles += [*([_inference(config)] if serves else []), _actor(config)]
    return Topology(tuple(roles), tuple(_wires(config, serves)))


def _learners(config: Settings, items: ItemSpec, restarts: int) -> list[Role]:
    """The learner and, where there are several, those beside it, which come and go.

    ``restarts``: how often the first one, and those that step together, are rebuilt.
    """
    learner = config.learner
    first = replace(_learner(config, items), replaced=restarts, limit="learner.max_restarts")
    if learner.mode == "async":
        of_turns = {"work.share.master.wait.until": "wait for {}", "work.commit": "give to others"}
        first = replace(first, calls={**first.calls, **of_turns})
    if learner.count == 1:
        return [first]
    others = replace(first, count=learner.count - 1, numbered=True, first=1, keeper=False, saved=False)
    if learner.mode == "sync":
        calls = {name: span for name, span in first.calls.items() if not name.startswith("batches.mixture.")}
        others = replace(others, calls=calls, part="learner", detail="beside the first; a share of each batch")
        rows = [replace(row, calls={**row.calls, "work.joint.whole": "wait for others"}) for row in (first, others)]
        return [replace(row, together=True) for row in rows]
    detail = f"beside the first, replaced {learner.max_restarts} times at most; batches of its own"
    return [first, replace(others, replaced=learner.max_restarts, detail=detail)]


def _learner(config: Settings, items: ItemSpec) -> Role:
    learner = config.learner
    samplers = " + ".join(f"{sampler.kind} {sampler.share:g}" for sampler in config.replay.samplers)
    rows = learner.unroll_length if items.kind == "unroll" else items.trained
    drawn = f"{items.kind}s x {rows} rows" if items.kind != "transition" else f"{items.n}-step transitions"
    return Role(
        "learner",
        "offbeat.runtime.learner:build_learner",
        "runtime.learner.run_learner",
        config=learner,
        seed=2,
        threads=learner.threads,
        devices=(learner.device,),
        turn="learn",
        keeper=True,
        saved=True,
        hang_timeout_s=learner.hang_timeout_s,
        hang_option="learner.hang_timeout_s",
        long_start=learner.compile,
        calls={
            "batches.next": "wait for batch",
            "work.gradient": "forward, backward",
            "work.optimiser.step": "optimiser",
            "params.publish": "publish",
            "work.report": "report",
            "batches.copy": "assemble",
            "batches.move": "assemble",
            "batches.ahead.place": "wait for learner",
            "batches.mixture.draw": "sample",
            "batches.wait.until": "wait for {}",
        },
        detail=f"batches of {learner.batch_size} {drawn} from {samplers}",
    )


def _evaluator(config: Settings) -> Role:
    final, scores = config.final, config.evaluation
    each = replace(scores, episodes=final.episodes, envs=final.envs, policy=final.policy)
    sets = final_sets(final, config.env, config.final_env)
    exams = [Exam("final", one.env, each, one.seed, {"set": one.name, "test": int(one.test)}) for one in sets]
    return Role(
        "evaluator",
        "offbeat.runtime.evaluator:build_evaluator",
        "runtime.evaluator.run_evaluator",
        config=(Exam("evaluation", config.eval_env, scores), *exams),
        seed=3,
        threads=config.evaluation.threads,
        devices=(config.learner.device,),
        turn="asked",
        hang_timeout_s=config.evaluation.hang_timeout_s,
        hang_option="evaluation.hang_timeout_s",
        nice=5,
        calls={"evaluate": "evaluate"},
        detail=f"{config.evaluation.envs} environments" + (f", {len(sets)} sets at the end" if sets else ""),
    )


def _validator(config: Settings) -> Role:
    """The evaluator once more, in environments that are not trained on."""
    validation = config.validation
    each = replace(config.evaluation, episodes=validation.episodes, envs=validation.envs, policy=validation.policy)
    return replace(
        _evaluator(config),
        kind="validator",
        config=(Exam("validation", config.valid_env, each),),
        seed=6,
        detail=f"{validation.envs} environments; the best weights are kept",
    )


def _inference(config: Settings) -> Role:
    servers = min(len(config.inference.device), config.actor.workers)
    return Role(
        "inference",
        "offbeat.runtime.inference:build_inference",
        "runtime.inference.run_inference",
        config=config.inference,
        seed=4,
        count=servers,
        numbered=servers > 1,
        threads=config.inference.threads,
        devices=config.inference.device,
        turn="serve",
        hang_timeout_s=config.inference.hang_timeout_s,
        hang_option="inference.hang_timeout_s",
        calls={"agent.act": "forward", "requests._wait.until": "wait for {}"},
        detail="batches requests" + (f", every {servers} workers' first, second, ..." if servers > 1 else ""),
    )


def _actor(config: Settings) -> Role:
    actor = config.actor
    return Role(
        "actor",
        "offbeat.runtime.actor:build_actor",
        "runtime.actor.run_actor",
        config=actor,
        seed=1,
        count=actor.workers,
        numbered=True,
        threads=actor.threads,
        turn="act",
        owns_streams=True,
        saved=True,
        hang_timeout_s=actor.hang_timeout_s,
        hang_option="actor.hang_timeout_s",
        replaced=actor.max_restarts,
        limit="actor.max_restarts",
        calls={
            "envs.send": "environment",
            "envs.recv": "environment",
            "work.observer.observe": "observe",
            "policy.act": "act",
            "policy.refresh": "take weights",
            "writer.append": "append",
            "wait.until": "wait for {}",
        },
        detail=f"{actor.envs_per_worker} environments ({actor.env_threads} native threads)",
    )


def _realtime_env(config: Settings) -> Role:
    realtime = config.realtime
    return Role(
        "realtime_env",
        "offbeat.runtime.realtime_env:build_realtime_env",
        "runtime.realtime_env.run_realtime_env",
        config=realtime,
        turn="paced",
        owns_streams=True,
        saved=True,
        hang_timeout_s=realtime.hang_timeout_s,
        hang_option="realtime.hang_timeout_s",
        calls={"rows.step": "environment", "work.show": "show", "writer.offer": "append"},
        detail=f"one environment, {realtime.fps:g} frames per second, never waits",
    )


def _realtime_actor(config: Settings) -> Role:
    realtime = config.realtime
    return Role(
        "realtime_actor",
        "offbeat.runtime.realtime_actor:build_realtime_actor",
        "runtime.realtime_actor.run_realtime_actor",
        config=realtime,
        count=realtime.workers,
        numbered=True,
        devices=config.inference.device,
        turn="paced",
        saved=True,
        hang_timeout_s=realtime.hang_timeout_s,
        hang_option="realtime.hang_timeout_s",
        replaced=realtime.max_restarts,
        limit="realtime.max_restarts",
        calls={"work.infer": "infer", "realtime.slots.put": "publish"},
        detail=f"mode {realtime.mode}, staggered by the {realtime.estimator} of their inference times",
    )


def _realtime_wires(config: Settings) -> list[Wire]:
    learner = config.learner
    return [
        Wire("realtime_env", "realtime_actor", "Mailbox", "the newest observation"),
        Wire("realtime_actor", "realtime_env", "ActionSlots", "one action each; the newest acts"),
        Wire("realtime_env", "learner", "StreamWriter -> Batches", "rows of decisions, through the streams"),
        Wire("learner", "realtime_actor", "ParamStore", f"weights, published every {learner.publish_every} updates"),
        *_scored_wires(config),
        Wire("every role", "main", "MetricSink", "records; errors; signs of life"),
    ]


def _scored_wires(config: Settings) -> list[Wire]:
    scorers = {"evaluator": "evaluation"} | ({"validator": "validation"} if config.validation.wanted else {})
    return [Wire("learner", name, "ParamStore", f"weights, pulled for each {what}") for name, what in scorers.items()]


def _wires(config: Settings, serves: bool) -> list[Wire]:
    learner = config.learner
    weights = f"weights, published every {learner.publish_every} updates"
    blocks = f"blocks of {config.actor.append_rows or learner.unroll_length} rows, through the streams"
    wires = [
        Wire("actor", "learner", "StreamWriter -> Batches", blocks),
        *_scored_wires(config),
    ]
    if learner.mode == "sync" and learner.count > 1:
        wires.append(Wire("learner", "learner", "Reduction", "shares of batches that the first draws; gradients"))
    if learner.mode == "async":
        wires.append(Wire("learner", "learner", "Master", "weights, statistics and counters of all learners, by turns"))
    if serves:
        wires.append(Wire("actor", "inference", "Policy", "observations; actions come back"))
    wires.append(Wire("learner", "inference" if serves else "actor", "ParamStore", weights))
    return [*wires, Wire("every role", "main", "MetricSink", "records; errors; signs of life")]
