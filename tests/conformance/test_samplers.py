"""Every sampler beside a fifo on every engine: what it replays is what was acted on; a resumed run is the same run."""

from __future__ import annotations

import shutil
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from offbeat.run.train import resume, train
from tests.conformance.counting_agent import Allowed
from tests.conformance.runs import ENGINES, SERIAL, counting_run, engine_of, ledger, records
from tests.conformance.serial_engine import serialising
from tests.conformance.test_agents import SAVES, config_of, outcome
from tests.runtime.parts import same_arrays

FIFO = {"kind": "fifo", "share": 0.5}
SCORED = {"share": 0.5, "min_rows": 40, "multiplier": 3.0, "anneal_calls": 60, "score_max_age": 4}
COPYING = {
    "reservoir": {"kind": "reservoir", "share": 0.5, "size": 200, "min_rows": 40},
    "circular": {"kind": "circular", "share": 0.5, "batches": 3, "uses": 3},
}
SCORING = {
    "elite-policy": {"kind": "elite", "strategy": 4, "distance": "kl"} | SCORED,
    "elite-torso": {"kind": "elite", "features": "torso", "score_rows": 2} | SCORED,
    "attentive-policy": {"kind": "attentive", "distance": "cosine", "strategy": 1} | SCORED,
    "elite-insertion": {
        "kind": "elite_insertion",
        "share": 0.5,
        "size": 100,
        "min_rows": 40,
        "elite_batch_size": 5,
        "score_max_age": 4,
    },
    "attentive-torso": {"kind": "attentive", "features": "torso", "strategy": 2} | SCORED,
}


@pytest.mark.parametrize("kind", COPYING)
@pytest.mark.parametrize(
    "name", ["inline", *(pytest.param(n, marks=pytest.mark.slow) for n in (*ENGINES, *SERIAL) if n != "inline")]
)
def test_copied_rows_are_those_that_were_acted_on(kind: str, name: str, tmp_path: Path) -> None:
    options = {"replay__samplers": [FIFO, COPYING[kind]], "replay__capacity": 0}
    with engine_of(name):
        result = counting_run(tmp_path / "run", Allowed(skips=True), **(ENGINES | SERIAL)[name] | options)
    last = [line for line in records(result.run) if line["kind"] == "learner"][-1]
    if kind == "reservoir":
        assert last["reservoir_seen_1"] > 100 and last["reservoir_missed_1"] == 0
    else:
        rows = ledger(result.run)
        assert rows["produced"] == sum(rows[f"fifo1/{part}"] for part in ("trained", "pending", "skipped", "lost"))
        assert 0 < rows["fifo1/trained"] < rows["fifo0/trained"]
        assert last["circular_unused_1"] > 0, "the fifo beside it brings a new batch with each draw"


def sampled(name: str, out: Path, **options: Any) -> Any:
    """A short run of an agent that replays half of each batch by it."""
    sampler = (COPYING | SCORING)[name]
    own = {"replay__samplers": [FIFO, sampler], "replay__capacity": 300}
    if sampler.get("features") == "torso":
        own |= {"agent__store_features": True, "agent__core": "none"}
    return config_of("impala", out, **own | options)


@pytest.mark.slow
@pytest.mark.parametrize("name", COPYING | SCORING)
@pytest.mark.parametrize("engine", ["local", "serial"])
def test_a_run_learns_the_same_bits_on_every_engine_resumed_or_not(name: str, engine: str, tmp_path: Path) -> None:
    oracle = outcome(train(sampled(name, tmp_path / "inline", engine="inline")).run)
    assert oracle["updates"] >= 3 * SAVES
    with serialising() if engine == "serial" else nullcontext():
        run = train(sampled(name, tmp_path / "run", engine="local", deterministic=True)).run
        same_arrays(outcome(run), oracle)
        cut_half(run)
        assert resume(run).finished
        same_arrays(outcome(run), oracle)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(n, marks=() if n in ("circular", "elite-policy", "attentive-torso") else pytest.mark.slow)
        for n in COPYING | SCORING
    ],
)
def test_a_run_that_is_resumed_inline_is_the_same_run(name: str, tmp_path: Path) -> None:
    options = {"evaluation__every_frames": 0, "checkpoint__every_updates": 2 * SAVES}
    run = train(sampled(name, tmp_path / "run", engine="inline", **options)).run
    oracle = outcome(run)
    assert oracle["updates"] >= 3 * SAVES
    cut_half(run)
    assert resume(run).finished
    same_arrays(outcome(run), oracle)


@pytest.mark.slow
@pytest.mark.parametrize("name", COPYING | SCORING)
@pytest.mark.parametrize("engine", ["local", "serial"])
def test_it_runs_freely_with_a_resume(name: str, engine: str, tmp_path: Path) -> None:
    with serialising() if engine == "serial" else nullcontext():
        run = train(sampled(name, tmp_path / "run", engine="local", total_frames=2000)).run
        again = resume(run, total_frames=3000)
    assert again.finished and again.updates > 0
    learner = [line for line in records(run) if line["kind"] == "learner"]
    if name in SCORING and name != "elite-insertion":
        assert max(line["candidates_1"] for line in learner) > 1.5
    rows = ledger(run)
    assert rows["produced"] == sum(rows[f"fifo0/{part}"] for part in ("trained", "pending", "skipped", "lost"))


def cut_half(run: Path) -> None:
    """As if the run had been killed half way."""
    saved = sorted((run / "checkpoints").glob("[0-9]*"))
    for path in saved[len(saved) // 2 :]:
        shutil.rmtree(path)
