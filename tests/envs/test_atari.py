"""Atari: names, action counts, and switches that mean the same in every backend."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from offbeat.envs import atari_games
from offbeat.envs.base import EnvConfig, StateUnsupported
from offbeat.envs.registry import env_spec, make_env
from offbeat.types import OBSERVATION
from tests.envs.playing import rows_of

pytest.importorskip("ale_py")
pytest.importorskip("cv2")


def test_a_lost_life_is_ignored_or_terminal_or_the_end() -> None:
    config = EnvConfig(id="Breakout", noop_max=0, backend="ale")
    actions = np.zeros((300, 1), np.int64)
    actions[::4] = 1  # keep serving
    by_choice = {}
    for choice in ("ignore", "terminal", "end_episode"):
        by_choice[choice] = rows_of(make_env(dataclasses.replace(config, life_loss=choice), 1), actions)
    ignore, terminal, end = (by_choice[choice] for choice in ("ignore", "terminal", "end_episode"))
    over = [step for step, rows in enumerate(ignore) if rows.terminated[0]]
    lost = [step for step, rows in enumerate(terminal) if rows.terminated[0]]
    assert len(over) >= 1 and len(lost) >= 5 * len(over)
    for step, (one, two) in enumerate(zip(ignore, terminal, strict=True)):
        assert np.array_equal(one.observation[OBSERVATION], two.observation[OBSERVATION])
        assert one.valid == two.valid and one.first == two.first
        assert one.valid[0] != one.terminated[0]
        if step in lost and step not in over:
            assert two.valid[0] and terminal[step + 1].valid[0] and not terminal[step + 1].first[0]
    assert end[lost[0]].terminated[0] and not end[lost[0]].valid[0]
    assert np.array_equal(end[lost[0]].observation[OBSERVATION], ignore[lost[0]].observation[OBSERVATION])
    again = end[lost[0] + 1]
    assert again.first[0] and again.raw_reward[0] == 0
    assert np.array_equal(again.observation[OBSERVATION], end[0].observation[OBSERVATION])
    for step in range(1, 20):  # a whole new game with all its bricks
        assert end[lost[0] + 1 + step].valid[0] and not end[lost[0] + 1 + step].first[0]


@pytest.mark.parametrize("backend", ["ale", "ale-single"])
def test_time_limit_truncates_and_starts_anew(backend: str) -> None:
    env = make_env(EnvConfig(id="Pong", max_frames=40, backend=backend), 2)
    assert env.spec.max_episode_steps == 10
    rows = rows_of(env, np.zeros((23, 2), np.int64))
    for step, row in enumerate(rows):
        assert (row.first == (step % 11 == 0)).all()
        assert (row.truncated == (step % 11 == 10)).all() and not row.terminated.any()


def test_what_a_backend_cannot_do_is_refused() -> None:
    with pytest.raises(ValueError, match=r"end_episode.*batch_size=2 of 4"):
        make_env(EnvConfig(id="Breakout", life_loss="end_episode"), 4, batch_size=2)
    with pytest.raises(ValueError, match="deterministic runs need 'ale-single'"):
        make_env(EnvConfig(backend="ale"), 1, deterministic=True)
    with pytest.raises(ValueError, match=r"'ale-single' steps all 2 environments at once.*batch_size=1"):
        make_env(EnvConfig(backend="ale-single"), 2, batch_size=1)
    env = make_env(EnvConfig(), 1)
    with pytest.raises(StateUnsupported, match="Pong with backend 'ale' cannot be saved; 'ale-single' can"):
        env.state()
    env.reset(0)
    env.recv()
    with pytest.raises(ValueError, match="allowed are 0 to 5"):
        env.send(np.array([6]))


def test_spec_follows_the_switches() -> None:
    spec = env_spec(
        EnvConfig(id="Breakout", frame_size=64, frame_stack=3, stack_padding="repeat", frame_skip=5, max_frames=1001)
    )
    assert spec.action.num_actions == 4
    assert spec.network_observation[OBSERVATION].shape == (3, 64, 64)
    assert (spec.stack_padding, spec.frame_skip, spec.max_episode_steps) == ("repeat", 5, 201)
    assert env_spec(EnvConfig(id="Breakout", full_action_space=True)).action.num_actions == 18


MINIMAL = {
    3: "Freeway Skiing",
    4: "Atlantis Breakout",
    6: "AirRaid Bowling Carnival DemonAttack NameThisGame Pong Pooyan Qbert SpaceInvaders UpNDown",
    7: "Assault",
    8: "Gopher Phoenix Tutankham",
    9: "Asterix BeamRider CrazyClimber Enduro MsPacman VideoPinball",
    10: "Amidar TimePilot WizardOfWor",
    14: "Asteroids KungFuMaster",
    16: "JourneyEscape",
    18: "Alien Boxing Gravitar Krull Seaquest",
}


def test_minimal_action_counts_are_the_published_ones() -> None:
    for count, names in MINIMAL.items():
        for name in names.split():
            game = atari_games.find_game(f"{name}NoFrameskip-v4")
            assert game == name
            assert len(atari_games.action_ids(game, full=False)) == count, name


@pytest.mark.parametrize(
    "name",
    [
        "ms_pacman", "MsPacman", "mspacman", "MSPACMAN", "ALE/MsPacman-v5", "ALE/MSPACMAN-v5", "ale/ms_pacman-V5",
        "MsPacmanNoFrameskip-v4", "MsPacmanNoFrameSkip-v4", "mspacmannoframeskip-v4", "MSPACMANDETERMINISTIC-V4",
    ],
)  # fmt: skip
def test_all_spellings_name_the_same_game(name: str) -> None:
    assert atari_games.find_game(name) == "MsPacman"
