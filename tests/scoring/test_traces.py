"""Traces are played again: what is equal is said, what is not is refused in a line that says where."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

from offbeat.acting import trace_facts
from offbeat.acting.episodes import play_episodes
from offbeat.acting.trace_facts import Played, traced
from offbeat.acting.tracing import Tracer, first_difference, play_again
from offbeat.agents.random import Agent, Config
from offbeat.envs.base import EnvConfig
from offbeat.envs.delay_config import DelayConfig
from offbeat.envs.registry import make_env
from offbeat.scoring import traces
from offbeat.scoring.traces import verify_trace
from offbeat.storage.traces import Trace, pack, read_trace, write_trace

CATCH = EnvConfig(id="toy/catch", length=6)
PONG = EnvConfig(id="Pong", max_frames=1000)
KINDS = {
    "toy": CATCH,
    "continuous toy": EnvConfig(id="toy/continuous"),
    "Gymnasium": EnvConfig(id="CartPole-v1"),
    "Gymnasium, continuous": EnvConfig(id="Pendulum-v1", max_steps=30),
    "MinAtar": EnvConfig(id="minatar/breakout", sticky=0.1),
    "delayed": EnvConfig(id="CartPole-v1", delay=DelayConfig(inference_frames=3, history=1)),
    "a list": EnvConfig(id="", ids=("minatar/breakout", "minatar/freeway"), max_steps=40),
    "two players": EnvConfig(id="hanabi/very-small"),
}


def left(
    folder: Path, config: EnvConfig, *, episodes: int = 6, copies: int = 2, deterministic: bool = False,
    factory: Any = None,
) -> Path:  # fmt: skip
    """The trace of an evaluation by random actions."""
    env = make_env(config, copies, deterministic=deterministic, factory=factory)
    tracer = Tracer(copies)
    result = play_episodes(env, Agent(Config(), env.spec), episodes=episodes, seed=5, tracer=tracer)
    played = Played(config, 5, episodes, deterministic=deterministic, about={"kind": "eval", "run": "none"})
    content = traced(env, tracer, result, played, {"w": torch.ones(3)})
    env.close()
    return write_trace(folder / "one.trace", content)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A trace of Catch."""
    return left(tmp_path, CATCH)


def changed(path: Path, facts: dict[str, Any] | None = None, **arrays: np.ndarray) -> Path:
    """The same trace with other facts (dotted names) and arrays, its hash made anew."""
    trace = read_trace(path)
    new = json.loads(json.dumps(trace.facts))
    for name, value in (facts or {}).items():
        *parts, last = name.split(".")
        place = new
        for part in parts:
            place = place[part]
        place[last] = value
    return write_trace(path.with_name("other.trace"), pack(new, {**trace.arrays, **arrays}))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("deterministic", [False, True])
def test_every_kind_of_environment_plays_again(tmp_path: Path, kind: str, deterministic: bool) -> None:
    verdict = verify_trace(left(tmp_path, KINDS[kind], deterministic=deterministic))
    assert verdict.ok, verdict.said
    trace = read_trace(verdict.path)
    rewards = f"{len(trace.arrays['reward']):,} rewards and 6 scores bit for bit"
    mean = f"mean {trace.arrays['score'].mean():.2f}"
    assert verdict.said == f"6 games of {KINDS[kind].id[:60]} (sampled): {mean}; {rewards}"
    assert verdict.line() == f"{verdict.path}: equal: {verdict.said}, {verdict.seconds:.1f} s"


@pytest.mark.parametrize("deterministic", [False, True])
def test_atari_plays_again_with_the_same_rom_only(
    tmp_path: Path, deterministic: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = left(tmp_path, PONG, episodes=2, deterministic=deterministic)
    verdict = verify_trace(path)
    assert verdict.ok and (read_trace(path).arrays["score"] < 0).all(), verdict.said
    assert path.stat().st_size < 2500, "two games in no more than 2.5 kB"
    other = verify_trace(changed(path, {"env.noop_max": 1}))
    assert not other.ok and ", step " in other.said
    assert verify_trace(changed(path, {"roms.Pong": "0" * 64})).said.startswith("the ROM of Pong here is another: ")
    monkeypatch.setattr(trace_facts, "_file_hash", lambda path: "ab" * 32)
    assert verify_trace(path).said.startswith("the ROM of Pong here is another: sha256 abababababababab... here, ")


def test_one_changed_action(path: Path, tmp_path: Path) -> None:
    """Where it changes a reward, the first is named; where it does not, it is another game with the same score."""
    trace = read_trace(path)
    refused = 0
    for at in range(len(trace.arrays["action"])):
        action = trace.arrays["action"].copy()
        action[at] = (action[at] + 1) % 3
        verdict = verify_trace(changed(path, action=action))
        env = make_env(CATCH, 2)
        new = play_again(env, 5, trace.arrays | {"action": action}, episodes=6)
        assert verdict.ok == (first_difference(trace.arrays, new) == "")
        refused += not verdict.ok
        if not verdict.ok:
            assert "step 5: reward " in verdict.said and " where the trace has " in verdict.said
            assert "the versions are the same as here" in verdict.said
    assert 5 < refused < len(trace.arrays["action"])


def test_one_changed_action_ends_another_game(tmp_path: Path) -> None:
    path = left(tmp_path, EnvConfig(id="CartPole-v1"))
    action = read_trace(path).arrays["action"].copy()
    action[4] ^= 1
    verdict = verify_trace(changed(path, action=action))
    assert not verdict.ok
    assert verdict.said.startswith("episode 1 (environment 0), step ") and "where the trace has" in verdict.said


def test_a_changed_action_under_the_old_hash_is_named_and_what_comes_of_it(path: Path) -> None:
    """As somebody would do who changes the bytes alone."""
    data, trace = path.read_bytes(), read_trace(path)
    action = (trace.arrays["action"] + 1) % 3
    other = pack(trace.facts, {**trace.arrays, "action": action.astype(np.uint8)})
    path.write_bytes(other[:-32] + data[-32:])
    verdict = verify_trace(path)
    assert not verdict.ok
    assert verdict.said.startswith("its content hash does not fit: something in it, or the hash itself, changed after")
    assert "; played all the same: episode " in verdict.said, "what the marks hide the game shows"


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"env.length": 7}, "a step where the trace has an end"),
        ({"env.id": "toy/copy"}, "actions reach from 0 to 2; allowed are 0 to 1"),
        ({"env.id": "toy/cach"}, "no environment is called 'toy/cach'; did you mean toy/catch"),
        ({"env.id": "mine"}, "--env module:function names one of your own"),
        ({"env.max_steps": 3}, "step 3: a time limit where the trace has a step"),
        ({"env.sticky": 0.5}, "sticky=0.5 means nothing to toy/catch"),
        ({"env.sticky": "much"}, "env.sticky='much' is not a number"),
        ({"env.quick": True}, "unknown option 'env.quick'"),
        ({"env.delay": 3}, "its options are not those of this offbeat"),
        ({"seed": 6}, " where the trace has "),
        ({"episodes": 7}, "6 scores and 0 episodes given up, of 7"),
        ({"given_up": 1}, "6 scores and 1 episodes given up, of 6"),
        ({"copies": 3}, "does not count what 3 environments did"),
        ({"copies": 10**9}, "copies=1000000000 is out of range"),
        ({"copies": True}, "it has no copies (int), got True"),
        ({"longest": 2}, "where the trace goes on"),
        ({"differs": "\x1b[2J"}, "is not deterministic, so that nothing can be compared"),
    ],
)
def test_changed_facts(path: Path, facts: dict[str, Any], said: str) -> None:
    verdict = verify_trace(changed(path, facts))
    assert not verdict.ok and said in verdict.said, verdict.said
    assert "\n" not in verdict.said and verdict.said.isprintable()


def test_a_changed_score(path: Path) -> None:
    score = read_trace(path).arrays["score"].copy()
    score[3] += 2
    verdict = verify_trace(changed(path, score=score))
    assert not verdict.ok
    assert verdict.said.startswith(f"episode 4: score {score[3] - 2:g} where the trace has {score[3]:g}; ")


def test_a_changed_reward(path: Path) -> None:
    reward = read_trace(path).arrays["reward"].copy()
    reward[3] = 1e-30  # not the least number there is: a processor may be told to take that for 0
    verdict = verify_trace(changed(path, reward=reward))
    assert not verdict.ok and "episode 1 (environment 0), step 3: reward 0 where the trace has 1" in verdict.said


def test_copies_in_another_order(path: Path) -> None:
    arrays = read_trace(path).arrays
    action = arrays["action"].reshape(2, -1)[::-1].reshape(-1)
    assert "reward" in verify_trace(changed(path, action=np.ascontiguousarray(action))).said


def test_other_versions_are_a_warning_or_an_explanation(path: Path) -> None:
    other = {"versions.numpy": "0.1", "versions.gymnasium": "\x1b0"}
    verdict = verify_trace(changed(path, other))
    assert verdict.ok and "WARNING: other versions, which agree all the same: gymnasium " in verdict.said
    assert f"numpy {np.__version__} here, 0.1 there" in verdict.said and verdict.said.isprintable()
    verdict = verify_trace(changed(path, other | {"env.length": 7}))
    assert not verdict.ok and "; the versions are others: gymnasium " in verdict.said


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"sent": np.zeros(2, np.int64)}, "'action' has"),
        ({"rows": np.array([-1, 1])}, "'rows' does not count"),
        ({"rows": np.array([2**62, 2**62])}, "counts 9223372036854775808"),
        ({"flag": np.zeros(3, np.uint8)}, "'flag' has 3 entries"),
        ({"reward": np.zeros((2, 2), np.float32)}, "'reward' is float32 [2, 2]; it must be float32 [n]"),
        ({"score": np.zeros(6, np.float32)}, "'score' is float32"),
        ({"score": np.zeros(5)}, "are not of one length"),
        ({"elapsed": np.zeros(1, np.int32)}, "'elapsed' has 1 entries"),
        ({"action": np.zeros((), np.uint8)}, "'action' has no axis"),
    ],
)
def test_arrays_that_cannot_be_those_of_an_evaluation(path: Path, arrays: dict[str, np.ndarray], said: str) -> None:
    verdict = verify_trace(changed(path, **arrays))
    assert not verdict.ok and said in verdict.said, verdict.said


def test_actions_that_there_are_not(path: Path) -> None:
    action = read_trace(path).arrays["action"]
    assert "allowed are 0 to 2" in verify_trace(changed(path, action=np.full_like(action, 200))).said
    assert "its actions are int64" in verify_trace(changed(path, action=action.astype(np.int64))).said
    assert "its actions are float32" in verify_trace(changed(path, action=action.astype(np.float32))).said


def test_missing_arrays_and_facts(path: Path) -> None:
    trace = read_trace(path)
    for name in ("action", "sent", "score"):
        other = {key: array for key, array in trace.arrays.items() if key != name}
        write_trace(path, pack(trace.facts, other))
        assert verify_trace(path).said == f"it has no array {name!r}"
    write_trace(path, pack({}, trace.arrays))
    assert verify_trace(path).said == "it has no env (dict), got None"


NASTY = [None, -1, 0, 1, 2**70, "", "x", "\x1b", [], {}, True, 1e308, 0.5, ["a"], {"a": {}}, 10**6]


def test_random_changes_never_raise_and_never_pass_for_other_games(path: Path) -> None:
    trace, rng = read_trace(path), random.Random(0)
    original, equal = verify_trace(path), 0
    assert original.ok
    harmless = {"policy", "weights", "at", "epsilon", "score", "kind", "run", "versions", "longest", "deterministic"}
    for _ in range(250):
        facts = json.loads(json.dumps(trace.facts))
        arrays = dict(trace.arrays)
        name = rng.choice([*facts, *(f"env.{key}" for key in facts["env"])])
        place = facts["env"] if name.startswith("env.") else facts
        place[name.removeprefix("env.")] = rng.choice(NASTY)
        if rng.random() < 0.3:
            key = rng.choice(list(arrays))
            array = arrays[key].copy()
            array.reshape(-1)[rng.randrange(array.size)] += rng.choice([1, 2])
            arrays[key] = array[: rng.randrange(len(array))] if rng.random() < 0.3 else array
        verdict = verify_trace(write_trace(path, pack(facts, arrays)))
        assert "\n" not in verdict.said
        equal += verdict.ok
        if verdict.ok and all(arrays[key] is trace.arrays[key] for key in arrays):
            same = {key: value for key, value in facts.items() if key not in harmless | {"env"}}
            assert same == {key: trace.facts[key] for key in same}
    assert 20 < equal < 200, "some options mean nothing to Catch"


class Moody(gymnasium.Env[np.ndarray, np.int64]):
    """Rewards that no seed decides."""

    observation_space = spaces.Box(0, 1, (2,), np.float32)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        self.time = 0
        return np.zeros(2, np.float32), {}

    def step(self, action: np.int64) -> Any:
        self.time += 1
        return np.zeros(2, np.float32), int.from_bytes(os.urandom(3), "big"), self.time == 4, False, {}


class Steady(Moody):
    """Rewards that its actions decide."""

    def step(self, action: np.int64) -> Any:
        _, _, *rest = super().step(action)
        return (np.zeros(2, np.float32), float(action) / 3, *rest)


class Failing(Steady):
    """One that cannot be played any more."""

    def step(self, action: np.int64) -> Any:
        raise RuntimeError("the cable\nis out")


def test_environments_of_one_s_own(tmp_path: Path) -> None:
    mine = EnvConfig(id="mine")
    moody = verify_trace(left(tmp_path, mine, factory=Moody), Moody)
    assert not moody.ok
    assert moody.said.startswith(
        "mine is not deterministic, so that nothing can be compared; noted when it was written"
    )
    assert "episode 1 (environment 0), step 1: reward" in moody.said
    path = left(tmp_path, mine, factory=Steady)
    assert verify_trace(path, Steady).ok
    assert "names one of your own" in verify_trace(path).said
    assert "reward" in verify_trace(path, Moody).said
    assert verify_trace(path, Failing).said.startswith("it cannot be played again: RuntimeError: the cable is out (")


def test_no_file_is_opened_for_a_trace(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Delays out of a file: the trace of somebody else must not choose what is read here."""
    opened = []
    monkeypatch.setattr(np, "load", lambda *given, **more: opened.append(given))
    os.mkfifo(path.with_name("pipe.npy"))
    facts = {"env.delay.distribution": "recorded", "env.delay.recorded": str(path.with_name("pipe.npy"))}
    verdict = verify_trace(changed(path, facts))
    assert not verdict.ok and "its delays are drawn from a file" in verdict.said and opened == []


def test_observations_beyond_memory_are_not_made(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traces, "MOST_SEEN", 100)
    assert "take 240 bytes; 100 are allowed" in verify_trace(path).said


def test_what_else_is_wrong_goes_first(path: Path) -> None:
    def also(trace: Trace) -> str:
        return "" if trace.facts["seed"] == 5 else "it is from elsewhere"

    assert verify_trace(path, also=also).ok
    verdict = verify_trace(changed(path, {"seed": 6}), also=also)
    assert not verdict.ok and verdict.said.startswith("it is from elsewhere; played all the same: episode ")
    check: Callable[[Trace], str] = lambda trace: "it is from elsewhere"  # noqa: E731
    assert "; played all the same, 6 games of toy/catch" in verify_trace(path, also=check).said
