"""Presets that stand for the V-trace platform have its numbers, and the campaign has its curves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from offbeat.config.run_config import load_preset
from offbeat.run.campaign_file import read_campaign

CODE: dict[str, dict[str, Any]] = {
    "env": {"frame_skip": 4, "frame_stack": 4, "noop_max": 30, "life_loss": "terminal", "reward_clip": "sign"},
    "agent": {
        "torso": "strided", "feature_size": 512, "scale_pixels": False, "init": "glorot", "policy_init_scale": 0.001,
        "discount": 0.99, "baseline_cost": 0.5, "entropy_cost": 0.01, "rho_bar": 1.0, "c_bar": 1.0, "pg_rho_bar": 1.0,
        "policy_cloning_cost": 0.05, "value_cloning_cost": 0.005, "cloning": "platform", "trust_region": 0.0,
        "reduction": "sum",
    },
    "learner": {
        "optimizer": "rmsprop", "learning_rate": 8e-4, "schedule": "polynomial", "schedule_power": 2.0,
        "final_learning_rate": 1e-5, "epsilon": 0.01, "rmsprop_decay": 0.99, "clip_norm": 40.0,
    },
}  # fmt: skip
"""The defaults of its code, which all of its presets share."""
# name -> batch, unroll, updates of the schedule, agent steps, share and number of unrolls that are replayed, their kind
OWN = {
    "vtrace-platform": (10, 10, 10_000, 1_000_000, 0.5, 1_000, "uniform"),
    "elite-atari": (100, 10, 10_000, 1_000_000, 0.5, 1_000, "elite"),
    "attentive-atari": (100, 10, 10_000, 1_000_000, 0.5, 1_000, "attentive"),
    "elite-breakout": (10, 50, 70_000, 12_000_000, 0.5, 10_000, "elite"),
    "elite-seaquest": (10, 50, 70_000, 12_000_000, 0.2, 10_000, "elite"),
}


@pytest.mark.parametrize("name", list(OWN))
def test_presets_have_the_numbers_of_the_platform(name: str) -> None:
    config = load_preset(name)
    for section, values in CODE.items():
        held = getattr(config, section)
        assert {key: getattr(held, key) for key in values} == values, section
    batch, unroll, updates, steps, share, unrolls, kind = OWN[name]
    learner, (new, replayed) = config.learner, config.replay.samplers
    assert (learner.batch_size, learner.unroll_length, learner.schedule_updates) == (batch, unroll, updates)
    assert config.total_frames == steps * config.env.frame_skip
    assert config.replay.capacity == unrolls * unroll
    assert (new.kind, new.max_pending, replayed.kind) == ("fifo", 1, kind)
    assert replayed.share == share == pytest.approx(1 - new.share)
    assert (config.actor.workers * config.actor.envs_per_worker) % round(batch * new.share) == 0, "none is left over"
    if kind != "uniform":
        scored = {key: getattr(replayed, key) for key in ("distance", "p", "strategy", "multiplier", "anneal_factor")}
        assert scored == {"distance": "ln_norm", "p": 2.0, "strategy": 3, "multiplier": 6.0, "anneal_factor": 2.0}
        assert (replayed.features, replayed.anneal_calls, config.agent.store_features) == ("torso", updates, True)


@pytest.mark.parametrize("name", ["elite-minatar", "attentive-minatar"])
def test_small_presets_are_impala_minatar_with_replay(name: str) -> None:
    config, plain = load_preset(name), load_preset("impala-minatar")
    assert (config.env, config.actor, config.learner) == (plain.env, plain.actor, plain.learner)
    assert [sampler.share for sampler in config.replay.samplers] == [0.5, 0.5]
    assert config.replay.samplers[1].kind == name.split("-")[0]
    calls = config.total_frames / (0.5 * config.learner.batch_size * config.learner.unroll_length)
    annealed = config.replay.samplers[1].anneal_calls * config.replay.samplers[1].anneal_factor
    assert annealed == pytest.approx(calls), "as long as the run"


def test_the_campaign_has_the_published_curves() -> None:
    runs = read_campaign(Path(__file__).parents[2] / "campaigns" / "elite.toml").runs
    ends = {run.entry: run.published[0].points[-1] for run in runs}
    assert ends == {
        "breakout-uniform": (12e6, 460.1), "breakout-elite-1": (12e6, 426.2), "breakout-elite-3": (12e6, 456.1),
        "seaquest-uniform": (12e6, 942.5), "seaquest-elite-1": (12e6, 1259.8), "seaquest-elite-3": (12e6, 1386.1),
    }  # fmt: skip
    for run in runs:
        config = run.config()
        strategy = getattr(config.replay.samplers[1], "strategy", 0)
        kind = run.entry.partition("-")[2]
        assert kind == ("uniform" if not strategy else f"elite-{strategy}")
        assert [at for at, _ in run.published[0].points] == [1e6, 2e6, 4e6, 6e6, 8e6, 10e6, 12e6]
        assert run.published[0].points[-1][0] * config.env.frame_skip == config.total_frames
