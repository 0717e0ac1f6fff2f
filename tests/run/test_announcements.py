"""What a run says of itself: pictures that its torso would flatten, evaluations that were not played."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

import offbeat
from offbeat.config.run_config import apply_overrides, from_dict, load_preset
from offbeat.errors import UserError
from offbeat.run.announcements import flattened, tell_of_no_evaluation, tell_of_short_run, tell_of_small_replay
from offbeat.types import UNROLL, ActionSpec, ArraySpec, EnvSpec

PICTURE = {"camera": ArraySpec((3, 24, 24), "uint8", 0, 255)}
VECTOR = {"speed": ArraySpec((2,)), "table": ArraySpec((4, 2))}
GREY = {"depth": ArraySpec((24, 32))}
STACK = {"frames": ArraySpec((4, 24, 24, 3), "uint8", 0, 255)}


def lines(observation: dict[str, ArraySpec], torso: str, preset: str = "own") -> list[str]:
    spec = EnvSpec("mine", observation, ActionSpec("discrete", num_actions=2))
    return list(flattened(apply_overrides(load_preset(preset), [("agent.torso", torso)]), spec))


@pytest.mark.parametrize("torso", ["per_key", "auto", "minatar"])
def test_a_picture_that_is_convolved_is_no_matter(torso):
    assert lines(PICTURE, torso) == []


def test_numbers_are_no_pictures():
    assert lines(VECTOR, "mlp") == lines(VECTOR, "per_key") == []


def test_a_flattened_picture_is_named_with_the_way_out():
    (line,) = lines(PICTURE | VECTOR, "mlp")
    assert line == (
        "observation 'camera', uint8 [3, 24, 24], looks like a picture; it is flattened to 1,728 numbers: torso mlp "
        "has no convolutions, agent.torso = 'per_key' has"
    )


def test_pictures_of_other_shapes_are_named_too():
    (grey, stack) = lines(GREY | STACK, "per_key")
    assert "'depth', float32 [24, 32]" in grey and grey.endswith("give it a third axis of length 1")
    assert "6,912 numbers" in stack and stack.endswith("stack frames along the channels")


def test_auto_flattens_what_stands_beside_a_picture_too_small_for_it():
    tiny = {"board": ArraySpec((5, 2, 2), "uint8", 0, 1)}
    assert lines(tiny, "auto") == [] and lines(tiny | VECTOR, "per_key") == []


def test_a_torso_of_ones_own_may_do_as_it_likes():
    config = load_preset("own")
    named = replace(config, agent=replace(config.agent, torso="python:mine:Torso"))
    spec = EnvSpec("mine", PICTURE, ActionSpec("discrete", num_actions=2))
    assert list(flattened(named, spec)) == [] and list(flattened(load_preset("random"), spec)) == []


class Camera(gym.Env[Any, Any]):
    """Shows pictures of noise."""

    observation_space = gym.spaces.Box(0, 255, (12, 12, 3), np.uint8)
    action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.steps = 0
        return self.np_random.integers(256, size=(12, 12, 3), dtype=np.uint8), {}

    def step(self, action: Any) -> Any:
        self.steps += 1
        picture = self.np_random.integers(256, size=(12, 12, 3), dtype=np.uint8)
        return picture, float(action), self.steps == 9, False, {}


@pytest.mark.parametrize(("preset", "said"), [("impala-cartpole", True), ("own", False), ("own-replay", False)])
def test_a_run_says_it_as_it_begins(preset, said, tmp_path: Path, capsys):
    short: dict[str, Any] = {
        "total_frames": 400,
        "engine": "inline",
        "evaluation": {"every_frames": 0, "at_end": False},
    }
    start = partial(offbeat.train, preset, env_factory=Camera, out=str(tmp_path / "run"))
    assert start(log={"tensorboard": False}, **short).finished
    shown = capsys.readouterr()
    assert ("looks like a picture" in shown.out + shown.err) is said
    assert ("looks like a picture" in (tmp_path / "run/run.log").read_text()) is said


def test_evaluations_that_were_not_played_are_missed():
    """One that the run was over before: here none is ever begun."""
    said: list[str] = []
    asked = replace(load_preset("own").evaluation, every_frames=100, at_end=False)
    for frames, evaluation in ((99, asked), (100, asked), (100, replace(asked, at_end=True))):
        conductor: Any = SimpleNamespace(
            world=SimpleNamespace(config=SimpleNamespace(evaluation=evaluation)), frames=frames
        )
        tell_of_no_evaluation(conductor, said.append)
    assert len(said) == 1 and "one was asked for each 100 frames" in said[0]


def test_arguments_that_are_nearly_right_are_named():
    with pytest.raises(UserError, match="unknown argument 'evn_factory'; did you mean 'env_factory'"):
        offbeat.train("own", evn_factory=Camera)
    with pytest.raises(UserError, match="unknown argument 'on_evalution'; did you mean 'on_evaluation'"):
        offbeat.train("own", on_evalution=print)
    with pytest.raises(UserError, match="unknown argument 'agent__facto'; did you mean 'agent_factory'"):
        offbeat.train("own", agent__facto=print)
    with pytest.raises(UserError, match=r"agent.action=2 is no action of CartPole-v1; allowed: 0 to 1"):
        offbeat.train("random", agent="noop", agent__action=2, env="CartPole-v1")  # an option, though it looks like one


@pytest.mark.parametrize(("frames", "told"), [(19_999, True), (20_000, False)])
def test_a_run_that_will_be_longer_than_it_was_asked_to_be_says_so(frames: int, told: bool) -> None:
    spec, said = EnvSpec("mine", VECTOR, ActionSpec("discrete", num_actions=2), frame_skip=4), []
    config = apply_overrides(
        load_preset("apex-minatar"), [("total_frames", frames), ("replay.samplers.0.min_rows", 5000)]
    )
    tell_of_short_run(config, spec, said.append)
    assert bool(said) == told
    assert not told or "replay has 5,000 rows, which are more frames than total_frames=19,999" in said[0]


@pytest.mark.parametrize(
    ("kind", "capacity", "told"), [("uniform", 0, True), ("uniform", 5000, False), ("reservoir", 0, False)]
)
def test_replay_of_the_newest_rows_alone_is_told(kind: str, capacity: int, told: bool) -> None:
    said: list[str] = []
    samplers = [{"kind": "fifo", "share": 0.5}, {"kind": kind, "share": 0.5}]
    config = from_dict({"replay": {"capacity": capacity, "samplers": samplers}})
    layout: Any = SimpleNamespace(num_streams=32, capacity=10, items=UNROLL)
    tell_of_small_replay(config, layout, said.append)
    assert bool(said) == told
    assert not told or "no more than the 320 newest rows, among which uniform chooses; set replay.capacity" in said[0]
