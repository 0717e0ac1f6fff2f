"""Every preset loads, can run here, and says where its numbers come from."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

import offbeat
from offbeat.config import from_dict, load_preset, to_toml, validate
from offbeat.envs.base import EnvUnavailable
from offbeat.errors import UserError
from offbeat.presets import FOLDER, find_preset, list_presets

PRESETS = sorted(path.stem for path in FOLDER.glob("*.toml"))
STRUCTURE = ("[", "id =", "name =", "torso =", "core =", "extends =")
"""Beginnings of lines that need no source: they say what the preset is about."""


def test_there_are_presets() -> None:
    assert {"impala-atari", "impala-cartpole", "impala-catch", "impala-tmaze", "debug"} <= set(PRESETS)


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_loads_and_validates(name: str) -> None:
    config = load_preset(name)
    assert config.preset == name
    assert from_dict(tomllib.loads(to_toml(config))) == config
    try:
        validate(config)
    except EnvUnavailable as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_describes_itself_and_sources_every_line(name: str) -> None:
    lines = (FOLDER / f"{name}.toml").read_text().splitlines()
    assert len(list_presets()[name]) > 20
    bare = [line for line in lines if line.strip() and "#" not in line and not line.startswith(STRUCTURE)]
    assert bare == []


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_has_a_row_in_the_docs(name: str) -> None:
    page = (Path(__file__).parents[1] / "docs" / "presets.md").read_text(encoding="utf-8")
    assert f"| `{name}` |" in page


def test_unknown_presets_name_the_nearest() -> None:
    with pytest.raises(UserError, match=r"unknown preset 'impala-atary'; did you mean 'impala-atari'\?"):
        find_preset("impala-atary")
    with pytest.raises(UserError, match=r"unknown preset 'xyzzy'; 'offbeat presets' lists them"):
        find_preset("xyzzy")
    with pytest.raises(UserError, match=r"preset file 'no/such.toml' does not exist"):
        find_preset("no/such.toml")


def test_a_file_that_is_no_toml_says_where(tmp_path: Path) -> None:
    path = tmp_path / "broken.toml"
    path.write_text("[learner\nbatch_size = 3\n")
    with pytest.raises(UserError, match=r"broken.toml is not TOML: .*line 1"):
        load_preset(path)


TINY = {
    "engine": "inline", "actor": {"workers": 1, "envs_per_worker": 2, "inference": "actor"},
    "learner": {"batch_size": 2, "unroll_length": 5}, "evaluation": {"every_frames": 0, "at_end": False},
    "log": {"tensorboard": False, "dashboard": False},
}  # fmt: skip
"""Lays itself over any preset so that it runs for seconds."""


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_trains(name: str, tmp_path: Path) -> None:
    frame_skip = 4 if load_preset(name).env.id in ("Pong", "Breakout") else 1
    try:
        result = offbeat.train(name, out=str(tmp_path / "run"), total_frames=100 * frame_skip, **TINY)
    except EnvUnavailable as error:
        pytest.skip(str(error))
    assert (result.finished, result.agent_steps, result.updates) == (True, 100, 10)
