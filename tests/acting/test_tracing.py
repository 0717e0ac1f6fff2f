"""What is taken down of an evaluation is what happened, in whatever order it came, and it plays again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from offbeat.acting.episodes import play_episodes
from offbeat.acting.scores import Evaluation
from offbeat.acting.tracing import (
    BY_EPISODE,
    FIRST,
    TERMINATED,
    TRUNCATED,
    VALID,
    Tracer,
    first_difference,
    play_again,
    repeats,
)  # fmt: skip
from offbeat.agents.random import Agent, Config
from offbeat.envs.base import EnvConfig, VectorEnv
from offbeat.envs.delay_config import DelayConfig
from offbeat.envs.registry import make_env
from offbeat.types import ActionSpec, EnvStep
from tests.scoring.test_evaluate import Checking, Scripted

KINDS = {
    "toy": EnvConfig(id="toy/catch", length=6),
    "toy that draws": EnvConfig(id="toy/tmaze", length=4),
    "continuous toy": EnvConfig(id="toy/continuous"),
    "Gymnasium": EnvConfig(id="CartPole-v1"),
    "Gymnasium, continuous": EnvConfig(id="Pendulum-v1", max_steps=30),
    "MinAtar": EnvConfig(id="minatar/breakout", sticky=0.1),
    "delayed": EnvConfig(id="CartPole-v1", delay=DelayConfig(inference_frames=3, history=1)),
    "delays at random": EnvConfig(id="toy/catch", delay=DelayConfig(distribution="uniform", low=0, high=4)),
    "a list": EnvConfig(id="", ids=("minatar/breakout", "minatar/asterix"), max_steps=40),
    "two players": EnvConfig(id="hanabi/very-small"),
}
"""What needs no emulator; Atari: tests/scoring/test_traces.py."""


def taken(
    env: VectorEnv, episodes: int = 10, seed: int = 3, agent: Any = None, longest: int = 0
) -> tuple[dict[str, np.ndarray], Evaluation]:
    """An evaluation by random actions, and its arrays."""
    tracer = Tracer(env.num_envs)
    played: dict[str, Any] = {"episodes": episodes, "seed": seed, "longest": longest, "tracer": tracer}
    result = play_episodes(env, agent or Agent(Config(), env.spec), **played)
    scores = result.returns, result.lengths, result.frames_each
    return tracer.arrays(env.spec.action, scores), result


class Watched:
    """Environments whose every row and action is noted, the plainest way: by environment, in lists."""

    def __init__(self, env: VectorEnv) -> None:
        self._env = env
        self.rows: list[list[tuple[float, int]]] = [[] for _ in range(env.num_envs)]
        self.sent: list[list[Any]] = [[] for _ in range(env.num_envs)]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._env, name)

    def recv(self) -> EnvStep:
        step = self.step = self._env.recv()
        for i, env in enumerate(step.env_ids):
            flag = FIRST * int(step.first[i]) + VALID * int(step.valid[i])
            flag += TERMINATED * int(step.terminated[i]) + TRUNCATED * int(step.truncated[i])
            self.rows[env].append((float(step.raw_reward[i]), flag))
        return step

    def send(self, action: np.ndarray) -> None:
        for env, one in zip(self.step.env_ids, action, strict=True):
            self.sent[env].append(one.tolist())
        self._env.send(action)


def scored_by_hand(rows: list[tuple[float, int]], games: int) -> tuple[list[float], int]:
    """Returns of the first ``games`` episodes, from rows alone, and how many rows those were."""
    returns, total = list[float](), 0.0
    for count, (reward, flag) in enumerate(rows, 1):
        total = reward if flag & FIRST else total + reward
        if not flag & (FIRST | VALID):
            returns.append(total)
            if len(returns) == games:
                return returns, count
    raise AssertionError("there are fewer episodes")


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_taken_down_is_what_happened(kind: str) -> None:
    env = Watched(make_env(KINDS[kind], 4))
    arrays, result = taken(env)  # type: ignore[arg-type]
    action = arrays["action"].tolist()
    assert action == [one for own in env.sent for one in own], "one environment behind the other"
    assert arrays["sent"].tolist() == [len(own) for own in env.sent]
    shares, players, at = [3, 3, 2, 2], env.spec.players, 0
    shares = [5] * 4 if players == 2 else shares
    by_env = []
    for own, share in zip(env.rows, shares, strict=True):
        returns, count = scored_by_hand(own, share)
        by_env.append(returns)
        part = slice(at, at + count)
        assert list(zip(arrays["reward"][part].tolist(), arrays["flag"][part].tolist(), strict=True)) == own[:count]
        at += count
    assert at == arrays["rows"].sum() == len(arrays["reward"])
    if players == 2:
        by_env = [[(a + b) / 2 for a, b in zip(*by_env[at : at + 2], strict=True)] for at in (0, 2)]
    assert arrays["score"].tolist() == [score for own in by_env for score in own] == result.returns.tolist()
    assert ("elapsed" in arrays) == ("delay" in kind)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("deterministic", [False, True])
def test_it_plays_again_in_other_environments_too(kind: str, deterministic: bool) -> None:
    env = make_env(KINDS[kind], 4)
    arrays, _ = taken(env)
    for again in (env, make_env(KINDS[kind], 4, deterministic=deterministic)):
        new = play_again(again, 3, arrays, episodes=10)
        assert first_difference(arrays, new) == ""
        assert all(new[name].tobytes() == arrays[name].tobytes() for name in new if name not in ("sent", "action"))
        assert repeats(again, 3, arrays, 7) == ""
    if kind == "two players":  # other cards, so that other actions are legal
        with pytest.raises(ValueError, match="illegal action"):
            play_again(env, 4, arrays, episodes=10)
        return
    assert first_difference(arrays, play_again(env, 4, arrays, episodes=10)) != "", "another seed, another game"


@pytest.mark.parametrize(("num_envs", "batch"), [(3, 3), (4, 2), (4, 3), (5, 1)])
def test_rows_may_come_in_parts(num_envs: int, batch: int) -> None:
    """Environments in another order and in other parts are given the same actions, each its own."""
    arrays, result = taken(Scripted(num_envs, batch), episodes=7, agent=Checking())
    for other in range(1, num_envs + 1):
        env = Scripted(num_envs, other)
        new = play_again(env, 3, arrays, episodes=7)
        assert first_difference(arrays, new) == "" and new["score"].tolist() == result.returns.tolist()
        given = [[action for where, action in env.sent if where == one] for one in range(num_envs)]
        starts = np.cumsum(arrays["sent"]) - arrays["sent"]
        for one, (start, count) in enumerate(zip(starts, arrays["sent"], strict=True)):
            own = arrays["action"][start : start + count].tolist()
            both = min(len(own), len(given[one]))
            assert given[one][:both] == own[:both] and both >= arrays["rows"][one] - 1


def test_actions_of_another_environment_are_seen() -> None:
    """The order of the copies counts."""
    config = KINDS["toy"]
    arrays, _ = taken(make_env(config, 4), episodes=40)
    count = int(arrays["sent"][0])
    action = arrays["action"].reshape(4, count)
    swapped = arrays | {"action": np.ascontiguousarray(action[[1, 0, 2, 3]].reshape(-1))}
    said = first_difference(arrays, play_again(make_env(config, 4), 3, swapped, episodes=40))
    assert "(environment 0)" in said and "reward" in said


def test_episodes_that_are_given_up() -> None:
    env = make_env(EnvConfig(id="CartPole-v1"), 4)
    arrays, result = taken(env, longest=18)
    assert result.given_up and len(arrays["score"]) + result.given_up == 10
    assert first_difference(arrays, play_again(env, 3, arrays, episodes=10, longest=18)) == ""
    assert "where the trace ends" in first_difference(arrays, play_again(env, 3, arrays, episodes=10))


@pytest.mark.parametrize(
    ("spec", "dtype"),
    [
        (ActionSpec("discrete", 2), "uint8"), (ActionSpec("discrete", 256), "uint8"),
        (ActionSpec("discrete", 257), "uint16"), (ActionSpec("discrete", 70_000), "uint32"),
        (ActionSpec("multi_discrete", nvec=(3, 300)), "uint16"),
        (ActionSpec("continuous", shape=(2,), low=(-1.0,), high=(1.0,)), "float32"),
    ],
)  # fmt: skip
def test_actions_are_kept_small_and_whole(spec: ActionSpec, dtype: str) -> None:
    tracer, rng = Tracer(2), np.random.default_rng(0)
    given: list[list[Any]] = [[], []]
    for _ in range(20):
        ids = rng.permutation(2)[: rng.integers(1, 3)]
        one = rng.random((len(ids), *spec.shape)).astype(np.float32)
        if spec.choices:
            top = np.array(spec.choices) if spec.kind == "multi_discrete" else spec.num_actions
            one = rng.integers(top, size=(len(ids), *spec.array.shape)) * 0 + (np.asarray(top) - 1)
        tracer.sent(ids, one)
        for env, action in zip(ids, one, strict=True):
            given[env].append(action.tolist())
        one *= 0  # what was given may be written over afterwards
    none = np.zeros(0), np.zeros(0, np.int64), np.zeros(0, np.int64)
    arrays = tracer.arrays(spec, none)
    assert arrays["action"].dtype == dtype and arrays["action"].tolist() == given[0] + given[1]
    assert arrays["sent"].tolist() == [len(given[0]), len(given[1])]
    assert Tracer(3).arrays(spec, none)["action"].shape == (0, *spec.array.shape)


def changed(arrays: dict[str, np.ndarray]) -> Iterator[tuple[str, int, dict[str, np.ndarray]]]:
    """Copies in which one entry is another: array, index, copy."""
    rng = np.random.default_rng(0)
    for name in ("reward", "flag", *BY_EPISODE):
        for at in rng.choice(len(arrays[name]), min(12, len(arrays[name])), replace=False).tolist():
            copy = arrays[name].copy()
            copy[at] = copy[at] ^ VALID if name == "flag" else copy[at] + 1
            yield name, at, arrays | {name: copy}


def place_of(arrays: dict[str, np.ndarray], row: int) -> str:
    """Episode, environment and step of a row, by counting."""
    env, first, episode, step = 0, 0, 0, 0
    for at in range(row + 1):
        while at - first == arrays["rows"][env]:
            first, env = at, env + 1
        flag = int(arrays["flag"][at])
        if flag & FIRST:
            episode, step = episode + 1, 0
        else:
            step += 1
    return f"episode {episode} (environment {env}), step {step}: "


def test_each_change_is_found_where_it_is() -> None:
    arrays, _ = taken(make_env(KINDS["Gymnasium"], 3), episodes=9)
    assert first_difference(arrays, {name: array.copy() for name, array in arrays.items()}) == ""
    for name, at, other in changed(arrays):
        said = first_difference(arrays, other)
        assert first_difference(other, arrays) != ""
        if name in BY_EPISODE:
            old, new = arrays[name][at], other[name][at]
            assert said == f"episode {at + 1}: {name} {new:g} where the trace has {old:g}"
        else:
            assert said.startswith(place_of(arrays, at)), (name, at)
            assert name == "flag" or said.endswith("reward 2 where the trace has 1") or arrays["reward"][at] == 0


def test_bits_are_compared_not_values() -> None:
    arrays, _ = taken(make_env(KINDS["toy"], 1), episodes=1)
    nan = arrays | {"reward": np.full_like(arrays["reward"], np.nan)}
    assert first_difference(nan, nan) == ""
    zero = arrays | {"reward": np.where(arrays["reward"] == 0, np.float32(-0.0), arrays["reward"]).astype(np.float32)}
    assert "reward -0 where the trace has 0" in first_difference(arrays, zero)
    assert "score -0 where the trace has 0" in first_difference(
        arrays | {"score": np.array([0.0])}, arrays | {"score": np.array([-0.0])}
    )


def test_more_and_fewer_rows_are_differences() -> None:
    arrays, _ = taken(make_env(KINDS["toy"], 1), episodes=2)
    fewer = arrays | {name: arrays[name][:-2] for name in ("reward", "flag")} | {"rows": arrays["rows"] - 2}
    assert "the game has ended where the trace goes on" in first_difference(arrays, fewer)
    assert "the game goes on where the trace ends" in first_difference(fewer, arrays)
    assert first_difference(arrays, fewer, begun=True) == ""
    assert first_difference(fewer, arrays, begun=True) != "", "a beginning is no longer than the whole"
    one = arrays | {name: arrays[name][:1] for name in BY_EPISODE}
    assert first_difference(arrays, one) == "1 episodes where the trace has 2"


class Forgetful(Scripted):
    """Earns more after each reset: what a seed says is not all that counts."""

    resets = 0

    def reset(self, seed: int) -> None:
        super().reset(seed)
        self.resets += 1

    def recv(self) -> EnvStep:
        rows = super().recv()
        late = rows.raw_reward >= 2
        return replace(rows, raw_reward=rows.raw_reward + np.where(late, self.resets, 0).astype(np.float32))


def test_an_environment_that_does_not_repeat_itself_is_named() -> None:
    env = Forgetful(3)
    arrays, _ = taken(env, episodes=3, agent=Checking())
    assert repeats(env, 3, arrays) == "episode 1 (environment 0), step 2: reward 4 where the trace has 3"
    assert repeats(env, 3, arrays, steps=1) == "", "as far as it was tried"


def test_a_tracer_changes_nothing() -> None:
    env = make_env(KINDS["MinAtar"], 4)
    agent = Agent(Config(), env.spec)
    plain = play_episodes(env, agent, episodes=10, seed=3)
    before = torch.random.get_rng_state()
    arrays, result = taken(env)
    repeats(env, 3, arrays)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert result.returns.tolist() == plain.returns.tolist() and result.lengths.tolist() == plain.lengths.tolist()
