"""The toy environments: known scores, rows of the promised form, and exact restoring."""

from __future__ import annotations

import numpy as np
import pytest

from offbeat.envs.base import EnvConfig, VectorEnv
from offbeat.envs.counting import counting_reward
from offbeat.envs.registry import make_env
from offbeat.envs.toy_games import GAMES
from offbeat.types import OBSERVATION, EnvStep

ALL = ["counting", *GAMES]


def random_action(env: VectorEnv, generator: np.random.Generator) -> np.ndarray:
    spec = env.spec.action
    if spec.kind == "discrete":
        return generator.integers(spec.num_actions, size=env.batch_size)
    return generator.uniform(-1, 1, (env.batch_size, *spec.shape)).astype(np.float32)


def same_rows(one: EnvStep, two: EnvStep) -> bool:
    fields = ("env_ids", "reward", "raw_reward", "terminated", "truncated", "first", "valid")
    return all(np.array_equal(getattr(one, f), getattr(two, f)) for f in fields) and all(
        np.array_equal(one.observation[key], two.observation[key]) for key in one.observation
    )


def play(env: VectorEnv, choose, episodes: int) -> float:
    """Mean raw return of ``episodes`` episodes; ``choose(rows)`` gives the actions."""
    env.reset(0)
    returns, running = [], np.zeros(env.num_envs)
    while len(returns) < episodes:
        rows = env.recv()
        running = np.where(rows.first, 0.0, running + rows.raw_reward)
        returns += list(running[~rows.valid])
        env.send(choose(rows))
    return float(np.mean(returns))


@pytest.mark.parametrize("name", ALL)
def test_rows_have_the_promised_form(name: str) -> None:
    env = make_env(EnvConfig(id=f"toy/{name}", length=4), 3)
    generator = np.random.default_rng(0)
    env.reset(5)
    before = None
    for step in range(80):
        rows = env.recv()
        for key, spec in env.spec.observation.items():
            assert rows.observation[key].shape == (3, *spec.shape) and rows.observation[key].dtype == spec.dtype
        assert rows.reward.dtype == rows.raw_reward.dtype == np.float32
        assert not (rows.terminated & rows.truncated).any()
        assert (rows.valid == ~(rows.terminated | rows.truncated)).all()
        assert (rows.first == (step == 0 if before is None else ~before.valid)).all()
        assert (rows.raw_reward[rows.first] == 0).all() and (rows.reward[rows.first] == 0).all()
        before = rows
        env.send(random_action(env, generator))


@pytest.mark.parametrize("name", ALL)
def test_state_goes_on_exactly(name: str) -> None:
    generator = np.random.default_rng(1)
    env, other = (make_env(EnvConfig(id=f"toy/{name}", length=5), 4) for _ in range(2))
    env.reset(3)
    for _ in range(17):
        env.recv()
        env.send(random_action(env, generator))
    env.recv()
    saved = env.state()
    actions = [random_action(env, generator) for _ in range(40)]
    expected = []
    for action in actions:
        env.send(action)
        expected.append(env.recv())
    other.load_state(saved)
    for action, rows in zip(actions, expected, strict=True):
        other.send(action)
        assert same_rows(other.recv(), rows)


def test_same_seed_same_rows_other_seed_other_rows() -> None:
    frames = []
    for seed in (1, 1, 2):
        env = make_env(EnvConfig(id="toy/catch"), 64)
        env.reset(seed)
        frames.append(env.recv().observation[OBSERVATION])
    assert np.array_equal(frames[0], frames[1]) and not np.array_equal(frames[0], frames[2])


def test_counting_predicts_every_row() -> None:
    env = make_env(EnvConfig(id="toy/counting", length=6), 5)
    generator = np.random.default_rng(0)
    env.reset(9)
    rows = env.recv()
    ends = set()
    for row in range(1, 200):
        action = random_action(env, generator)
        env.send(action)
        before, rows = rows, env.recv()
        step, episode, number = rows.observation[OBSERVATION].T
        assert (number == row).all()
        assert np.array_equal(step, np.where(rows.first, 0, before.observation[OBSERVATION][:, 0] + 1))
        assert np.array_equal(episode, before.observation[OBSERVATION][:, 1] + rows.first)
        expected = np.where(rows.first, 0, counting_reward(np.full(5, row - 1), action))
        assert np.array_equal(rows.raw_reward, expected)
        ends |= set(zip(rows.terminated, rows.truncated, strict=True))
    assert ends == {(False, False), (True, False), (False, True)}


def best_catch(rows: EnvStep) -> np.ndarray:
    board = rows.observation[OBSERVATION]
    paddle = board[:, -1].argmax(axis=1)
    ball = board[:, :-1].max(axis=1).argmax(axis=1)
    return np.sign(ball - paddle).astype(np.int64) + 1


class CopyMemory:
    """Remembers the bits; the best player of ``toy/copy``."""

    def __init__(self, count: int) -> None:
        self.bits: list[list[int]] = [[] for _ in range(count)]

    def __call__(self, rows: EnvStep) -> np.ndarray:
        action = np.zeros(len(self.bits), np.int64)
        for game, (bit, shown, _) in enumerate(rows.observation[OBSERVATION]):
            if rows.first[game]:
                self.bits[game] = []
            if shown:
                self.bits[game].append(int(bit > 0))
            elif rows.valid[game]:
                action[game] = self.bits[game].pop(0)
        return action


class MazeMemory:
    """Remembers the cue; the best player of ``toy/tmaze``."""

    def __init__(self, count: int) -> None:
        self.cue = np.zeros(count)

    def __call__(self, rows: EnvStep) -> np.ndarray:
        cue, _, junction = rows.observation[OBSERVATION].T
        self.cue = np.where(rows.first, cue, self.cue)
        return np.where(junction > 0, np.where(self.cue < 0, 1, 2), 0)


class ChainMemory:
    """Remembers the cue; the best player of ``toy/memory_chain``."""

    def __init__(self, count: int) -> None:
        self.cue = np.zeros(count)

    def __call__(self, rows: EnvStep) -> np.ndarray:
        cue = rows.observation[OBSERVATION][:, 0]
        self.cue = np.where(cue != 0, cue, self.cue)
        return (self.cue > 0).astype(np.int64)


def best_pair(rows: EnvStep) -> np.ndarray:
    lit = rows.observation["image"][:, 0, 0].argmax(axis=1) // 9
    return (lit + rows.observation["vector"].argmax(axis=1)) % 4


def best_continuous(rows: EnvStep) -> np.ndarray:
    x = rows.observation[OBSERVATION]
    return np.stack([x[:, 1], -x[:, 0]], axis=1) / 2


BEST = {
    "catch": best_catch,
    "copy": CopyMemory(8),
    "tmaze": MazeMemory(8),
    "memory_chain": ChainMemory(8),
    "identity": lambda rows: rows.observation[OBSERVATION].argmax(axis=1),
    "drift": lambda rows: 1 + rows.observation[OBSERVATION].argmax(axis=1),
    "dict": best_pair,
    "continuous": best_continuous,
}


@pytest.mark.parametrize("name", list(BEST))
def test_best_play_scores_the_reference(name: str) -> None:
    env = make_env(EnvConfig(id=f"toy/{name}", length=10), 8)
    assert play(env, BEST[name], 50) == pytest.approx(env.spec.reference_score, abs=1e-5)


@pytest.mark.parametrize("name", [name for name in BEST if name != "tmaze"])
def test_random_play_scores_as_stated(name: str) -> None:
    env = make_env(EnvConfig(id=f"toy/{name}", length=10), 50)
    generator = np.random.default_rng(2)
    score = play(env, lambda rows: random_action(env, generator), 3000)
    spread = {"catch": 0.04}.get(name, 0.02 * 10)
    assert score == pytest.approx(env.spec.random_score, abs=spread)


def test_an_answer_to_drift_that_is_late_is_right_as_often_as_stated() -> None:
    env = make_env(EnvConfig(id="toy/drift", length=200), 100)
    late = 7
    seen: list[np.ndarray] = []

    def answer(rows: EnvStep) -> np.ndarray:
        seen.append(1 + rows.observation[OBSERVATION].argmax(axis=1))
        return seen[-1 - late] if not rows.first.any() and len(seen) % 201 > late else np.zeros(100, np.int64)

    kept = 0.9**late
    assert play(env, answer, 200) == pytest.approx((200 - late) * (kept + (1 - kept) / 4), rel=0.03)


@pytest.mark.parametrize("length", [50, 100, 128])
def test_the_tmaze_asks_as_many_rows_after_its_cue_as_its_corridor_is_long(length: int) -> None:
    env = make_env(EnvConfig(id="toy/tmaze", length=length), 8)
    env.reset(1)
    rows = env.recv()
    cue = rows.observation[OBSERVATION][:, 0].astype(np.int64)
    assert set(cue) == {-1, 1} and (rows.observation[OBSERVATION][:, 1:] == [1, 0]).all()
    for step in range(1, length + 1):
        env.send(np.zeros(8, np.int64))
        rows = env.recv()
        assert (rows.observation[OBSERVATION] == ([0, 0, 1] if step == length else [0, 1, 0])).all()
        assert (rows.reward == 0).all()
    answer = np.arange(8) % 2 + 1
    env.send(answer)
    rows = env.recv()
    assert rows.terminated.all() and np.array_equal(rows.reward, np.where(answer * 2 - 3 == cue, 1, -1))


def test_tmaze_without_memory_is_chance() -> None:
    env = make_env(EnvConfig(id="toy/tmaze", length=20), 50)
    generator = np.random.default_rng(3)

    def guess(rows: EnvStep) -> np.ndarray:
        return np.where(rows.observation[OBSERVATION][:, 2] > 0, generator.integers(1, 3, 50), 0)

    assert play(env, guess, 2000) == pytest.approx(0.5, abs=0.04)


def test_tmaze_bumps_cost_the_trained_reward_only_and_time_runs_out() -> None:
    env = make_env(EnvConfig(id="toy/tmaze", length=3), 1)
    env.reset(0)
    cue = env.recv().observation[OBSERVATION][0, 0]
    for step in range(1, 26):
        env.send(np.array([1]))
        rows = env.recv()
        assert rows.raw_reward[0] == 0 and rows.reward[0] == np.float32(-0.1)
        assert rows.observation[OBSERVATION][0].tolist() == [0, 1, 0]
        assert rows.truncated[0] == (step == 25) and not rows.terminated[0]
    assert cue in (-1, 1)


def test_tmaze_wrong_side_scores_zero_and_trains_on_minus_one() -> None:
    env = make_env(EnvConfig(id="toy/tmaze", length=2), 1)
    env.reset(1)
    cue = env.recv().observation[OBSERVATION][0, 0]
    for action in (0, 0, 2 if cue < 0 else 1):
        env.send(np.array([action]))
        rows = env.recv()
    assert rows.terminated[0] and rows.raw_reward[0] == 0 and rows.reward[0] == -1


@pytest.mark.parametrize("length", [2, 3, 50, 128])
def test_the_memory_chain_asks_length_steps_after_its_cue_both_included(length: int) -> None:
    env = make_env(EnvConfig(id="toy/memory_chain", length=length), 16)
    generator = np.random.default_rng(4)
    env.reset(2)
    cues = set()
    for _ in range(3):
        rows = env.recv()
        cue = rows.observation[OBSERVATION][:, 0].copy()
        assert rows.first.all()
        assert (np.abs(rows.observation[OBSERVATION]) == [1, 0, 0]).all()
        for step in range(1, length):
            env.send(generator.integers(2, size=16))
            rows = env.recv()
            assert (rows.observation[OBSERVATION] == ([0, 0, 1] if step == length - 1 else [0, 1, 0])).all()
            assert rows.valid.all() and (rows.raw_reward == 0).all()
        action = generator.integers(2, size=16)
        env.send(action)
        rows = env.recv()
        assert rows.terminated.all() and not rows.truncated.any()
        assert (rows.raw_reward == rows.reward).all()
        assert np.array_equal(rows.raw_reward, np.where(action * 2 - 1 == cue, 1.0, -1.0))
        cues |= set(cue)
        env.send(action)
    assert cues == {-1, 1}
    assert env.spec.max_episode_steps == length


def test_rows_of_the_memory_chain_tell_neither_time_nor_bit() -> None:
    """Whatever is played, there are two cues, one blank row and one question."""
    env = make_env(EnvConfig(id="toy/memory_chain", length=7), 32)
    generator = np.random.default_rng(5)
    env.reset(0)
    seen = set()
    for _ in range(200):
        rows = env.recv()
        seen |= {tuple(row) for row in rows.observation[OBSERVATION].tolist()}
        env.send(random_action(env, generator))
    assert seen == {(-1, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)}


def test_a_memory_chain_of_one_step_is_refused() -> None:
    with pytest.raises(ValueError, match=r"length=1: memory_chain needs at least 2 steps"):
        make_env(EnvConfig(id="toy/memory_chain", length=1), 1)


def test_wrong_actions_are_named() -> None:
    env = make_env(EnvConfig(id="toy/catch"), 2)
    env.reset(0)
    env.recv()
    with pytest.raises(ValueError, match=r"reach from 0 to 3; allowed are 0 to 2"):
        env.send(np.array([0, 3]))
    with pytest.raises(ValueError, match=r"shape \(3,\); expected \(2,\)"):
        env.send(np.array([0, 1, 2]))
    with pytest.raises(ValueError, match="expected integers"):
        env.send(np.array([0.0, 1.0]))


def test_max_steps_truncates() -> None:
    env = make_env(EnvConfig(id="toy/copy", max_steps=7), 2)
    env.reset(0)
    env.recv()
    for step in range(1, 8):
        env.send(np.zeros(2, np.int64))
        rows = env.recv()
        assert (rows.truncated == (step == 7)).all()
    assert env.spec.max_episode_steps == 7
