"""What can be said of an environment that cannot be played here."""

from __future__ import annotations

from pathlib import Path

import pytest

from offbeat.envs.base import EnvConfig, EnvUnavailable
from offbeat.envs.delay_config import DelayConfig
from offbeat.envs.planned import planned_spec
from offbeat.envs.registry import env_spec
from offbeat.types import OBSERVATION


@pytest.mark.parametrize("game", ["tetris", "pokemon-blue-battles", "pokemon-red-catching"])
def test_a_cartridge_is_not_needed(game: str, tmp_path: Path) -> None:
    config = EnvConfig(id=f"gameboy/{game}", folder=str(tmp_path / "none"), frame_skip=1)
    spec, missing = planned_spec(config)
    assert spec.action.num_actions == 7 and spec.frame_skip == 1
    assert (spec.observation[OBSERVATION].shape, spec.observation[OBSERVATION].dtype) == ((1, 84, 84), "uint8")
    assert missing.startswith(f"gameboy/{game}") and "\n" not in missing
    with pytest.raises(EnvUnavailable):
        env_spec(config)
    late, again = planned_spec(EnvConfig(id=config.id, folder=config.folder, delay=DelayConfig(history=3)))
    assert late.observation["action_history"].shape == (3,) and again == missing


def test_it_is_the_spec_of_the_game_where_that_can_be_played(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("cv2")
    pytest.importorskip("pyboy")
    config = EnvConfig(id="gameboy/blocks", frame_size=40)
    spec, missing = planned_spec(config)
    assert missing == "" and spec == env_spec(config)
    monkeypatch.setattr("offbeat.envs.gameboy.world.chosen", unavailable)
    assert planned_spec(config) == (spec, "no emulator is here")


def unavailable(config: EnvConfig) -> str:
    raise EnvUnavailable("no emulator is here")


@pytest.mark.parametrize("name", ["gameboy/tetriss", "toy/nothing", "no such thing"])
def test_what_does_not_exist_is_refused(name: str) -> None:
    with pytest.raises(EnvUnavailable, match="no environment is called"):
        planned_spec(EnvConfig(id=name))


def test_other_environments_are_as_ever() -> None:
    config = EnvConfig(id="toy/catch")
    assert planned_spec(config) == (env_spec(config), "")
