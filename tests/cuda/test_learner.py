"""A learner on the GPU with actors on the processor, in one thread: rounds, priorities, checkpoints both ways."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from offbeat.config.run_config import RunConfig
from offbeat.runtime.evaluator import Evaluator
from offbeat.storage.checkpoint import load, newest
from tests.cuda.twins import on
from tests.runtime.parts import ITEM_AGENTS, item_config, make_host, same_arrays, small_config
from tests.runtime.test_roles import Run

pytestmark = pytest.mark.cuda

CONFIGS = {"impala": small_config()} | {name: item_config(name) for name in ITEM_AGENTS}
ROUNDS = 8
"""After so many rounds each agent has made some updates."""


def on_device(config: RunConfig, device: str) -> RunConfig:
    """The same run with everything but its actors on ``device``."""
    inference = replace(config.inference, device=(device,))
    return replace(config, device=device, learner=replace(config.learner, device=device), inference=inference)


def rounds(folder: Path, config: RunConfig) -> Run:
    """A run that has made some updates."""
    run = Run.start(folder, config)
    for _ in range(ROUNDS):
        run.round()
    assert run.learner.work.updates >= 2
    return run


def learnt(run: Run) -> dict[str, Any]:
    """What the learner goes on from, on the processor."""
    work = run.learner.work
    state = {name: value.cpu() for name, value in work.optimiser.state().items()}
    state |= {f"{kept}/{name}": value for kept, part in work.states.items() for name, value in part.state().items()}
    counters = {f"counters/{name}": np.array(value) for name, value in work.counters().items()}
    return state | counters | {"flat": work.optimiser.flat.detach().cpu()}


@pytest.mark.parametrize("name", CONFIGS)
def test_rounds_train_and_publish_and_are_scored(name: str, device: str, tmp_path: Path) -> None:
    config = on_device(CONFIGS[name], device)
    run = rounds(tmp_path, config)
    work, store = run.learner.work, run.world.params.store
    on(device, work.optimiser.flat, *run.learner.agent.network.state_dict().values())
    assert work.optimiser.finite() and work.skipped == 0
    flat, point = store.newest()
    assert torch.equal(flat, work.optimiser.flat.cpu()) and point.updates == work.updates
    assert all(run.actors[0].policy.version > 0 and actor.policy.device.type == "cpu" for actor in run.actors)
    run.world.store.check_ledger()
    evaluator = make_host(run.world, "evaluator", run.metrics, free=False)
    assert isinstance(evaluator, Evaluator)
    assert evaluator.evaluate(0)["complete"]
    on(device, evaluator._policy.flat)
    (score,) = run.metrics.of("evaluation")
    assert score["version"] == work.updates
    evaluator.close()


@pytest.mark.parametrize("name", ["apex", "r2d2", "rainbow"])
def test_priorities_found_on_the_device_change_what_is_drawn(name: str, device: str, tmp_path: Path) -> None:
    run = rounds(tmp_path, on_device(CONFIGS[name], device))
    before = {key: np.array(value) for key, value in run.learner.batches.mixture.state().items()}
    updates = run.learner.work.updates
    while run.learner.work.updates == updates:
        run.round()
    after = run.learner.batches.mixture.state()
    changed = [key for key in before if before[key].dtype.kind == "f" and not np.array_equal(before[key], after[key])]
    assert changed and all(np.isfinite(after[key]).all() for key in changed)


@pytest.mark.parametrize("name", CONFIGS)
def test_a_checkpoint_goes_on_where_it_was_on_the_device_and_on_the_processor(
    name: str, device: str, tmp_path: Path
) -> None:
    run = rounds(tmp_path, on_device(CONFIGS[name], device))
    run.save(tmp_path)
    place = run.learner.work.device
    drawn = [torch.rand(3), torch.rand(3, device=place)]  # of both generators, after what was saved
    expected = learnt(run)
    again = Run.start(tmp_path, on_device(CONFIGS[name], device), checkpoint=tmp_path)
    on(device, again.learner.work.optimiser.flat)
    assert all(map(torch.equal, [torch.rand(3), torch.rand(3, device=place)], drawn)), "generators go on too"
    same_arrays(learnt(again), expected)
    elsewhere = Run.start(tmp_path, CONFIGS[name], checkpoint=tmp_path)
    on("cpu", elsewhere.learner.work.optimiser.flat)
    same_arrays(learnt(elsewhere), expected)
    for one in (again, elsewhere):
        updates = one.learner.work.updates
        for _ in range(ROUNDS):
            one.round()
        assert one.learner.work.updates > updates and one.learner.work.optimiser.finite()
    (folder := tmp_path / "back").mkdir()
    elsewhere.save(folder)
    back = Run.start(tmp_path, on_device(CONFIGS[name], device), checkpoint=folder)
    same_arrays(learnt(back), learnt(elsewhere))


def test_what_is_saved_lies_on_the_processor_with_the_devices_generator(device: str, tmp_path: Path) -> None:
    run = rounds(tmp_path, on_device(CONFIGS["rainbow"], device))
    run.save(tmp_path)
    found = newest(tmp_path)
    assert found is not None
    part = load(found)[0]["learner"]
    on("cpu", *(torch.as_tensor(value) for value in part.values()))
    assert ("cuda_generator" in part) == (device != "cpu")
    weights = run.learner.work.optimiser.weights()
    for key, value in weights.items():
        assert torch.equal(torch.as_tensor(part[f"weights/{key}"]), value.cpu())
