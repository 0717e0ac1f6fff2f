"""What a user hands over as ``env`` and ``env_factory`` in Python is what is trained on, or is refused in one line."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

import offbeat
from offbeat.cli import main
from offbeat.config.run_config import read_config
from offbeat.errors import UserError
from offbeat.report.watch import play_run
from tests.scoring.test_evaluate import make_run
from tests.zoo.small import Small

TINY: dict[str, Any] = {"total_frames": 100, "evaluation": {"every_frames": 0, "at_end": False}}


class ToyVector:
    """A factory of whole batches whose class says what its environments are."""

    spec = num_envs = reset = recv = send = state = load_state = close = None

    def __init__(self, config: Any, num_envs: int, **options: Any) -> None:
        """As ``make_env`` calls it."""


@pytest.mark.parametrize("option", [{"env": "CartPole-v1"}, {"env__id": "Pendulum"}, {"env": {"id": "toy/catch"}}])
def test_another_environments_id_beside_a_factory_is_refused(option: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"env='.*' was given beside env_factory=tests.zoo.small.Small.* leave one out"):
        offbeat.train("debug", env_factory=Small, out=str(tmp_path / "run"), **option)
    with pytest.raises(UserError, match="env='nowhere:Mine-v0' was given beside env_factory"):
        offbeat.train("debug", env_factory=Small, env="nowhere:Mine-v0", out=str(tmp_path / "run"))


def test_a_label_beside_a_factory_names_the_run(tmp_path: Path) -> None:
    for label in ("mine", "mine-v3"):
        run = offbeat.train("debug", env_factory=Small, env=label, out=str(tmp_path / label), **TINY).run
        assert read_config(run / "config.toml").env.id == label
        assert len(offbeat.evaluate(run, episodes=2, env_factory=Small).returns) == 2
    run = offbeat.train("debug", env_factory=Small, out=str(tmp_path / "run"), **TINY).run
    assert read_config(run / "config.toml").env.id == "Small"


def test_two_environments_on_the_command_line_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["train", "debug", "--env", "tests.zoo.small:Small", "--out", str(tmp_path / "run")]
    assert main([*command, "--env.id", "CartPole-v1"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "--env.id CartPole-v1 was given beside --env tests.zoo.small:Small" in line
    tiny = ["--total-frames", "100", "--evaluation.every-frames", "0", "--evaluation.at-end", "false"]
    for label in (["--env.id", "mine"], []):
        out = str(tmp_path / f"run{len(label)}")
        assert main(["train", "debug", *label, "--env", "tests.zoo.small:Small", "--out", out, *tiny]) == 0
        assert read_config(Path(out) / "config.toml").env.id == ("mine" if label else "Small")


def test_a_class_or_a_function_as_env_is_told_where_it_belongs(tmp_path: Path) -> None:
    for given in (Small, Small(), partial(Small, steps=3), lambda: Small()):
        for option in ({"env": given}, {"env__id": given}):
            with pytest.raises(UserError, match="env takes an id; hand over what makes your own as env_factory=") as e:
                offbeat.train("debug", out=str(tmp_path / "run"), **option)
            assert "\n" not in str(e.value)
    text = "tests.zoo.small:make_small"
    trained = partial(offbeat.train, "debug", env=text, out=str(tmp_path / "run"))
    for use in (trained, partial(offbeat.check_env, text)):
        with pytest.raises(ValueError, match=r"import make_small' and give env_factory=make_small"):
            use()


def test_what_is_no_factory_is_refused_everywhere(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", "debug")
    uses: list[Any] = [partial(offbeat.train, "debug", out=str(tmp_path / "other"))]
    uses += [partial(use, run) for use in (offbeat.resume, offbeat.load, offbeat.evaluate, offbeat.export)]
    uses += [partial(offbeat.record, run, format="gif")]
    many = gymnasium.make_vec("CartPole-v1", num_envs=2)
    says = {
        "an instance of Small: hand over the class itself": Small(),
        "'tests.zoo.small:Small': hand over the class or function itself": "tests.zoo.small:Small",
        "3: hand over the class or function itself": 3,
        "an instance of CartPoleVectorEnv: hand over a function of num_envs that makes it": many,
        "an instance of ndarray": np.zeros(3),
    }
    for text, given in says.items():
        for use in uses:
            with pytest.raises(UserError, match=f"^env_factory must be a class or function .* got {text}"):
                use(env_factory=given)
    for given in (many, 3, np.zeros(3)):
        with pytest.raises(UserError, match="env must be an id, an environment, or a class or function that makes"):
            offbeat.check_env(given)  # type: ignore[arg-type]
    many.close()


def test_what_makes_environments_is_a_factory() -> None:
    from offbeat.run.own import check_factory

    class Maker:
        def __call__(self) -> Small:
            return Small()

    for given in (None, Small, Maker(), partial(Small), ToyVector, lambda: Small()):
        check_factory(given)


@pytest.mark.parametrize(("given", "says"), [
    ({"episodes": 0}, "episodes=0 is out of range; it must be at least 1"),
    ({"episodes": -3}, "episodes=-3 is out of range"),
])  # fmt: skip
def test_numbers_in_python_have_the_ranges_of_the_command_line(
    given: dict[str, Any], says: str, tmp_path: Path
) -> None:
    run = make_run(tmp_path / "run", "debug")
    for use in (offbeat.evaluate, partial(offbeat.record, format="gif"), play_run):
        with pytest.raises(UserError, match=f"^{says}"):
            use(run, **given)  # type: ignore[operator]
    with pytest.raises(UserError, match=r"^seed=-1 is out of range; it must be in \[0"):
        offbeat.evaluate(run, seed=-1)
    assert not (run / "videos").exists()
