"""What auto stands for, by machine."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from offbeat.config import auto
from offbeat.config.run_config import RunConfig, load_preset
from offbeat.runtime.actor import acting_precision


@pytest.mark.parametrize(
    ("cores", "on_gpu", "learner", "workers", "threads"),
    [
        (1, False, 1, 1, 1),
        (2, False, 1, 1, 2),
        (4, False, 2, 1, 2),
        (8, False, 3, 2, 2),
        (32, False, 8, 12, 2),
        (2, True, 1, 1, 2),
        (16, True, 1, 7, 2),
    ],
)
def test_threads_and_workers_by_cores(cores: int, on_gpu: bool, learner: int, workers: int, threads: int) -> None:
    assert auto.learner_threads(cores, on_gpu) == learner
    assert auto.actor_workers(cores, learner) == workers
    assert auto.env_threads(cores, learner, workers) == threads
    if learner > 1:  # threads that wait for each other never share a core
        assert learner + workers * threads <= cores


def everything_auto() -> RunConfig:
    config = load_preset("impala-atari")
    actor = replace(config.actor, workers=0, env_threads=0, inference="auto")
    return replace(config, actor=actor, learner=replace(config.learner, threads=0, precision="auto"))


def test_nothing_stays_undecided_and_a_decision_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auto, "usable_cores", lambda: 8)
    chosen = auto.decide(everything_auto())
    assert (chosen.learner.threads, chosen.actor.workers, chosen.actor.env_threads) == (3, 2, 2)
    assert chosen.actor.inference == "actor"
    assert chosen.learner.precision in ("fp32", "bf16")
    assert chosen.device == chosen.learner.device == "cpu"
    assert chosen.inference.device == ("cpu",)
    monkeypatch.setattr(auto, "usable_cores", lambda: 64)
    assert auto.decide(chosen) == chosen


def test_several_learners_share_the_learners_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auto, "usable_cores", lambda: 32)
    config = everything_auto()
    config = replace(config, learner=replace(config.learner, mode="async", count=4))
    chosen = auto.decide(config)
    assert (chosen.learner.threads, chosen.actor.workers, chosen.actor.env_threads) == (3, 10, 2)
    assert auto.shared_out(config, 32)["learner.threads"] == 3
    assert auto.learner_threads(32, False, 40) == 1


def test_what_is_set_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auto, "usable_cores", lambda: 8)
    config = everything_auto()
    config = replace(config, actor=replace(config.actor, workers=5), learner=replace(config.learner, threads=2))
    chosen = auto.decide(config)
    assert (chosen.actor.workers, chosen.learner.threads, chosen.actor.env_threads) == (5, 2, 1)


def test_a_gpu_serves_all_actors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auto, "usable_cores", lambda: 16)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)
    chosen = auto.decide(everything_auto())
    assert (chosen.device, chosen.actor.inference, chosen.learner.threads) == ("cuda", "server", 1)
    assert (chosen.actor.workers, chosen.actor.env_threads) == (7, 2)


@pytest.mark.parametrize(("processor", "acting"), [(True, "bf16"), (False, "fp32")])
def test_actors_of_a_learner_on_a_gpu_act_in_what_their_processor_computes(
    processor: bool, acting: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(auto, "computes_bf16", lambda device: device == "cuda" or processor)
    chosen = auto.decide(everything_auto())
    assert (chosen.learner.precision, acting_precision(chosen.actor, chosen.learner)) == ("bf16", acting)
    asked = everything_auto()
    asked = replace(asked, device="cpu", learner=replace(asked.learner, precision="bf16"))
    chosen = auto.decide(asked)
    assert acting_precision(chosen.actor, chosen.learner) == "bf16", "on a processor both compute as they are told to"
    chosen = auto.decide(replace(asked, actor=replace(asked.actor, precision="fp32")))
    assert acting_precision(chosen.actor, chosen.learner) == "fp32"


def test_runs_side_by_side_share_the_cores_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auto, "usable_cores", lambda: 32)
    free = everything_auto()
    assert auto.wanted_cores(free) == 32
    assert auto.shared_out(free, 8) == {"learner.threads": 3, "actor.workers": 2, "actor.env_threads": 2}
    few = replace(free, actor=replace(free.actor, workers=2, env_threads=3), learner=replace(free.learner, threads=4))
    assert auto.wanted_cores(few) == 4 + 2 * 3
    assert auto.shared_out(few, 8) == {}, "what is set is kept"
    for fixed in (replace(free, deterministic=True), replace(free, engine="inline")):
        assert auto.shared_out(fixed, 2) == {}, "its results would be others"
        assert auto.wanted_cores(fixed) == (8 if fixed.engine == "inline" else 12)
    monkeypatch.setattr(auto, "choose_device", lambda name, otherwise="": "cuda")
    assert auto.wanted_cores(few) == 32, "a GPU is not shared unless somebody says so"
    assert auto.shared_out(free, 8)["learner.threads"] == 1


def test_environments_are_left_to_a_run_that_measures_and_fixed_where_time_must_not_count() -> None:
    config = everything_auto()
    config = replace(config, actor=replace(config.actor, envs_per_worker=0))
    assert auto.decide(config, measures=True).actor.envs_per_worker == 0
    fixed = [replace(config, engine="inline"), replace(config, deterministic=True)]
    assert auto.decide(config).actor.envs_per_worker == auto.UNMEASURED_ENVS == 32
    for one in fixed:
        assert auto.decide(one, measures=True).actor.envs_per_worker == auto.UNMEASURED_ENVS
    named = replace(config, actor=replace(config.actor, envs_per_worker=5))
    assert auto.decide(named, measures=True).actor.envs_per_worker == 5
