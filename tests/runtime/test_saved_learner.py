"""What a learner saves beside the weights: what others have of them, generators; and what it never saves."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from offbeat.runtime import learner as learner_module
from offbeat.runtime.learner_part import counted_in
from offbeat.runtime.local_services import LocalServices
from offbeat.runtime.services import Loaded
from offbeat.runtime.world import World
from offbeat.storage.checkpoint import CheckpointError, load, newest
from tests.runtime.parts import Metrics, item_config, make_host, same_arrays, small_config, small_world
from tests.runtime.test_roles import Run

RARELY = small_config(learner__publish_every=3, learner__schedule="constant", total_frames=10_000)


def published(world: World) -> dict[str, Any]:
    """What other roles see of the learner, on the notice board and in the weights."""
    flat, point = world.params.store.newest()
    board = {name: int(world.board[name][0]) for name in ("updates", "agent_steps", "frames")}
    return {"flat": flat, "point": point, "pace": world.store.arrays["pace"].copy()} | board


def saved(folder: Path) -> dict[str, Any]:
    """The learner's part of the newest checkpoint."""
    found = newest(folder)
    assert found is not None
    return load(found)[0]["learner"]


def learner_of(world: World, loaded: Loaded, streams: dict[str, Any]) -> learner_module.Learner:
    """A learner that goes on from what is given."""

    class Given(LocalServices):
        def loaded(self) -> Loaded:
            return loaded

        def _saved_streams(self) -> dict[str, Any]:
            return streams

    return learner_module.build_learner(Given(world, "learner", Metrics(), free=False))


def test_a_resumed_run_shows_others_what_they_saw(tmp_path: Path) -> None:
    run = Run.start(tmp_path, RARELY)
    for _ in range(2):
        run.round()
    assert (run.learner.work.updates, run.world.params.store.version()) == (4, 3)
    run.save(tmp_path)
    before = published(run.world)
    again = Run.start(tmp_path, RARELY, checkpoint=tmp_path)
    same_arrays(published(again.world), before)
    for _ in range(3):
        run.round()
        again.round()
        same_arrays(published(again.world), published(run.world))
    versions = [one.world.store.arrays["param_version"] for one in (run, again)]
    np.testing.assert_array_equal(*versions)
    same_arrays(again.everything(), run.everything())


def test_counters_of_what_is_published_are_those_of_then_also_where_an_update_was_skipped_since(tmp_path: Path) -> None:
    config = item_config("dqn")
    run = Run.start(tmp_path, config)
    while not run.round()["updates"]:
        pass
    run.learner.work.agent_steps += 5  # rows came, and the update on them was skipped
    run.save(tmp_path)
    again = Run.start(tmp_path, config, checkpoint=tmp_path)
    point = again.world.params.store.newest()[1]
    assert point == run.world.params.store.newest()[1]
    assert point.agent_steps == again.learner.work.agent_steps - 5
    assert "published/flat" not in saved(tmp_path), "they are the weights themselves"


def test_a_finished_run_scores_its_final_weights_and_goes_on_from_those_of_the_schedule(tmp_path: Path) -> None:
    longer, short = Run.start(tmp_path, RARELY), replace(RARELY, total_frames=30)
    run = Run.start(tmp_path, short)
    while not run.round()["finished"]:
        longer.round()
    longer.round()
    run.save(tmp_path)
    work = run.learner.work
    assert (work.updates, run.world.params.store.version()) == (4, 4), "for the last evaluation"
    assert longer.world.params.store.version() == 3
    scored = Run.start(tmp_path, short, checkpoint=tmp_path)
    assert scored.world.params.store.version() == 4
    assert torch.equal(scored.world.params.store.newest()[0], work.optimiser.flat)
    scored.save(tmp_path)  # as free-running engines do
    lengthened = Run.start(tmp_path, RARELY, checkpoint=tmp_path)
    same_arrays(published(lengthened.world), published(longer.world))


def test_checkpoints_of_before_publish_the_newest_weights_and_count_frames_by_the_skip(tmp_path: Path) -> None:
    run = Run.start(tmp_path, RARELY)
    run.round()
    run.save(tmp_path)
    found = newest(tmp_path)
    assert found is not None
    parts, meta = load(found)
    part = {name: value for name, value in parts["learner"].items() if not name.startswith("published/")}
    streams = {name: value for name, value in parts["streams"].items() if name != "frames"}
    counters = {name: value for name, value in meta["counters"].items() if name not in ("frames", "bad_in_a_row")}
    world = small_world(tmp_path, RARELY)
    host = learner_of(world, Loaded(part, counters, True), streams)
    assert world.params.store.newest()[1] == run.learner.work.point()
    assert torch.equal(world.params.store.newest()[0], run.learner.work.optimiser.flat)
    assert (host.work.frames, host.batches.frames()) == (host.work.agent_steps, host.batches.steps())


@pytest.mark.parametrize(
    "change",
    [
        {"published/point": np.array([1, 2])},
        {"published/point": np.array([99, 0, 0])},
        {"published/point": np.array([-1, 0, 0])},
        {"published/flat": np.zeros(3, np.float32)},
    ],
)
def test_what_cannot_have_been_published_is_left_aside(change: dict[str, Any], tmp_path: Path) -> None:
    run = Run.start(tmp_path, RARELY)
    for _ in range(2):
        run.round()
    run.save(tmp_path)
    found = newest(tmp_path)
    assert found is not None
    parts, meta = load(found)
    parts["learner"] |= change
    world = small_world(tmp_path, RARELY)
    learner_of(world, Loaded(parts["learner"], meta["counters"], True), parts["streams"])
    assert world.params.store.version() == 4


@pytest.mark.parametrize("where", ["weights", "statistics"])
def test_what_is_not_finite_is_never_saved(where: str, tmp_path: Path) -> None:
    run = Run.start(tmp_path, RARELY)
    optimiser = run.learner.work.optimiser
    vectors = optimiser.flat if where == "weights" else optimiser.state() and optimiser._slots["square_avg"]
    vectors[0] = torch.inf
    with pytest.raises(CheckpointError, match="not finite"):
        run.learner.save(lambda part, arrays: pytest.fail(f"{part} was written"))


def test_the_gpus_generator_is_saved_beside_the_processors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = torch.arange(16, dtype=torch.uint8)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: state + device.index)
    run = Run.start(tmp_path, RARELY)
    run.round()
    run.learner.work.device = torch.device("cuda", 3)
    run.save(tmp_path)
    assert torch.equal(torch.as_tensor(saved(tmp_path)["cuda_generator"]), state + 3)
    Run.start(tmp_path, RARELY, checkpoint=tmp_path)  # on a machine without one


@pytest.mark.parametrize("deterministic", ["true", "false"])
def test_deterministic_kernels_are_chosen_before_the_network_is_made(
    deterministic: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small_config(engine="local", deterministic=deterministic, learner__device="cuda")
    world, order = small_world(tmp_path, config), []
    build = LocalServices.agent

    def built(services: LocalServices, device: torch.device) -> Any:
        order.append(f"network on {device}")
        return build(services, "cpu")

    monkeypatch.setattr(LocalServices, "agent", built)
    monkeypatch.setattr(
        learner_module, "choose_deterministic_kernels", lambda device: order.append(f"kernels of {device}")
    )
    make_host(world, "learner", Metrics(), free=deterministic == "false")
    assert order == ["kernels of cuda", "network on cuda"][deterministic == "false" :]


def test_counters_of_before_get_their_frames_by_the_skip() -> None:
    assert counted_in({}, 4) == {}
    assert counted_in({"agent_steps": 5, "samples": 7}, 4) == {
        "agent_steps": 5, "samples": 7, "frames": 20, "sample_frames": 28,
    }  # fmt: skip
    assert counted_in({"agent_steps": 5, "frames": 11}, 4)["frames"] == 11
