"""POPGym's tasks: by their ids alone, through the adapter for Gymnasium."""

from __future__ import annotations

import subprocess
import sys

import gymnasium
import numpy as np
import pytest

from offbeat.envs.base import EnvConfig, EnvUnavailable
from offbeat.envs.listing import list_envs
from offbeat.envs.popgym import TIERS, find_game
from offbeat.envs.registry import check_exact, env_spec, exists, make_env, translator
from offbeat.types import ActionSpec

PREVIOUS = EnvConfig(id="popgym-RepeatPreviousEasy-v0")


def actions(spec: ActionSpec, generator: np.random.Generator, count: int) -> np.ndarray:
    if spec.kind == "continuous":
        return generator.uniform(-1, 1, (count, *spec.shape)).astype(np.float32)
    parts = np.stack([generator.integers(most, size=count) for most in spec.choices], axis=1)
    return parts[:, 0] if spec.kind == "discrete" else parts


def test_names() -> None:
    assert len(TIERS) == 42 and find_game(PREVIOUS.id) == PREVIOUS.id and exists(PREVIOUS.id)
    with pytest.raises(EnvUnavailable, match="did you mean popgym-RepeatFirstHard-v0"):
        env_spec(EnvConfig(id="popgym-RepeatFrstHard-v0"))
    listed = [record.id for record in list_envs("popgym-")]
    assert len(listed) == len(set(listed)) == 42 and PREVIOUS.id in listed


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "popgym", None)
    for ask in (env_spec, lambda config: make_env(config, 1)):
        with pytest.raises(EnvUnavailable, match=r"^popgym-RepeatPreviousEasy-v0 needs popgym.*offbeat\[popgym\]"):
            ask(PREVIOUS)


def test_an_id_is_known_before_the_package_is_imported() -> None:
    """In a process of its own, where nobody has imported it."""
    pytest.importorskip("popgym")
    program = f"""
import sys
from offbeat.envs.base import EnvConfig
from offbeat.envs.registry import env_spec, exists
assert exists("{PREVIOUS.id}") and "popgym" not in sys.modules
print(env_spec(EnvConfig(id="{PREVIOUS.id}")).action.num_actions)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "4"


def test_ids_are_those_of_the_package() -> None:
    popgym = pytest.importorskip("popgym")
    registered = {entry["id"] for entry in popgym.envs.ALL.values()}
    assert {f"popgym-{name}-v0" for name in TIERS} == {one for one in registered if "Labyrinth" not in one}
    assert registered <= set(gymnasium.registry)


@pytest.mark.parametrize("name", [name for name in TIERS if name.endswith("Easy")])
def test_a_task_plays_and_is_restored(name: str) -> None:
    pytest.importorskip("popgym")
    config = EnvConfig(id=f"popgym-{name}-v0")
    check_exact(config)
    assert translator(config) is not None
    one, two = (make_env(config, 3, deterministic=True) for _ in range(2))
    spec = one.spec
    assert all(array.dtype in ("float32", "uint8") for array in spec.observation.values())
    generator = np.random.default_rng(0)
    one.reset(1)
    running, returns = np.zeros(3), []
    for step in range(250):
        rows = one.recv()
        running = np.where(rows.first, 0.0, running + rows.raw_reward)
        returns += list(running[~rows.valid])
        if step == 120:
            two.load_state(one.state())
        elif step > 120:
            twin = two.recv()
            assert all(np.array_equal(rows.observation[key], twin.observation[key]) for key in rows.observation)
            assert np.array_equal(rows.raw_reward, twin.raw_reward) and np.array_equal(rows.valid, twin.valid)
        action = actions(spec.action, generator, 3)
        one.send(action)
        if step >= 120:
            two.send(action)
    assert returns and all(-1.001 <= one <= 1.001 for one in returns)
