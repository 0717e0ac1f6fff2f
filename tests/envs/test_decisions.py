"""Frames, the rows of the decisions that act in them, and a slow twin that keeps everything."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from offbeat.envs.base import EnvConfig
from offbeat.envs.decisions import HISTORY, DecisionRows, delayed_spec
from offbeat.envs.delay_config import DelayConfig
from offbeat.envs.toy import ToyVector
from offbeat.types import OBSERVATION, ActionSpec, ArraySpec, EnvSpec, EnvStep

COUNTING = EnvConfig(id="toy/counting", length=12, reward_clip="sign")


class Pictures:
    """The counting environment, shown as stacks of pictures of one number of the frame."""

    def __init__(self, padding: str = "zero") -> None:
        self.inner = ToyVector(COUNTING, 1)
        self.num_envs = self.batch_size = 1
        shown = {"picture": ArraySpec((1, 2, 3), "uint8"), "episode": ArraySpec((), "float32")}
        self.spec = replace(self.inner.spec, observation=shown, frame_stack=3, stacked=("picture",),
                            stack_padding=padding)  # fmt: skip
        self.reset, self.send, self.state, self.load_state = (
            self.inner.reset, self.inner.send, self.inner.state, self.inner.load_state)  # fmt: skip

    def recv(self) -> EnvStep:
        row = self.inner.recv()
        step, episode, _ = row.observation[OBSERVATION][0]
        row.observation = {"picture": np.full((1, 1, 2, 3), step + 1, np.uint8),
                           "episode": np.array([episode], np.float32)}  # fmt: skip
        return row

    def close(self) -> None:
        pass


class Twin:
    """Every frame of an episode in lists; sums and histories are taken anew each time."""

    def __init__(self, env, delay):
        self.env, self.delay = env, delay
        self.after = None  # frame of the last decision

    def begin(self, row):
        self.seen, self.applied, self.rows, self.after = [row], [], [row], None

    def history(self, until):
        padded = [0] * self.delay.history + [int(a) + 1 for a in self.applied[:until]]
        return padded[len(padded) - self.delay.history :] if self.delay.history else []

    def expected(self, frame):
        """(reward, raw reward, elapsed) of the frames since the last decision, up to ``frame``."""
        span = self.rows[(self.after or 0) + 1 : frame + 1]
        return sum(float(r.reward[0]) for r in span), sum(float(r.raw_reward[0]) for r in span), len(span)


def _beta(kind, noop, last, recorded):
    """What the default behaviour played, as it must be: random actions are taken from what was applied."""
    return {"noop": noop, "repeat": noop if last is None else last, "random": recorded}[kind]


@pytest.mark.parametrize("seed", range(12))
def test_rows_belong_together_as_in_a_slow_twin(seed):
    random = np.random.default_rng(seed)
    default, until = random.choice(["noop", "repeat", "random"]), random.choice(["start", "publish"])
    noop, history = int(random.integers(4)), int(random.integers(0, 6))
    delay = DelayConfig(default=default, noop_action=noop, history=history, history_until=until)
    keep = int(random.integers(1, 9))
    rows = DecisionRows(ToyVector(COUNTING, 1), delay, seed=3, keep=keep)
    plain = ToyVector(COUNTING, 1)  # the same game, told what was applied
    twin = Twin(plain, delay)
    rows.reset(seed)
    plain.reset(seed)
    twin.begin(plain.recv())
    frames = inaction = 0
    last = None
    for _ in range(300):
        newest = rows.frame
        source = int(random.integers(max(0, newest - keep + 1), newest + 1))
        if not rows.over and random.random() < 0.4:  # a decision acts
            _check_row(rows, twin, rows.decide(source), source, final=False)
            twin.after = newest
            action = random.integers(4, size=1)
            rows.step(action)
            last = int(action[0])
        elif not rows.over:
            rows.step(None)
            inaction += 1
            action = rows._applied[newest % len(rows._applied)][None]
            assert int(action[0]) == _beta(delay.default, delay.noop_action, last, int(action[0]))
        else:
            if twin.after is None:
                asked = rows.decide(source)
                assert asked.first[0] and asked.valid[0]
                assert asked.elapsed[0] == newest
                assert asked.raw_reward[0] == pytest.approx(twin.expected(newest)[1])
                final = rows.end(source)
                assert (final.reward[0], final.raw_reward[0], final.elapsed[0]) == (0, 0, 0)
            else:
                final = rows.end(source)
                _check_row(rows, twin, final, source, final=True)
            ended = twin.rows[-1]
            assert (final.terminated[0], final.truncated[0]) == (ended.terminated[0], ended.truncated[0])
            rows.restart()
            assert (rows.frame, rows.over) == (0, False)
            plain.send(np.zeros(1, np.int64))
            twin.begin(plain.recv())
            last = None
            continue
        frames += 1
        plain.send(action)
        twin.rows.append(plain.recv())
        twin.applied.append(int(action[0]))
    assert (rows.frames, rows.inaction) == (frames, inaction)


def _check_row(rows, twin, row, source, final):
    delay, frame = twin.delay, rows.frame
    assert np.array_equal(row.observation[OBSERVATION], twin.rows[source].observation[OBSERVATION])
    if delay.history:
        until = frame if delay.history_until == "publish" else source
        assert row.observation[HISTORY][0].tolist() == twin.history(until)
    first = twin.after is None
    reward, raw, elapsed = twin.expected(frame)
    assert row.raw_reward[0] == pytest.approx(raw) and row.elapsed[0] == elapsed
    assert row.reward[0] == pytest.approx(0.0 if first else reward)
    assert row.first[0] == first and row.valid[0] == (not final)
    assert list(row.observation) == list(rows.spec.observation)


@pytest.mark.parametrize("padding", ["zero", "repeat"])
def test_stacks_are_of_consecutive_frames_up_to_the_source(padding):
    rows = DecisionRows(Pictures(padding), DelayConfig(), seed=0, keep=4)
    assert rows.spec.observation["picture"].shape == (3, 2, 3)
    assert (rows.spec.frame_stack, rows.spec.stacked) == (1, ())
    rows.reset(5)
    checked = 0
    while not rows.over:
        for source in range(max(0, rows.frame - 3), rows.frame + 1):
            before = 1 if padding == "repeat" else 0
            numbers = [source + 1 - back if source >= back else before for back in (2, 1, 0)]
            assert rows.observation(source)["picture"][0, :, 0, 0].tolist() == numbers
            checked += 1
        rows.step(None)
    assert checked > 10


def test_a_stack_of_the_delays_own_shows_the_newest_observations_up_to_the_source() -> None:
    class Single(Pictures):
        def __init__(self) -> None:
            super().__init__()
            self.spec = replace(self.spec, stacked=())

    delay = DelayConfig(stack=3, inference_frames=2, privileged=True)
    rows = DecisionRows(Single(), delay, seed=0, keep=4)
    shapes = {key: part.shape for key, part in rows.spec.observation.items()}
    assert shapes == {"picture": (3, 2, 3), "episode": (), "now_picture": (1, 2, 3), "now_episode": ()}
    rows.reset(5)
    checked = 0
    while not rows.over:
        for source in range(max(0, rows.frame - 3), rows.frame + 1):
            seen = rows.observation(source)
            assert seen["picture"][0, :, 0, 0].tolist() == [max(0, source + 1 - back) for back in (2, 1, 0)]
            assert seen["now_picture"][0, :, 0, 0].tolist() == [rows.frame + 1]
            assert seen["episode"].shape == (1,)
            checked += 1
        rows.step(None)
    assert checked > 10
    assert {key: part.shape[1:] for key, part in rows.observation(-1).items()} == shapes
    with pytest.raises(ValueError, match=r"shows stacks of 3 frames already; set env\.frame_stack or delay"):
        delayed_spec(Pictures().spec, delay)
    with pytest.raises(ValueError, match=r"delay\.stack=0 is out of range; allowed are 1 and above"):
        DelayConfig(stack=0).check()


def test_what_is_not_kept_is_refused_and_sources_before_the_start_are_zeros():
    rows = DecisionRows(Pictures(), DelayConfig(history=2), seed=0, keep=3)
    rows.reset(1)
    for _ in range(5):
        rows.step(np.ones(1, np.int64))
    assert not rows.observation(-1)["picture"].any() and not rows.observation(-7)[HISTORY].any()
    assert rows.observation(-1, executes=5)[HISTORY].tolist() == [[2, 2]]
    with pytest.raises(ValueError, match="observation 2 is not there: kept are the newest 3, up to 5"):
        rows.observation(2)
    with pytest.raises(ValueError, match="observation 6 is not there"):
        rows.observation(6)
    with pytest.raises(ValueError, match="actions before frame 6"):
        rows.observation(5, executes=6)


def test_what_is_out_of_turn_is_refused():
    rows = DecisionRows(ToyVector(COUNTING, 1), DelayConfig(), seed=0)
    rows.reset(0)
    for call in (lambda: rows.end(0), rows.restart):
        with pytest.raises(RuntimeError):
            call()
    rows.decide(0)
    while not rows.over:
        rows.step(None)
    with pytest.raises(RuntimeError, match="the episode is over"):
        rows.step(None)
    with pytest.raises(RuntimeError, match="the episode is over"):
        rows.decide(rows.frame)
    with pytest.raises(ValueError, match="num_envs=2"):
        DecisionRows(ToyVector(COUNTING, 2), DelayConfig(), seed=0)


def test_the_state_is_exact():
    delay = DelayConfig(default="random", history=3)
    rows = DecisionRows(Pictures(), delay, seed=4, keep=5)
    rows.reset(2)

    def play(them, count):
        random, seen = np.random.default_rng(9), []
        for _ in range(count):
            if them.over:
                if not seen or seen[-1].valid[0]:
                    seen.append(them.decide(0) if not them.asked else them.end(them.frame))
                if them.asked and not seen[-1].valid[0]:
                    them.restart()
                continue
            if random.random() < 0.5:
                seen.append(them.decide(max(0, them.frame - 4)))
                them.step(random.integers(4, size=1))
            else:
                them.step(None)
        return seen

    play(rows, 37)
    saved = {name: np.array(value) for name, value in rows.state().items()}
    later = play(rows, 80)
    again = DecisionRows(Pictures(), delay, seed=4, keep=5)
    again.load_state(saved)
    for row, other in zip(later, play(again, 80), strict=True):
        for name in ("reward", "raw_reward", "terminated", "truncated", "first", "valid", "elapsed"):
            assert np.array_equal(getattr(row, name), getattr(other, name)), name
        assert all(np.array_equal(value, other.observation[key]) for key, value in row.observation.items())
    assert (again.frame, again.frames, again.inaction) == (rows.frame, rows.frames, rows.inaction)


def test_the_history_of_other_kinds_of_actions():
    shown = {OBSERVATION: ArraySpec((2,))}
    several = EnvSpec("x", shown, ActionSpec("multi_discrete", nvec=(3, 5)))
    assert delayed_spec(several, DelayConfig(history=4)).observation[HISTORY] == ArraySpec((8,), "int64", 0, 5)
    box = EnvSpec("x", shown, ActionSpec("continuous", shape=(3,)))
    assert delayed_spec(box, DelayConfig(history=4)).observation[HISTORY] == ArraySpec((12,), "float32")
    rows = DecisionRows(ToyVector(EnvConfig(id="toy/continuous"), 1), DelayConfig(history=2), seed=0, keep=2)
    rows.reset(0)
    action = np.full((1, *rows.spec.action.shape), 0.25, np.float32)
    rows.step(action)
    width = action.size
    assert rows.observation(0, executes=rows.frame)[HISTORY][0].tolist() == [0.0] * width + [0.25] * width


def test_games_of_several_players_and_a_history_of_its_own_are_refused():
    spec = EnvSpec("x", {OBSERVATION: ArraySpec((2,))}, ActionSpec("discrete", 2), players=2)
    with pytest.raises(ValueError, match="x is a game of 2 players"):
        delayed_spec(spec, DelayConfig())
    with pytest.raises(ValueError, match="'action_history' of its own"):
        delayed_spec(replace(spec, players=1, observation={HISTORY: ArraySpec((2,))}), DelayConfig(history=1))


def test_privileged_rows_show_what_there_is_when_the_decision_acts() -> None:
    rows = DecisionRows(Pictures(), DelayConfig(privileged=True, inference_frames=3), 0)
    rows.reset(4)
    assert rows.spec.privileged == ("now_picture", "now_episode")
    assert set(rows.spec.features) == {"picture", "episode"}
    for frame in range(40):
        if rows.over:
            final = rows.end(max(0, rows.frame - 3)) if rows.asked else None
            if final is not None:  # stacks of three, oldest first; pictures hold the frame's number + 1
                assert final.observation["now_picture"][0, -1, 0, 0] == rows.frame + 1
            rows.restart()
        elif rows.frame >= 3:
            row = rows.decide(rows.frame - 3)
            now, seen = row.observation["now_picture"][0, :, 0, 0], row.observation["picture"][0, :, 0, 0]
            assert now.tolist() == [rows.frame - 1, rows.frame, rows.frame + 1], frame
            assert seen[-1] == rows.frame - 2
            rows.step(np.array([1]))
        else:
            rows.step(None)


@pytest.mark.parametrize("action", [7, -1])
def test_a_default_action_that_is_none_is_refused_with_the_spec(action: int) -> None:
    with pytest.raises(ValueError, match=rf"delay.noop_action={action} is no action here; allowed are 0 to"):
        delayed_spec(Pictures().spec, DelayConfig(noop_action=action))
