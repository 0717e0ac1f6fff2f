"""The tasks in both emulators: the same rows, exact restoring, encounters in order, stand-ins."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from offbeat.envs.base import EnvConfig, EnvUnavailable, UnusedSwitch
from offbeat.envs.gameboy.folders import ROMS, write_state
from offbeat.envs.gameboy.games import ACTIONS, NOOP, SEED, WANTED
from offbeat.envs.gameboy.opening import open_emulator
from offbeat.envs.gameboy.world import until_ready
from offbeat.envs.gymnasium import GymnasiumVector
from offbeat.envs.registry import check_exact, env_spec, make_env
from offbeat.types import OBSERVATION, EnvStep
from tests.envs.gameboy.stand_in import folder_of, stand_in
from tests.envs.playing import assert_restored

OURS = ("blocks", "battles", "catching")
BACKENDS = ("pyboy", "retro")


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    pytest.importorskip("cv2")
    if request.param == "pyboy":
        pytest.importorskip("pyboy")
    else:
        pytest.importorskip("stable_retro")
    return str(request.param)


def play(config: EnvConfig, actions: np.ndarray, seed: int = 3) -> list[EnvStep]:
    """Rows of ``actions`` [steps, envs]."""
    env = make_env(config, actions.shape[1])
    env.reset(seed)
    rows = [env.recv()]
    for action in actions:
        env.send(action)
        rows.append(env.recv())
    env.close()
    return rows


def state_of(own: str, backend: str, pokes: dict[int, int], start: bool) -> bytes:
    """A state of one of our cartridges: waiting, or right after START."""
    emulator = open_emulator(backend, ROMS / f"{own}.gb")
    until_ready(emulator)
    emulator.write(SEED, b"\x07\x01")
    for address, byte in pokes.items():
        emulator.write(address, bytes([byte]))
    if start:
        emulator.run(("START",), 1)
    state = emulator.save()
    emulator.close()
    return state


@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize("skip", [1, 4])
def test_both_emulators_give_the_same_rows(name: str, skip: int) -> None:
    pytest.importorskip("pyboy")
    pytest.importorskip("stable_retro")
    pytest.importorskip("cv2")
    actions = np.random.default_rng(0).integers(len(ACTIONS), size=(400, 2))
    config = EnvConfig(id=f"gameboy/{name}", frame_skip=skip)
    ours, theirs = (play(replace(config, backend=backend), actions) for backend in BACKENDS)  # type: ignore[arg-type]
    for one, other in zip(ours, theirs, strict=True):
        assert np.array_equal(one.raw_reward, other.raw_reward) and np.array_equal(one.terminated, other.terminated)
        assert np.array_equal(one.observation[OBSERVATION], other.observation[OBSERVATION])
    if skip == 4:
        assert sum(row.terminated.sum() for row in ours) > 3
        assert len({float(reward) for row in ours for reward in row.raw_reward}) > 1


def test_what_is_seen_and_done(backend: str) -> None:
    config = EnvConfig(id="gameboy/blocks", backend=backend, frame_size=64)  # type: ignore[arg-type]
    spec = env_spec(config)
    assert spec.observation[OBSERVATION].shape == (1, 64, 64) and spec.action.num_actions == 7 and spec.frame_skip == 4
    env = make_env(config, 1)
    assert isinstance(env, GymnasiumVector) and env.render is not None
    env.reset(0)
    before = env.recv()
    env.send(np.array([NOOP]))
    picture = env.render()
    after = env.recv()
    env.close()
    env.close()
    assert picture.shape == (144, 160, 3) and set(np.unique(picture)) <= {0, 80, 84, 168, 248, 252}
    assert before.observation[OBSERVATION].std() > 20 and before.first[0] and not after.first[0]


@pytest.mark.parametrize("name", OURS)
def test_it_is_restored_exactly(name: str, backend: str) -> None:
    """Which encounter comes next is a part of it."""
    config = EnvConfig(id=f"gameboy/{name}", backend=backend, max_steps=70)  # type: ignore[arg-type]
    check_exact(config)
    assert_restored(config, 160, 90)


def test_encounters_advance_after_a_win_and_only_then() -> None:
    """Move A or B, as it is seen, wins; fleeing does not."""
    pytest.importorskip("pyboy")
    pytest.importorskip("cv2")
    env = make_env(EnvConfig(id="gameboy/catching", states=("1", "2")), 1)
    assert isinstance(env, GymnasiumVector)
    world = env._slots[0].env.unwrapped

    def episode(action: int) -> tuple[str, float]:
        _, info = world.reset(seed=1)
        total, over = 0.0, False
        while not over:
            _, reward, over, _, _ = world.step(np.int64(action))
            total += float(reward)
        return info["start"], total

    assert [episode(5) for _ in range(2)] == [("1", -1.0)] * 2
    played = []
    while len(played) < 40 and (not played or played[-1] != ("1", 1.0)):
        played.append(episode(3 if len(played) % 2 else 0))
    won = [index for index, (_, total) in enumerate(played) if total == 1]
    for index, (start, _) in enumerate(played):
        assert start == str(1 + sum(when < index for when in won) % 2)
    world.close()
    drawn = make_env(EnvConfig(id="gameboy/battles", advance=False), 1)
    assert isinstance(drawn, GymnasiumVector)
    world = drawn._slots[0].env.unwrapped
    assert len({world.reset(seed=seed)[1]["start"] for seed in range(30)}) > 3
    world.close()


def test_a_random_player_clears_a_line() -> None:
    """In 30 % of its games and more, or the game would be too hard to learn."""
    pytest.importorskip("pyboy")
    pytest.importorskip("cv2")
    actions = np.random.default_rng(5).integers(len(ACTIONS), size=(1100, 8))
    rows = play(EnvConfig(id="gameboy/blocks"), actions)
    scores: list[bool] = []
    total = np.zeros(8)
    for row in rows:
        total += row.raw_reward
        for index in np.flatnonzero(row.terminated):
            scores.append(total[index] > 0)
            total[index] = 0
    assert len(scores) > 50 and np.mean(scores) >= 0.3


def test_a_folder_as_it_was_published_is_played(backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Our cartridge stands in for Blue's, two states of it for those that somebody saved."""
    stand_in(monkeypatch, "pokemon-blue-battles", "battle")
    folder = folder_of(tmp_path / "PokemonBlue_Battles", "battle", {})
    suffix = {"pyboy": "pyboy", "retro": "state"}[backend]
    for name in ("Squirt_B1", "Squirt_B2"):
        state = state_of("battle", backend, {WANTED: 2}, start=True)
        write_state(folder / f"{name}.{suffix}", state, backend, sha(folder))
    config = EnvConfig(id="gameboy/PokemonBlue_Battles", folder=str(tmp_path), backend=backend, noop_max=0)  # type: ignore[arg-type]
    rows = play(config, np.repeat([[0], [6], [6], [1], [6], [6]], 12, 0).reshape(-1, 1))
    rewards = [float(row.raw_reward[0]) for row in rows]
    assert sum(row.terminated[0] for row in rows) >= 1 and 1.0 in rewards
    check_exact(config)


def test_tetris_begins_with_a(backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, "tetris", "blocks")
    folder = folder_of(tmp_path / "Tetris-GameBoy", "blocks", {})
    state = state_of("blocks", backend, {}, start=False)
    suffix = {"pyboy": "pyboy", "retro": "state"}[backend]
    write_state(folder / f"TypeA_Level0.{suffix}", state, backend, sha(folder))
    config = EnvConfig(id="gameboy/tetris", folder=str(tmp_path), backend=backend)  # type: ignore[arg-type]
    rows = play(config, np.full((400, 1), 5))
    assert sum(row.terminated[0] for row in rows) >= 1


def test_foreign_states_are_refused(backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, "tetris", "blocks")
    folder = folder_of(tmp_path, "blocks", {"TypeA_Level0": b"no state"})
    (folder / "TypeA_Level0.pyboy").write_bytes(b"\x1dno state")
    env = make_env(EnvConfig(id="gameboy/tetris", folder=str(tmp_path), backend=backend), 1)  # type: ignore[arg-type]
    suffix = {"pyboy": r"\.pyboy: no state of this version of PyBoy", "retro": r"\.state: no state of this cartridge"}
    with pytest.raises(EnvUnavailable, match=rf"gameboy/tetris: {folder}/TypeA_Level0{suffix[backend]}"):
        env.reset(0)
    env.close()


def sha(folder: Path) -> str:
    return (folder / "rom.sha").read_text().strip()


@pytest.mark.parametrize("missing", ["pyboy", "stable_retro", "cv2"])
def test_without_its_packages_the_extra_is_named(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    config = EnvConfig(id="gameboy/blocks", backend="retro" if missing == "stable_retro" else "auto")
    with pytest.raises(EnvUnavailable, match=r"gameboy/blocks needs .*pip install \"offbeat\[gameboy\]\""):
        make_env(config, 1)


def test_switches_of_others_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        ValueError, match="backend='ale' is no emulator of gameboy/blocks; allowed are auto, pyboy, retro"
    ):
        env_spec(EnvConfig(id="gameboy/blocks", backend="ale"))
    with pytest.raises(UnusedSwitch, match="rom='x' means nothing to toy/catch"):
        env_spec(EnvConfig(id="toy/catch", rom="x"))
    pytest.importorskip("ale_py")
    with pytest.raises(UnusedSwitch, match="backend='pyboy' means nothing to Pong"):
        env_spec(EnvConfig(id="Pong", backend="pyboy"))
    pytest.importorskip("pyboy")
    with pytest.raises(UnusedSwitch, match=r"sticky=0\.25 means nothing to gameboy/blocks"):
        env_spec(EnvConfig(id="gameboy/blocks", sticky=0.25))
