"""What a trace says of versions, ROMs and weights."""

from __future__ import annotations

import hashlib
import importlib.metadata
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from offbeat.acting import trace_facts
from offbeat.acting.trace_facts import is_atari, roms, trace_name, versions, weights_hash, why_not
from offbeat.envs.atari_games import rom_path
from offbeat.envs.base import EnvConfig
from offbeat.envs.delay_config import DelayConfig


@pytest.mark.parametrize(
    ("env_id", "package"),
    [("Pong", "ale-py"), ("minatar/breakout", "minatar"), ("hanabi/very-small", "open_spiel"), ("CartPole-v1", "")],
)
def test_versions_of_what_plays_it(env_id: str, package: str) -> None:
    found = versions(EnvConfig(id=env_id))
    assert {"offbeat", "numpy", "gymnasium", "python", "machine"} <= found.keys()
    others = {"ale-py", "minatar", "open_spiel"} - {package}
    assert not others & found.keys()
    assert not package or found[package] == importlib.metadata.version(package)


def test_a_list_has_the_versions_and_roms_of_all_its_games() -> None:
    config = EnvConfig(id="", ids=("minatar/breakout", "Pong", "ALE/Breakout-v5"))
    assert {"ale-py", "minatar"} <= versions(config).keys()
    expected = {game: hashlib.sha256(Path(rom_path(game)).read_bytes()).hexdigest() for game in ("Breakout", "Pong")}
    assert roms(config) == expected and len(set(expected.values())) == 2


def test_an_engine_of_physics_is_named_where_it_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace_facts, "PHYSICS", {"numpy": "safetensors", "no_such_module": "torch"})
    found = versions(EnvConfig(id="CartPole-v1"))
    assert "safetensors" in found and "torch" not in found


def test_which_ids_are_the_emulator_s() -> None:
    for env_id in ("Pong", "pong", "ALE/Pong-v5", "PongNoFrameskip-v4"):
        assert is_atari(env_id)
    for env_id in ("toy/catch", "minatar/breakout", "Blackjack-v1", "CartPole-v1", "mine", "envpool:Pong-v5"):
        assert not is_atari(env_id)
        assert roms(EnvConfig(id=env_id)) == {}


def test_the_hash_of_weights_is_of_every_bit() -> None:
    weights = {
        "b": torch.arange(6, dtype=torch.float32).reshape(2, 3), "a": torch.ones(2, dtype=torch.bfloat16),
        "n": torch.tensor(3),
    }  # fmt: skip
    by_hand = hashlib.sha256()
    for name, kind, shape, data in (
        ("a", "torch.bfloat16", "[2]", b"\x80\x3f" * 2),
        ("b", "torch.float32", "[2, 3]", np.arange(6, dtype="<f4").tobytes()),
        ("n", "torch.int64", "[]", np.array(3, "<i8").tobytes()),
    ):
        by_hand.update(f"{name} {kind} {shape}\n".encode() + data)
    assert weights_hash(weights) == by_hand.hexdigest()
    assert weights_hash(dict(reversed(weights.items()))) == by_hand.hexdigest(), "the order is that of names"
    transposed = weights | {"b": weights["b"].T.contiguous().T}
    assert weights_hash(transposed) == by_hand.hexdigest(), "strides are none of it"
    for other in (weights | {"n": torch.tensor(4)}, weights | {"b": weights["b"].reshape(3, 2)}, {"c": weights["b"]}):
        assert weights_hash(other) != by_hand.hexdigest()


def test_names_of_files() -> None:
    assert trace_name("evaluation", 4016) == "evaluation-000000004016.trace"
    assert trace_name("final", 1, "length=8/..") == "final-000000000001-length_8_...trace"


def test_delays_out_of_a_file_cannot_be_played_by_others() -> None:
    config = EnvConfig(id="CartPole-v1")
    assert why_not(config) == ""
    delay = DelayConfig(distribution="recorded", recorded="somewhere.npy")
    assert "file of measured ones" in why_not(replace(config, delay=delay))
