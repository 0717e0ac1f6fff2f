"""The checker of environments: bounds of time, what it leaves behind, and what it says of others than the zoo's."""

from __future__ import annotations

import signal
import time
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

import offbeat
from offbeat.acting import env_apart, env_check, env_making
from offbeat.acting.env_recorder import LeafLog, extra_keys
from offbeat.acting.env_report import EnvReport, Findings, Sandbox
from offbeat.acting.env_trial import KeyTally, Trial, difference, play, takers
from offbeat.acting.env_verdicts import describe_leaf
from offbeat.cli import main
from offbeat.envs.base import EnvConfig, EnvUnavailable
from offbeat.envs.registry import make_env
from offbeat.envs.spaces import flatten_space
from offbeat.errors import UserError
from offbeat.types import ActionSpec, ArraySpec, EnvSpec
from tests.zoo.manners import Raises, Slow, own_vector
from tests.zoo.small import CHOICES, Small

pytestmark = pytest.mark.filterwarnings("ignore")


def test_a_slow_environment_is_played_for_the_given_time() -> None:
    started = time.monotonic()
    report = offbeat.check_env(partial(Slow, stepping=0.05), seconds=0.5)
    assert time.monotonic() - started < 5 and report.ok
    (slow,) = report.warnings
    assert "it is slow: " in slow and " of 300 steps were played in 0." in slow and "hours on one core" in slow


@pytest.mark.parametrize(("hangs", "what"), [({"stepping": 3600}, "step()"), ({"making": 3600}, "the constructor")])
def test_one_that_hangs_is_broken_off(hangs: Any, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(env_check, "GRACE_S", 0.2)
    monkeypatch.setattr(env_making, "LIMIT_S", 0.2)
    before = signal.getsignal(signal.SIGALRM)
    signal.setitimer(signal.ITIMER_REAL, 500)
    report = offbeat.check_env(partial(Slow, **hangs), seconds=0.1)
    assert len(report.errors) == 1 and f"{what} had not returned after" in report.errors[0]
    assert signal.getsignal(signal.SIGALRM) is before
    left, _ = signal.setitimer(signal.ITIMER_REAL, 0)
    assert 490 < left < 500, "somebody else's alarm goes on"


def test_slow_constructors_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(env_making, "SLOW_S", 0.01)
    (slow,) = offbeat.check_env(partial(Slow, 0.05), steps=20).warnings
    assert "each actor makes actor.envs_per_worker of them" in slow


def test_ctrl_c_is_nobodys_error() -> None:
    class Interrupted(Small):
        closed = 0

        def step(self, action: Any) -> Any:
            raise KeyboardInterrupt

        def close(self) -> None:
            Interrupted.closed += 1

    with pytest.raises(KeyboardInterrupt):
        offbeat.check_env(Interrupted)
    assert Interrupted.closed > 0, "what was made is closed all the same"


def test_what_only_this_process_can_make_is_said() -> None:
    report = offbeat.check_env(lambda: Small(), steps=20)
    assert report.ok and len(report.warnings) == 1
    assert "cannot be handed to the processes of a run" in report.warnings[0]


def test_an_environment_itself_is_played_and_stays_open() -> None:
    env = Raises("close")
    for _ in range(2):
        report = offbeat.check_env(env, steps=30)
        assert report.ok and not report.warnings and report.name == "tests.zoo.manners.Raises"
        assert "it is yours" in report.facts["closing"] and "the same rows" in report.facts["one seed again"]
    assert not offbeat.check_env(Raises("step"), steps=30).ok


@pytest.mark.parametrize("env", ["CartPole-v1", "toy/catch", "toy/dict", own_vector])
def test_good_ones_pass(env: Any) -> None:
    report = offbeat.check_env(env, steps=60)
    assert report.ok and not report.warnings, report
    assert "deterministic and exactly resumable runs are possible" in report.facts["one seed again"]
    assert {"actions", "agents", "starts", "rewards", "endings", "masks", "speed", "closing"} <= set(report.facts)


def test_those_that_are_made_in_batches_have_errors_too() -> None:
    report = offbeat.check_env("toy/raise@5")
    assert not report.ok and "raised on purpose at step 5" in report.errors[0]
    report = offbeat.check_env("toy/nan@5")
    assert report.errors == ("the reward that is trained on was nan, made of rewards that are finite",)


def test_what_cannot_be_checked_is_refused() -> None:
    with pytest.raises(EnvUnavailable, match="no environment is called 'CartPol'"):
        offbeat.check_env("CartPol")
    with pytest.raises(EnvUnavailable, match="Gymnasium cannot make nowhere:Thing-v0"):
        offbeat.check_env("nowhere:Thing-v0")
    with pytest.raises(UserError, match=r"env must be an id, an environment, or a class or function .* got 3"):
        offbeat.check_env(3)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"unknown option 'env\.max_step'; did you mean 'env\.max_steps'"):
        offbeat.check_env("CartPole-v1", max_step=3)
    assert "frame_skip=2 means nothing to CartPole-v1" in offbeat.check_env("CartPole-v1", frame_skip=2).errors[0]


def test_switches_are_those_of_a_run() -> None:
    cube = partial(Small, spaces.Box(0, 255, (8, 8, 8), np.uint8))
    assert "env.channels" in offbeat.check_env(cube).errors[0]
    facts = offbeat.check_env(cube, channels="last", max_steps=4, steps=40).facts
    assert "axis 2 holds its 8 channels" in facts["observation 'observation'"]
    assert "cut by env.max_steps" in facts["endings"] and "limit 4 steps" in facts["endings"]


def test_agents_that_cannot_take_it_are_named_with_the_reason() -> None:
    agents = offbeat.check_env(partial(Small, CHOICES, spaces.Box(-1, 1, (2,))), steps=20).facts["agents"]
    assert agents.startswith("impact, impala") and "dqn" in agents
    assert "value-based agents need discrete actions" in agents
    huge = EnvSpec("huge", {"view": ArraySpec((3, 20_000, 20_000), "uint8")}, ActionSpec("discrete", 2))
    good, others = takers(huge)  # no network of that size is made for it
    assert {"impala", "dqn", "r2d2"} <= set(good) and not others


def test_large_pictures_are_named() -> None:
    report = offbeat.check_env(partial(Small, spaces.Box(0, 255, (210, 160, 3), np.uint8)), steps=10)
    assert report.ok and "210 x 160 pixels" in report.warnings[0] and "ResizeObservation" in report.warnings[0]


def test_leaves_say_what_they_become() -> None:
    space = spaces.Dict({"view": spaces.Box(0, 255, (8, 9, 3), np.uint8), "gear": spaces.Discrete(4)})
    said = {key: describe_leaf(leaf, "auto") for key, leaf in flatten_space(space, "mine").items()}
    assert said["view"].endswith("-> uint8 [3, 8, 9], a picture: axis 2 holds its 3 channels")
    assert said["gear"] == "Discrete(4) -> float32 [4], one-hot"


def test_trials_of_one_seed_are_alike_and_those_of_two_are_not() -> None:
    trials = []
    for seed in (1, 1, 2):
        envs = make_env(EnvConfig(id="toy/catch"), 2)
        trials.append(Trial(envs.spec, 2))
        play(envs, trials[-1], seed, 50, 10)
    assert difference(*trials[:2]) == "" and "differs in step" in difference(*trials[1:])
    assert trials[0].whole and trials[0].steps == 50 and trials[0].ends["terminated"] == len(trials[0].lengths) > 0


def test_numbers_that_are_none_are_left_out_of_ranges() -> None:
    tally = KeyTally()
    tally.add(np.array([[1.0, np.nan], [np.inf, -2.0]]), 7)
    assert (tally.low, tally.high, tally.odd) == (-2.0, 1.0, {"nan": 7, "inf": 7})


def test_keys_that_no_space_has_are_found_at_any_depth() -> None:
    part = spaces.Dict({"x": spaces.Discrete(2)})
    found: set[str] = set()
    space = spaces.Dict({"a": part, "b": spaces.Tuple((part, spaces.Discrete(2)))})
    extra_keys(space, {"a": {"x": 1, "y": 2}, "b": ({"x": 0, "z": 1}, 1), "c": 3}, "", found)
    assert found == {"a.y", "b.0.z", "c"}


def test_an_array_that_changes_afterwards_is_found_and_one_that_is_given_twice_is_not() -> None:
    (leaf,) = flatten_space(spaces.Box(-1, 1, (2,)), "mine").values()
    same, changing = LeafLog(leaf), LeafLog(leaf)
    array = np.zeros(2, np.float32)
    for _ in range(3):
        same.add(array)
    for value in (0.25, -0.5):
        array[:] = value
        changing.add(array)
    assert (same.buffered, changing.buffered) == (False, True)
    assert (changing.low, changing.high, changing.kinds) == (-0.5, 0.25, {"float32"})


def test_a_report_is_a_readable_list() -> None:
    report = EnvReport("mine", ("what is wrong",), (), {"actions": "3 choices", "agents": "dqn"})
    assert (
        str(report)
        == "mine: 1 error, no warnings\n\n  actions  3 choices\n  agents   dqn\n\nerrors:\n  - what is wrong"
    )
    assert not report.ok and EnvReport("mine", (), ("odd",), {}).ok


def test_the_sandbox_says_whose_error_it_is() -> None:
    found = Findings()
    box = Sandbox(found)
    with box.trying("making it", 5):
        print("one\ntwo\n")
        raise ValueError("ours\nsays it all")
    with box.trying("making it", 5), box.calling("step()"):
        raise ValueError("x" * 1000)
    with box.trying("making it", 5):
        raise TypeError("what")
    assert found.errors[0] == "ours says it all" and found.errors[2] == "making it failed: TypeError: what"
    assert found.errors[1].startswith("step() raised ValueError") and len(found.errors[1]) < 400
    assert box.printed == 3


class NoText(Exception):
    def __str__(self) -> str:
        raise RuntimeError


class Mute(Small):
    def step(self, action: Any) -> Any:
        raise NoText


class Homeless(gymnasium.Env[Any, Any]):
    """Without spaces."""


class Hidden(Small):
    @property
    def observation_space(self) -> Any:
        raise RuntimeError("no space")

    @observation_space.setter
    def observation_space(self, space: Any) -> None:
        pass


class Strange(spaces.Box):
    def __deepcopy__(self, memo: Any) -> Any:
        raise TypeError("no copies")


class Odd(Small):
    metadata = None  # type: ignore[assignment]

    def __init__(self) -> None:
        super().__init__()
        self.observation_space = Strange(-1, 1, (3,))


@pytest.mark.parametrize(("made", "says"), [
    (Mute, "step() raised NoText (whose text raises RuntimeError); a run ends there"),
    (Homeless, "AttributeError: 'Homeless' object has no attribute 'observation_space'"),
    (Hidden, "RuntimeError: no space"),
    (lambda config, count: None, "takes (config, count); allowed are no arguments"),
    (int, "gave int; expected a gymnasium.Env"),
])  # fmt: skip
def test_nothing_crashes_the_check(made: Any, says: str) -> None:
    report = offbeat.check_env(made, steps=10)
    assert 1 <= len(report.errors) <= 2 and says in report.errors[0]


def test_what_only_the_check_needs_is_no_error() -> None:
    report = offbeat.check_env(Odd, steps=20)
    assert report.ok and report.warnings == (
        "looking at its render modes failed: AttributeError: 'NoneType' object has no attribute 'get'",
    )


ENDS = '''
import os, signal, threading
from tests.zoo.small import Small

class Leaves(Small):
    def step(self, action):
        os._exit(0)

class Spins(Small):
    """No alarm gets through."""
    def step(self, action):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
        threading.Event().wait()
'''
OWN = """
import gymnasium
from tests.zoo.small import Small, Gives, ZEROS

class Good(Small):
    pass

class Bad(Gives):
    def __init__(self):
        super().__init__(ZEROS, None, False, False, {})
"""


def test_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "checked_envs.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert main(["envs", "check", "checked_envs:Good", "--steps", "20", "--env.max-steps", "3"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("checked_envs.Good: no errors, no warnings") and "limit 3 steps" in said
    assert main(["envs", "check", "checked_envs:Bad"]) == 1
    assert "errors:\n  - Bad: step() must return the reward as a number" in capsys.readouterr().out
    assert main(["envs", "check", "--help"]) == 0
    capsys.readouterr()
    for arguments, says in (
        ([], "takes one environment, got 0"),
        (["checked_envs:Gone"], "envs check checked_envs:Gone: module 'checked_envs' has no 'Gone'"),
        (["CartPole-v1", "--learner.batch-size", "3"], "takes options of env.* only"),
        (["CartPole-v1", "--steps", "none"], "is not a number above 0"),
        (["Nothing-v9"], "no environment is called"),
    ):
        assert main(["envs", "check", *arguments]) == 2
        error = capsys.readouterr().err
        assert says in error and len(error.splitlines()) == 1


@pytest.mark.parametrize(("name", "says"), [
    ("toy/kill@5", "its process was killed by SIGKILL while"),
    ("checked_ends:Leaves", "it ended its process with exit code 0 while"),
    ("checked_ends:Spins", "had not returned to Python for 2 seconds"),
])  # fmt: skip
def test_not_even_what_ends_its_process_ends_the_command(
    name: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "checked_ends.py").write_text(ENDS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(env_apart, "apart", partial(env_apart.apart, limit_s=2))
    assert main(["envs", "check", name]) == 1
    assert says in capsys.readouterr().out


def test_a_wrapped_environment_keeps_its_wrappers() -> None:
    def make() -> gymnasium.Env[Any, Any]:
        return gymnasium.wrappers.TimeLimit(gymnasium.wrappers.FlattenObservation(Small(length=99)), 7)

    report = offbeat.check_env(make, steps=40)
    assert report.ok and "truncated, after 7 to 7 steps" in report.facts["endings"]


class Masked(Small):
    """Says in its observation which choices of two components are legal."""

    def __init__(self) -> None:
        space = spaces.Dict({"action_mask": spaces.MultiBinary(7), "x": spaces.Box(-1, 1, (2,), np.float32)})
        super().__init__(space, spaces.MultiDiscrete([3, 4]))

    def seen(self) -> Any:
        return super().seen() | {"action_mask": np.array([1, 0, 1, 1, 1, 1, 0], np.int8)}


def test_masks_of_several_components_are_described_once() -> None:
    report = offbeat.check_env(Masked, steps=40)
    assert report.ok and not any("mask" in warning for warning in report.warnings), str(report)
    assert report.facts["masks"].startswith("'legal_actions': 2 to 2 legal actions in its narrowest component")
    assert [fact for fact in report.facts if fact.startswith("observation")] == ["observation 'x'"]
    assert report.facts["actions"].endswith("components of 3, 4 choices")


def test_a_picture_that_networks_would_flatten_is_named() -> None:
    report = offbeat.check_env(partial(Small, spaces.Box(0, 1, (12, 12), np.float32)), steps=40)
    (warning,) = [text for text in report.warnings if "picture" in text]
    assert "[12, 12], looks like a picture, and networks flatten it" in warning
