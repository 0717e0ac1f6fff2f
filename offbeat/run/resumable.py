"""Whether a checkpoint can be gone on from with a configuration: decided by its headers, before anything is spawned.

A configuration may be edited between a stop and a resume. What only says how to go on may change (learning rate,
length, evaluation, threads, ...); what decides which arrays there are may not. Options that are given to ``resume`` are
judged before, by ``changes.py``. ``describe`` gives what a checkpoint notes of its run, so that the option can be
named; checkpoints without that note are judged by their arrays alone.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Collection, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from offbeat.agents.base import Agent, learner_states
from offbeat.config.run_config import RunConfig, to_dict
from offbeat.errors import UserError
from offbeat.networks.flat import flat_size
from offbeat.replay.layout import COUNTERS, CURSOR_COUNTERS, StreamLayout
from offbeat.replay.make import make_mixture
from offbeat.replay.streams import StreamStore
from offbeat.run.demonstrated import without_shown
from offbeat.runtime.learner_part import OPTIMISER
from offbeat.runtime.optimiser import slot_names
from offbeat.runtime.topology import CLOCK_PART, Topology
from offbeat.storage.checkpoint import (
    WEIGHTS,
    ArrayInfo,
    Checkpoint,
    CheckpointError,
    contents,
    find,
    load,
    needs_weights,
    parts_of,
)
from offbeat.types import ArrayDict

DTYPES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64", "I32": "int32",
    "C64": "complex64", "I16": "int16", "I8": "int8", "U64": "uint64", "U32": "uint32", "U16": "uint16", "U8": "uint8",
    "BOOL": "bool",
}  # fmt: skip
"""Names of dtypes in headers -> in NumPy and torch."""
HEADERS = {name: header for header, name in DTYPES.items()}
NETWORK = ("agent", "env", "delay")
"""Sections that decide the weights."""
STREAMS = (
    "actor.workers", "actor.envs_per_worker", "actor.append_rows", "learner.unroll_length", "replay", "demonstrations",
    "env", "delay", "agent",
)  # fmt: skip
"""Sections and options that decide what the streams and samplers hold."""
_WRONG = (ValueError, TypeError, IndexError, OverflowError, RuntimeError)


def describe(config: RunConfig, layout: StreamLayout) -> dict[str, Any]:
    """What the meta data of a checkpoint say of the run that saved it, as JSON can hold it."""
    facts = {"streams": layout.num_streams, "capacity": layout.capacity, "block": layout.block}
    facts |= {"state_grid": layout.state_grid, "state_period": layout.state_period}
    return {"config": to_dict(config), "layout": facts | {"items": asdict(layout.items)}}


def needs_state(checkpoint: Checkpoint) -> None:
    """For ``newest``: CheckpointError where no run can go on, for lack of weights, of counters or of sound numbers."""
    needs_weights(checkpoint)
    missing = {"agent_steps", "updates"} - checkpoint.meta.get("counters", {}).keys()
    if missing:
        raise CheckpointError(f"{checkpoint.path}: meta.json lacks the counters {', '.join(sorted(missing))}")
    wrong = _wrong_metrics(checkpoint.meta.get("metrics", {}))
    if wrong:
        raise CheckpointError(f"{checkpoint.path}: meta.json holds other metrics than a run notes: {wrong}")


def _wrong_metrics(metrics: Any) -> str:
    """Which of the metrics noted in the meta data is of another kind than ``MetricLogger.offsets`` gives; or empty."""
    if not isinstance(metrics, dict):
        return "metrics"
    averages = metrics.get("averages", [])
    fine = {"averages": isinstance(averages, list) and all(_is_average(average) for average in averages)}
    for name in ("metrics_bytes", "progress_bytes", "period_updates", "seconds"):
        value = metrics.get(name, 0)
        fine[name] = _is_number(value) and value >= 0 and (name == "seconds" or isinstance(value, int))
    games = metrics.get("game_returns", {})
    fine["game_returns"] = isinstance(games, dict)
    lists = {name: metrics.get(name, []) for name in ("returns", "lengths")} | (games if fine["game_returns"] else {})
    for name, values in lists.items():
        fine[name] = isinstance(values, list) and all(_is_number(value) for value in values)
    for name in ("status", "games", "acted_frames", "trained_frames"):
        fine[name] = _are_numbers(metrics.get(name, {}))
    return next((name for name, is_fine in fine.items() if not is_fine), "")


def _is_average(entry: Any) -> bool:
    if not (isinstance(entry, list) and len(entry) == 3 and isinstance(entry[2], dict)):
        return False
    role, kind, state = entry
    sums = {name: state.get(name, {}) for name in ("total", "count")}
    named = isinstance(role, str) and isinstance(kind, str) and isinstance(state.get("last", {}), dict)
    counted = all(_is_number(state.get(name, 0)) for name in ("records", "nonfinite"))
    return named and counted and all(_are_numbers(values, empty=False) for values in sums.values())


def _are_numbers(values: Any, empty: bool = True) -> bool:
    """Whether it is a table of numbers, and with ``empty`` of nulls."""
    return isinstance(values, dict) and all(_is_number(value) or (empty and value is None) for value in values.values())


def _is_number(value: Any) -> bool:
    return isinstance(value, float) or (isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63)


def check_fits(
    config: RunConfig,
    agent: Agent,
    layout: StreamLayout,
    roles: Topology,
    *,
    checkpoint: Path | None,
    init_from: Path | None,
    init_optimiser: bool = False,
) -> None:
    """Raise ``UserError``, naming the option, where a run of ``config`` cannot start from what it is to start from.

    Args:
        config: of the run that is about to start.
        agent: its agent, on any device.
        layout: of its streams.
        roles: that it starts.
        checkpoint: folder of the checkpoint that it goes on from, or of its run.
        init_from: another run, whose newest weights it starts from.
        init_optimiser: and whose optimiser's statistics.
    """
    if init_from is not None:
        source = find(init_from, only=("learner",))
        check_weights(source, agent.network, config)
        if init_optimiser:
            _check_statistics(source, agent, config, wanted=True)
    if checkpoint is not None:
        found = find(checkpoint, only=())
        check_weights(found, agent.network, config)
        _check_learner(found, agent, config)
        if "streams" in parts_of(found):
            _check_streams(found, layout, config)
            _check_samplers(found, agent, layout, config)
            if config.deterministic or config.engine == "inline":
                _check_actors(found, layout, roles, config)


def check_weights(checkpoint: Checkpoint, network: nn.Module, config: RunConfig) -> None:
    """Raise ``UserError`` where the checkpoint holds the weights of another network than ``network``."""
    needed = {name: _info(value) for name, value in network.state_dict().items()}
    wrong = _differences(needed, _group(contents(checkpoint, "learner"), WEIGHTS))
    if wrong:
        raise _misfit(checkpoint, config, NETWORK, f"the weights are those of another network: {wrong}", weights=False)


def _check_learner(checkpoint: Checkpoint, agent: Agent, config: RunConfig) -> None:
    """The optimiser's statistics, what the agent keeps, the generator."""
    _check_statistics(checkpoint, agent, config, wanted=False)
    found = contents(checkpoint, "learner")
    for kept, state in learner_states(agent).items():
        needed, saved = {n: _info(value) for n, value in state.state().items()}, _group(found, f"{kept}/")
        if getattr(state, "grows", False):
            needed = {n: _as_long(info, saved.get(n, info)) for n, info in needed.items()}
        wrong = _differences(needed, saved)
        if wrong:
            raise _misfit(checkpoint, config, NETWORK, f"what the agent keeps as {kept!r} differs: {wrong}")
    generator = {name: info for name, info in found.items() if name == "generator"}
    wrong = _differences({"generator": _info(torch.get_rng_state())}, generator)
    if generator and wrong:
        raise _misfit(checkpoint, config, (), wrong)


def _check_statistics(checkpoint: Checkpoint, agent: Agent, config: RunConfig, *, wanted: bool) -> None:
    """The optimiser's statistics; a checkpoint may hold none, unless they are ``wanted`` for another run."""
    rows = {name: ArrayInfo("F32", (flat_size(agent.network),)) for name in slot_names(config.learner)}
    found, rows = _group(contents(checkpoint, "learner"), OPTIMISER), rows | {"step": ArrayInfo("F32", ())}
    wrong = _differences(rows, {name: info for name, info in found.items() if name in rows})
    if not wrong or not (found or wanted):
        return
    options = ("learner.optimizer", "learner.rmsprop_momentum")
    kept = ", ".join(sorted(found.keys() - {"step"})) or "none, weights alone"
    what = f"the optimiser's statistics there are {kept}: {wrong}"
    if not wanted:
        raise _misfit(checkpoint, config, options, what)
    cause = "".join(f"{text}: " for text in _changed(checkpoint, config, options))
    raise UserError(f"{checkpoint.path} does not fit: {cause}{what}; mend that, or leave out --with-optimiser")


def _as_long(needed: ArrayInfo, saved: ArrayInfo) -> ArrayInfo:
    """``needed`` with as many rows as were saved."""
    return ArrayInfo(needed.dtype, (*saved.shape[:1], *needed.shape[1:]))


def _check_streams(checkpoint: Checkpoint, layout: StreamLayout, config: RunConfig) -> None:
    """Columns and books of the streams."""
    found = contents(checkpoint, "streams")
    saved = _group(found, "streams/")
    heads = saved.get("head")
    if heads is not None and heads.shape != (layout.num_streams,):
        raise _misfit(
            checkpoint, config, ("actor.workers", "actor.envs_per_worker"),
            f"{len(heads.shape) and heads.shape[0]} streams are saved (actor.workers x actor.envs_per_worker) and "
            f"config.toml makes {layout.num_streams}",
        )  # fmt: skip
    columns = layout.columns()
    rows = {name: ArrayInfo(spec.dtype, spec.shape) for name, spec in columns.items()} | {"age": ArrayInfo("int32", ())}
    inner = {name: ArrayInfo(info.dtype, info.shape[1:]) for name, info in saved.items() if info.shape}
    extra = {name: info for name, info in inner.items() if name.startswith(("observation/", "extras/"))}
    states = {f"core/{name}": ArrayInfo(spec.dtype, spec.shape) for name, spec in layout.core_state.items()}
    extra |= {name: info for name, info in inner.items() if name.startswith("core/")}
    wrong = _differences(rows | states, {name: inner[name] for name in (rows | states) if name in inner} | extra)
    if wrong:
        raise _misfit(checkpoint, config, STREAMS, f"what the streams hold of each row differs: {wrong}")
    counters = {name: ArrayInfo("int64", (layout.num_streams,)) for name in COUNTERS}
    cursors = (layout.num_cursors, layout.num_streams)
    counters |= {name: ArrayInfo("int64", cursors) for name in CURSOR_COUNTERS if layout.num_cursors}
    books = {name: info for name, info in saved.items() if name in counters or name.startswith("cursor/")}
    wrong = _differences(counters, books)
    if wrong:
        raise _misfit(checkpoint, config, ("replay.samplers",), f"the streams' counters differ: {wrong}")
    now, before = describe(config, layout), checkpoint.meta
    if isinstance(before.get("layout"), dict) and before["layout"] != now["layout"]:
        _refuse_layout(checkpoint, config, before["layout"], now["layout"])
    if _changed(checkpoint, config, ("env.id",)):
        raise _misfit(checkpoint, config, ("env.id",), "the rows that are saved are those of another environment")
    _check_books(checkpoint, layout, config)


def _refuse_layout(checkpoint: Checkpoint, config: RunConfig, before: dict[str, Any], now: dict[str, Any]) -> None:
    keys = [key for key in now if before.get(key) != now[key]]
    shown = ", ".join(f"{key} {before.get(key)} there and {now[key]} here" for key in keys)
    if keys:
        raise _misfit(checkpoint, config, STREAMS, f"the streams are laid out otherwise: {shown}")


def _check_books(checkpoint: Checkpoint, layout: StreamLayout, config: RunConfig) -> None:
    """Numbers that say where rows lie; the rows themselves are not read."""
    state = _arrays(checkpoint, "streams/")
    head, rows = state["head"], len(state["age"])
    unequal = {name for name in (*layout.columns(), "age") if len(state[name]) != rows}
    states = ("state_stream", "core_row", *(f"core/{name}" for name in layout.core_state)) if layout.core_state else ()
    missing = [name for name in states if name not in state]
    count = int(np.where(head > 0, np.minimum(head, layout.capacity) + 1, 0).sum()) if (head >= 0).all() else -1
    if count != rows or unequal or missing:
        raise _misfit(
            checkpoint, config, ("replay.capacity", *STREAMS),
            f"{rows} rows are saved, streams of {layout.capacity} rows would hold {count}"
            if not missing else f"{missing[0]} is not saved",
        )  # fmt: skip
    if "layout" not in checkpoint.meta and (head % layout.block).any():
        raise _misfit(
            checkpoint,
            config,
            ("actor.append_rows", "learner.unroll_length"),
            f"its rows did not come in blocks of {layout.block}",
        )
    fine = [state["produced"] - state["lost"] >= head, state["age"] >= 0]
    if layout.num_cursors:
        fine += [(state["cursor/row"] >= 0) & (state["cursor/row"] <= state["cursor/taken"])]
        fine += [(state["cursor/taken"] <= head) & (state["cursor/in_flight"] >= 0)]
    if states:
        lengths = {len(state[name]) for name in states}
        stream = state["state_stream"]
        fine += [np.array(len(lengths) == 1), stream >= 0, stream < layout.num_streams, stream[1:] >= stream[:-1]]
    if not all(values.all() for values in fine):
        raise _misfit(checkpoint, config, (), "the books of its streams do not close")


def _check_samplers(checkpoint: Checkpoint, agent: Agent, layout: StreamLayout, config: RunConfig) -> None:
    """Load what the samplers saved into ones that are thrown away; their memory is never touched, so it costs none."""
    store, size, last = StreamStore.allocate(layout), config.learner.batch_size, agent.wants_last
    made = make_mixture(store, config.replay, size, last, 0, demonstrations=config.demonstrations)
    state, fresh = without_shown(_arrays(checkpoint, "mixture/"), config), made.state()
    sized = [name for name, value in fresh.items() if value.size and not name.endswith("rng") and name in state]
    unequal = [name for name in sized if state[name].shape != fresh[name].shape]
    wrong = f"{unequal[0]!r} has another length" if unequal else ""
    if not wrong:
        try:
            made.load_state(state)
            unknown = sorted(state.keys() - made.state().keys())
            wrong = f"{unknown[0]!r} is only there" if unknown else ""
        except KeyError as error:
            wrong = f"{error} is missing there"
        except _WRONG as error:
            wrong = f"they cannot be loaded ({error})"
    if wrong:
        raise _misfit(checkpoint, config, ("replay", "agent"), f"the samplers differ: {wrong}")


def _check_actors(checkpoint: Checkpoint, layout: StreamLayout, roles: Topology, config: RunConfig) -> None:
    """What deterministic runs save of each actor; a run that was not one has saved nothing, and actors start anew."""
    needed = sorted(roles.that("owns_streams"))
    saved = sorted(set(parts_of(checkpoint)) - {"streams", CLOCK_PART, *roles.that("owns_streams", False)})
    options: tuple[str, ...] = ("actor.workers", "actor.envs_per_worker")
    if config.realtime.fps:
        needed, options = sorted(roles.that("turn", "paced")), ("realtime",)
        saved = sorted(set(parts_of(checkpoint)) - {"streams", CLOCK_PART, *roles.that("turn", "learn")})
    if saved and saved != needed:
        raise _misfit(checkpoint, config, options, f"{len(saved)} actors are saved, {len(needed)} are needed")
    if config.realtime.fps:
        return
    each = config.actor.envs_per_worker
    states = {
        f"policy/core/{name}": ArrayInfo(HEADERS[spec.dtype], (each, *spec.shape))
        for name, spec in layout.core_state.items()
    }
    for part in saved:
        found = contents(checkpoint, part)
        if any(name.split("/")[0] not in ("envs", "work", "policy") for name in found):
            raise _misfit(checkpoint, config, (), f"{part} is not the part of an actor")
        fields = {"work/staging/row": ArrayInfo("I64", (each,)), "work/returns": ArrayInfo("F64", (each,))} | states
        wrong = _differences(fields, {name: info for name, info in found.items() if name in fields})
        if wrong:
            raise _misfit(checkpoint, config, (*options, "agent"), f"{part} has other environments: {wrong}")


def _misfit(
    checkpoint: Checkpoint, config: RunConfig, options: Collection[str], what: str, weights: bool = True
) -> UserError:
    """The error that names what differs, the options behind it, and the ways out. ``weights``: those would fit."""
    changed = _changed(checkpoint, config, options)
    path = checkpoint.path
    if changed:
        cause, remedy = f"{'; '.join(changed)}: ", "put that back"
    else:
        cause, remedy = "", "put back what the run was saved with" + (f" (see {', '.join(options)})" if options else "")
        if "env_factory" in checkpoint.meta:
            remedy = f"hand over the environment that it was saved with, {checkpoint.meta['env_factory']}, or {remedy}"
    source = path.parent.parent
    words = ["offbeat", "train", str(source / "config.toml"), *(["--from", str(source)] if weights else [])]
    words += ["--env", "MODULE:NAME"] if "env_factory" in checkpoint.meta else []
    start = shlex.join([*words, "--out", "ANOTHER"])
    way = f"or start a new run{' from its weights' if weights else ''}: {start}"
    return UserError(f"{path} does not fit config.toml: {cause}{what}; {remedy}, {way}")


def _changed(checkpoint: Checkpoint, config: RunConfig, options: Collection[str]) -> list[str]:
    """The options of these names or sections that are not as they were when the checkpoint was saved, as text."""
    saved = checkpoint.meta.get("config")
    before, now = _flat(saved if isinstance(saved, dict) else {}), _flat(json.loads(json.dumps(to_dict(config))))
    chosen = [name for name in now if any(name == option or name.startswith(f"{option}.") for option in options)]
    return [
        f"{name} was {before[name]!r} and is now {now[name]!r}"
        for name in chosen
        if name in before and before[name] != now[name]
    ]


def _flat(data: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """``{"a": {"b": 1}}`` -> ``{"a.b": 1}``."""
    flat: dict[str, Any] = {}
    for name, value in data.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return flat


def _differences(needed: Mapping[str, ArrayInfo], found: Mapping[str, ArrayInfo]) -> str:
    """The first way in which names, dtypes or shapes differ, and how many more there are; empty if none."""
    wrong = [f"{name!r} is missing there" for name in needed if name not in found]
    wrong += [f"{name!r} is only there" for name in found if name not in needed]
    for name, info in needed.items():
        if name in found and (_dtype(found[name]), found[name].shape) != (_dtype(info), tuple(info.shape)):
            wrong.insert(0, f"{name!r} is {_text(found[name])} there and must be {_text(info)}")
    more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
    return wrong[0] + more if wrong else ""


def _info(value: torch.Tensor) -> ArrayInfo:
    return ArrayInfo(str(value.dtype).removeprefix("torch."), tuple(value.shape))


def _dtype(info: ArrayInfo) -> str:
    return DTYPES.get(info.dtype, info.dtype)


def _text(info: ArrayInfo) -> str:
    return f"{_dtype(info)}{list(info.shape)}"


def _group(found: Mapping[str, ArrayInfo], prefix: str) -> dict[str, ArrayInfo]:
    return {name.removeprefix(prefix): info for name, info in found.items() if name.startswith(prefix)}


def _arrays(checkpoint: Checkpoint, prefix: str) -> ArrayDict:
    """Arrays of the part ``streams`` whose names start so, mapped."""
    saved = load(checkpoint)[0]["streams"]
    return {name.removeprefix(prefix): np.asarray(value) for name, value in saved.items() if name.startswith(prefix)}
