"""The actor with counting environments and a scripted policy: every row of its streams can be foretold."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from offbeat.envs.base import EnvConfig
from offbeat.envs.counting import counting_reward
from offbeat.replay.layout import StreamLayout, layout_for
from offbeat.replay.mixture import ReplayConfig
from offbeat.replay.samplers import sampler_config
from offbeat.replay.streams import StreamStore
from offbeat.runtime.actor import ActorWork, run_actor
from offbeat.runtime.writer import StoreWriter
from offbeat.types import OBSERVATION, ActOutput, ArrayDict, ArraySpec, CoreState, EnvStep, Inputs
from tests.conformance.counting_env import FRAME, CountingFrames
from tests.runtime.parts import Metrics, StopAfter, same_arrays

LENGTH, COUNT, GAMMA, SEED = 5, 3, 0.5, 11
COUNTING = EnvConfig(id="toy/counting", length=4)
EXTRAS = {"last": ArraySpec((2,)), "stack": ArraySpec((4, 2)), "env": ArraySpec((), "int64")}


class Scripted:
    """Acts by a rule, keeps as state how often each environment acted, has a new version at each refresh."""

    def __init__(self) -> None:
        self.version, self.holds = -1, False
        self.acted = np.zeros(COUNT)

    def refresh(self) -> int:
        """One more."""
        self.version, self.holds = self.version + 1, True
        return self.version

    def release(self) -> None:
        """The weights may change until the next refresh."""
        self.holds = False

    def act(self, env_ids: np.ndarray, inputs: Inputs) -> ActOutput:
        """(row + 2 env) mod 4; the extras are what was seen."""
        assert self.holds, "weights that may be written over meanwhile"
        assert inputs.last_action is not None
        assert inputs.last_reward is not None
        self.acted[env_ids] += 1
        action = rule(inputs.observation[OBSERVATION][0, :, 2].numpy().astype(np.int64), env_ids)
        last = torch.stack([inputs.last_action[0].float(), inputs.last_reward[0]], dim=1)
        extras = {"last": last, "stack": inputs.observation[FRAME][0].clone(), "env": torch.from_numpy(env_ids)}
        return ActOutput(torch.from_numpy(action), extras, {})

    def core_state(self, env_ids: np.ndarray) -> CoreState:
        """How often they acted."""
        return {"acted": torch.from_numpy(self.acted[env_ids]).float()[:, None]}


def rule(row: Any, env: Any) -> Any:
    """The scripted action."""
    return (row + 2 * env) % 4


def make_layout(streams: int = COUNT) -> StreamLayout:
    """Nothing holds writers back; states every five rows."""
    replay = ReplayConfig(capacity=1000 * streams, samplers=(sampler_config("uniform"),))
    spec, core = CountingFrames(COUNTING, 1).spec, {"acted": ArraySpec((1,))}
    return layout_for(spec, EXTRAS, core, num_streams=streams, replay=replay, unroll_length=LENGTH)


def make_work(layout: StreamLayout, streams: np.ndarray) -> ActorWork:
    """Work on these streams."""
    return ActorWork(layout, streams, block=LENGTH, discount=GAMMA, wants_last=True, seed=SEED, frame_skip=2)


class Playing:
    """An actor with everything around it."""

    def __init__(self, store: StreamStore, streams: np.ndarray, batch: int = COUNT, looks: int = 10**9) -> None:
        self.store, self.streams = store, streams
        self.envs, self.policy, self.metrics = CountingFrames(COUNTING, COUNT, batch), Scripted(), Metrics()
        self.work = make_work(store.layout, streams)
        self.writer = StoreWriter(store, None)
        self.loop = run_actor(self.envs, self.policy, self.writer, self.metrics, StopAfter(looks), self.work)


def rows_of(store: StreamStore, stream: int) -> ArrayDict:
    """Every row of one stream."""
    at = store.locate(np.full(store.head[stream], stream), np.arange(store.head[stream]))
    return {name: store.take(name, at) for name in [*store.layout.columns(), "core_slot"]}


def check_rows(rows: ArrayDict, env: int, stream_states: np.ndarray) -> None:
    """All that can be said about the rows of one environment."""
    t = np.arange(len(rows["reward"]))
    step, number = rows[f"observation/{OBSERVATION}"][:, 0], rows[f"observation/{OBSERVATION}"][:, 2]
    np.testing.assert_array_equal(number, t)
    np.testing.assert_array_equal(rows["first"], step == 0)
    np.testing.assert_array_equal(rows["valid"][:-1], ~rows["first"][1:])
    np.testing.assert_array_equal(rows["action"], rule(t, env))
    np.testing.assert_array_equal(rows["extras/env"], env)
    reward = np.where(rows["valid"], counting_reward(t, rows["action"]), 0)
    np.testing.assert_array_equal(rows["reward"], reward)
    ended = np.append(~rows["valid"][1:], False)
    np.testing.assert_array_equal((rows["terminated"] | rows["truncated"])[:-1], ended[:-1])
    assert not (rows["terminated"] & rows["truncated"]).any()
    assert rows["terminated"].any()
    assert rows["truncated"].any()
    np.testing.assert_array_equal(rows["discount"], GAMMA * (rows["valid"] & ~rows["terminated"]))
    last = np.stack([rows["action"][:-1], rows["reward"][:-1]], axis=1)
    np.testing.assert_array_equal(rows["extras/last"][1:], np.where(rows["first"][1:, None], 0, last))
    for back in range(4):
        want = np.where((step >= back)[:, None], np.stack([t + 1 - back, step + 1 - back], axis=1), 0)
        np.testing.assert_array_equal(rows["extras/stack"][:, 3 - back], want)
    np.testing.assert_array_equal(rows["core_slot"] > 0, t % LENGTH == 0)
    kept = stream_states[rows["core_slot"][::LENGTH] - 1, 0]
    np.testing.assert_array_equal(kept, t[::LENGTH])


def test_every_row_is_as_foretold_and_blocks_end_at_yields() -> None:
    store = StreamStore.allocate(make_layout())
    playing = Playing(store, np.array([2, 0, 1]))
    for blocks in range(1, 25):
        next(playing.loop)
        assert store.head.tolist() == [blocks * LENGTH] * COUNT
        assert playing.policy.acted.tolist() == [blocks * LENGTH] * COUNT, "the newest rows are not acted on"
        assert playing.work.observer.steps == store.counted()[0].sum(), "a step is an action, not at final observations"
    for env, stream in enumerate([2, 0, 1]):
        rows = rows_of(store, stream)
        check_rows(rows, env, store.arrays["core/acted"][stream])
        np.testing.assert_array_equal(rows["param_version"], np.arange(len(rows["reward"])) // LENGTH)
    store.check_ledger()
    assert 0 < playing.work.observer.steps < store.head.sum()


def test_frames_of_an_episode_are_those_that_its_steps_took() -> None:
    work, metrics = make_work(make_layout(), np.arange(COUNT)), Metrics()
    for first, valid, elapsed in ((True, True, 2), (False, True, 3), (False, True, 1), (False, False, 2)):
        flags = [np.full(COUNT, flag) for flag in (False, False, first, valid)]
        work.rows = EnvStep(np.arange(COUNT), {}, np.zeros(COUNT), np.ones(COUNT), *flags, np.full(COUNT, elapsed))
        work.account(metrics, 0.0, 0.0)
    ended = metrics.of("episode")
    assert len(ended) == COUNT
    assert {(one["length"], one["episode_frames"]) for one in ended} == {(3, 16)}
    assert {one["return"] for one in ended} == {4.0}, "rewards before the first action count too"
    assert work.frames == 16 * COUNT
    other = make_work(make_layout(), np.arange(COUNT))
    other.count_from({"steps": np.array([7])})  # a checkpoint of before
    assert (other.observer.steps, other.frames) == (7, 14)
    other.count_from({"steps": np.array([7]), "frames": np.array([work.frames])})
    assert other.frames == 16 * COUNT


def test_some_environments_at_a_time_leave_the_same_kind_of_rows() -> None:
    store = StreamStore.allocate(make_layout())
    playing = Playing(store, np.arange(COUNT), batch=2)
    for _ in range(60):
        before = store.head.copy()
        next(playing.loop)
        assert set((store.head - before).tolist()) <= {0, LENGTH}
        assert store.head.sum() > before.sum()
    for env in range(COUNT):
        rows = rows_of(store, env)
        check_rows(rows, env, store.arrays["core/acted"][env])
        assert (np.diff(rows["param_version"]) >= 0).all()
    store.check_ledger()


def test_reported_episodes_are_those_in_the_streams() -> None:
    store = StreamStore.allocate(make_layout())
    playing = Playing(store, np.arange(COUNT))
    for _ in range(20):
        next(playing.loop)
    expected = []
    for env in range(COUNT):
        rows = rows_of(store, env)
        total = length = 0
        for t in range(len(rows["reward"])):
            if rows["valid"][t]:
                total, length = total + rows["reward"][t], length + 1
            else:
                expected.append((float(total), length, 2 * length))
                total = length = 0
    reported = [tuple(record.values()) for record in playing.metrics.of("episode")]
    ends_in_hand = sorted(reported, key=repr)
    assert len(expected) > 20
    for episode in expected:
        ends_in_hand.remove(episode)
    assert len(ends_in_hand) <= COUNT, "the newest rows may end an episode too"


def game_rows(env_ids: list[int], reward: float, first: bool = False, valid: bool = True) -> EnvStep:
    """One row of each of these environments."""
    n = len(env_ids)
    rewards, off = np.full(n, reward, np.float32), np.zeros(n, bool)
    seen = {OBSERVATION: np.zeros((n, 1), np.float32)}
    return EnvStep(np.array(env_ids), seen, rewards, rewards, off | (not valid), off, off | first, off | valid)


def test_a_game_of_two_players_is_one_episode() -> None:
    """Game 0: 2 turns, return 3, its players' last rows in two batches with a save between. Game 1: 1 turn, -1."""
    works = []
    for _ in range(2):
        layout, options = make_layout(4), {"block": LENGTH, "discount": GAMMA, "frame_skip": 3, "players": 2}
        works.append(ActorWork(layout, np.arange(4), **options, wants_last=True, seed=0))
    work, metrics = works[0], Metrics()
    for rows in (
        game_rows([0, 1, 2, 3], 0, first=True),
        game_rows([0, 1], 1),
        game_rows([2, 3], -1, valid=False),
        game_rows([2, 3], 0, first=True),
        game_rows([0], 2, valid=False),
        game_rows([2, 3], 5),
        game_rows([1], 2, valid=False),
        game_rows([0, 1], 0, first=True),
        game_rows([0, 1], 4, valid=False),
    ):
        work.rows = rows
        work.account(metrics, 0.0, 0.0)
        if not rows.valid.all() and len(rows.env_ids) == 1:
            works[1].load_state({name: value.copy() for name, value in work.state().items()})
            work = works[1]
    assert metrics.of("episode") == [
        {"return": -1.0, "length": 1, "episode_frames": 6},
        {"return": 3.0, "length": 2, "episode_frames": 12},
        {"return": 4.0, "length": 1, "episode_frames": 6},
    ]


def test_a_stop_ends_the_loop_and_rows_in_hand_stay_accounted_for() -> None:
    store = StreamStore.allocate(make_layout())
    playing = Playing(store, np.arange(COUNT), looks=LENGTH + 3)
    assert len(list(playing.loop)) == 1
    assert store.head.tolist() == [LENGTH] * COUNT
    assert store.produced.tolist() == [LENGTH + 3] * COUNT
    store.check_ledger()


def test_a_saved_actor_goes_on_identically() -> None:
    one = Playing(StreamStore.allocate(make_layout()), np.arange(COUNT))
    for _ in range(4):
        next(one.loop)
    other = Playing(StreamStore.allocate(make_layout()), np.arange(COUNT))
    other.store.load_state(one.store.state())
    envs, work = one.envs.state(), one.work.state()
    other.envs.reset(99)
    other.envs.recv()
    other.envs.load_state(envs)
    other.work.load_state({name: value.copy() for name, value in work.items()})
    other.policy.version, other.policy.acted = one.policy.version, one.policy.acted.copy()
    for _ in range(6):
        next(one.loop)
        next(other.loop)
    same_arrays(one.store.state(), other.store.state())
    same_arrays(one.work.state(), other.work.state())
    same_arrays(one.envs.state(), other.envs.state())
    newest = [record for record in one.metrics.of("episode") if record not in other.metrics.of("episode")]
    assert len(one.metrics.of("episode")) > len(other.metrics.of("episode")) > 0
    assert len(newest) < len(one.metrics.of("episode"))


def test_a_replacement_cuts_the_episodes_of_a_dead_actor() -> None:
    store = StreamStore.allocate(make_layout(streams=COUNT))
    dead = Playing(store, np.arange(COUNT), looks=2 * LENGTH + 2)
    list(dead.loop)
    opened = store.open_rows(np.arange(COUNT))
    heir = Playing(store, np.arange(COUNT))
    next(heir.loop)
    assert store.head.tolist() == [3 * LENGTH] * COUNT
    assert store.lost.tolist() == [2] * COUNT
    for env in range(COUNT):
        rows = {name: values[2 * LENGTH :] for name, values in rows_of(store, env).items()}
        np.testing.assert_array_equal(rows[f"observation/{FRAME}"][0], opened[f"observation/{FRAME}"][env])
        assert not rows["valid"][0]
        assert rows["first"][1]
        assert rows["reward"][0] == rows["discount"][0] == 0
        np.testing.assert_array_equal(rows[f"observation/{OBSERVATION}"][1:, 2], np.arange(LENGTH - 1))
    store.check_ledger()
