"""Ids, unknown ids, switches without meaning, user environments, listings, seeds and faults."""

from __future__ import annotations

import sys
from dataclasses import replace
from importlib.metadata import EntryPoint
from typing import Any

import gymnasium
import numpy as np
import pytest

from offbeat.envs import atari_games, registry
from offbeat.envs.atari_actions import ACTIONS
from offbeat.envs.base import EnvConfig, EnvUnavailable, VectorEnv
from offbeat.envs.listing import list_envs
from offbeat.envs.registry import env_spec, make_env
from offbeat.envs.rows import transform_reward
from offbeat.envs.seeding import env_generators, env_seeds, pack_generator, unpack_generator
from offbeat.envs.toy import ToyVector
from offbeat.types import OBSERVATION


@pytest.mark.parametrize(
    ("env_id", "message"),
    [
        ("Pongg", "no environment is called 'Pongg'; did you mean Pong"),
        ("toy/cach", "no environment is called 'toy/cach'; did you mean toy/catch"),
        ("CartPol-v1", "did you mean CartPole-v1"),
        ("ALE/Pung-v5", "did you mean Pong"),
        ("BrekoutNoFrameskip-v4", "did you mean Breakout"),
        ("brekoutnoframeskip-v4", "did you mean Breakout"),
        ("BOXINNoFrameSkip-V4", "no environment is called 'BOXINNoFrameSkip-V4'; did you mean Boxing"),
        ("ale/PUNG-v5", "did you mean Pong"),
        ("minatar/brekout", "did you mean minatar/breakout"),
        ("procgen:procgen-chase-v0", "did you mean procgen:procgen-chaser-v0"),
        ("toy/raise@x", "did you mean toy/raise@500"),
    ],
)
def test_unknown_ids_name_the_nearest(env_id: str, message: str) -> None:
    for ask in (env_spec, lambda config: make_env(config, 1)):
        with pytest.raises(EnvUnavailable, match=message) as error:
            ask(EnvConfig(id=env_id))
        assert "\n" not in str(error.value)


def test_gymnasium_ids_go_before_cartridges_of_the_same_name() -> None:
    pytest.importorskip("ale_py")
    assert env_spec(EnvConfig(id="Blackjack-v1")).observation["0"].dtype == "float32"
    assert env_spec(EnvConfig(id="ALE/Blackjack-v5")).observation[OBSERVATION].shape == (1, 84, 84)
    assert env_spec(EnvConfig(id="ale/blackjack-v5")).observation[OBSERVATION].shape == (1, 84, 84)


def test_what_a_user_registers_goes_before_ids_that_look_like_those_of_atari() -> None:
    env_id = "ale/minedeterministic-v0"
    gymnasium.register(env_id, "gymnasium.envs.classic_control:CartPoleEnv")
    try:
        assert env_spec(EnvConfig(id=env_id)).action.num_actions == 2
    finally:
        del gymnasium.registry[env_id]


@pytest.mark.parametrize(
    "change", [{"sticky": 0.25}, {"life_loss": "terminal"}, {"backend": "envpool"}, {"frame_skip": 2}]
)
@pytest.mark.parametrize("env_id", ["toy/catch", "CartPole-v1"])
def test_switches_without_meaning_are_refused(env_id: str, change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(change))}=.* means nothing to {env_id}"):
        env_spec(EnvConfig(id=env_id, **change))
    env_spec(EnvConfig(id=env_id, frame_skip=1, frame_stack=1, noop_max=0, fire_reset=False))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sticky": 1.5}, "sticky=1.5 is out of range; allowed are 0.0 to 1.0"),
        ({"frame_skip": 0}, "frame_skip=0 is out of range"),
        ({"life_loss": "die"}, "life_loss='die' is unknown; allowed are ignore, terminal, end_episode"),
    ],
)
def test_values_out_of_range_are_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_env(EnvConfig(**change), 1)


def test_batches_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="batch_size=3 of num_envs=2"):
        make_env(EnvConfig(id="toy/catch"), 2, batch_size=3)
    with pytest.raises(ValueError, match="steps all 4 environments at once"):
        make_env(EnvConfig(id="toy/catch"), 4, batch_size=2)


def my_vector(config: EnvConfig, num_envs: int, **options: Any) -> VectorEnv:
    """What a user's package would offer."""
    assert set(options) == {"batch_size", "threads", "deterministic"}
    return ToyVector(replace(config, id="toy/catch"), num_envs)


def test_a_users_vector_environment_comes_in_as_an_object() -> None:
    config = EnvConfig(id="mine", length=7)
    env = make_env(config, 3, factory=my_vector)
    assert env.num_envs == 3 and env.spec.observation[OBSERVATION].shape == (7, 5)
    assert env_spec(config, my_vector) == env.spec
    with pytest.raises(ValueError, match="the factory of mine gave dict; expected a VectorEnv"):
        make_env(config, 3, factory=lambda config, num_envs, **options: {})


def test_a_users_environment_comes_in_by_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("mine", f"{__name__}:my_vector", registry.ENTRY_POINTS)
    monkeypatch.setattr(registry, "own_entry_points", lambda: {"mine": point})
    monkeypatch.setattr(EntryPoint, "load", lambda self: my_vector)
    assert make_env(EnvConfig(id="mine"), 2).num_envs == 2
    assert env_spec(EnvConfig(id="mine")).action.num_actions == 3


def test_listing_has_every_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    some = {name: rom for name, rom in atari_games.game_names().items() if name in ("Pong", "Freeway")}
    monkeypatch.setattr(atari_games, "game_names", lambda: some)
    records = {record.id: record for record in list_envs()}
    assert {record.kind for record in records.values()} >= {"toy", "minatar", "procgen", "gymnasium"}
    assert records["toy/continuous"].actions == "box(2)"
    if "Pong" in records:
        assert records["Pong"].actions == "6" and records["Freeway"].actions == "3"


def test_listing_finds_names_of_gymnasium_too() -> None:
    found = {record.id: record.kind for record in list_envs("cartpole-v1")}
    assert found["CartPole-v1"] == "gymnasium" and all("cartpole-v1" in name.lower() for name in found)
    assert list_envs("no such thing") == []


def test_the_numbers_of_actions_are_the_emulators() -> None:
    games = atari_games.game_names()
    assert set(games) <= set(ACTIONS)
    for game in ("Pong", "Freeway", "Seaquest", "Turmoil"):
        assert game not in games or ACTIONS[game] == len(atari_games.action_ids(game, full=False))


@pytest.mark.slow
def test_all_numbers_of_actions_are_the_emulators() -> None:
    assert {game: len(atari_games.action_ids(game, full=False)) for game in atari_games.game_names()} == ACTIONS


def test_rewards_are_transformed_as_configured() -> None:
    raw = np.array([-10.0, -0.5, 0.0, 0.25, 3.0], np.float32)
    by_kind = {
        "none": raw,
        "sign": [-1, -1, 0, 1, 1],
        "clamp": [-1, -0.5, 0, 0.25, 1],
        "soft_asymmetric": [-1.5 * np.tanh(2), -1.5 * np.tanh(0.1), 0, 5 * np.tanh(0.05), 5 * np.tanh(0.6)],
    }
    for kind, expected in by_kind.items():
        got = transform_reward(raw, EnvConfig(reward_clip=kind, reward_scale=2.0))
        assert got.dtype == np.float32
        assert got == pytest.approx(2 * np.asarray(expected), rel=1e-6)


def test_generators_come_back_from_arrays() -> None:
    for generator in env_generators(3, 2):
        generator.integers(10, size=3, dtype=np.int32)  # leaves half a word behind
        twin = unpack_generator(pack_generator(generator))
        assert np.array_equal(
            generator.integers(2**31, size=5, dtype=np.int32), twin.integers(2**31, size=5, dtype=np.int32)
        )
        assert np.array_equal(generator.random(50), twin.random(50))
    assert len(set(env_seeds(0, 1000)) | set(env_seeds(1, 1000))) == 2000
    with pytest.raises(ValueError, match="PCG64"):
        pack_generator(np.random.Generator(np.random.MT19937(0)))


def test_a_missing_extra_is_named_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """Modules that are None in ``sys.modules`` cannot be imported: as if they were not installed."""
    for name in ("envpool", "ale_py", "ale_py.roms"):
        monkeypatch.setitem(sys.modules, name, None)
    atari_games.game_names.cache_clear()
    try:
        for config, extra in [
            (EnvConfig(id="procgen:procgen-chaser-v0"), "envpool"),
            (EnvConfig(id="ALE/Pong-v5"), "atari"),
            (EnvConfig(id="Pong"), "atari"),
        ]:
            with pytest.raises(EnvUnavailable, match=rf'pip install "offbeat\[{extra}\]"'):
                env_spec(config)
    finally:
        atari_games.game_names.cache_clear()
