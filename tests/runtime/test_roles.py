"""Roles in one thread on Catch: rounds train, a save and a load go on bit for bit."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from offbeat.config.run_config import RunConfig
from offbeat.replay.mixture import ReplayConfig
from offbeat.replay.samplers import sampler_config
from offbeat.runtime import local_services
from offbeat.runtime.actor import Actor, exploration
from offbeat.runtime.learner import Learner
from offbeat.runtime.local_services import LocalServices, Stop
from offbeat.runtime.shm import make_guard
from offbeat.runtime.topology import Role
from offbeat.runtime.world import World
from offbeat.storage.checkpoint import begin, load, newest, write_part
from tests.runtime.parts import ITEM_AGENTS, Metrics, item_config, make_host, same_arrays, small_config, small_world


@dataclass
class Run:
    """A learner and its actors in one thread."""

    world: World
    learner: Learner
    actors: list[Actor]
    metrics: Metrics

    @classmethod
    def start(cls, folder: Path, config: RunConfig, checkpoint: Path | None = None) -> Run:
        """From the beginning, or from the newest checkpoint in ``checkpoint``."""
        world, metrics = small_world(folder, config), Metrics()
        if checkpoint is not None:
            found = newest(checkpoint)
            assert found is not None
            streams = load(found)[0]["streams"]
            state = {name[8:]: np.asarray(value) for name, value in streams.items() if name.startswith("streams/")}
            world.store.load_state(state)
        learner = make_host(world, "learner", metrics, free=False, checkpoint=checkpoint)
        actors = [
            make_host(world, f"actor-{index}", metrics, free=False, checkpoint=checkpoint)
            for index in range(config.actor.workers)
        ]
        return cls(world, learner, actors, metrics)

    def round(self) -> dict[str, Any]:
        """Act, then learn."""
        for actor in self.actors:
            assert not actor.advance()["finished"]
        return self.learner.advance()

    def save(self, run: Path) -> None:
        """A whole checkpoint."""
        draft = begin(run, self.learner.work.agent_steps)
        write = partial(write_part, draft.path)
        answer = self.learner.save(write)
        for actor in self.actors:
            actor.save(write)
        for part in [*answer["parts"], *(actor.name for actor in self.actors)]:
            draft.adopt(part)
        draft.commit({"counters": answer["counters"]}, keep=1)

    def everything(self) -> dict[str, Any]:
        """All that decides how the run goes on."""
        state = {f"streams/{name}": value for name, value in self.world.store.state().items()}
        state |= {f"mixture/{name}": value for name, value in self.learner.batches.mixture.state().items()}
        state |= {f"optimiser/{name}": value for name, value in self.learner.work.optimiser.state().items()}
        for kept, part in self.learner.work.states.items():
            state |= {f"{kept}/{name}": value.clone() for name, value in part.state().items()}
        state |= {"flat": self.learner.work.optimiser.flat.detach().clone()}
        state |= {"counters": np.array(list(self.learner.work.counters().values()))}
        for actor in self.actors:
            for part in (actor.envs, actor.work, actor.policy):
                state |= {f"{actor.name}/{type(part).__name__}/{name}": v for name, v in part.state().items()}
        return state


HALF_REPLAYED = ReplayConfig(
    capacity=400, samplers=(sampler_config("fifo", share=0.5), sampler_config("uniform", share=0.5, min_rows=20))
)
TWO_ACTORS = small_config(actor__workers=2, actor__envs_per_worker=2)
CONFIGS = {"plain": small_config(), "replay": replace(small_config(), replay=HALF_REPLAYED), "two": TWO_ACTORS}


@pytest.mark.parametrize("name", ["plain", "two"])
def test_a_round_is_one_block_of_every_stream_and_every_batch_of_it(name: str, tmp_path: Path) -> None:
    run = Run.start(tmp_path, CONFIGS[name])
    before = run.learner.work.optimiser.flat.clone()
    assert run.world.params.store.version() == 0
    for rounds in (1, 2):
        status = run.round()
        steps = int(run.world.store.arrays["valid"][:, : 5 * rounds].sum())
        assert steps == 20 * rounds - 4 * (rounds == 2), "an episode's final observation is no step"
        assert status == {
            "finished": False,
            "pretraining": False,
            "skipped": 0,
            "updates": 2 * rounds,
            "agent_steps": steps,
            "frames": steps,
        }
        assert run.world.store.head.tolist() == [5 * rounds] * 4
        assert run.world.params.store.version() == 2 * rounds
        assert run.world.board["updates"][0] == 2 * rounds
        assert run.world.board["agent_steps"][0] == run.world.board["frames"][0] == steps
    versions = run.world.store.arrays["param_version"][:, :10]
    assert (versions == np.repeat([0, 2], 5)).all(), "each round acts with the weights of the round before"
    assert not torch.equal(before, run.learner.work.optimiser.flat)
    run.world.store.check_ledger()


def test_the_run_ends_at_its_length(tmp_path: Path) -> None:
    run = Run.start(tmp_path, small_config(total_frames=35))
    assert not run.round()["finished"]
    assert run.round() == {
        "finished": True,
        "pretraining": False,
        "skipped": 0,
        "updates": 4,
        "agent_steps": 36,
        "frames": 36,
    }
    assert run.learner.advance()["finished"]


@pytest.mark.parametrize("kind", list(CONFIGS))
def test_a_loaded_run_goes_on_bit_for_bit(kind: str, tmp_path: Path) -> None:
    config = CONFIGS[kind]
    run = Run.start(tmp_path, config)
    for _ in range(2):
        run.round()
    run.save(tmp_path)
    at_save = run.everything()
    for _ in range(2):
        run.round()
    again = Run.start(tmp_path, config, checkpoint=tmp_path)
    loaded = again.everything()
    weights_acted_with = [name for name in loaded if name.endswith("LocalPolicy/version")]
    for name in weights_acted_with:  # they come with the first refresh
        del loaded[name], at_save[name]
    same_arrays(loaded, at_save)
    for _ in range(2):
        again.round()
    same_arrays(again.everything(), run.everything())


@pytest.mark.parametrize("rounds", [2, 6])
@pytest.mark.parametrize("agent", list(ITEM_AGENTS))
def test_a_loaded_run_of_items_goes_on_bit_for_bit(agent: str, rounds: int, tmp_path: Path) -> None:
    """Also where rows came after the last update, whose counters the checkpoint holds."""
    config = item_config(agent)
    run = Run.start(tmp_path, config)
    trained = [run.round()["updates"] for _ in range(rounds)]
    assert trained[-1] == (0 if rounds == 2 else 3)
    run.save(tmp_path)
    for _ in range(5):
        run.round()
    again = Run.start(tmp_path, config, checkpoint=tmp_path)
    for _ in range(5):
        status = again.round()
    same_arrays(again.everything(), run.everything())
    assert status["updates"] > trained[-1] + 2
    assert 0 <= 20 * (rounds + 5) - status["agent_steps"] <= 40
    assert run.world.layout.items is not None
    state = run.everything()
    online = run.learner.agent.network.state_dict()
    assert any(not torch.equal(state[f"target/{name}"], value) for name, value in online.items())


def test_how_much_an_actor_explores_follows_its_rows_and_a_resumed_one_the_learners_count(tmp_path: Path) -> None:
    world = small_world(tmp_path, item_config("dqn", actor__workers=2, actor__envs_per_worker=2))
    services = [LocalServices(world, "actor-0", Metrics(), free=free) for free in (False, True)]
    agent = services[0].agent("cpu")
    strict, free = (exploration(each, agent, np.array([0, 1])) for each in services)
    assert strict is not None and free is not None
    world.board["agent_steps"][0] = 60
    assert strict(20).tolist() == pytest.approx([1 - 0.95 * 0.4] * 2), "two of four streams have made 20 of 40 rows"
    assert free(20).tolist() == pytest.approx([1 - 0.95 * 0.6] * 2)
    assert free(40).tolist() == pytest.approx([1 - 0.95 * 0.8] * 2)
    ladder = small_world(tmp_path, item_config("apex", actor__workers=2, actor__envs_per_worker=2))
    second = LocalServices(ladder, "actor-1", Metrics(), free=True)
    own = exploration(second, second.agent("cpu"), second.streams())
    assert own is not None
    assert own(0).tolist() == pytest.approx([0.4 ** (1 + 7 * 2 / 3), 0.4**8], rel=1e-5)
    plain = LocalServices(small_world(tmp_path), "actor-0", Metrics(), free=True)
    assert exploration(plain, plain.agent("cpu"), np.array([0])) is None


def test_actors_and_the_inference_server_share_the_guard_of_the_world(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = small_world(tmp_path, small_config(engine="local", actor__inference="server"))
    world.guard = make_guard(force=True)
    taken: list[object] = []
    monkeypatch.setattr(local_services, "RemotePolicy", lambda *parts: taken.append(parts[-1]))
    monkeypatch.setattr(local_services, "SharedRequests", lambda *parts: taken.append(parts[-1]))
    make_host(world, "learner", Metrics(), free=True).close()  # publishes the first weights
    for role in ("actor-0", "inference"):
        make_host(world, role, Metrics(), free=True)
    assert taken == [world.guard, world.guard]


def test_what_a_loss_draws_goes_on_where_it_was_saved(tmp_path: Path) -> None:
    """The learner's draws are torch's own; roles that are built after it in the same thread must not reset them."""
    run = Run.start(tmp_path, CONFIGS["plain"])
    first = torch.rand(4)
    run.round()
    run.save(tmp_path)
    expected = torch.rand(4)
    Run.start(tmp_path, CONFIGS["plain"], checkpoint=tmp_path)
    assert torch.equal(torch.rand(4), expected)
    Run.start(tmp_path, CONFIGS["plain"])
    assert torch.equal(torch.rand(4), first), "a new run draws by its seed"
    assert not torch.equal(first, expected)


def test_the_same_seed_gives_the_same_run_and_another_does_not(tmp_path: Path) -> None:
    runs = [Run.start(tmp_path, small_config(seed=seed)) for seed in (4, 4, 5)]
    for run in runs:
        run.round()
    same_arrays(runs[0].everything(), runs[1].everything())
    assert not torch.equal(runs[0].learner.work.optimiser.flat, runs[2].learner.work.optimiser.flat)


def test_streams_that_are_too_large_are_left_out(tmp_path: Path) -> None:
    run = Run.start(tmp_path, small_config(checkpoint__max_replay_gb=0.0))
    run.round()
    written: dict[str, Any] = {}
    assert run.learner.save(written.__setitem__)["parts"] == ["learner"]
    assert list(written) == ["learner"]
    assert not run.world.paused()


def test_every_role_and_incarnation_has_seeds_of_its_own(tmp_path: Path) -> None:
    world = small_world(tmp_path)
    paths = [("actor-0", 0, 0), ("actor-0", 0, 1), ("actor-0", 1, 0), ("learner",), ("evaluator", 1), ("evaluator", 2)]
    services = {role: LocalServices(world, role, Metrics(), free=False) for role, *_ in paths}
    drawn = [seed for role, *path in paths for seed in services[role].seeds(*path)]
    assert len(set(drawn)) == 2 * len(paths)
    assert all(0 <= seed < 2**63 for seed in drawn)
    assert services["actor-0"].seeds(0, 0) == drawn[:2]
    mine, other = (Role(kind, "", "").seed for kind in ("mine", "other"))
    assert len({mine, other, *(row.seed for row in world.topology.roles)}) == 5, "a role of anybody's has its own too"


def test_every_copy_of_the_network_starts_from_the_same_weights(tmp_path: Path) -> None:
    world = small_world(tmp_path)
    one = LocalServices(world, "learner", Metrics(), free=False).agent("cpu").network.state_dict()
    torch.rand(3)
    other = LocalServices(world, "actor-0", Metrics(), free=False).agent("cpu").network.state_dict()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_notices_are_counters_and_nothing_else(tmp_path: Path) -> None:
    world = small_world(tmp_path)
    notices = LocalServices(world, "actor-0", Metrics(), free=False).notices
    notices.post("frames", 7)
    assert notices.posted("frames") == world.board["frames"][0] == 7
    for name in ("stop", "pause", "mine"):
        with pytest.raises(ValueError, match=f"no '{name}' on the board; allowed: updates, agent_steps, frames"):
            notices.post(name, 1)
    assert not world.stopped()


def test_looking_for_a_stop_is_a_sign_of_life(tmp_path: Path) -> None:
    world = small_world(tmp_path)
    early, late = (Stop(world.board.arrays, world.heart("actor-0"), early) for early in (True, False))
    assert not early.is_set()
    assert world.heart("actor-0").last() > 0
    world.board["leaving"][0] = 1
    assert early.is_set()
    assert not late.is_set()
    world.stop()
    assert late.is_set()
