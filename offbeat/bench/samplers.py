"""What a batch costs with each sampler of unrolls, beside uniform replay of the same rows in the same run."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from offbeat.agents.impala import Agent, Config
from offbeat.bench.streams import BATCH, CAPACITY, LENGTH, STREAMS, random_block, streams_layout
from offbeat.networks.flat import flat_size, flatten_parameters
from offbeat.replay.make import make_mixture
from offbeat.replay.mixture import Mixture, ReplayConfig
from offbeat.replay.samplers import sampler_config
from offbeat.replay.streams import StreamStore
from offbeat.runtime.encoding import Encoding
from offbeat.runtime.params import ParamStore, param_arrays
from offbeat.types import UNROLL, ActionSpec, EnvSpec, Unroll

SCORED: dict[str, Any] = {"anneal_calls": 0, "distance": "kl"}
ROWS = STREAMS * CAPACITY
SAMPLERS: dict[str, dict[str, Any]] = {
    "uniform": {"kind": "uniform"},
    "reservoir": {"kind": "reservoir", "size": ROWS},
    "circular": {"kind": "circular", "batches": 4, "uses": 2},
    "elite": {"kind": "elite"} | SCORED,
    "elite, 2 rows": {"kind": "elite", "score_rows": 2} | SCORED,
    "elite, cached 50": {"kind": "elite", "score_max_age": 50} | SCORED,
    "elite, cached 50, 2 rows": {"kind": "elite", "score_max_age": 50, "score_rows": 2} | SCORED,
    "attentive": {"kind": "attentive"} | SCORED,
    "attentive, cached 50, 2 rows": {"kind": "attentive", "score_max_age": 50, "score_rows": 2} | SCORED,
    "elite_insertion, cached 50, 2 rows": {
        "kind": "elite_insertion", "size": ROWS, "score_max_age": 50, "score_rows": 2, "distance": "kl",
    },
}  # fmt: skip
"""What is measured, by the name that it is shown with."""
WARM_UPS = 60
"""Rounds that are not timed: caches fill, and reservoirs."""


def bench_samplers(
    seconds: float = 20.0, names: tuple[str, ...] = tuple(SAMPLERS), warm_ups: int = WARM_UPS, file: Path | None = None
) -> dict[str, dict[str, float]]:
    """Median times of a batch of 32 unrolls x 20 rows, every sampler once in each round, for ``seconds``; printed.

    Before each round every stream has 20 rows more and the weights are newer, as between two updates. Rows are Atari's,
    as of ``bench streams``; samplers that score have IMPALA's network with the nature torso. By name: ``ms``,
    ``rows_per_s``, ``of_uniform`` (its time by that of uniform), and ``score_hits``, the share of cached scores.
    """
    layout = replace(streams_layout(), num_cursors=1, items=replace(UNROLL, length=LENGTH), state_grid=LENGTH)
    store = StreamStore.allocate(layout)
    spec = EnvSpec("bench", layout.observation, ActionSpec("discrete", 6), layout.frame_stack, layout.stacked)
    torch.manual_seed(0)
    agents: list[Any] = [Agent(Config(torso="nature"), spec) for _ in range(2)]
    flat = flatten_parameters(agents[0].network)
    arrays = param_arrays(flat_size(agents[0].network))
    params = ParamStore({name: np.zeros(one.shape, one.dtype) for name, one in arrays.items()})
    encode, rng = Encoding(agents[1], params), np.random.default_rng(0)
    mixtures = {name: _mixture(store, SAMPLERS[name], encode) for name in names}
    times: dict[str, list[float]] = {name: [] for name in names}
    block, deadline, turn = random_block(layout, rng), float("inf"), 0
    while turn < warm_ups + 3 or time.perf_counter() < deadline:
        if turn == warm_ups:
            deadline = time.perf_counter() + seconds
        params.publish(flat, turn)
        store.append(block)
        turn += 1
        for name, mixture in mixtures.items():
            started = time.perf_counter()
            batch = mixture.sample()
            times[name].append(time.perf_counter() - started)
            assert isinstance(batch, Unroll), f"{name}: {mixture.missing()}"
            mixture.done(batch)
    found = {name: _numbers(times[name][warm_ups:], mixtures[name]) for name in names}
    for numbers in found.values():
        numbers["of_uniform"] = numbers["ms"] / found[names[0]]["ms"]
    _print(found)
    if file is not None:
        file.write_text(json.dumps(found, indent=1) + "\n")
    return found


def _mixture(store: StreamStore, options: dict[str, Any], encode: Encoding) -> Mixture:
    """Batches from that sampler alone."""
    config = ReplayConfig(ROWS, (sampler_config(**options),))
    return make_mixture(store, config, BATCH, False, 0, encode=encode)


def _numbers(times: list[float], mixture: Mixture) -> dict[str, float]:
    """The median of ``times`` and what follows from it, and what share of scores was cached."""
    took = float(np.median(times))
    told = {name.removesuffix("_0"): value for name, value in mixture.stats().items() if name.startswith("score_hits")}
    return {"ms": 1000 * took, "rows_per_s": BATCH * LENGTH / took, "rounds": float(len(times))} | told


def _print(found: dict[str, dict[str, float]]) -> None:
    """A line for each."""
    print(f"{'':<36}{'ms a batch':>11}{'rows/s':>10}{'of uniform':>11}{'cached':>8}")
    for name, one in found.items():
        cached = f"{one['score_hits']:.0%}" if "score_hits" in one else ""
        print(f"{name:<36}{one['ms']:>11.2f}{one['rows_per_s']:>10,.0f}{one['of_uniform']:>11.2f}{cached:>8}")
