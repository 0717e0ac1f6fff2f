"""DeepMind Lab's adapter, against a module with the same interface."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import offbeat
from offbeat.envs.base import EnvConfig, EnvUnavailable, UnusedSwitch
from offbeat.envs.dmlab import LEVELS, LabLevel, find_level
from offbeat.envs.listing import list_envs
from offbeat.envs.registry import check_exact, env_spec, frame_rate, make_env
from offbeat.types import OBSERVATION
from tests.envs import dmlab_stand_in
from tests.envs.dmlab_stand_in import Lab
from tests.envs.playing import assert_restored

WATERMAZE = EnvConfig(id="dmlab/rooms_watermaze")
SHORT = EnvConfig(id="dmlab/tests/corridor_90")
NINE = [
    [0, 0, 0, 1, 0, 0, 0], [0, 0, 0, -1, 0, 0, 0], [0, 0, -1, 0, 0, 0, 0], [0, 0, 1, 0, 0, 0, 0],
    [-20, 0, 0, 0, 0, 0, 0], [20, 0, 0, 0, 0, 0, 0], [-20, 0, 0, 1, 0, 0, 0], [20, 0, 0, 1, 0, 0, 0],
    [0, 0, 0, 0, 1, 0, 0],
]  # fmt: skip
"""Look left and right, look up and down, strafe, move, fire, jump, crouch."""


@pytest.fixture(autouse=True)
def labs(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Lab]]:
    """All that are made, by the stand-in."""
    monkeypatch.setitem(sys.modules, "deepmind_lab", dmlab_stand_in)
    Lab.made.clear()
    yield Lab.made
    Lab.made.clear()


def game(config: EnvConfig) -> LabLevel:
    return LabLevel(config, str(find_level(config.id)))


def test_names() -> None:
    assert find_level("dmlab/rooms_watermaze") == "contributed/dmlab30/rooms_watermaze"
    assert find_level("dmlab/rooms_collect_good_objects") == "contributed/dmlab30/rooms_collect_good_objects_train"
    assert find_level("dmlab/rooms_collect_good_objects_test") == "contributed/dmlab30/rooms_collect_good_objects_test"
    assert find_level("dmlab/contributed/psychlab/harlow") == "contributed/psychlab/harlow"
    assert find_level("dmlab/seekavoid_arena_01") == "seekavoid_arena_01" and find_level("dmlab/watermaze") is None
    with pytest.raises(EnvUnavailable, match="did you mean dmlab/rooms_watermaze"):
        env_spec(EnvConfig(id="dmlab/rooms_watrmaze"))
    assert {record.id for record in list_envs("dmlab/")} == {f"dmlab/{name}" for name in LEVELS}


def test_its_spec(labs: list[Lab]) -> None:
    spec = env_spec(WATERMAZE)
    assert spec.observation[OBSERVATION].shape == (3, 72, 96) and spec.observation[OBSERVATION].dtype == "uint8"
    assert (spec.action.num_actions, spec.frame_skip, frame_rate(WATERMAZE)) == (9, 4, 15)
    env_spec(replace(WATERMAZE, renderer="hardware"))
    assert [lab.renderer for lab in labs] == ["software", "hardware"]
    assert labs[0].config == {"width": "96", "height": "72", "fps": "60"}
    assert labs[0].level == "contributed/dmlab30/rooms_watermaze"
    with pytest.raises(UnusedSwitch, match="frame_size=64 means nothing to dmlab/rooms_watermaze"):
        env_spec(replace(WATERMAZE, frame_size=64))
    with pytest.raises(UnusedSwitch, match="renderer='hardware' means nothing to toy/catch"):
        env_spec(EnvConfig(id="toy/catch", renderer="hardware"))


@pytest.mark.parametrize("config", [WATERMAZE, SHORT])
def test_without_the_module_it_is_said_what_to_do(config: EnvConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "deepmind_lab", None)
    for ask in (env_spec, lambda config: make_env(config, 1)):
        with pytest.raises(EnvUnavailable, match=f"{config.id} needs deepmind_lab .*docs/environments.md") as error:
            ask(config)
        assert "\n" not in str(error.value)


def test_a_level_that_it_does_not_have_is_said_in_one_line() -> None:
    with pytest.raises(EnvUnavailable, match=r"cannot make level 'tests/nowhere': Failed to init.*'?tests") as error:
        env_spec(EnvConfig(id="dmlab/tests/nowhere"))
    assert "\n" not in str(error.value)


def test_the_nine_actions_are_held_for_the_frames_of_one(labs: list[Lab]) -> None:
    env = game(WATERMAZE)
    env.reset(seed=1)
    for action in range(9):
        _, reward, over, cut, _ = env.step(np.int64(action))
        assert reward == (2.0 if NINE[action][3] > 0 else 0.0) and not over and not cut
    (lab,) = labs
    assert lab.told[1:] == [("step", NINE[action], count) for action in range(9) for count in (3, 1)]
    assert lab.num_steps() == 36


def test_actions_are_found_by_their_names(monkeypatch: pytest.MonkeyPatch, labs: list[Lab]) -> None:
    """Levels with gadgets have more of them."""
    monkeypatch.setattr(Lab, "names", (*reversed(dmlab_stand_in.NAMES), "SELECT_GADGET"))
    env = game(replace(WATERMAZE, frame_skip=1))
    env.reset(seed=1)
    env.step(np.int64(6))
    assert labs[0].told[1] == ("step", [0, 0, 0, 1, 0, 0, -20, 0], 1)


def test_the_picture_is_the_maximum_of_the_last_two_frames(labs: list[Lab]) -> None:
    env, other = game(WATERMAZE), Lab("contributed/dmlab30/rooms_watermaze", ["RGB_INTERLEAVED"], labs_config())
    start, _ = env.reset(seed=5)
    other.reset(episode=0, seed=5)
    assert np.array_equal(start, other.observations()["RGB_INTERLEAVED"].transpose(2, 0, 1))
    for action in (5, 0, 4, 4):
        frames = []
        for _ in range(4):
            other.step(np.array(NINE[action], np.intc))
            frames.append(other.observations()["RGB_INTERLEAVED"].transpose(2, 0, 1))
        seen, *_ = env.step(np.int64(action))
        assert seen.shape == (3, 72, 96) and seen.dtype == np.uint8
        assert np.array_equal(seen, np.maximum(frames[2], frames[3]))
    assert not np.array_equal(np.maximum(frames[2], frames[3]), frames[3])


def labs_config() -> dict[str, str]:
    return {"width": "96", "height": "72", "fps": "60"}


def test_an_end_within_an_action_ends_the_episode_there_and_is_reset_once(labs: list[Lab]) -> None:
    """90 frames are 22 actions of four and one of two."""
    env = make_env(SHORT, 1)
    env.reset(0)
    rows = [env.recv()]
    for _ in range(47):
        env.send(np.array([0]))
        rows.append(env.recv())
    assert [step for step, row in enumerate(rows) if row.terminated[0]] == [23, 47]
    assert [step for step, row in enumerate(rows) if row.first[0]] == [0, 24]
    assert not any(row.truncated[0] for row in rows)
    assert [float(row.raw_reward[0]) for row in rows[21:27]] == [2.0, 2.0, 1.0, 0.0, 2.0, 2.0]
    assert np.array_equal(rows[23].observation[OBSERVATION], rows[22].observation[OBSERVATION])
    (lab,) = (lab for lab in labs if lab.told)
    kinds = [call[0] for call in lab.told]
    assert kinds.count("reset") == 2 and kinds[46:48] == ["reset", "step"]
    assert rows[24].observation[OBSERVATION][0, 0, 0, 0] == 0  # the frame's number: nothing of the start is thrown away


def test_environments_and_episodes_have_seeds_of_their_own(labs: list[Lab]) -> None:
    def seeds(seed: int) -> list[int]:
        labs.clear()
        env = make_env(SHORT, 4)
        env.reset(seed)
        for _ in range(60):
            env.recv()
            env.send(np.zeros(4, np.int64))
        resets = [call for lab in labs for call in lab.told if call[0] == "reset"]
        assert {episode for _, episode, _ in resets} == {0}
        env.close()
        return [given for _, _, given in resets]

    first, again, other = seeds(1), seeds(1), seeds(2)
    assert len(first) == 12 and first == again
    assert len({*first, *other}) == 24 and all(0 <= seed < 2**31 for seed in first)


def test_it_is_restored_exactly(labs: list[Lab]) -> None:
    config = replace(SHORT, max_steps=17)
    check_exact(config)
    assert not any(rows.terminated.any() for rows in assert_restored(config, 60, 30))


def test_a_run_trains_on_it_and_closes_it(labs: list[Lab], tmp_path: Path) -> None:
    options = {
        "learner.batch_size": 2, "learner.unroll_length": 5, "actor.envs_per_worker": 2, "actor.workers": 1,
        "evaluation.episodes": 1, "evaluation.envs": 1, "evaluation.every_frames": 0,
    }  # fmt: skip
    out = str(tmp_path / "run")
    result = offbeat.train("impala-atari", env=SHORT.id, engine="inline", total_frames=320, out=out, **options)
    assert result.frames >= 320
    assert labs and all(lab._status == "closed" for lab in labs if lab.told)
