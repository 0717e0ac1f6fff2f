"""All that one factory makes has the same spaces: copies, the look before a run, roles, evaluations, later uses."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from gymnasium import spaces

import offbeat
from offbeat.cli import main
from offbeat.config.validation import check_environments
from offbeat.envs.base import EnvConfig, Misbehaved
from offbeat.envs.registry import env_spec, make_env
from offbeat.errors import UserError
from offbeat.runtime.brief import Brief
from tests.zoo.entry import Entry
from tests.zoo.runs import config_of, run_of
from tests.zoo.small import Small

WIDE, MORE = {"observation": spaces.Box(-1, 1, (4,))}, {"action": spaces.Discrete(5)}


class Turns:
    """A factory whose environments have these options after so many ordinary ones."""

    def __init__(self, after: int, **options: Any) -> None:
        self.left, self.options = after, options

    def __call__(self) -> Small:
        self.left -= 1
        return Small(**(self.options if self.left < 0 else {}))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (
            WIDE,
            r"the observation_space of copy 3 of 4 is Box\(.*\(4,\), float32\), of the first Box\(.*\(3,\), float32\)",
        ),
        (MORE, r"the action_space of copy 3 of 4 is Discrete\(5\), of the first Discrete\(3\)"),
    ],
)
def test_copies_that_differ_are_named(options: dict[str, Any], says: str) -> None:
    with pytest.raises(Misbehaved, match=f"mine: all copies must have the same spaces, but {says}$"):
        make_env(EnvConfig(id="mine"), 4, factory=Turns(2, **options))


def test_equal_spaces_may_be_objects_of_their_own() -> None:
    assert make_env(EnvConfig(id="mine"), 4, factory=Small).num_envs == 4


def brief(factory: Any, spec: Any) -> Brief:
    """Of an actor and evaluator in a run that was started with ``spec``."""
    made = Brief.__new__(Brief)
    config = EnvConfig(id="mine")
    vars(made).update(name="actor-3", free=True, spec=spec, env=config, registered={})
    made.env_factory = factory
    return made


@pytest.mark.parametrize("scored", [False, True])
@pytest.mark.parametrize(
    ("options", "says"), [(WIDE, r"shape=\(4,\).*observation"), (MORE, r"num_actions=5\) as action, .*=3")]
)
def test_roles_that_are_started_again_with_others_are_refused(options: dict[str, Any], says: str, scored: bool) -> None:
    spec = env_spec(EnvConfig(id="mine"), Small)
    like = EnvConfig(id="mine", max_steps=5) if scored else None
    assert brief(Small, spec).envs(2, like=like).num_envs == 2
    with pytest.raises(Misbehaved, match=f"mine: actor-3 .*{says}.* must have the same spaces"):
        brief(partial(Small, **options), spec).envs(2, like=like)


def test_training_and_evaluation_environments_of_one_factory(tmp_path: Path) -> None:
    """Two looks, as the evaluation has another switch."""
    config = config_of(Entry("small", Small), "impala", tmp_path / "run", **{"eval_env.max_steps": 50})
    check_environments(config, Small)
    with pytest.raises(UserError, match=r"\[eval_env\] zoo: .*evaluation.* must have the same spaces"):
        check_environments(config, Turns(1, **MORE))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("alike") / "run"
    run_of(Entry("small", Small), "impala", folder)
    return folder


@pytest.mark.parametrize("use", [offbeat.evaluate, partial(offbeat.record, format="gif")])
def test_what_a_run_is_played_in_must_be_as_its_agent_was_made(use: Any, run: Path) -> None:
    """The first look still shows the environment of the run."""
    for options, what in ((MORE, "action"), (WIDE, "observation")):
        with pytest.raises(Misbehaved, match=f"zoo: .*{what}.* must have the same spaces"):
            use(run, env_factory=Turns(1, **options))


def test_on_the_command_line_it_is_one_line(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "turning.py").write_text("from tests.envs.test_alike import MORE, Turns\nmake = Turns(1, **MORE)\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert main(["eval", str(run), "--env", "turning:make"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("offbeat: error: zoo: ")


def test_an_agent_of_other_spaces_plays_nothing() -> None:
    from offbeat.acting.episodes import play_episodes
    from offbeat.agents import random

    agent = random.Agent(random.Config(), env_spec(EnvConfig(id="mine"), partial(Small, **MORE)))
    with pytest.raises(Misbehaved, match=r"mine: .*num_actions=3\) as action"):
        play_episodes(make_env(EnvConfig(id="mine"), 2, factory=Small), agent, episodes=2)
    assert torch.is_grad_enabled()
