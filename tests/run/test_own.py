"""A run of a user's own environment is never taken for another one's: in Python, on the command line, in campaigns."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium
import pytest

import offbeat
from offbeat.cli import main
from offbeat.commands.arguments import env_factory
from offbeat.config.fitting import fitted
from offbeat.config.run_config import apply_overrides, load_preset
from offbeat.errors import UserError
from offbeat.run.campaign_file import read_campaign

MODULE = '''
import gymnasium, numpy as np
from gymnasium import spaces

class CartPole(gymnasium.Env):
    """Named as Gymnasium's, and nothing like it: 100 at each of ten steps."""

    observation_space = spaces.Dict(
        {"at": spaces.Discrete(10, start=3), "view": spaces.Box(0, 255, (12, 9, 3), np.uint8)}
    )
    action_space = spaces.Discrete(3, start=-1)
    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}

    def __init__(self, render_mode=None):
        self.render_mode = render_mode

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self._seen(), {}

    def step(self, action):
        assert self.action_space.contains(action), action
        self.t += 1
        return self._seen(), 100.0, self.t == 10, False, {}

    def render(self):
        return np.full((64, 48, 3), 7, np.uint8)

    def _seen(self):
        return {"at": 3 + min(self.t, 9), "view": np.full((12, 9, 3), self.t, np.uint8)}

def drawn():
    return CartPole("rgb_array")

NOTHING = 3
'''
TINY = {"total_frames": 200, "evaluation": {"every_frames": 0, "episodes": 20}, "log": {"tensorboard": False}}


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The user's module, in the working directory."""
    (tmp_path / "mine.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    sys.modules.pop("mine", None)
    import mine  # type: ignore[import-not-found]

    yield mine
    sys.modules.pop("mine", None)


def test_every_use_of_the_run_asks_for_the_environment_again(module: Any, tmp_path: Path) -> None:
    run = offbeat.train("debug", env_factory=module.CartPole, out=str(tmp_path / "run"), **TINY).run
    says = r"environment of your own, env_factory=mine\.CartPole: give the same env_factory again"
    for use in (offbeat.resume, offbeat.load, offbeat.evaluate, offbeat.export, offbeat.record):
        with pytest.raises(UserError, match=says):
            use(run)
    assert offbeat.evaluate(run, episodes=3, env_factory=module.CartPole).returns.tolist() == [1000.0] * 3
    assert offbeat.export(run, env_factory=module.CartPole).exists()
    assert offbeat.record(run, format="gif", env_factory=module.drawn).stat().st_size > 0
    assert offbeat.resume(run, 400, env_factory=module.CartPole).evaluation_mean == 1000.0


def test_the_loaded_agent_speaks_as_the_environment_does(module: Any, tmp_path: Path) -> None:
    run = offbeat.train("debug", env_factory=module.CartPole, out=str(tmp_path / "run"), **TINY).run
    agent, env = offbeat.load(run, env_factory=module.CartPole), module.CartPole()
    observation, _ = env.reset()
    for _ in range(10):
        action = agent.act(observation)
        assert env.action_space.contains(action)
        observation, *_ = env.step(action)
    agent.reset()
    vector = gymnasium.vector.SyncVectorEnv([module.CartPole] * 4)
    many, _ = vector.reset()
    actions = agent.act(many)
    assert vector.action_space.contains(actions)
    with pytest.raises(ValueError, match="observation 'at' must belong to"):
        agent.act({"at": 99, "view": observation["view"]})


def test_the_command_line_names_it(module: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = str(tmp_path / "run")
    options = ["--total-frames", "200", "--evaluation.every-frames", "0", "--evaluation.episodes", "20"]
    assert main(["train", "debug", "--env", "mine:CartPole", "--out", run, *options]) == 0
    assert main(["eval", run]) == 2
    assert (
        "give the same env_factory again, from Python, or --env module:function on the command line"
        in capsys.readouterr().err
    )
    assert main(["eval", run, "--env", "mine:CartPole", "--episodes", "2"]) == 0
    assert "mean 1000.00" in capsys.readouterr().out
    assert main(["resume", run, "--env", "mine:CartPole", "--total-frames", "300"]) == 0
    assert main(["record", run, "--env", "mine:drawn", "--format", "gif"]) == 0
    assert main(["export", run, "--env", "mine:CartPole"]) == 0


def test_what_the_command_line_advises_can_be_typed(
    module: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = str(tmp_path / "my runs" / "Bär")
    options = ["--total-frames", "200", "--evaluation.every-frames", "0", "--evaluation.at-end", "false"]
    assert main(["train", "debug", "--env", "mine:CartPole", "--out", run, *options]) == 0

    def advised() -> list[list[str]]:
        said = [line.partition(": ") for line in capsys.readouterr().out.splitlines()]
        return [shlex.split(line) for what, _, line in said if any(w in what for w in ("score", "watch", "longer"))]

    own = ["--env", "mine:CartPole"]
    assert advised() == [
        ["offbeat", "eval", run, *own, "--episodes", "20"],
        ["offbeat", "record", run, *own],
        ["offbeat", "resume", run, *own, "--total-frames", "400"],
    ]
    assert main(["resume", run, *own, "--total-frames", "400"]) == 0
    score, _, longer = advised()
    assert longer[-3:] == ["mine:CartPole", "--total-frames", "800"]
    assert main(score[1:]) == 0


@pytest.mark.parametrize(("text", "says"), [
    ("nowhere:Thing", "there is no module 'nowhere' here"), ("mine:Gone", "module 'mine' has no 'Gone'"),
    ("mine:NOTHING", "expected a class or function that makes an environment, got 3"),
    ("broken:make", "importing broken failed: ZeroDivisionError"), ("CartPole-v1", "expected module:function"),
])  # fmt: skip
def test_what_names_nothing_is_refused_in_one_line(
    text: str, says: str, module: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken.py").write_text("1 / 0")
    run = offbeat.train("debug", out=str(tmp_path / "run"), **TINY).run
    assert main(["eval", str(run), "--env", text]) == 2
    said = capsys.readouterr().err
    assert says in said and len(said.splitlines()) == 1
    if "CartPole" not in text:
        assert main(["train", "debug", "--env", text]) == 2


@pytest.mark.parametrize(("text", "wanted"), [
    ("mine", "mine:function"), ("mine:", "mine:function"), ("mine.drawn", "mine:drawn"),
    ("./mine.py:drawn", "mine:drawn"), ("mine.py", "mine:function"), ("mine.py:drawn", "mine:drawn"),
    ("./mine:drawn", "mine:drawn"), (".mine:drawn", "my_module:drawn"),
    (":drawn", "my_module:drawn"), ("json", "json:function"),
])  # fmt: skip
def test_other_ways_to_name_a_function_are_told_the_form(
    text: str, wanted: str, module: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = offbeat.train("debug", out=str(tmp_path / "run"), **TINY).run
    capfd.readouterr()
    for command in (["train", "debug", "--env", text], ["eval", str(run), "--env", text], ["envs", "check", text]):
        assert main(command) == 2
        (line,) = capfd.readouterr().err.splitlines()
        assert f" {text}" in line and f"module:function, such as {wanted}" in line


def test_a_module_of_an_environments_name_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "CartPole.py").write_text("1 / 0")
    monkeypatch.chdir(tmp_path)
    assert env_factory("CartPole") is None and env_factory("procgen:procgen-chaser-v0") is None
    assert main(["train", "debug", "--env", "CartPol"]) == 2
    assert "no environment is called 'CartPol'; did you mean" in capsys.readouterr().err


def test_a_file_cannot_name_what_makes_an_environment(module: Any, tmp_path: Path) -> None:
    """The same text in a campaign is an id, whatever it looks like."""
    path = tmp_path / "campaign.toml"
    path.write_text('out = "out"\n[[runs]]\npreset = "debug"\noptions = { env = "mine:drawn" }\n')
    (planned,) = read_campaign(path).runs
    result = subprocess.run(
        [sys.executable, "-m", "offbeat", *planned.command()], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert result.returncode == 2
    assert "'mine:drawn' names a module" in result.stderr and "Traceback" not in result.stderr


def test_a_campaign_is_run_on_an_environment_that_the_command_line_names(
    module: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """It is given again to go on, and every step of a run gets it."""
    path = tmp_path / "campaign.toml"
    options = '{ total_frames = 400, "evaluation.every_frames" = 0 }'
    path.write_text(f'out = "{tmp_path}/out"\n[[runs]]\nname = "own"\npreset = "debug"\noptions = {options}\n')
    assert main(["campaign", str(path), "--env", "mine:drawn"]) == 0
    said = capfd.readouterr().out
    assert "--env mine:drawn" in said and re.search(r"^1 +own +drawn +1 ", said, re.M)
    assert main(["campaign", str(path), "--env", "mine:drawn", "--report"]) == 0
    assert "1 of 1 runs are finished" in capfd.readouterr().out
    assert main(["campaign", str(path)]) == 2
    assert "a run on your own environment needs its --env again" in capfd.readouterr().err
    assert main(["campaign", str(path), "--env", "mine:missing"]) == 2
    assert "has no 'missing'" in capfd.readouterr().err
    path.write_text(path.read_text().replace("400,", '400, env.id = "CartPole-v1",'))
    assert main(["campaign", str(path), "--env", "mine:drawn"]) == 2
    assert "--env mine:drawn was given, and 'own' names an environment too" in capfd.readouterr().err


def test_switches_of_the_presets_own_environment_are_left_out_but_not_those_that_were_given(tmp_path: Path) -> None:
    config = load_preset("debug")
    assert config.env.length == 10
    assert fitted(apply_overrides(config, [("env", "CartPole-v1")]), ["env"]).env.length == 20
    assert fitted(apply_overrides(config, [("env", "toy/copy")]), ["env"]).env.length == 10
    with pytest.raises(UserError, match="length=7 means nothing to CartPole-v1"):
        offbeat.train("debug", env="CartPole-v1", env__length=7, out=str(tmp_path / "run"))
