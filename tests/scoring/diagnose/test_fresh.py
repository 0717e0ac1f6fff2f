"""Rows that are played anew, added up beside a naive twin."""

from __future__ import annotations

import numpy as np
import pytest

from offbeat.agents.make import agent_config_class, make_agent
from offbeat.scoring.diagnose.fresh import BATCH_ROWS, Tally, exploration, play_fresh
from offbeat.types import LEGAL, ActionSpec, ArraySpec, EnvSpec, EnvStep
from tests.scoring.diagnose.broken import Run

OBSERVATION = {"observation": ArraySpec((2,)), "flag": ArraySpec((1,), "uint8"), LEGAL: ArraySpec((3,), "bool")}


def steps(rng: np.random.Generator, count: int, rounds: int):
    """Rows of ``count`` environments in any order, with all that may happen, and the actions that answer them."""
    ended = np.ones(count, bool)
    for _ in range(rounds):
        ids = rng.permutation(count)[: rng.integers(1, count + 1)]
        first = ended[ids]
        over = ~first & (rng.random(len(ids)) < 0.3)
        truncated = over & (rng.random(len(ids)) < 0.5)
        ended[ids] = over
        seen = rng.normal(size=(len(ids), 2)).astype(np.float32)
        seen[rng.random(seen.shape) < 0.05] = np.nan
        seen[rng.random(seen.shape) < 0.05] = np.inf
        legal = rng.random((len(ids), 3)) < 0.4
        legal[:, 0] = True
        observation = {"observation": seen, "flag": np.full((len(ids), 1), 3, np.uint8), LEGAL: legal}
        raw = np.where(first, 0.0, rng.normal(size=len(ids))).astype(np.float32)
        action = np.array([rng.choice(np.flatnonzero(mask)) for mask in legal])
        yield EnvStep(ids, observation, np.sign(raw), raw, over & ~truncated, truncated, first, ~over), action


@pytest.mark.parametrize("seed", range(5))
def test_a_tally_agrees_with_its_naive_twin(seed):
    tally = Tally(OBSERVATION, ActionSpec("discrete", 3), 4)
    raw, trained, lengths, truncated, odd, finite = [], [], [], 0, 0, []
    now, chosen, ever = {}, [0, 0, 0], set()
    for step, action in steps(np.random.default_rng(seed), 4, 60):
        tally.add(step)
        tally.chose(step, action)
        for i, env in enumerate(step.env_ids.tolist()):
            for value in step.observation["observation"][i].tolist():
                odd += not np.isfinite(value)
                finite += [value] if np.isfinite(value) else []
            if step.valid[i]:
                chosen[action[i]] += 1
                ever |= set(np.flatnonzero(step.observation[LEGAL][i]).tolist())
            if step.first[i]:
                now[env] = 0
                continue
            now[env] += 1
            raw.append(float(step.raw_reward[i]))
            trained.append(float(step.reward[i]))
            if not step.valid[i]:
                lengths.append(now[env])
                truncated += bool(step.truncated[i])
    found = tally.result()
    assert tally.rows == len(raw)
    assert found.raw_rewards.tolist() == raw and found.rewards.tolist() == trained
    assert found.lengths == tuple(lengths) and found.truncated == truncated
    assert set(found.observations) == {"observation", "flag"}
    seen, flag = found.observations["observation"], found.observations["flag"]
    assert (seen.low, seen.high, seen.odd, seen.moves, seen.scaled) == (min(finite), max(finite), odd, True, False)
    assert (flag.low, flag.high, flag.odd, flag.moves, flag.scaled) == (3.0, 3.0, 0, False, True)
    assert found.actions[0].tolist() == [n if action in ever else -1 for action, n in enumerate(chosen)]


def test_components_are_counted_each_by_itself():
    tally = Tally({"observation": ArraySpec((1,))}, ActionSpec("multi_discrete", nvec=(2, 3)), 2)
    off, on = np.zeros(2, bool), np.ones(2, bool)
    step = EnvStep(np.arange(2), {"observation": np.zeros((2, 1), np.float32)}, *np.zeros((2, 2)), off, off, off, on)
    tally.chose(step, np.array([[0, 2], [0, 1]]))
    assert [counts.tolist() for counts in tally.result().actions] == [[2, 0], [0, 1, 1]]


def test_what_is_never_a_number_does_not_move():
    tally = Tally({"observation": ArraySpec((1,))}, ActionSpec("continuous", shape=(1,)), 1)
    off, on = np.zeros(1, bool), np.ones(1, bool)
    for _ in range(3):
        tally.add(
            EnvStep(np.arange(1), {"observation": np.full((1, 1), np.nan, np.float32)}, on, on, off, off, off, on)
        )
    seen = tally.result().observations["observation"]
    assert (seen.low, seen.high, seen.odd, seen.moves) == (np.inf, -np.inf, 3, False)
    assert tally.result().actions == ()


def test_epsilons_are_those_of_the_whole_run():
    spec = EnvSpec("toy", {"observation": ArraySpec((3,))}, ActionSpec("discrete", 2))
    agent = make_agent("apex", agent_config_class("apex")(torso="mlp", exploration="ladder"), spec)
    ladder = agent.exploration(np.arange(100), 100, 0)
    few = exploration(agent, 3, 100, 0)
    assert few is not None and few(7).tolist() == [ladder[0], ladder[round(99 / 2)], ladder[99]]
    falling = {"exploration": "linear", "explore": 100, "epsilon_start": 1.0, "epsilon_end": 0.0}
    agent = make_agent("apex", agent_config_class("apex")(torso="mlp", **falling), spec)
    assert exploration(agent, 2, 8, 75)(0).tolist() == [0.25, 0.25]
    assert exploration(make_agent("impala", agent_config_class("impala")(torso="mlp"), spec), 2, 8, 75) is None


def test_a_run_is_played_for_as_many_rows_as_asked(tmp_path):
    run = Run("impala-catch", 400, {"actor.envs_per_worker": 2, "learner.batch_size": 2}).make(tmp_path / "run")
    from offbeat.run.load import run_config

    said: list[str] = []
    fresh = play_fresh(run, run_config(run), 1, say=said.append)
    assert len(fresh.rewards) in (BATCH_ROWS, BATCH_ROWS + 1)
    assert set(fresh.lengths) == {9} and not said
    assert sum(int(counts.sum()) for counts in fresh.actions) <= BATCH_ROWS + 1
    assert [layer.units for layer in fresh.layers] == [64, 64]
    assert np.array_equal(play_fresh(run, run_config(run), 1, say=said.append).rewards, fresh.rewards)
