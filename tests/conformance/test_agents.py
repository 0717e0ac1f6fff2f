"""Real agents of every kind learn the same bits on every engine with a fixed schedule, resumed or not; and are scored
the same.
"""

from __future__ import annotations

import shutil
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from offbeat.config.run_config import RunConfig
from offbeat.run.train import resume, train
from offbeat.storage.checkpoint import find, load
from tests.conformance.runs import ledger, records
from tests.conformance.serial_engine import serialising
from tests.runtime.parts import item_config, same_arrays, small_config

SAVES = 4
"""Updates between two checkpoints."""
COMMON = {
    "total_frames": 500, "checkpoint__every_updates": SAVES, "checkpoint__keep": 100, "evaluation__every_frames": 200,
    "actor__workers": 2, "actor__envs_per_worker": 2,
}  # fmt: skip


HALF_REPLAYED = {"replay__samplers": [{"kind": "fifo", "share": 0.5}, {"kind": "uniform", "share": 0.5}],
                 "replay__capacity": 400}  # fmt: skip
OF_UNROLLS: dict[str, dict[str, Any]] = {
    "impala": {},
    "r2ac": {"agent": "r2ac", "agent__core": "elstm-rtrl"},
    "impact": {"agent": "impact", "agent__kl_cost": 1.0, "agent__kl_target": 1e-4, "agent__target_period": 3},
    "replay-terms": HALF_REPLAYED | {
        "agent__policy_cloning_cost": 0.01, "agent__value_cloning_cost": 0.005, "agent__trust_region": 0.1,
        "agent__entropy_on": "online",
    },
}  # fmt: skip
"""Options of the agents that train on unrolls; the last is IMPALA with all of its terms."""


def config_of(agent: str, out: Path, **options: Any) -> RunConfig:
    """A short run of the agent."""
    own = COMMON | {"out": str(out)} | options
    if agent in OF_UNROLLS:
        return small_config(**own | OF_UNROLLS[agent])
    return item_config(agent, replay__samples_per_insert=1.0, **own)


def outcome(run: Path) -> dict[str, Any]:
    """What the newest checkpoint holds of every role, counters, and scores with where they are from."""
    parts, meta = load(find(run))
    found = {f"{part}/{name}": np.asarray(value) for part, arrays in parts.items() for name, value in arrays.items()}
    scores = [[line["mean"], line["updates"]] for line in records(run) if line["kind"] == "evaluation"]
    counters = {name: np.array(value) for name, value in meta["counters"].items()}
    return found | counters | {"scores": np.array(scores)}


@pytest.mark.parametrize(
    "agent",
    [
        "impala",
        "r2ac",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("impact", "replay-terms", "r2d2", "dqn", "rainbow", "apex")
        ),
    ],
)
@pytest.mark.parametrize("engine", [pytest.param("local", marks=pytest.mark.slow), "serial"])
def test_an_agent_learns_the_same_bits_on_every_engine(agent: str, engine: str, tmp_path: Path) -> None:
    oracle = outcome(train(config_of(agent, tmp_path / "inline", engine="inline")).run)
    assert oracle["updates"] >= 3 * SAVES
    assert len(oracle["scores"]) == 3
    with serialising() if engine == "serial" else nullcontext() as wires:
        run = train(config_of(agent, tmp_path / "run", engine="local", deterministic=True)).run
        same_arrays(outcome(run), oracle)
        saved = sorted((run / "checkpoints").glob("[0-9]*"))
        for path in saved[len(saved) // 2 :]:
            shutil.rmtree(path)
        assert resume(run).finished
        same_arrays(outcome(run), oracle)
    if wires is not None:
        assert {desk.services.name for desk in wires.desks} == {"learner", "evaluator", "actor-0", "actor-1"}
        assert all(desk.carried > 1000 for desk in wires.desks)


@pytest.mark.parametrize("agent", ["impact", "replay-terms"])
def test_an_agent_that_is_resumed_learns_the_same_bits(agent: str, tmp_path: Path) -> None:
    """In one thread alone, for what keeps states in the learner, or draws from replay."""
    run = train(config_of(agent, tmp_path / "run", engine="inline", evaluation__every_frames=0)).run
    oracle = outcome(run)
    assert oracle["updates"] >= 3 * SAVES
    for path in sorted((run / "checkpoints").glob("[0-9]*"))[1:]:
        shutil.rmtree(path)
    assert resume(run).finished
    same_arrays(outcome(run), oracle)
    if agent == "impact":
        assert oracle["learner/kl/cost"] != 1.0, "it was adapted"


@pytest.mark.slow
@pytest.mark.parametrize("agent", ["impala", "dqn", "r2d2"])
def test_an_agent_runs_freely_on_bytes_with_scores_and_a_resume(agent: str, tmp_path: Path) -> None:
    options = {"engine": "local", "total_frames": 2000, "actor__inference": "server"}
    with serialising():
        run = train(config_of(agent, tmp_path / "run", **options)).run
        again = resume(run, total_frames=3000)
    assert again.finished and again.updates > 0
    assert again.evaluation_mean is not None
    kinds = {line["kind"] for line in records(run)}
    assert {"learner", "episode", "inference", "evaluation"} <= kinds
    rows = ledger(run)
    assert rows["produced"] == rows["stored"] + rows["expired"] + rows["lost"] + rows["in_hand"]
