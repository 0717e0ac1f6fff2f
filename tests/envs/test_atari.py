"""Atari: the backends give the same rows, switches mean what they say, single emulators are restored exactly."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from offbeat.envs import atari
from offbeat.envs.base import EnvConfig, StateUnsupported, VectorEnv
from offbeat.envs.registry import env_spec, make_env
from offbeat.types import OBSERVATION, EnvStep

pytest.importorskip("ale_py")
pytest.importorskip("cv2")

FLAGS = ("env_ids", "reward", "raw_reward", "terminated", "truncated", "first", "valid")


def rows_of(env: VectorEnv, actions: np.ndarray, seed: int = 3) -> list[EnvStep]:
    """The rows that ``actions`` [T, N] lead to, sorted by environment, the first rows included."""
    env.reset(seed)
    rows = [by_id(env.recv())]
    for action in actions:
        env.send(action)
        rows.append(by_id(env.recv()))
    return rows


def by_id(rows: EnvStep) -> EnvStep:
    order = np.argsort(rows.env_ids)
    changed = {name: getattr(rows, name)[order] for name in FLAGS}
    return dataclasses.replace(rows, observation={k: v[order] for k, v in rows.observation.items()}, **changed)


def assert_same(one: EnvStep, two: EnvStep, at: object, frames: bool = True) -> None:
    for name in FLAGS:
        assert np.array_equal(getattr(one, name), getattr(two, name)), (name, at)
    if frames:
        assert np.array_equal(one.observation[OBSERVATION], two.observation[OBSERVATION]), ("frames", at)


def random_actions(config: EnvConfig, steps: int, count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(env_spec(config).action.num_actions, size=(steps, count))


PARITY = [
    EnvConfig(id="Pong", noop_max=0, max_frames=2002),
    EnvConfig(id="Breakout", noop_max=0, life_loss="terminal", reward_clip="sign"),
    EnvConfig(id="Breakout", noop_max=0, life_loss="end_episode", fire_reset=False),
    EnvConfig(id="ms_pacman", noop_max=0, frame_skip=3, life_loss="terminal", full_action_space=True),
    EnvConfig(id="ALE/SpaceInvaders-v5", noop_max=0, frame_skip=1, max_frames=999),
]


@pytest.mark.parametrize("config", PARITY, ids=lambda config: config.id.replace("/", "-"))
def test_single_emulators_give_the_rows_of_the_vector_environment(config: EnvConfig) -> None:
    """Same actions, no random start: every frame, reward and flag over 1,100 steps, across ends of episodes."""
    actions = random_actions(config, 1100, 1)
    ale = rows_of(make_env(dataclasses.replace(config, backend="ale"), 1), actions)
    single = rows_of(make_env(dataclasses.replace(config, backend="ale-single"), 1), actions)
    for step, (one, two) in enumerate(zip(ale, single, strict=True)):
        assert_same(one, two, step)
    assert sum(int(rows.first.sum()) for rows in ale) > 1, "no episode ended"
    assert any(rows.raw_reward.any() for rows in ale)


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


@pytest.mark.parametrize("game", ["Pong", "Breakout"])
def test_state_goes_on_exactly_with_sticky_actions(game: str) -> None:
    config = EnvConfig(id=game, sticky=0.25, noop_max=30, max_frames=500, life_loss="end_episode")
    actions = random_actions(config, 400, 2)
    one, two = (make_env(config, 2, deterministic=True) for _ in range(2))
    rows_of(one, actions[:150])
    saved = one.state()
    assert all(isinstance(array, np.ndarray) and array.dtype != object for array in saved.values())
    expected = []
    for action in actions[150:]:
        one.send(action)
        expected.append(one.recv())
    two.load_state(saved)
    for step, (action, rows) in enumerate(zip(actions[150:], expected, strict=True)):
        two.send(action)
        assert_same(two.recv(), rows, step)


def test_same_seed_same_rows_and_environments_differ() -> None:
    config = EnvConfig(id="Pong", sticky=0.25)
    actions = np.repeat(random_actions(config, 40, 1), 2, axis=1)
    for backend in ("ale", "ale-single"):
        runs = [
            rows_of(make_env(dataclasses.replace(config, backend=backend), 2, threads=threads), actions, seed)
            for threads, seed in ((1, 5), (2, 5), (1, 6))
        ]
        for step, (one, two) in enumerate(zip(runs[0], runs[1], strict=True)):
            assert_same(one, two, step)
        last = [run[-1].observation[OBSERVATION] for run in runs]
        assert not np.array_equal(last[0], last[2])
        assert not np.array_equal(last[0][0], last[0][1])


def test_partial_batches_reach_every_environment_in_order() -> None:
    config = EnvConfig(id="Pong", noop_max=0, max_frames=80)
    env = make_env(config, 6, batch_size=2, threads=2)
    whole = rows_of(make_env(dataclasses.replace(config, backend="ale-single"), 1), np.full((60, 1), 2))
    env.reset(0)
    seen = np.zeros(6, np.int64)
    for _ in range(150):
        rows = env.recv()
        assert len(rows.env_ids) == 2 == len(set(rows.env_ids))
        for index, one in enumerate(rows.env_ids):
            expected = whole[seen[one] % 21]
            assert rows.first[index] == expected.first[0] and rows.truncated[index] == expected.truncated[0]
            assert np.array_equal(rows.observation[OBSERVATION][index], expected.observation[OBSERVATION][0])
            seen[one] += 1
        env.send(np.full(2, 2))
    assert (seen > 21).all()
    env.close()
    env.close()


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
    spec = env_spec(EnvConfig(id="Breakout", frame_stack=3, stack_padding="repeat", frame_skip=5, max_frames=1001))
    assert spec.action.num_actions == 4
    assert spec.network_observation[OBSERVATION].shape == (3, 84, 84)
    assert (spec.stack_padding, spec.frame_skip, spec.max_episode_steps) == ("repeat", 5, 201)
    assert env_spec(EnvConfig(id="Breakout", full_action_space=True)).action.num_actions == 18


def test_fire_is_pressed_at_the_start() -> None:
    config = EnvConfig(id="Breakout", noop_max=0, backend="ale-single")
    still = np.zeros((40, 1), np.int64)
    served = rows_of(make_env(config, 1), still)[40].observation[OBSERVATION]
    waiting = rows_of(make_env(dataclasses.replace(config, fire_reset=False), 1), still)[40].observation[OBSERVATION]
    assert not np.array_equal(served, waiting)


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
            game = atari.find_game(f"{name}NoFrameskip-v4")
            assert game == name
            assert len(atari.action_ids(game, full=False)) == count, name


@pytest.mark.parametrize("name", ["ms_pacman", "MsPacman", "mspacman", "ALE/MsPacman-v5", "MsPacmanNoFrameskip-v4"])
def test_all_spellings_name_the_same_game(name: str) -> None:
    assert atari.find_game(name) == "MsPacman"


def aligned(config: EnvConfig, actions: np.ndarray) -> tuple[list[EnvStep], list[EnvStep]]:
    """Rows of ALE and of EnvPool from the same emulator state.

    EnvPool always plays at least one no-op, so with noop_max=1 and no FIRE it starts one frame after ALE does with
    noop_max=0; ALE with noop_max=2 draws 0 or 1 no-ops, and a seed is looked for that gives 1 at the start. Later
    episodes start from other draws; they are compared only as far as the flags of the end that led to them.
    """
    pytest.importorskip("envpool")
    pool = rows_of(make_env(dataclasses.replace(config, backend="envpool", noop_max=1), 1), actions)
    ale = make_env(dataclasses.replace(config, backend="ale-single", noop_max=2), 1)
    for seed in range(20):
        ale.reset(seed)
        if ale.state()["noops"][0] == 1:
            return rows_of(ale, actions, seed), pool
    raise AssertionError("no seed with one no-op")


@pytest.mark.parametrize(
    "config",
    [
        EnvConfig(id="Pong", fire_reset=False, max_frames=4200),
        EnvConfig(id="Breakout", fire_reset=False, life_loss="terminal", reward_clip="sign"),
        EnvConfig(id="Breakout", fire_reset=False, life_loss="end_episode"),
        EnvConfig(id="MsPacman", fire_reset=False, frame_skip=3, full_action_space=True, life_loss="terminal"),
    ],
    ids=lambda config: f"{config.id}-{config.life_loss}",
)
def test_envpool_gives_the_rows_of_ale(config: EnvConfig) -> None:
    """Rows of the first episode are equal, up to the picture of its last row if the game ended within a skip.

    Compared are the same actions from the same emulator state (see ``aligned``): all flags and rewards, every frame
    but the last. Of the second episode, that it starts in the next row.
    """
    ale, pool = aligned(config, random_actions(config, 1100, 1))
    end = next(step for step, rows in enumerate(ale) if not rows.valid[0])
    assert end > 20
    for step in range(end + 1):
        assert_same(ale[step], pool[step], step, frames=step < end)
    assert pool[end + 1].first[0] and pool[end + 1].valid[0] and pool[end + 1].raw_reward[0] == 0


def test_envpool_plays_partial_batches() -> None:
    pytest.importorskip("envpool")
    env = make_env(EnvConfig(id="Pong", backend="envpool", max_frames=80), 4, batch_size=2, threads=2)
    env.reset(0)
    steps = np.full(4, -1)
    for _ in range(120):
        rows = env.recv()
        steps[rows.env_ids] = np.where(rows.first, 0, steps[rows.env_ids] + 1)
        assert (rows.truncated == (steps[rows.env_ids] == 20)).all()
        env.send(np.zeros(2, np.int64))
    env.close()


def test_envpool_refuses_what_it_cannot_do() -> None:
    for config, message in [
        (EnvConfig(backend="envpool", noop_max=0), "noop_max=0 is impossible with backend='envpool'"),
        (EnvConfig(backend="envpool", max_frames=1001), "max_frames=1001 is no multiple of frame_skip=4"),
    ]:
        with pytest.raises(ValueError, match=message):
            make_env(config, 1)
