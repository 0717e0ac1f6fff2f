"""Ids, unknown ids, switches without meaning, user environments, listings, seeds and faults."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from importlib.metadata import EntryPoint
from typing import Any

import numpy as np
import pytest

from offbeat.envs import atari, registry
from offbeat.envs.base import EnvConfig, EnvUnavailable, StateUnsupported, VectorEnv
from offbeat.envs.registry import env_spec, list_envs, make_env
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
    monkeypatch.setattr(registry, "_entry_points", lambda: {"mine": point})
    monkeypatch.setattr(EntryPoint, "load", lambda self: my_vector)
    assert make_env(EnvConfig(id="mine"), 2).num_envs == 2
    assert env_spec(EnvConfig(id="mine")).action.num_actions == 3


def test_listing_has_every_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    some = {name: rom for name, rom in atari.game_names().items() if name in ("Pong", "Freeway")}
    monkeypatch.setattr(atari, "game_names", lambda: some)
    records = {record.id: record for record in list_envs()}
    assert {record.kind for record in records.values()} >= {"toy", "minatar", "procgen", "gymnasium"}
    assert records["toy/continuous"].actions == "box(2)"
    if "Pong" in records:
        assert records["Pong"].actions == "6" and records["Freeway"].actions == "3"


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


def played(env: VectorEnv, steps: int) -> list[float]:
    env.reset(0)
    rewards = []
    for _ in range(steps):
        rewards.append(float(env.recv().reward[0]))
        env.send(np.zeros(env.num_envs, np.int64))
    return rewards


def test_faults_happen_at_their_step() -> None:
    env = make_env(EnvConfig(id="toy/raise@5"), 2)
    played(env, 4)
    with pytest.raises(RuntimeError, match="raised on purpose at step 5"):
        played(env, 1)
    rewards = played(make_env(EnvConfig(id="toy/nan@3"), 1), 6)
    assert [bool(np.isnan(reward)) for reward in rewards] == [False] * 3 + [True] * 3


def test_kill_kills_the_process() -> None:
    code = (
        "from offbeat.envs.base import EnvConfig; from offbeat.envs.registry import make_env; import numpy as np\n"
        "env = make_env(EnvConfig(id='toy/kill@2'), 1); env.reset(0)\n"
        "for i in range(3): env.recv(); print(i, flush=True); env.send(np.zeros(1, int))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == -9 and done.stdout.split() == ["0", "1"]


def test_faulty_state_keeps_the_count() -> None:
    env, other = (make_env(EnvConfig(id="toy/raise@5"), 1) for _ in range(2))
    played(env, 3)
    env.recv()
    other.load_state(env.state())
    other.send(np.zeros(1, np.int64))
    other.recv()
    with pytest.raises(RuntimeError, match="at step 5"):
        other.send(np.zeros(1, np.int64))


MINATAR = {"asterix": 5, "breakout": 3, "freeway": 3, "seaquest": 6, "space_invaders": 4}


@pytest.mark.parametrize("game", list(MINATAR))
def test_minatar_plays_and_is_restored(game: str) -> None:
    pytest.importorskip("minatar")
    config = EnvConfig(id=f"minatar/{game}", sticky=0.1, max_steps=60)
    one, two = (make_env(config, 2, deterministic=True) for _ in range(2))
    assert one.spec.action.num_actions == MINATAR[game]
    assert env_spec(replace(config, full_action_space=True)).action.num_actions == 6
    frame = one.spec.observation[OBSERVATION]
    assert frame.shape[1:] == (10, 10) and (frame.dtype, frame.high) == ("uint8", 1.0)
    generator = np.random.default_rng(0)
    one.reset(1)
    one.recv()
    for step in range(150):
        if step == 70:
            two.load_state(one.state())
        action = generator.integers(MINATAR[game], size=2)
        one.send(action)
        rows = one.recv()
        if step >= 70:
            two.send(action)
            twin = two.recv()
            assert np.array_equal(rows.observation[OBSERVATION], twin.observation[OBSERVATION])
            assert np.array_equal(rows.raw_reward, twin.raw_reward) and np.array_equal(rows.valid, twin.valid)
        assert set(np.unique(rows.observation[OBSERVATION])) <= {0, 1}


def test_minatar_equals_the_package() -> None:
    """Breakout without sticky actions, against the game's own class driven by hand."""
    pytest.importorskip("minatar")
    from offbeat.envs.minatar import MinAtarGame, _game_module

    ours = MinAtarGame("breakout", 0.0, False)
    seen, _ = ours.reset(seed=5)
    game = _game_module("breakout").Env()
    game.random = np.random.RandomState(5)
    game.reset()
    generator = np.random.default_rng(0)
    for _ in range(200):
        assert np.array_equal(seen, game.state().transpose(2, 0, 1))
        choice = int(generator.integers(3))
        seen, reward, over, _, _ = ours.step(np.int64(choice))
        assert (reward, over) == game.act([0, 1, 3][choice])
        if over:
            break


def test_minatar_sticky_share() -> None:
    pytest.importorskip("minatar")
    from offbeat.envs.minatar import MinAtarGame

    game = MinAtarGame("freeway", 0.25, False)
    game.reset(seed=0)
    repeated = 0
    for step in range(2000):
        before = game._last_action
        wanted = game._actions[step % 3]
        game.step(np.int64(step % 3))
        repeated += game._last_action == before != wanted
    assert repeated / 2000 == pytest.approx(0.25, abs=0.03)


def test_minatar_names() -> None:
    from offbeat.envs.minatar import find_game

    names = ("minatar/space_invaders", "MinAtar/SpaceInvaders-v1", "minatar/spaceinvaders")
    assert [find_game(name) for name in names] == ["space_invaders"] * 3
    assert find_game("minatar/pong") is None


def test_procgen_plays_or_says_what_is_missing() -> None:
    config = EnvConfig(id="procgen:procgen-chaser-v0")
    with pytest.raises(StateUnsupported, match="neither saved nor replayed"):
        make_env(config, 2, deterministic=True)
    try:
        spec = env_spec(config)
    except EnvUnavailable as error:
        pytest.skip(str(error))
    assert spec.observation[OBSERVATION].shape == (3, 64, 64) and spec.action.num_actions == 15
    env = make_env(config, 2)
    env.reset(0)
    first = env.recv()
    assert first.first.all() and first.observation[OBSERVATION].shape == (2, 3, 64, 64)
    for _ in range(50):
        env.send(np.zeros(2, np.int64))
        rows = env.recv()
        assert (rows.valid == ~(rows.terminated | rows.truncated)).all()
    env.close()


def test_a_missing_extra_is_named_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """Modules that are None in ``sys.modules`` cannot be imported: as if they were not installed."""
    for name in ("envpool", "ale_py", "ale_py.roms"):
        monkeypatch.setitem(sys.modules, name, None)
    atari.game_names.cache_clear()
    try:
        for config, extra in [
            (EnvConfig(id="procgen:procgen-chaser-v0"), "envpool"),
            (EnvConfig(id="ALE/Pong-v5"), "atari"),
            (EnvConfig(id="Pong"), "atari"),
        ]:
            with pytest.raises(EnvUnavailable, match=rf'pip install "offbeat\[{extra}\]"'):
                env_spec(config)
    finally:
        atari.game_names.cache_clear()
