"""ViZDoom: the package's scenarios as its engine plays them, their limits of time, exact restoring, closing."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from offbeat.envs.base import EnvConfig, EnvUnavailable, UnusedSwitch
from offbeat.envs.listing import list_envs
from offbeat.envs.registry import check_exact, env_spec, frame_rate, make_env
from offbeat.envs.vizdoom import SCENARIOS, DoomScenario, find_game
from offbeat.types import OBSERVATION
from tests.envs.playing import assert_restored

HOME = EnvConfig(id="vizdoom/my_way_home")


@pytest.fixture
def vizdoom() -> ModuleType:
    pytest.importorskip("cv2")
    module: ModuleType = pytest.importorskip("vizdoom")
    return module


def engines() -> list[int]:
    """Processes of engines that this one has started."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, fields = stat.read_text().rsplit(")", 1)
        except OSError:  # it has ended meanwhile
            continue
        if name.endswith("(vizdoom") and int(fields.split()[1]) == os.getpid():
            found.append(int(stat.parent.name))
    return found


def of_engine(vizdoom: ModuleType, name: str, seed: int, actions: list[int], skip: int) -> list[tuple[Any, float]]:
    """(picture 160 x 120, reward) before and after each action, by the engine alone with its own limit of time."""
    game = vizdoom.DoomGame()
    game.load_config(str(Path(vizdoom.scenarios_path) / f"{name}.cfg"))
    game.set_doom_config_path(os.devnull)
    game.set_window_visible(False)
    game.set_screen_format(vizdoom.ScreenFormat.RGB24)
    game.set_screen_resolution(vizdoom.ScreenResolution.RES_160X120)
    game.set_seed(seed)
    game.init()
    count = len(game.get_available_buttons())
    rows: list[tuple[Any, float]] = [(game.get_state().screen_buffer, 0.0)]
    for action in actions:
        reward = game.make_action([float(action == 1 + button) for button in range(count)], skip)
        over = game.is_episode_finished()
        rows.append((None if over else game.get_state().screen_buffer, reward))
        if over:
            break
    game.close()
    return rows


def test_names() -> None:
    names = ("vizdoom/my_way_home", "ViZDoom/MyWayHome", "vizdoom/mywayhome", "VizDoom/MyWayHome-v1")
    assert [find_game(name) for name in names] == ["my_way_home"] * 4
    assert find_game("vizdoom/cig") is None
    with pytest.raises(EnvUnavailable, match="did you mean vizdoom/deadly_corridor"):
        env_spec(EnvConfig(id="vizdoom/dedly_corridor"))
    listed = {record.id: (record.actions, record.extra) for record in list_envs("vizdoom/")}
    assert len(listed) == len(SCENARIOS) and listed[HOME.id] == ("6", "vizdoom")
    assert frame_rate(HOME) == 8.75


@pytest.mark.parametrize("missing", ["vizdoom", "cv2"])
def test_without_its_packages_the_extra_is_named(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(EnvUnavailable, match=r"vizdoom/basic needs vizdoom .*pip install \"offbeat\[vizdoom\]\""):
        make_env(EnvConfig(id="vizdoom/basic"), 1)


def test_scenarios_are_those_of_the_package(vizdoom: ModuleType) -> None:
    for name, known in SCENARIOS.items():
        game = vizdoom.DoomGame()
        game.load_config(str(Path(vizdoom.scenarios_path) / f"{name}.cfg"))
        buttons = [one for one in game.get_available_buttons() if not vizdoom.is_delta_button(one)]
        assert (len(buttons), game.get_episode_timeout()) == (known.buttons, known.tics), name
        spec = env_spec(EnvConfig(id=f"vizdoom/{name}"))
        assert spec.action.num_actions == 1 + known.buttons
        assert spec.max_episode_steps == (known.tics // 4 or None) and spec.frame_skip == 4


def test_observations_are_pictures_of_the_size_asked_for(vizdoom: ModuleType) -> None:
    for size in (64, 84, 130):
        env = make_env(replace(HOME, frame_size=size), 2)
        assert env.spec.observation[OBSERVATION].shape == (3, size, size)
        env.reset(0)
        frames = env.recv().observation[OBSERVATION]
        env.close()
        assert frames.dtype == np.uint8 and frames.shape == (2, 3, size, size) and frames.std() > 5
        assert (frames[:, 0] != frames[:, 2]).mean() > 0.3  # it is in colour
    with pytest.raises(UnusedSwitch, match=r"sticky=0.25 means nothing to vizdoom/my_way_home"):
        env_spec(replace(HOME, sticky=0.25))


@pytest.mark.parametrize("name", list(SCENARIOS))
def test_episodes_are_those_of_the_engine(name: str, vizdoom: ModuleType) -> None:
    import cv2

    actions = np.random.default_rng(1).integers(1 + SCENARIOS[name].buttons, size=80).tolist()
    expected = of_engine(vizdoom, name, 7, actions, skip=4)
    game = DoomScenario(EnvConfig(id=f"vizdoom/{name}"), name)
    seen, _ = game.reset(seed=7)
    for (picture, reward), action in zip(expected, [None, *actions], strict=False):
        over = cut = False
        if action is not None:
            before = seen
            seen, got, over, cut, _ = game.step(np.int64(action))
            assert got == pytest.approx(reward)
        if picture is not None:
            scaled = cv2.resize(picture, (84, 84), interpolation=cv2.INTER_AREA)
            assert np.array_equal(seen, scaled.transpose(2, 0, 1)) and not over
        else:
            assert over or cut
            assert cut or seen is before
    assert len(expected) > 5
    game.close()


def test_the_limit_of_time_truncates_and_shows_what_is_there(vizdoom: ModuleType) -> None:
    """The engine itself shows nothing any more then; one that has no limit does."""
    env = make_env(HOME, 1)
    env.reset(0)
    rows = [env.recv()]
    for _ in range(526):
        env.send(np.array([1]))
        rows.append(env.recv())
    env.close()
    assert [step for step, row in enumerate(rows) if not row.valid[0]] == [525]
    assert rows[525].truncated[0] and not rows[525].terminated[0] and rows[526].first[0]
    assert sum(float(row.raw_reward[0]) for row in rows[:526]) == pytest.approx(-0.21, abs=1e-5)
    frames = [row.observation[OBSERVATION][0] for row in rows]
    assert all((frames[525] != other).mean() > 0.1 for other in (frames[524], frames[526], np.zeros_like(frames[0])))


def test_the_last_action_is_held_until_the_limit(vizdoom: ModuleType) -> None:
    """Each tic costs 1 in ``basic``: its 300 tics are 37 actions of 8 and one of 4."""
    config = EnvConfig(id="vizdoom/basic", frame_skip=8)
    assert env_spec(config).max_episode_steps == 38
    env = make_env(config, 1)
    env.reset(0)
    env.recv()
    rewards = []
    for step in range(1, 39):
        env.send(np.array([0]))
        rows = env.recv()
        assert rows.truncated[0] == (step == 38) and not rows.terminated[0]
        rewards.append(float(rows.raw_reward[0]))
    env.close()
    assert rewards == [-8.0] * 37 + [-4.0]


def test_a_games_own_end_terminates(vizdoom: ModuleType) -> None:
    env = make_env(EnvConfig(id="vizdoom/health_gathering"), 2)
    env.reset(0)
    rows = env.recv()
    while rows.valid.all():
        before = rows
        env.send(np.zeros(2, np.int64))
        rows = env.recv()
    env.close()
    dead = int(np.flatnonzero(~rows.valid)[0])
    assert rows.terminated[dead] and not rows.truncated[dead] and rows.raw_reward[dead] < -90
    assert np.array_equal(rows.observation[OBSERVATION][dead], before.observation[OBSERVATION][dead])


def test_environments_have_seeds_of_their_own(vizdoom: ModuleType) -> None:
    def starts(seed: int) -> np.ndarray:
        env = make_env(HOME, 4)
        env.reset(seed)
        frames = env.recv().observation[OBSERVATION]
        env.close()
        return frames

    first, other = starts(1), starts(2)
    together = np.concatenate([first, other])
    assert len({frame.tobytes() for frame in together}) == 8
    assert np.array_equal(first, starts(1))


@pytest.mark.parametrize("name", ["deadly_corridor", "my_way_home", "take_cover"])
def test_it_is_restored_exactly(name: str, vizdoom: ModuleType) -> None:
    config = EnvConfig(id=f"vizdoom/{name}", max_steps=60, frame_size=64)
    check_exact(config)
    assert_restored(config, 150, 70)


def test_engines_end_with_their_environments_and_leave_nothing(
    vizdoom: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not Path("/proc").exists():
        pytest.skip("no /proc to look for the engine's processes in")
    monkeypatch.chdir(tmp_path)
    there = set(engines())
    env = make_env(HOME, 3)
    assert set(engines()) == there  # none is needed to say what an environment is like
    env.reset(0)
    assert len(set(engines()) - there) == 3
    env.recv()
    env.send(np.zeros(3, np.int64))
    env.close()
    env.close()
    assert set(engines()) == there and os.listdir(tmp_path) == []


def test_a_folder_that_was_there_stays(vizdoom: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "_vizdoom").mkdir()
    env = make_env(HOME, 1)
    env.reset(0)
    env.close()
    assert os.listdir(tmp_path) == ["_vizdoom"]
