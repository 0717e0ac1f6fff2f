"""A learner that dies, and the one that takes its place: what that one begins with, what is lost, what goes on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from offbeat.config.run_config import RunConfig, from_dict
from offbeat.runtime import mirror
from offbeat.runtime.mirror import MirrorStore
from offbeat.runtime.rebuilding import Rebuilding
from tests.runtime.parts import Metrics, item_config, make_host, same_arrays, small_config, small_world
from tests.runtime.test_roles import HALF_REPLAYED, Run

FREE: dict[str, Any] = {"engine": "local", "learner__mirror_every": 3, "total_frames": 100_000}
R2AC = {"name": "r2ac", "hidden_size": [8], "core": "elstm-rtrl", "core_size": 4}


def r2ac() -> RunConfig:
    """R2AC, which carries sensitivities from each unroll of a stream to the next."""
    learner, scores = {"batch_size": 2, "unroll_length": 5, "mirror_every": 3}, {"every_frames": 0, "at_end": False}
    return from_dict({
        "device": "cpu", "total_frames": 100_000, "env": {"id": "toy/catch", "length": 6}, "agent": R2AC,
        "actor": {"workers": 1, "envs_per_worker": 4}, "learner": learner, "evaluation": scores,
        "log": {"tensorboard": False, "dashboard": False},
    })  # fmt: skip


CONFIGS: dict[str, RunConfig] = {
    "impala": small_config(**FREE),
    "half replayed": replace(small_config(**FREE), replay=HALF_REPLAYED),
    "dqn": item_config("dqn", **FREE),
    "apex": item_config("apex", **FREE),
    "r2d2": item_config("r2d2", **FREE),
    "r2ac": r2ac(),
}
PRIORITISED = ("apex", "r2d2")


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Copies of all that learners keep, which is due by updates alone."""
    monkeypatch.setattr(mirror, "SOON_S", 1e9)
    found: list[dict[str, Any]] = []
    keep = MirrorStore.keep

    def noting(store: MirrorStore, part: Any, tallies: Any) -> None:
        found.append({name: torch.as_tensor(value).clone() for name, value in part.items()})
        keep(store, part, tallies)

    monkeypatch.setattr(MirrorStore, "keep", noting)
    return found


def until(run: Run, updates: int) -> None:
    """Play rounds until so many updates are made."""
    while run.learner.work.updates < updates:
        run.round()


def rebuild(run: Run, rebuilding: Rebuilding, incarnation: int = 1) -> int:
    """The learner dies and another takes its place; how many updates are lost. Without a fifo actors act meanwhile."""
    run.learner.close()
    if not run.learner.batches.mixture.paced:
        run.actors[0].advance()
    assert not rebuilding.refused()
    lost = rebuilding.begin()
    run.learner = make_host(run.world, "learner", run.metrics, free=False, incarnation=incarnation)
    return lost


def own_part(run: Run) -> dict[str, Any]:
    """What the learner has to itself."""
    work = run.learner.work
    found = {f"weights/{name}": value for name, value in work.optimiser.weights().items()}
    found |= {f"optimiser/{name}": value for name, value in work.optimiser.state().items()}
    for name, state in work.states.items():
        found |= {f"{name}/{key}": value for key, value in state.state().items()}
    return found


@pytest.mark.parametrize("name", CONFIGS)
def test_another_learner_has_what_was_kept_last_and_all_goes_on(
    name: str, kept: list[dict[str, Any]], tmp_path: Path
) -> None:
    config = CONFIGS[name]
    run = Run.start(tmp_path, config)
    rebuilding = Rebuilding(run.world)
    until(run, 10)
    work, store, memory = run.learner.work, run.world.params.store, run.world.mirror
    assert memory is not None
    updates, version, counters = work.updates, store.version(), work.counters()
    sampled, rate = run.learner.batches.mixture.sampled, run.world.mirror.drawn.copy()  # type: ignore[union-attr]
    expected, at = kept[-1], int(kept[-1]["optimiser/step"])
    assert 0 < updates - at < 3 or updates == at
    lost = rebuild(run, rebuilding)
    assert lost == updates - at
    same_arrays(own_part(run), {name: value for name, value in expected.items() if name != "generator"})
    new = run.learner.work
    assert new.updates == updates + 1 == store.version() > version
    assert torch.equal(store.newest()[0], new.optimiser.flat)
    unchanged = ("agent_steps", "frames", "samples", "sample_frames", "skipped")
    assert {n: new.counters()[n] for n in unchanged} == {n: counters[n] for n in unchanged}
    appended = int(run.world.store.counted()[0].sum())
    assert run.learner.batches.steps() == (new.agent_steps if config.replay.paced else appended)
    assert run.learner.batches.frames() == run.learner.batches.steps() >= new.frames
    assert (run.learner.batches.mixture.sampled <= sampled) and (memory.drawn == rate).all()
    until(run, updates + 6)
    assert run.learner.work.optimiser.steps == at + run.learner.work.updates - updates - 1
    assert (memory.restarts, memory.lost_updates) == (1, lost)
    run.world.store.check_ledger()
    if name in PRIORITISED:
        assert run.learner.batches.stats()["rebuilt_priorities"] > 0
    if not config.replay.paced:
        ratio = config.replay.samples_per_insert
        assert abs(int(memory.drawn[0]) - (int(run.world.store.head.sum()) - 20) * ratio) <= 2 * 8 * 7


def test_what_the_dead_one_had_in_hand_is_skipped_whatever_it_was_about_to_write(
    kept: list[dict[str, Any]], tmp_path: Path
) -> None:
    run = Run.start(tmp_path, CONFIGS["impala"])
    until(run, 4)
    run.actors[0].advance()
    mixture, arrays = run.learner.batches.mixture, run.world.store.arrays
    assert mixture.draw() is not None, "a batch was drawn, and not copied"
    arrays["cursor/in_flight"][0, 0] += 5  # it died between two lines of another draw
    run.world.board["pause"][0] = 1  # and in a save
    run.world.board["idle"][0] = 3
    with pytest.raises(RuntimeError, match="does not close"):
        run.world.store.check_ledger()
    trained = arrays["cursor/trained"].copy()
    rebuild(run, Rebuilding(run.world))
    run.world.store.check_ledger()
    assert arrays["cursor/in_flight"].sum() == 0 and arrays["cursor/skipped"].sum() == 10
    assert (arrays["cursor/row"] == arrays["cursor/taken"]).all()
    assert (arrays["cursor/trained"] == trained).all()
    assert not run.world.paused() and not run.world.board["idle"][0]
    until(run, 12)
    run.world.store.check_ledger()


def test_sensitivities_go_on_where_streams_do_and_begin_anew_where_unrolls_were_lost(
    kept: list[dict[str, Any]], tmp_path: Path
) -> None:
    run = Run.start(tmp_path, CONFIGS["r2ac"])
    until(run, 10)
    assert run.learner.work.updates - int(kept[-1]["optimiser/step"]) == 1, "the last update is lost, of two streams"
    (name,) = run.learner.work.states
    rebuild(run, Rebuilding(run.world))
    assert run.learner.work.states[name].gaps == 0  # type: ignore[attr-defined]
    until(run, 15)
    assert run.learner.work.states[name].gaps == 2  # type: ignore[attr-defined]


def test_one_that_is_rebuilt_and_makes_no_update_is_not_rebuilt_again(
    kept: list[dict[str, Any]], tmp_path: Path
) -> None:
    run = Run.start(tmp_path, CONFIGS["impala"])
    rebuilding = Rebuilding(run.world)
    rebuild(run, rebuilding)
    assert "not made one update since it was rebuilt" in rebuilding.refused()
    until(run, 2)
    assert run.learner.work.made
    rebuild(run, rebuilding, 2)
    run.learner.close()
    assert rebuilding.refused()


def test_one_that_had_not_begun_is_not_rebuilt(tmp_path: Path) -> None:
    assert "had not begun to learn" in Rebuilding(small_world(tmp_path, CONFIGS["impala"])).refused()
    config = small_config(engine="local", learner__mode="async", learner__count=2)
    assert "had not begun to learn" in Rebuilding(small_world(tmp_path, config)).refused()


def test_checkpoints_after_it_go_on(kept: list[dict[str, Any]], tmp_path: Path) -> None:
    run = Run.start(tmp_path, CONFIGS["apex"])
    until(run, 10)
    rebuild(run, Rebuilding(run.world))
    until(run, 14)
    run.save(tmp_path)
    again = Run.start(tmp_path, CONFIGS["apex"], checkpoint=tmp_path)
    assert again.world.mirror is not None and again.world.mirror.restarts == 0
    own = {name for name in run.everything() if name.startswith("actor")}  # the actor goes on with others' weights
    one, other = ({n: v for n, v in each.everything().items() if n not in own} for each in (again, run))
    same_arrays(one, other)


def test_draws_are_others_than_those_at_the_runs_start(kept: list[dict[str, Any]], tmp_path: Path) -> None:
    run = Run.start(tmp_path, CONFIGS["dqn"])
    first = run.learner.batches.mixture.samplers[0]._rng.bit_generator.state["state"]  # type: ignore[attr-defined]
    until(run, 5)
    rebuild(run, Rebuilding(run.world))
    assert run.learner.batches.mixture.samplers[0]._rng.bit_generator.state["state"] != first  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "options",
    [{"engine": "inline"}, {"deterministic": "true"}, {"learner__mirror_every": 0}, {"learner__mode": "async"}],
)
def test_other_runs_have_no_mirror(options: dict[str, Any], tmp_path: Path) -> None:
    assert small_world(tmp_path, small_config(**FREE | options)).mirror is None


def test_the_first_asynchronous_learner_goes_on_from_the_master(tmp_path: Path) -> None:
    config = item_config("dqn", **FREE, learner__mode="async", replay__samples_per_insert=0.3)
    run = Run.start(tmp_path, config)
    until(run, 7)
    work, memory = run.learner.work, run.world.master
    assert memory is not None
    counters, weights, statistics = work.counters(), work.optimiser.flat.clone(), work.optimiser.state()
    version, drawn = memory.store().version(), int(memory.drawn.sum())
    assert rebuild(run, Rebuilding(run.world)) == 0
    new = run.learner.work
    assert new.counters() == counters and memory.store().version() == version
    assert torch.equal(new.optimiser.flat, weights)
    same_arrays(new.optimiser.state(), statistics)
    assert run.world.params.store.version() == counters["updates"] and int(memory.drawn.sum()) == drawn
    until(run, 12)
    assert new.optimiser.steps == new.updates == run.world.params.store.version()
    assert run.learner.batches.steps() == int(run.world.store.counted()[0].sum())
    run.world.store.check_ledger()


def test_learners_that_step_together_begin_with_the_first_round_and_the_same_weights(tmp_path: Path) -> None:
    world = small_world(tmp_path, small_config(**FREE, learner__count=2))
    memory, reduction, dealing = world.mirror, world.reduction, world.dealing
    assert memory is not None and reduction is not None and dealing is not None
    first = make_host(world, "learner", Metrics(), free=False)
    with torch.no_grad():
        first.work.optimiser.flat *= 2
    first.work.updates = 5
    first._keep(force=True)
    reduction.memory["given"][:] = 7, 6
    dealing.memory["dealt"][:] = 9
    assert Rebuilding(world).begin() == 0
    assert not any(shared.memory[n].any() for shared, n in ((reduction, "given"), (dealing, "dealt")))
    others = [make_host(world, name, Metrics(), free=False, incarnation=1) for name in ("learner", "learner-1")]
    for other in others:
        assert torch.equal(other.work.optimiser.flat, first.work.optimiser.flat)
        assert other.work.counters() == first.work.counters() | {"updates": 6}
    assert [other._mirror is None for other in others] == [False, True]
    assert world.params.store.version() == 6
    for other in (first, *others):
        other.close()
