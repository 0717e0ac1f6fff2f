"""Ids with a vector entry point: the rows of single environments, when which way is taken, what is said, resume."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.envs.classic_control.cartpole import CartPoleVectorEnv
from gymnasium.vector import AutoresetMode

import offbeat
from offbeat.cli import main
from offbeat.envs.base import EnvConfig, Misbehaved, StateUnsupported, UnusedSwitch, VectorEnv
from offbeat.envs.gymnasium import GymnasiumVector
from offbeat.envs.registry import check_exact, env_spec, make_env, stepping
from offbeat.envs.vector import GymnasiumVectorEnv
from offbeat.envs.vectorised import has_entry_point
from offbeat.types import OBSERVATION

SHORT: dict[str, Any] = {
    "total_frames": 3000, "log": {"tensorboard": False}, "evaluation": {"every_frames": 0, "at_end": False},
}  # fmt: skip


def inner(envs: VectorEnv) -> Any:
    assert isinstance(envs, GymnasiumVectorEnv)
    return envs.made.unwrapped


@pytest.fixture
def punished() -> Iterator[None]:
    """Registered with arguments: both classes take them."""
    spec = gymnasium.registry["CartPole-v1"]
    gymnasium.register(
        "Punished-v1", spec.entry_point, max_episode_steps=60, vector_entry_point=spec.vector_entry_point,
        kwargs={"sutton_barto_reward": True},
    )  # fmt: skip
    yield
    del gymnasium.registry["Punished-v1"]


@pytest.mark.usefixtures("punished")
@pytest.mark.parametrize(
    ("env_id", "max_steps"), [("CartPole-v1", 0), ("CartPole-v1", 40), ("CartPole-v0", 0), ("Punished-v1", 0)]
)
def test_rows_are_those_of_single_environments(env_id: str, max_steps: int) -> None:
    """Bit for bit: single ones are set to the state that each episode begins in, and given the same actions."""
    count, config = 8, EnvConfig(id=env_id, max_steps=max_steps)
    envs = make_env(config, count)
    vector, alone = inner(envs), [gymnasium.make(env_id) for _ in range(count)]
    limit = max_steps or alone[0].spec.max_episode_steps  # type: ignore[union-attr]
    assert envs.spec == env_spec(config) and envs.spec.max_episode_steps == limit
    random, ends, steps = np.random.default_rng(0), {"terminated": 0, "truncated": 0}, np.zeros(count, int)
    envs.reset(3)
    rows = envs.recv()
    for _ in range(1500):
        for index in np.flatnonzero(rows.first):
            alone[index].reset()
            alone[index].unwrapped.state = vector.state[:, index].copy()  # type: ignore[attr-defined]
            np.testing.assert_array_equal(
                rows.observation[OBSERVATION][index], vector.state[:, index].astype("float32")
            )
            assert rows.raw_reward[index] == 0 and rows.valid[index]
            steps[index] = 0
        angle = rows.observation[OBSERVATION] @ np.array([0.05, 0.1, 1.0, 0.5])
        careful = np.arange(count) % 2 == 0  # these reach the limit, the others fall
        action = np.where(careful, angle > 0, random.integers(2, size=count)).astype(np.int64)
        before = rows
        envs.send(action)
        rows = envs.recv()
        np.testing.assert_array_equal(rows.first, ~before.valid)
        for index in np.flatnonzero(before.valid):
            seen, reward, terminated, truncated, _ = alone[index].step(int(action[index]))
            steps[index] += 1
            truncated = (truncated or steps[index] == limit) and not terminated
            np.testing.assert_array_equal(rows.observation[OBSERVATION][index], seen)
            assert rows.raw_reward[index] == reward
            assert (rows.terminated[index], rows.truncated[index]) == (terminated, truncated)
            ends["terminated"] += terminated
            ends["truncated"] += truncated
    assert ends["terminated"] > 20 and ends["truncated"] > 5
    envs.close()


def kinds(config: EnvConfig, count: int, **options: Any) -> type:
    envs = make_env(config, count, **options)
    envs.close()
    return type(envs)


def test_which_way_is_taken() -> None:
    auto, yes, no = (EnvConfig(id="CartPole-v1", vectorised=v) for v in ("auto", "yes", "no"))  # type: ignore[arg-type]
    assert kinds(auto, 8) is GymnasiumVectorEnv
    assert kinds(auto, 7) is kinds(no, 8) is kinds(auto, 8, deterministic=True) is GymnasiumVector
    assert kinds(yes, 1) is kinds(yes, 8, deterministic=True) is GymnasiumVectorEnv
    assert kinds(EnvConfig(id="CartPole"), 8) is GymnasiumVectorEnv, "the newest version"
    assert kinds(EnvConfig(id="Acrobot-v1"), 8) is GymnasiumVector
    assert has_entry_point("CartPole") and not has_entry_point("Cart") and not has_entry_point("Acrobot-v1")
    assert stepping(auto, 8, False) == (
        "CartPole-v1: the 8 environments of an actor are stepped at once, by its vector entry point"
    )
    assert "one after the other, though it has a vector entry point: the run is det" in stepping(auto, 8, True)
    assert stepping(no, 8, False).endswith("entry point: env.vectorised = 'no'")
    assert stepping(auto, 2, False).endswith("2 of them are as fast alone")
    assert stepping(EnvConfig(id="Acrobot-v1"), 8, False) == stepping(EnvConfig(id="toy/catch"), 8, False) == ""


@pytest.mark.parametrize("env_id", ["Acrobot-v1", "toy/catch"])
def test_ids_without_one_refuse_the_switch(env_id: str) -> None:
    with pytest.raises(UnusedSwitch, match=rf"vectorised='yes' means nothing to {env_id}; leave it at 'auto'"):
        env_spec(EnvConfig(id=env_id, vectorised="yes"))
    assert env_spec(EnvConfig(id=env_id, vectorised="no")).id == env_id


class Larger(CartPoleVectorEnv):
    """Its bounds are other than those of the single one."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.single_observation_space = spaces.Box(-9, 9, (4,), np.float32)


class Endless(CartPoleVectorEnv):
    """It never ends, whatever its limit is."""

    def step(self, action: Any) -> Any:
        self.steps[:] = 0
        self.state[:] = 0.0  # type: ignore[index]
        return super().step(action)


class Whole(CartPoleVectorEnv):
    """It resets in the step of an end, and cannot reset some."""

    metadata: ClassVar[dict[str, Any]] = {"autoreset_mode": AutoresetMode.SAME_STEP}


@pytest.fixture(params=["Larger", "Endless", "Whole", "Missing"])
def broken(request: pytest.FixtureRequest) -> Iterator[str]:
    name = request.param
    entry = "gymnasium.envs.classic_control.cartpole:CartPoleEnv"
    vector = "no_such_module:Env" if name == "Missing" else globals()[name]
    gymnasium.register(f"{name}-v0", entry, max_episode_steps=20, vector_entry_point=vector)
    yield name
    del gymnasium.registry[f"{name}-v0"]


def test_entry_points_with_other_rows(broken: str) -> None:
    """They are not taken, or refused where they were asked for; what shows late ends the run."""
    auto, yes = EnvConfig(id=f"{broken}-v0"), EnvConfig(id=f"{broken}-v0", vectorised="yes")
    if broken == "Endless":
        envs = make_env(auto, 8)
        envs.reset(0)
        envs.recv()
        for _ in range(19):
            envs.send(np.zeros(8, np.int64))
            assert envs.recv().valid.all()
        with pytest.raises(Misbehaved, match=r"Endless-v0: its vector environment goes on after 20 steps, .*'no' st"):
            envs.send(np.zeros(8, np.int64))
        return
    why = {
        "Larger": "its vector entry point has .*low=-9.0",
        "Whole": "resets its environments in mode SAME_STEP.*but it reset others as well; make it with",
        "Missing": "No module named 'no_such_module'",
    }[broken]
    assert kinds(auto, 8) is GymnasiumVector
    line = stepping(auto, 8, False)
    assert line.startswith(f"{broken}-v0: environments are stepped one after the other") and "\n" not in line
    with pytest.raises(ValueError, match=f"env.vectorised = 'yes' cannot be: .*{why}"):
        make_env(yes, 8)


def test_wrappers_of_the_registration_speak_against_it() -> None:
    wrapped = gymnasium.make("CartPole-v1")
    made = gymnasium.wrappers.TransformReward(wrapped, lambda reward: 2 * reward)
    assert made.spec is not None and made.spec.additional_wrappers
    try:
        gymnasium.registry["Doubled-v0"] = made.spec
        made.spec.id = "Doubled-v0"
        assert kinds(EnvConfig(id="Doubled-v0"), 8) is GymnasiumVector
        assert "additional_wrappers" in stepping(EnvConfig(id="Doubled-v0"), 8, False)
    finally:
        del gymnasium.registry["Doubled-v0"]


def test_state_goes_on_exactly() -> None:
    config = EnvConfig(id="CartPole-v1", vectorised="yes")
    check_exact(config)
    one, two = (make_env(config, 5, deterministic=True) for _ in range(2))
    one.reset(1)
    two.reset(2)
    random = np.random.default_rng(0)
    for step in range(300):
        rows = one.recv()
        if step == 150:
            two.recv()
            two.load_state({name: np.array(value) for name, value in one.state().items()})
        if step > 150:
            again = two.recv()
            for name in ("raw_reward", "terminated", "truncated", "first", "valid"):
                np.testing.assert_array_equal(getattr(again, name), getattr(rows, name))
            np.testing.assert_array_equal(again.observation[OBSERVATION], rows.observation[OBSERVATION])
        action = random.integers(2, size=5)
        one.send(action)
        if step >= 150:
            two.send(action)


class Forgetful(CartPoleVectorEnv):
    """It draws from a generator that is no attribute."""

    shared = np.random.default_rng()

    def step(self, action: Any) -> Any:
        observation, *rest = super().step(action)
        return observation + self.shared.normal(size=observation.shape).astype("float32"), *rest


def test_one_whose_state_is_elsewhere_is_refused_by_name() -> None:
    gymnasium.register(
        "Forgetful-v0", "gymnasium.envs.classic_control.cartpole:CartPoleEnv", vector_entry_point=Forgetful
    )
    try:
        with pytest.raises(StateUnsupported, match=r"Forgetful-v0 cannot be saved exactly: .* the same observation"):
            check_exact(EnvConfig(id="Forgetful-v0", vectorised="yes"))
    finally:
        del gymnasium.registry["Forgetful-v0"]


def test_a_run_says_how_it_steps_and_resumes_bit_for_bit(tmp_path: Path) -> None:
    """A run that was stopped and resumed has the weights of one that was not, and not those that single copies give."""

    def weights(run: Path) -> bytes:
        agent = offbeat.load(run)
        return b"".join(value.numpy().tobytes() for value in agent.agent.network.state_dict().values())

    def play(name: str, way: str) -> Path:
        saved = {"checkpoint": {"every_updates": 8, "every_s": 0, "keep": 100}}
        options = SHORT | saved | {"engine": "inline", "env": {"vectorised": way}}
        return offbeat.train("impala-cartpole", out=str(tmp_path / name), **options).run

    whole, auto, no = play("whole", "yes"), play("auto", "auto"), play("no", "no")
    straight = weights(whole)
    assert weights(auto) == weights(no) != straight
    first, *others = sorted((whole / "checkpoints").glob("[0-9]*"))
    assert len(others) > 1
    for path in others:
        shutil.rmtree(path)
    assert weights(whole) != straight
    assert offbeat.resume(whole).finished
    assert weights(whole) == straight, f"resumed from {first.name}"
    assert "are stepped at once, by its vector entry point" in (whole / "run.log").read_text()
    assert "one after the other, though it has a vector entry point: the run is" in (auto / "run.log").read_text()


@pytest.mark.slow
def test_a_run_at_its_own_pace_takes_it_and_resumes(tmp_path: Path) -> None:
    run = offbeat.train("impala-cartpole", out=str(tmp_path / "run"), **SHORT).run
    assert "the 16 environments of an actor are stepped at once" in (run / "run.log").read_text()
    assert offbeat.resume(run, 5000).finished


@pytest.mark.parametrize("section", ["env", "eval_env"])
@pytest.mark.parametrize("delayed", [False, True])
def test_what_cannot_be_stepped_as_asked_is_refused_before_there_is_a_folder(
    section: str, delayed: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In a line of its own, and nothing else is said of how environments are stepped."""
    gymnasium.register(
        "Larger-v0", "gymnasium.envs.classic_control.cartpole:CartPoleEnv", vector_entry_point=Larger,
        max_episode_steps=20,
    )  # fmt: skip
    run = tmp_path / "run"
    words = ["train", "impala-cartpole", "--out", str(run), "--env", "Larger-v0", f"--{section}.vectorised", "yes"]
    words += ["--total-frames", "500", "--eval-env.vectorised", "no"] if section == "env" else ["--env.vectorised=no"]
    try:
        assert main(words + (["--delay.inference-frames", "1"] if delayed else [])) == 2
    finally:
        del gymnasium.registry["Larger-v0"]
    (line,) = [text for text in capsys.readouterr().err.splitlines() if "Larger-v0" in text]
    assert "env.vectorised = 'yes' cannot be: " in line and "its vector entry point has" in line
    assert not run.exists()
