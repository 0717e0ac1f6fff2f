"""``offbeat verify score``: plays an action trace again and compares every reward and score, bit for bit.

What a trace proves: that these actions, in this environment with these options, seeds and versions, give this score. It
does not prove which network chose them: the hash of its weights is a statement, which a run that keeps them can back.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from offbeat.acting.trace_facts import roms, versions, why_not
from offbeat.acting.tracing import BY_EPISODE, first_difference, play_again
from offbeat.config.auto import usable_cores
from offbeat.config.schema import build, plain
from offbeat.envs.base import EnvConfig, VectorEnv
from offbeat.envs.closing import closed_after
from offbeat.envs.registry import env_spec, make_env
from offbeat.errors import UserError, told
from offbeat.storage.traces import Trace, TraceError, read_trace, shown

MOST_COPIES = 4096
"""No evaluation has more environments."""
MOST_SEEN = 1 << 30
"""Nor observations that take more memory together. Unit: bytes."""
KINDS = {
    "sent": "int64", "rows": "int64", "reward": "float32", "flag": "uint8", "elapsed": "int32", "score": "float64",
    "length": "int64", "frames": "int64",
}  # fmt: skip
"""Array -> its dtype; ``action`` has that of the environment."""
NEEDED = {
    "env": dict, "seed": int, "copies": int, "episodes": int, "longest": int, "deterministic": bool, "policy": str,
    "given_up": int, "at": dict, "weights": str, "versions": dict, "roms": dict, "differs": str,
}  # fmt: skip
"""Fact -> its type."""


@dataclass(frozen=True)
class Verdict:
    """What became of one trace."""

    path: Path
    ok: bool
    """Whether it was played again and everything was equal."""
    said: str
    """In one line."""
    trace: Trace | None = None
    """What was read of it."""
    seconds: float = 0.0
    """That it took. Unit: seconds."""

    def line(self) -> str:
        """For people."""
        return f"{self.path}: {'equal' if self.ok else 'REFUSED'}: {self.said}, {self.seconds:.1f} s"


def verify_trace(path: Path, factory: Any = None, also: Callable[[Trace], str] = lambda trace: "") -> Verdict:
    """Read a trace, play it again and compare. Nothing that is wrong with it raises.

    Args:
        path: its file.
        factory: makes its environment, where that is the user's own.
        also: what else is wrong with it, in a line, for whoever knows where it should come from; empty: nothing.
    """
    started = time.perf_counter()
    trace = None
    try:
        try:
            trace = read_trace(path)
        except TraceError as error:
            if error.trace is None:
                raise
            raise TraceError(f"{error}; {_consequence(error.trace, factory)}", error.trace) from error
        wrong = also(trace)
        if wrong:
            raise TraceError(f"{wrong}; {_consequence(trace, factory)}")
        ok, said = True, _compared(trace, factory)
    except TraceError as error:
        ok, said, trace = False, str(error).removeprefix(f"{path}: "), trace or error.trace
    return Verdict(path, ok, said, trace, time.perf_counter() - started)


def _consequence(trace: Trace, factory: Any) -> str:
    """What comes out of a trace whose hash does not fit, when it is played all the same."""
    try:
        return f"played all the same, {_compared(trace, factory)}"
    except TraceError as error:
        return f"played all the same: {error}"


def _compared(trace: Trace, factory: Any) -> str:
    """Play a trace again; what was compared. TraceError with what is wrong."""
    config = checked(trace)
    facts = trace.facts
    if differs := facts["differs"] or why_not(config):
        raise TraceError(
            f"{shown(config.id)} is not deterministic, so that nothing can be compared; noted when it was written: "
            f"{shown(differs)}"
        )
    _check_roms(config, facts["roms"])
    new = _played(trace, config, factory)
    others = _other_versions(config, facts["versions"])
    if wrong := first_difference(trace.arrays, new):
        why = f"; the versions are others: {others}" if others else "; the versions are the same as here"
        raise TraceError(f"{wrong}; actions, options, seed or scores are not those of this game{why}")
    games, steps, score = len(new["score"]), int(new["rows"].sum()), trace.arrays["score"]
    mean = f"mean {float(np.mean(score)):.2f}" if games else "no score"
    mean += f", {facts['given_up']} given up" if facts["given_up"] else ""
    said = (
        f"{games} games of {shown(config.id)} ({shown(facts['policy'])}): {mean}; {steps:,} rewards and {games} scores "
        "bit for bit"
    )
    return said + (f"; WARNING: other versions, which agree all the same: {others}" if others else "")


def checked(trace: Trace) -> EnvConfig:
    """The options of its environments. TraceError where its facts or arrays cannot be those of an evaluation."""
    facts, arrays = trace.facts, trace.arrays
    for name, kind in NEEDED.items():
        if type(facts.get(name)) is not kind:
            raise TraceError(f"it has no {name} ({kind.__name__}), got {shown(repr(facts.get(name)))}")
    limits = {"copies": (1, MOST_COPIES), "episodes": (1, 10**9), "seed": (0, 2**64), "longest": (0, 2**62)}
    for name, (low, high) in limits.items():
        if not low <= facts[name] <= high:
            raise TraceError(f"{name}={shown(facts[name])} is out of range; allowed are {low} to {high}")
    missing = [name for name in (*KINDS, "action") if name not in arrays and name != "elapsed"]
    if missing:
        raise TraceError(f"it has no array {missing[0]!r}")
    for name, dtype in KINDS.items():
        if name in arrays and (arrays[name].dtype.name != dtype or arrays[name].ndim != 1):
            got = f"{arrays[name].dtype} {list(arrays[name].shape)}"
            raise TraceError(f"array {name!r} is {got}; it must be {dtype} [n]")
    _check_counts(arrays, facts["copies"])
    if len(arrays["score"]) + facts["given_up"] != facts["episodes"]:
        raise TraceError(
            f"{len(arrays['score'])} scores and {shown(facts['given_up'])} episodes given up, of {facts['episodes']}"
        )
    try:
        return build(EnvConfig, _of_list(facts["env"]), "env")
    except (UserError, TypeError) as error:
        raise TraceError(f"its options are not those of this offbeat: {shown(error)}") from error


def _of_list(env: Mapping[str, Any]) -> dict[str, Any]:
    """Options as they were written, but for the id of a list, which follows from its games."""
    return {name: value for name, value in env.items() if name != "id" or not env.get("ids")}


def _check_counts(arrays: Mapping[str, np.ndarray], copies: int) -> None:
    """TraceError where arrays are not as long as others say."""
    if arrays["action"].ndim < 1:
        raise TraceError("array 'action' has no axis")
    for count, columns in (("sent", ("action",)), ("rows", ("reward", "flag", "elapsed"))):
        counts = arrays[count]
        if len(counts) != copies or (counts < 0).any():
            raise TraceError(f"array {count!r} does not count what {copies} environments did")
        total = sum(map(int, counts))
        for name in columns:
            if name in arrays and len(arrays[name]) != total:
                raise TraceError(f"array {name!r} has {len(arrays[name])} entries where {count!r} counts {total}")
    lengths = {name: len(arrays[name]) for name in BY_EPISODE}
    if len(set(lengths.values())) > 1:
        raise TraceError(f"arrays by episode are not of one length: {lengths}")


def _check_roms(config: EnvConfig, written: Mapping[str, Any]) -> None:
    """TraceError where a game's ROM here is another than the trace was made with."""
    here = _explained(lambda: roms(config), "its games cannot be found here")
    for game in sorted({*here, *written}):
        if here.get(game) != written.get(game):
            one, other = (str(found.get(game, "none"))[:16] for found in (here, written))
            raise TraceError(f"the ROM of {shown(game)} here is another: sha256 {one}... here, {shown(other)}... there")


def _played(trace: Trace, config: EnvConfig, factory: Any) -> dict[str, np.ndarray]:
    """Its actions played again."""
    facts, action = trace.facts, trace.arrays["action"]
    copies = facts["copies"]
    spec = _explained(lambda: env_spec(config, factory), "its environment cannot be made here")
    seen = copies * sum(array.nbytes for array in spec.observation.values())
    if seen > MOST_SEEN:
        raise TraceError(f"observations of {copies} environments take {seen:,} bytes; {MOST_SEEN:,} are allowed")
    whole, wanted = spec.action.array, action.dtype.kind
    if action.shape[1:] != whole.shape or wanted != ("u" if spec.action.choices else "f") or copies % spec.players:
        raise TraceError(
            f"its actions are {action.dtype} {list(action.shape[1:])} of {copies} environments; {shown(config.id)} "
            f"takes {whole.dtype} {list(whole.shape)}, of {spec.players} at a time"
        )
    env: VectorEnv = _explained(
        lambda: make_env(config, copies, threads=usable_cores(), deterministic=facts["deterministic"], factory=factory),
        "its environment cannot be made here",
    )
    with closed_after(env, config.id):
        limits = {"episodes": facts["episodes"], "longest": facts["longest"]}
        return _explained(lambda: play_again(env, facts["seed"], trace.arrays, **limits), "it cannot be played again")


def _explained(work: Callable[[], Any], what: str) -> Any:
    """What ``work`` gives; whatever an environment raises becomes a TraceError of one line."""
    try:
        return work()
    except UserError as error:
        raise TraceError(f"{what}: {error}") from error
    except ValueError as error:
        own = " (--env module:function names one of your own)" if "no environment is called" in str(error) else ""
        raise TraceError(f"{what}: {' '.join(str(error).split())}{own}") from error
    except (Exception, SystemExit) as error:  # of the environment, of any class
        raise TraceError(f"{what}: {told(error)}") from error


def _other_versions(config: EnvConfig, written: Mapping[str, Any]) -> str:
    """Versions that are others here than those noted in a trace."""
    here = versions(config)
    unlike = [name for name in sorted({*here, *written}) if here.get(name) != written.get(name)]
    return ", ".join(
        f"{shown(name)} {here.get(name, 'none')} here, {shown(written.get(name, 'none'))} there" for name in unlike
    )


def differing(facts: Mapping[str, Any], env: EnvConfig, said: str) -> str:
    """In which options the environment of a trace is not ``env``, which messages call ``said``; empty: in none."""
    one, other = _flat(facts["env"]), _flat(plain(env))
    return ", ".join(
        f"option {shown(name)}={shown(one.get(name))} where {said} has {other.get(name)}"
        for name in sorted({*one, *other})
        if one.get(name) != other.get(name)
    )


def _flat(env: Mapping[str, Any]) -> dict[str, Any]:
    """Options by their dotted names, lists as lists."""
    found: dict[str, Any] = {}
    for name, value in env.items():
        if isinstance(value, Mapping):
            found |= {f"{name}.{key}": item for key, item in _flat(value).items()}
        else:
            found[name] = list(value) if isinstance(value, tuple) else value
    return found
