"""Environments with a simulated delay: what their rows hold, what is counted, and that they come back exactly."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from offbeat.envs.base import EnvConfig, Misbehaved
from offbeat.envs.closing import close_env
from offbeat.envs.decisions import HISTORY
from offbeat.envs.default_behaviour import DefaultBehaviour
from offbeat.envs.delay import DelayedVector, undelayed
from offbeat.envs.delay_config import DelayConfig
from offbeat.envs.registry import check_exact, env_spec, make_env, translator
from offbeat.envs.toy import ToyVector
from offbeat.types import OBSERVATION, EnvStep
from tests.zoo.entries import ZOO

COUNTING = EnvConfig(id="toy/counting", length=15)
ENDLESS = EnvConfig(id="toy/counting", length=100_000)
COLUMNS = ("env_ids", "reward", "raw_reward", "terminated", "truncated", "first", "valid")
DELAYS = [
    DelayConfig(inference_frames=3, history=4),
    DelayConfig(inference_frames=3, default="repeat", history=2, history_until="publish"),
    DelayConfig(mode="sequential", inference_frames=2, learn_frames=3, default="random"),
    DelayConfig(mode="learn_first", inference_frames=2, learn_frames=1, noop_action=2),
    DelayConfig(mode="background", inference_frames=4, default="repeat"),
    DelayConfig(distribution="uniform", low=0, high=7, default="random", history=3),
    DelayConfig(mode="sequential", distribution="uniform", low=0, high=5, draw="episode"),
    DelayConfig(semantics="published", inference_frames=3, noops=2),
]


def delayed(delay: DelayConfig, count: int = 1, config: EnvConfig = COUNTING) -> DelayedVector:
    return DelayedVector(delay, count, lambda: ToyVector(config, 1), config.id)


def same(row: EnvStep, other: EnvStep, columns: tuple[str, ...] = COLUMNS) -> None:
    for name in columns:
        assert np.array_equal(getattr(row, name), getattr(other, name)), name
    assert row.observation.keys() == other.observation.keys()
    assert all(np.array_equal(value, other.observation[key]) for key, value in row.observation.items())


def play(envs: Any, steps: int, seed: int = 0) -> list[tuple[EnvStep, np.ndarray]]:
    """Rows, and the actions that were taken at them."""
    random, seen = np.random.default_rng(seed), []
    for _ in range(steps):
        rows = envs.recv()
        action = random.integers(4, size=envs.num_envs)
        seen.append((rows, action))
        envs.send(action)
    return seen


@pytest.mark.parametrize("mode", ["async", "sequential", "background"])
def test_without_a_delay_the_rows_are_those_of_the_plain_loop(mode):
    plain, late = ToyVector(COUNTING, 1), delayed(DelayConfig(mode=mode))
    plain.reset(7)
    late.reset(7)
    for (row, _), (other, _) in zip(play(plain, 300), play(late, 300), strict=True):
        same(row, other)
        assert other.elapsed is not None and other.elapsed.tolist() == (~row.first).astype(int).tolist()
    assert late.inaction == 0 and late.frames > 250


class Told:
    """One toy environment that writes down what it was told and what came of it."""

    def __init__(self) -> None:
        self.inner = ToyVector(COUNTING, 1)
        self.spec, self.num_envs, self.batch_size = self.inner.spec, 1, 1
        self.reset, self.state, self.load_state, self.close = (
            self.inner.reset, self.inner.state, self.inner.load_state, self.inner.close)  # fmt: skip
        self.rows: list[EnvStep] = []
        self.actions: list[int] = []

    def send(self, action: np.ndarray) -> None:
        self.actions.append(int(action[0]))
        self.inner.send(action)

    def recv(self) -> EnvStep:
        self.rows.append(self.inner.recv())
        self.rows[-1].observation[OBSERVATION] += 1  # so that zeros are no frame
        return self.rows[-1]


def expected_sources(delay: DelayConfig, frames: int) -> list[tuple[int, int]] | None:
    """(frame, source) in an episode of so many frames, written out anew; None where delays are drawn."""
    d, learn = delay.inference_frames, delay.learn_frames
    if delay.distribution != "constant":
        return None
    if delay.semantics == "published":
        step, behind = delay.noops + 1, max(d, 1) - 1
        return [(e, max(-1, e - behind * step)) for e in range(0, frames, step)]
    begin, period = d, 1
    if delay.mode != "async":
        begin, period = d + (learn if delay.mode == "learn_first" else 0), max(1, d + learn)
    return [(e, e - d) for e in range(begin, frames, period)]


@pytest.mark.parametrize("delay", DELAYS, ids=range(len(DELAYS)))
@pytest.mark.parametrize("seed", range(3))
def test_every_row_belongs_together(delay, seed):
    told = Told()
    envs = DelayedVector(delay, 1, lambda: told, "toy/counting")
    envs.reset(seed)
    seen = play(envs, 250, seed)
    starts = [index for index, row in enumerate(told.rows) if row.first[0]]
    number = -1
    for (row, action), (after, _) in itertools.pairwise(seen):
        if row.first[0]:
            number += 1
            begin, end = starts[number], (starts[number + 1] if number + 1 < len(starts) else len(told.rows)) - 1
            frame, decisions = int(row.elapsed[0]), []
            assert row.raw_reward[0] == sum(told.rows[begin + 1 + f].raw_reward[0] for f in range(frame))
        if not row.valid[0]:
            assert frame == end - begin and (row.terminated[0] or row.truncated[0])
            ended = told.rows[end]
            assert (row.terminated[0], row.truncated[0]) == (ended.terminated[0], ended.truncated[0])
            wanted = expected_sources(delay, frame)
            assert wanted is None or decisions == wanted
            continue
        source = int(row.observation[OBSERVATION][0, 0]) - 1
        if frame < end - begin:
            decisions.append((frame, source))
            assert told.actions[begin + frame] == action[0], "the action acts in that frame"
            assert (0 if delay.semantics == "exact" else -1) <= source <= frame
        took = int(after.elapsed[0])
        span = told.rows[begin + 1 + frame : begin + 1 + frame + took]
        assert after.raw_reward[0] == sum(one.raw_reward[0] for one in span)
        assert after.reward[0] == sum(one.reward[0] for one in span)
        frame += took
    assert number > 5


@pytest.mark.parametrize("delay", [1, 5, 9])
def test_the_first_real_observation_acts_after_exactly_so_many_frames(delay):
    envs = delayed(DelayConfig(inference_frames=delay), config=ENDLESS)
    envs.reset(0)
    rows = envs.recv()
    assert rows.first[0] and rows.elapsed.tolist() == [delay]
    assert rows.observation[OBSERVATION][0, 0] == 0, "made from the reset's observation"
    assert envs.frames == envs.inaction == delay


@pytest.mark.parametrize(
    ("delay", "period"),
    [
        (DelayConfig(mode="sequential", inference_frames=8), 8),
        (DelayConfig(mode="sequential", inference_frames=5, learn_frames=2), 7),
        (DelayConfig(mode="learn_first", inference_frames=5, learn_frames=2), 7),
        (DelayConfig(mode="background", inference_frames=3), 3),
        (DelayConfig(inference_frames=30), 1),
    ],
)
def test_counted_inaction_is_one_less_the_inverse_of_the_period(delay, period):
    envs = delayed(delay, config=ENDLESS)
    envs.reset(0)
    play(envs, 1)
    frames, inaction = envs.frames, envs.inaction
    play(envs, 100)
    assert envs.frames - frames == 100 * period
    assert (envs.inaction - inaction) * period == (envs.frames - frames) * (period - 1)


def test_an_episode_that_ends_before_any_decision_acts_is_counted_and_its_action_ignored():
    envs = delayed(DelayConfig(inference_frames=1000))
    envs.reset(0)
    for _ in range(5):
        first = envs.recv()
        assert first.first[0] and first.valid[0] and first.elapsed[0] > 0
        assert first.observation[OBSERVATION][0, 0] == 0
        envs.send(np.array([3]))
        final = envs.recv()
        assert not final.valid[0] and (final.terminated[0] or final.truncated[0])
        assert (final.reward[0], final.raw_reward[0], final.elapsed[0]) == (0, 0, 0)
        envs.send(np.array([3]))
    assert envs.frames == envs.inaction


@pytest.mark.parametrize("delay", DELAYS, ids=range(len(DELAYS)))
def test_the_state_is_exact(delay):
    envs = delayed(delay, 3)
    envs.reset(4)
    play(envs, 41)
    rows = envs.recv()
    saved = {name: np.array(value) for name, value in envs.state().items()}
    other = delayed(delay, 3)
    other.load_state(saved)
    action = np.zeros(3, np.int64)
    envs.send(action)
    other.send(action)
    for (row, _), (again, _) in zip(play(envs, 80), play(other, 80), strict=True):
        same(row, again, (*COLUMNS, "elapsed"))
    assert len(rows.env_ids) == 3


def test_same_seed_same_rows_and_another_seed_others():
    envs = delayed(DELAYS[5], 2)
    envs.reset(3)
    before = play(envs, 50)
    envs.reset(3)
    for (row, _), (again, _) in zip(before, play(envs, 50), strict=True):
        same(row, again, (*COLUMNS, "elapsed"))
    envs.reset(4)
    after = play(envs, 50)
    assert any(not np.array_equal(r.raw_reward, o.raw_reward) for (r, _), (o, _) in zip(before, after, strict=True))


def test_make_env_wraps_what_is_to_be_delayed_and_the_spec_is_that_of_its_rows():
    config = replace(COUNTING, delay=DelayConfig(inference_frames=2, history=3))
    envs = make_env(config, 2, deterministic=True)
    assert isinstance(envs, DelayedVector)
    assert envs.spec == env_spec(config)
    envs.reset(0)
    rows = envs.recv()
    assert rows.observation[HISTORY].shape == (2, 3) and translator(config) is None
    check_exact(config)
    envs.close()
    assert undelayed(config) == COUNTING
    assert isinstance(make_env(COUNTING, 2), ToyVector)
    with pytest.raises(ValueError, match="step all 2 at once, got batch_size=1"):
        make_env(config, 2, batch_size=1)
    with pytest.raises(ValueError, match=r"goes with delay\.semantics=published only"):
        make_env(replace(config, delay=DelayConfig(noops=1)), 1)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("entry", [entry for entry in ZOO if entry.trains], ids=lambda entry: entry.name)
def test_whatever_an_environment_shows_and_takes(entry, monkeypatch):
    """Those with masks raise where they are given what is illegal: neither late decisions nor others may be."""
    monkeypatch.chdir(Path.cwd())  # back, from wherever one has gone
    for default in ("noop", "repeat", "random"):
        delay = DelayConfig(distribution="uniform", high=3, default=default, history=2)
        switches = {name.removeprefix("env."): value for name, value in entry.options.items() if "env." in name}
        config = EnvConfig(id="zoo", frame_stack=1, delay=delay, **switches)
        envs = make_env(config, 1, factory=entry.make)
        envs.reset(0)
        beta = DefaultBehaviour(envs.spec.action, "random", 0, seed=1)
        ended = 0
        for _ in range(40):
            rows = envs.recv()
            assert {key: value.shape[1:] for key, value in rows.observation.items()} == {
                key: spec.shape for key, spec in envs.spec.observation.items()
            }
            assert all(value.dtype == envs.spec.observation[key].dtype for key, value in rows.observation.items())
            ended += int(not rows.valid[0])
            envs.send(beta.action())
        assert ended or not entry.ends
        close_env(envs, "zoo")


def test_a_delayed_environment_of_gymnasium_comes_back_from_its_actions():
    config = EnvConfig(id="CartPole-v1", frame_stack=1, delay=DelayConfig(inference_frames=2, default="random"))
    envs, other = make_env(config, 2, deterministic=True), make_env(config, 2, deterministic=True)
    envs.reset(1)
    random = np.random.default_rng(0)
    for _ in range(30):
        envs.recv()
        envs.send(random.integers(2, size=2))
    envs.recv()
    other.load_state(envs.state())
    for _ in range(30):
        action = random.integers(2, size=2)
        envs.send(action)
        other.send(action)
        same(envs.recv(), other.recv(), (*COLUMNS, "elapsed"))


def test_a_delay_longer_than_all_episodes_is_an_error_and_one_longer_than_most_is_none() -> None:
    envs = delayed(DelayConfig(inference_frames=20), 2, EnvConfig(id="toy/catch", length=10))
    envs.reset(0)

    def play_on() -> None:
        for _ in range(201):
            envs.recv()
            envs.send(np.zeros(2, np.int64))

    with pytest.raises(Misbehaved, match=r"toy/catch: 100 episodes in a row ended .*, the last one after 9 frames"):
        play_on()
    some = delayed(DelayConfig(distribution="uniform", low=0, high=40, draw="episode"), 2)
    some.reset(0)
    play(some, 2000)
