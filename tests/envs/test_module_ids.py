"""Ids that name a module are taken from a user's mouth only: no file has anything imported."""

from __future__ import annotations

import functools
import pickle  # what processes are handed
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import pytest

import offbeat
from offbeat.cli import main
from offbeat.envs.base import EnvConfig, EnvUnavailable
from offbeat.envs.module_ids import ModuleId, module_id
from offbeat.envs.registry import env_spec, make_env
from offbeat.errors import UserError, called
from offbeat.run.campaign_file import read_campaign
from tests.scoring.test_evaluate import make_run

ID = "registers:Mine-v0"
MODULE = """
import pathlib
import gymnasium
from tests.zoo.small import Small

pathlib.Path(__file__).with_name("imported").touch()

class Mine(Small):
    pass

gymnasium.register("Mine-v0", entry_point=__name__ + ":Mine")
"""
REFUSED = f"{ID!r} names a module.* --env {ID}.*offbeat.envs"
TINY = ["--total-frames", "200", "--evaluation.every-frames", "0", "--evaluation.episodes", "20"]


@pytest.fixture
def imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The file that is there once the module was imported, which lies in the working directory."""
    (tmp_path / "registers.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    forget()
    yield tmp_path / "imported"
    forget()


def forget() -> None:
    sys.modules.pop("registers", None)
    gymnasium.registry.pop("Mine-v0", None)


def test_which_ids_name_a_module() -> None:
    for text in (ID, "a.b:ns/Foo-v1", "a:Foo"):
        found = module_id(text)
        assert found is not None and found.id == text
    for text in ("CartPole-v1", "procgen:procgen-chaser-v0", "ALE/Pong-v5", "toy/raise@3", "a:", ":b", "a: b"):
        assert module_id(text) is None
    again = pickle.loads(pickle.dumps(ModuleId(ID)))
    assert (again.id, again.__name__, called(again)) == (ID, ID, "registers.Mine-v0")


def test_an_id_alone_imports_nothing(imported: Path) -> None:
    for use in (env_spec, functools.partial(make_env, num_envs=1)):
        for env_id in (ID, "registers:PongNoFrameskip-v4"):
            with pytest.raises(EnvUnavailable, match="names a module"):
                use(EnvConfig(id=env_id))  # type: ignore[operator]
    assert not imported.exists()
    assert env_spec(EnvConfig(id=ID), ModuleId(ID)).action.num_actions == 3
    assert imported.exists()


def test_what_cannot_be_made_is_said_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for env_id in ("nowhere:Thing-v0", "json:Thing-v0"):
        with pytest.raises(EnvUnavailable, match=f"Gymnasium cannot make {env_id}: "):
            offbeat.check_env(env_id)
        assert main(["train", "debug", "--env", env_id, "--out", str(tmp_path / "run")]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert f"Gymnasium cannot make {env_id}: " in line


@pytest.mark.parametrize("section", ["env", "eval_env"])
def test_a_run_folder_that_holds_one_is_refused(section: str, imported: Path, tmp_path: Path) -> None:
    """Of a run of before they were refused, or of a stranger's: nothing in it says that somebody handed it over."""
    run = make_run(tmp_path / "run", "debug")
    config = run / "config.toml"
    head, _, tail = config.read_text().partition(f"[{section}]")
    config.write_text(f"{head}[{section}]" + tail.replace('id = "toy/catch"', f'id = "{ID}"', 1))
    uses: list[Any] = [offbeat.resume, offbeat.load, offbeat.evaluate, offbeat.export]
    uses.append(functools.partial(offbeat.record, format="gif"))
    for use in uses if section == "eval_env" else uses[:1]:
        with pytest.raises((UserError, EnvUnavailable), match=REFUSED):
            use(run)
    assert not imported.exists()


@pytest.mark.parametrize("section", ["env", "eval_env"])
def test_a_preset_file_and_a_campaign_are_files_too(
    section: str, imported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    preset = tmp_path / "mine.toml"
    preset.write_text(f'[preset]\nextends = "debug"\n[{section}]\nid = "{ID}"\n')
    campaign = tmp_path / "campaign.toml"
    options = f'options = {{ "{section}.id" = "{ID}" }}'
    campaign.write_text(f'out = "out"\n[[runs]]\npreset = "debug"\n{options}\n')
    (planned,) = read_campaign(campaign).runs
    for command in (["train", str(preset), "--out", "run"], planned.command()):
        assert main(command) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert f"--env {ID}" in line
    assert not imported.exists()


def test_the_command_line_names_it_again_and_again(
    imported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = str(tmp_path / "run")
    assert main(["train", "debug", "--env", ID, "--out", run, *TINY]) == 0
    assert f"offbeat resume {run} --env {ID} --total-frames 400" in capsys.readouterr().out
    assert f'id = "{ID}"' in (tmp_path / "run" / "config.toml").read_text()
    imported.unlink()
    forget()
    for command in (["eval", run], ["record", run, "--format", "gif"], ["export", run], ["resume", run]):
        assert main(command) == 2
        (line,) = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
        assert (
            f"give it again: --env {ID} on the command line" in line
            and f"functools.partial(gymnasium.make, '{ID}')" in line
        )
    assert not imported.exists()
    assert main(["eval", run, "--env", ID, "--episodes", "2"]) == 0
    assert main(["record", run, "--env", ID, "--format", "gif"]) == 0
    assert main(["export", run, "--env", ID]) == 0
    assert main(["resume", run, "--env", ID, "--total-frames", "300"]) == 0
    assert imported.exists()
    assert len(offbeat.evaluate(run, episodes=2, env_factory=functools.partial(gymnasium.make, ID)).returns) == 2


def test_processes_get_it(imported: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"total_frames": 400, "evaluation": {"every_frames": 0}, "log": {"tensorboard": False}}
    result = offbeat.train("impala-cartpole", env=ID, out=str(tmp_path / "run"), **options)
    assert result.finished and result.evaluation_mean is not None
    again = offbeat.resume(result.run, 800, env_factory=functools.partial(gymnasium.make, ID))
    assert again.finished


@pytest.mark.parametrize("option", [{"env": ID}, {"env__id": ID}, {"env": {"id": ID}}])
def test_python_names_it_as_an_argument(option: dict[str, Any], imported: Path, tmp_path: Path) -> None:
    tiny: dict[str, Any] = {"total_frames": 100, "evaluation": {"every_frames": 0, "at_end": False}}
    assert offbeat.train("debug", out=str(tmp_path / "run"), **tiny, **option).finished
    assert offbeat.check_env(ID, steps=20).ok
    assert imported.exists()


def test_evaluations_in_another_one_are_refused(imported: Path, tmp_path: Path) -> None:
    for other in (ID, "CartPole-v1"):
        with pytest.raises(UserError, match=rf"eval_env\.id={other!r} .* leave it out"):
            offbeat.train("debug", env="registers:Other-v0", eval_env=other, out=str(tmp_path / "run"))
    assert not imported.exists()


def test_a_run_of_an_id_that_the_users_program_registered_says_how_it_is_given(
    imported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import registers  # type: ignore[import-not-found]  # noqa: F401

    tiny: dict[str, Any] = {"total_frames": 100, "evaluation": {"every_frames": 0, "at_end": False}}
    run = str(offbeat.train("debug", env="Mine-v0", out=str(tmp_path / "run"), **tiny).run)
    assert len(offbeat.evaluate(run, episodes=2).returns) == 2, "the program knows it"
    forget()
    capsys.readouterr()
    assert main(["eval", run]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "no environment is called 'Mine-v0'" in line and "--env module:Mine-v0 on the command line" in line
    assert main(["eval", run, "--env", ID, "--episodes", "2"]) == 0
    assert main(["resume", run, "--env", ID, "--total-frames", "300"]) == 0
