"""Games cut by a time limit: the last picture is the true one, whatever the backend, and so is what is learnt there.

What is true is played by a bare emulator beside the environment: the same actions, every picture drawn.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from offbeat.algorithms.vtrace import vtrace
from offbeat.envs import atari_envpool
from offbeat.envs.atari import atari_spec
from offbeat.envs.atari_games import action_ids, ale_module, rom_path
from offbeat.envs.base import EnvConfig
from offbeat.envs.registry import make_env
from offbeat.replay.layout import layout_for
from offbeat.replay.mixture import ReplayConfig
from offbeat.replay.samplers import sampler_config
from offbeat.replay.streams import StreamStore
from offbeat.runtime.actor import ActorWork, run_actor
from offbeat.runtime.writer import StoreWriter
from offbeat.types import OBSERVATION, ActOutput, CoreState, EnvStep, Inputs
from tests.envs.playing import rows_of
from tests.runtime.parts import Metrics, StopAfter

pytest.importorskip("ale_py")
cv2 = pytest.importorskip("cv2")

GAMMA, LENGTH = 0.9, 10
BACKENDS = [("ale-single", 2, None), ("ale", 2, None), ("ale", 3, 2)]
IDS = ["single", "ale", "ale in part"]
CUTS = [
    EnvConfig(id="Pong", noop_max=0, max_frames=80),
    EnvConfig(id="Pong", noop_max=0, max_frames=78),
    EnvConfig(id="Breakout", noop_max=0, max_frames=108_000, max_steps=20, frame_skip=3, frame_size=42),
    EnvConfig(id="Breakout", noop_max=0, max_frames=70, max_steps=30, frame_skip=1, life_loss="terminal"),
    EnvConfig(id="Pong", noop_max=0, max_frames=3),
]
"""Limits in frames, one that is no whole number of actions, in actions, in both, and less than one action."""


class TrueGame:
    """One game on a bare emulator, from its start; every picture is the maximum of the last two frames."""

    def __init__(self, config: EnvConfig) -> None:
        self._config, self._actions = config, action_ids(config.id, config.full_action_space)
        self._ale = ale_module().ALEInterface()
        self._ale.setFloat("repeat_action_probability", 0.0)
        self._ale.loadROM(rom_path(config.id))

    def start(self) -> np.ndarray:
        """The first picture."""
        self._ale.reset_game()
        if 1 in self._actions:
            self._ale.act(1)
        return self._picture([self._ale.getScreenGrayscale()])

    def step(self, action: int) -> np.ndarray:
        """The picture after an action."""
        frames = []
        for _ in range(self._config.frame_skip):
            self._ale.act(self._actions[action])
            frames.append(self._ale.getScreenGrayscale().copy())
        return self._picture(frames[-2:])

    def _picture(self, frames: list[np.ndarray]) -> np.ndarray:
        size = self._config.frame_size
        return cv2.resize(np.max(frames, axis=0), (size, size), interpolation=cv2.INTER_AREA)


def limit_of(config: EnvConfig) -> int:
    """Actions in an episode."""
    frames = min(config.max_frames, config.max_steps * config.frame_skip or config.max_frames)
    return -(-frames // config.frame_skip)


def rows_by_env(config: EnvConfig, count: int, batch: int | None, actions: np.ndarray) -> Iterator[tuple[int, EnvStep]]:
    """(environment, its row alone), each environment given its own column of ``actions`` in turn."""
    env = make_env(config, count, batch_size=batch)
    env.reset(3)
    taken = Counter[int]()
    while min(taken[index] for index in range(count)) < len(actions):
        rows = env.recv()
        for index, name in enumerate(rows.env_ids):
            yield int(name), take(rows, index)
        env.send(np.array([actions[taken[name] % len(actions), name] for name in rows.env_ids.tolist()]))
        taken.update(rows.env_ids.tolist())
    env.close()


def take(rows: EnvStep, index: int) -> EnvStep:
    """One row."""
    names = [field.name for field in dataclasses.fields(EnvStep) if field.name not in ("observation", "elapsed")]
    one = {name: getattr(rows, name)[index : index + 1] for name in names}
    return EnvStep(observation={key: value[index : index + 1] for key, value in rows.observation.items()}, **one)


@pytest.mark.parametrize(("backend", "count", "batch"), BACKENDS, ids=IDS)
@pytest.mark.parametrize("config", CUTS, ids=lambda config: f"{config.max_frames}-{config.max_steps}")
def test_every_picture_up_to_the_cut_is_the_true_one(
    config: EnvConfig, backend: str, count: int, batch: int | None
) -> None:
    """Episode after episode; between them, in partial batches, one row that starts an episode and is not valid."""
    config = dataclasses.replace(config, backend=backend)
    actions = np.random.default_rng(0).integers(3, size=(100, count))
    games = [TrueGame(config) for _ in range(count)]
    taken, steps, cuts, idle = Counter[int](), [0] * count, [0] * count, [False] * count
    for env, row in rows_by_env(config, count, batch, actions):
        picture = row.observation[OBSERVATION][0, 0]
        if row.first[0] and not row.valid[0]:
            assert batch is not None, "only partial batches have rows without an episode"
            assert idle[env]
            assert not row.raw_reward[0] and not row.reward[0] and not row.terminated[0] and not row.truncated[0]
            idle[env] = False
        elif row.first[0]:
            assert not idle[env] or batch is None, "a game was cut, and no row was left out"
            idle[env], steps[env] = False, 0
            assert np.array_equal(picture, games[env].start()), (env, "start")
        else:
            steps[env] += 1
            true = games[env].step(int(actions[(taken[env] - 1) % len(actions), env]))
            assert np.array_equal(picture, true), (env, steps[env])
            assert row.truncated[0] == (steps[env] == limit_of(config)) == (not row.valid[0])
            cuts[env] += int(row.truncated[0])
            idle[env] = not row.valid[0]
        taken[env] += 1
    assert min(cuts) >= 3


class Scripted:
    """Plays its column of actions for each environment."""

    version = 0

    def __init__(self, actions: np.ndarray) -> None:
        self.actions, self.taken = actions, np.zeros(actions.shape[1], np.int64)

    def refresh(self) -> int:
        """Nothing new."""
        return 0

    def release(self) -> None:
        """There is nothing to give back."""

    def act(self, env_ids: np.ndarray, inputs: Inputs) -> ActOutput:
        """The next action of these environments."""
        action = self.actions[self.taken[env_ids] % len(self.actions), env_ids]
        self.taken[env_ids] += 1
        return ActOutput(torch.from_numpy(action), {}, {})

    def core_state(self, env_ids: np.ndarray) -> CoreState:
        """None."""
        return {}


def acted(config: EnvConfig, count: int, batch: int | None, actions: np.ndarray) -> tuple[StreamStore, Metrics]:
    """The streams that an actor fills with these actions."""
    env = make_env(config, count, batch_size=batch)
    replay = ReplayConfig(capacity=1000 * count, samplers=(sampler_config("uniform"),))
    layout = layout_for(env.spec, {}, {}, num_streams=count, replay=replay, unroll_length=LENGTH)
    store, metrics = StreamStore.allocate(layout), Metrics()
    work = ActorWork(layout, np.arange(count), block=LENGTH, discount=GAMMA, wants_last=False, seed=3, frame_skip=4)
    loop = run_actor(env, Scripted(actions), StoreWriter(store, None), metrics, StopAfter(), work)
    while store.head.min() < len(actions):
        next(loop)
    env.close()
    return store, metrics


@pytest.mark.parametrize(("backend", "count", "batch"), BACKENDS, ids=IDS)
def test_targets_at_the_cut_bootstrap_from_the_true_picture(backend: str, count: int, batch: int | None) -> None:
    """V-trace and n-step targets from an actor's streams, the value of a picture being its mean, against sums by hand.

    Off the policy (ratio 0.5): v = V(o) + 0.5 (r + gamma V(true last picture) - V(o)) for the last action.
    """
    config = EnvConfig(id="Pong", noop_max=0, max_steps=17, backend=backend)
    actions = np.random.default_rng(1).integers(6, size=(60, count))
    store, metrics = acted(config, count, batch, actions)
    assert {record["length"] for record in metrics.of("episode")} == {17.0}
    for env in range(count):
        game = TrueGame(config)
        game.start()
        pictures = [game.step(int(action)) for action in actions[:17, env]]
        last, before = pictures[-1] / 255.0, pictures[-2] / 255.0
        assert not np.array_equal(last, before)
        unroll, ok = store.read_unrolls(np.array([env]), np.array([10]), LENGTH, last=False)
        assert ok.all()
        value = unroll.inputs.observation[OBSERVATION][:, :, -1].double().div(255).mean((2, 3))
        assert unroll.valid[:, 0].tolist() == [True] * 7 + [False, batch is None] + [True] * 2
        assert unroll.truncated[:, 0].tolist() == [False] * 6 + [True] + [False] * 3
        reward, discount = unroll.reward.double(), unroll.discount.double()
        log_ratio = torch.full_like(reward, np.log(0.5))
        targets = vtrace(log_ratio, discount, reward, value[:-1], value[-1], keep=unroll.valid[:-1])
        error = reward[6, 0].item() + 0.9 * last.mean() - before.mean()
        assert targets.target[6, 0].item() == pytest.approx(before.mean() + 0.5 * error, abs=1e-6)
        assert targets.advantage[6, 0].item() == pytest.approx(0.5 * error, abs=1e-6)
        assert not targets.advantage[7].any(), "the last picture's own row is no transition"
        for back in (1, 2, 3, 4):  # 4-step transitions that reach the cut after 1 to 4 steps
            step, fine = store.read_transitions(np.array([env]), np.array([17 - back]), 4, last=False)
            assert fine.all()
            assert step.steps.item() == back
            assert step.discount.item() == pytest.approx(0.9**back)
            assert np.array_equal(step.next_inputs.observation[OBSERVATION][0, 0, -1], pictures[-1])
        for row in (17,) if batch is None else (17, 18):
            assert not store.read_transitions(np.array([env]), np.array([row]), 4, last=False)[1].any()


def test_game_over_and_a_lost_life_go_before_a_limit_reached_by_the_same_action() -> None:
    """Breakout with nothing but serves: it ends as without a limit, unless the limit is below that."""
    serves = np.ones((250, 1), np.int64)
    for backend in ("ale", "ale-single"):
        for choice in ("ignore", "terminal", "end_episode"):
            config = EnvConfig(id="Breakout", noop_max=0, backend=backend, life_loss=choice)
            free = rows_of(make_env(config, 1), serves)
            end = next(index for index, rows in enumerate(free) if rows.terminated[0])
            cut = rows_of(make_env(dataclasses.replace(config, max_steps=end), 1), serves)[end]
            flags = [bool(cut.terminated[0]), bool(cut.truncated[0]), bool(cut.valid[0])]
            assert flags == [True, False, False], (backend, choice, end)
            early = rows_of(make_env(dataclasses.replace(config, max_steps=end - 1), 1), serves)[end - 1]
            assert [bool(early.terminated[0]), bool(early.truncated[0])] == [False, True]


class MadeUpPool:
    """EnvPool as its source has it: no flag of termination in the step that reaches the limit, but in ``info``."""

    def __init__(self, over: list[bool], limit: int) -> None:
        self.over, self.limit, self.elapsed = over, limit, 0

    def async_reset(self) -> None:
        """Start."""

    def send(self, action: np.ndarray, ids: np.ndarray) -> None:
        """One step."""
        self.elapsed += 1

    def recv(self) -> tuple[Any, ...]:
        """What it led to."""
        cut, over = np.array([self.elapsed >= self.limit]), np.array([self.over[self.elapsed]])
        info = {"env_id": np.zeros(1, np.int32), "lives": np.full(1, 3), "terminated": over.astype(np.int32)}
        return np.zeros((1, 1, 84, 84), np.uint8), np.zeros(1, np.float32), over & ~cut, cut, info


@pytest.mark.parametrize("over", [True, False])
def test_envpool_counts_whole_actions_and_a_game_that_is_over_terminates(
    over: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At a limit of 10 frames, which the third action of 4 reaches."""
    made: dict[str, Any] = {}

    def make(task: str, **options: Any) -> MadeUpPool:
        made.update(options)
        return MadeUpPool([False, False, False, over], options["max_episode_steps"])

    monkeypatch.setattr(atari_envpool, "envpool_module", lambda _: SimpleNamespace(make=make))
    config = EnvConfig(id="Pong", max_frames=10)
    env = atari_envpool.AtariEnvPool(config, atari_spec(config, "Pong"), "Pong", 1, 1, 1)
    rows = rows_of(env, np.zeros((3, 1), np.int64))
    assert made["max_episode_steps"] == 3
    assert [bool(row.valid[0]) for row in rows] == [True, True, True, False]
    assert (bool(rows[3].terminated[0]), bool(rows[3].truncated[0])) == (over, not over)
