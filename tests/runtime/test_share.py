"""Learners that share a master, turn by turn in one thread: against a learner alone, and against a slow replay."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from offbeat.agents.target import Every
from offbeat.replay.columns import columns_of, from_columns
from offbeat.run.train import resume, train
from offbeat.runtime.learner import LearnerWork
from offbeat.runtime.learner_config import LearnerConfig
from offbeat.runtime.learner_report import NonFinite
from offbeat.runtime.master import SharedMaster
from offbeat.runtime.optimiser import slot_names
from offbeat.runtime.share import Share
from offbeat.storage.checkpoint import load, newest
from tests.agents.items import make_transition
from tests.cuda.twins import as_on_a_gpu, make, make_batch
from tests.runtime.parts import Metrics, item_config, same_arrays, small_config

ADAM: dict[str, Any] = {"optimizer": "adam", "learning_rate": 1e-2, "schedule": "constant", "epsilon": 1e-3}


def work_of(agent: Any, shared: SharedMaster | None = None, one_gradient: bool = False, **options: Any) -> LearnerWork:
    """A learner's work; with ``shared`` as one of several: the first one fills it. ``one_gradient``: as on a GPU."""
    work = LearnerWork(agent, LearnerConfig(**(ADAM | options)), total_frames=10**9)
    if one_gradient:
        as_on_a_gpu(work, agent)
    if shared is not None:
        work.share = Share(shared.store(), work.optimiser)
        if not work.share.master.version():
            work.share.begin(work.counters())
        else:
            work.load_counters(work.share.take() or {})
    return work


def shared_by(work: LearnerWork, learners: int) -> SharedMaster:
    """A master for learners like that one."""
    return SharedMaster(len(work.optimiser.flat), 1 + len(slot_names(work.config)), learners, None)


def step(work: LearnerWork, batch: Any, taken: Any = None) -> bool:
    """One update as ``run_learner`` makes it; ``taken``: what ``gradient`` gave before."""
    output = taken or work.gradient(batch)
    with work.turn():
        stands = work.apply(batch, output, output.total.detach(), output.count)
        for state in work.states.values() if stands else ():
            state.trained(batch, work.updates)
        work.commit()
    return stands


def everything(work: LearnerWork) -> dict[str, Any]:
    """All that a learner has."""
    state = {f"optimiser/{name}": value for name, value in work.optimiser.state().items()}
    state |= {f"weights/{name}": value.clone() for name, value in work.optimiser.weights().items()}
    for kept, part in work.states.items():
        state |= {f"{kept}/{name}": value.clone() for name, value in part.state().items()}
    return state | {"counters": np.array(list(work.counters().values()))}


@pytest.mark.parametrize("precision", ["fp32", "bf16", "one gradient"])
@pytest.mark.parametrize("case", ["dqn", "rainbow", "r2d2", "impala-lstm"])
def test_one_learner_with_a_master_learns_what_one_alone_does_bit_for_bit(case: str, precision: str) -> None:
    alone, one = make(case), make(case)
    as_is = {"precision": precision if precision == "bf16" else "fp32", "one_gradient": precision == "one gradient"}
    plain = work_of(alone, **as_is)
    shared = shared_by(plain, 1)
    work = work_of(one, shared, **as_is)
    batches = [make_batch(make(case), number) for number in range(6)]
    for number, batch in enumerate(batches):
        for each in (plain, work):
            torch.manual_seed(number)  # of noise in the network
            assert step(each, batch)
    same_arrays(everything(work), everything(plain))
    held = [torch.zeros_like(vector) for vector in work.optimiser.vectors()]
    _, numbers = shared.store().read(held)
    assert all(map(torch.equal, held, plain.optimiser.vectors()))
    assert numbers == plain.counters() | {"steps": 6}
    shared.close()


RUNS = {
    "dqn": item_config("dqn"),
    "normalised": small_config(agent__normalise=True, agent__normalise_reward=True, learner__publish_every=3),
}


@pytest.mark.parametrize("name", list(RUNS))
def test_a_run_of_one_learner_with_a_master_is_the_run_without_also_when_resumed(name: str, tmp_path: Path) -> None:
    parts = []
    for mode in ("sync", "async"):
        config = replace(RUNS[name], out=str(tmp_path / mode), total_frames=200)
        config = replace(config, learner=replace(config.learner, mode=mode))
        resume(train(config).run, 400)
        found = newest(tmp_path / mode)
        assert found is not None
        parts.append(load(found)[0]["learner"])
    assert int(parts[1].pop("master/staleness").sum()) > 0
    same_arrays(parts[1], parts[0])


class Replayed:
    """What several learners did, again, one step after the other, by torch's own optimiser."""

    def __init__(self, work: LearnerWork) -> None:
        self.parameter = torch.nn.Parameter(work.optimiser.flat.clone())
        config = work.config
        self.optimiser = torch.optim.Adam([self.parameter], config.learning_rate, (0.9, 0.999), config.epsilon)
        self.versions = [self.parameter.detach().clone()]

    def step(self, gradient: torch.Tensor, clip: float) -> float:
        """Clip and step; the norm before."""
        self.parameter.grad = gradient.clone()
        norm = float(torch.nn.utils.clip_grad_norm_([self.parameter], clip))
        self.optimiser.step()
        self.versions.append(self.parameter.detach().clone())
        return norm


def test_several_learners_do_what_a_serial_replay_of_their_gradients_does() -> None:
    agents = [make("dqn") for _ in range(3)]
    first = work_of(agents[0], clip_norm=0.5)
    shared = shared_by(first, 3)
    works = [work_of(agent, shared, clip_norm=0.5) for agent in agents]
    replayed, random = Replayed(first), np.random.default_rng(1)
    waiting: dict[int, tuple[Any, Any, int]] = {}
    stale = []
    for number in range(60):
        index = int(random.integers(3))
        work = works[index]
        if index not in waiting:  # take a gradient; others may step before it is applied
            batch = make_batch(agents[index], number)
            taken = work.gradient(batch)
            waiting[index] = batch, taken, work.updates
            torch.testing.assert_close(work.optimiser.flat, replayed.versions[work.updates], rtol=1e-5, atol=1e-6)
            continue
        batch, taken, version = waiting.pop(index)
        gradient = work.optimiser.gradient()
        if taken.count is not None:
            gradient = gradient / float(taken.count)
        stale.append(len(replayed.versions) - 1 - version)
        norm = replayed.step(gradient, 0.5)
        assert step(work, batch, taken)
        assert float(work.told.sums["gradient_norm"]) > norm * 0.999
        torch.testing.assert_close(work.optimiser.flat, replayed.versions[-1], rtol=1e-5, atol=1e-6)
        assert work.updates == len(replayed.versions) - 1
    assert max(stale) >= 2 and len(set(stale)) >= 3
    counts = shared.store().staleness()
    assert counts == np.bincount(stale, minlength=len(counts)).tolist()
    shared.close()


def test_gradients_are_zeroed_before_and_clipped_each_time() -> None:
    """Not as where they add up: norms of 53, 106, 159 and 212 for the same batch four times."""
    agents = [make("dqn"), make("dqn")]
    alone = work_of(make("dqn"), learning_rate=0.0)
    shared = shared_by(alone, 2)
    works = [work_of(agent, shared, learning_rate=0.0, clip_norm=0.25) for agent in agents]
    batch = make_batch(agents[0])
    assert step(alone, batch)
    norm = float(alone.told.sums["gradient_norm"])
    assert norm > 0.3, "so that it is clipped"
    norms = []
    for number in range(4):
        work = works[number % 2]
        before = float(work.told.sums.get("gradient_norm", torch.zeros(())))
        assert step(work, batch)
        norms.append(float(work.told.sums["gradient_norm"]) - before)
    assert norms == pytest.approx([norm] * 4, rel=1e-5)
    mean = works[1].optimiser.state()["exp_avg"].norm()
    assert float(mean) == pytest.approx(0.25 * (1 - 0.9**4), rel=1e-4), "four gradients of the clipped norm"
    shared.close()


def test_a_learner_that_waited_takes_its_gradient_at_the_newest_weights() -> None:
    agents = [make("dqn"), make("dqn")]
    shared = shared_by(work_of(make("dqn")), 2)
    one, other = (work_of(agent, shared) for agent in agents)
    for number in range(3):
        assert step(one, make_batch(agents[0], number))
    batch = make_batch(agents[1], 7)
    taken = other.gradient(batch)
    assert torch.equal(other.optimiser.flat, one.optimiser.flat) and other.updates == 3
    assert step(one, make_batch(agents[0], 8))
    assert step(other, batch, taken)
    assert shared.store().staleness()[:3] == [4, 1, 0]
    metrics = Metrics()
    other.told.seen(0.0, {})
    other.report(metrics, force=True)
    (values,) = metrics.of("learner")
    assert (values["staleness"], values["staleness_largest"], values["own_updates"]) == (1.0, 1, 1)
    assert (values["updates"], other.updates) == (5, 5)
    shared.close()


def test_what_is_not_finite_is_counted_for_all_and_changes_nothing() -> None:
    agents = [make("dqn"), make("dqn")]
    shared = shared_by(work_of(make("dqn")), 2)
    works = [work_of(agent, shared, nonfinite_limit=3) for agent in agents]
    good, bad = make_batch(agents[0]), make_batch(agents[0])
    bad.reward.fill_(torch.inf)
    assert step(works[0], good)
    before = works[0].optimiser.flat.clone()
    assert not step(works[0], bad)
    assert not step(works[1], bad)
    assert torch.equal(works[1].optimiser.flat, before)
    assert (works[1].updates, works[1].skipped, works[1].bad_in_a_row) == (1, 2, 2)
    with pytest.raises(NonFinite, match="3 updates in a row"):
        step(works[0], bad)
    assert sum(shared.store().staleness()) == 1
    assert step(works[1], good)
    shared.close()


def test_target_networks_are_copies_of_the_newest_weights_when_a_multiple_was_passed() -> None:
    agents = [make("dqn"), make("dqn")]
    for agent in agents:
        agent.learner_states()["target"]._every = Every(4)
    shared = shared_by(work_of(make("dqn")), 2)
    one, other = (work_of(agent, shared) for agent in agents)
    old = {name: value.clone() for name, value in agents[1].target.state_dict().items()}
    assert step(other, make_batch(agents[1]))
    for number in range(5):
        assert step(one, make_batch(agents[0], number))
    assert one.updates == 6
    assert all(torch.equal(value, old[name]) for name, value in agents[1].target.state_dict().items())
    assert step(other, make_batch(agents[1]))
    assert other.updates == 7
    newest_weights = agents[1].network.state_dict()
    assert all(torch.equal(value, newest_weights[name]) for name, value in agents[1].target.state_dict().items())
    assert step(other, make_batch(agents[1]))  # 8: again
    assert step(other, make_batch(agents[1]))
    assert not all(
        torch.equal(value, agents[1].network.state_dict()[name])
        for name, value in agents[1].target.state_dict().items()
    )
    shared.close()


def test_buffers_that_a_learner_has_changed_stay_its_own_and_others_become_the_newest() -> None:
    def network() -> torch.nn.Module:
        made = torch.nn.Linear(2, 1)
        torch.nn.init.ones_(made.weight)
        made.register_buffer("seen", torch.zeros(2))
        return made

    class Agent:
        def __init__(self) -> None:
            self.network = network()

        def loss(self, batch: Any, progress: float) -> Any:
            raise NotImplementedError

    agents = [Agent(), Agent()]
    shared = shared_by(work_of(Agent()), 2)
    one, other = (work_of(agent, shared) for agent in agents)
    agents[0].network.get_buffer("seen")[0] = 5.0
    with one.turn():
        one.commit()
    agents[1].network.get_buffer("seen")[1] = 7.0
    with other.turn():
        assert agents[1].network.get_buffer("seen").tolist() == [5.0, 7.0]
        other.commit()
    agents[0].network.get_buffer("seen")[0] = 6.0
    with one.turn():
        assert agents[0].network.get_buffer("seen").tolist() == [6.0, 7.0]
    shared.close()


def test_when_the_run_has_its_frames_nobody_steps_any_more() -> None:
    agents = [make("dqn"), make("dqn")]
    shared = shared_by(work_of(make("dqn")), 2)
    one, other = (work_of(agent, shared) for agent in agents)
    one.total_frames = other.total_frames = 10
    batch = make_batch(agents[1])
    taken = other.gradient(batch)
    output = one.gradient(batch)
    with one.turn():
        assert one.apply(batch, output, output.total.detach(), output.count)
        one.frames = 10
        one.commit()
    assert one.finished() and other.finished(), "also who has not had its turn since"
    before = one.optimiser.flat.clone()
    assert not step(other, batch, taken)
    assert torch.equal(other.optimiser.flat, before) and other.updates == 1
    assert shared.store().read(())[1]["updates"] == 1
    shared.close()


def test_statistics_are_shared_as_well() -> None:
    """A learner that had its own would step further: Adam's first step is as long as the rate."""
    agents = [make("dqn"), make("dqn")]
    plain_agent = make("dqn")
    plain = work_of(plain_agent)
    shared = shared_by(plain, 2)
    works = [work_of(agent, shared) for agent in agents]
    batches = [make_transition(plain_agent, 12, seed) for seed in range(4)]
    for number, batch in enumerate(batches):
        columns = columns_of(batch)
        assert step(works[number % 2], from_columns(type(batch), columns))
        assert step(plain, batch)
    assert torch.equal(works[1].optimiser.flat, plain.optimiser.flat), "in turn, without staleness, as one learner"
    shared.close()
