"""How many inference processes a run takes where that is left to it."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest

from offbeat.agents.make import make_agent
from offbeat.config.auto import decide, decide_inference
from offbeat.config.run_config import read_config
from offbeat.envs.registry import env_spec
from offbeat.run import inference_times as module
from offbeat.run.inference_times import choose_inference, estimate_s, inference_times
from offbeat.run.train import train
from offbeat.runtime.realtime_config import RealtimeConfig
from tests.conformance.realtime_runs import DecidingAgent, realtime_config


class SlowAgent(DecidingAgent):
    """Takes 25 ms for an action at least: of a frame of 10 ms, two and a half."""

    def act(self, *given, **named):
        time.sleep(0.025)
        return super().act(*given, **named)


@pytest.fixture
def quick(monkeypatch) -> None:
    monkeypatch.setattr(module, "WARM_UP_S", 0.0)
    monkeypatch.setattr(module, "LEAST", 5)


def test_what_an_inference_process_does_is_timed(tmp_path) -> None:
    config, counts = realtime_config(tmp_path / "run", "wall"), []
    spec = env_spec(decide(config).env)
    agent = SlowAgent(None, spec)
    times = inference_times(
        config, spec, agent, seconds=0.0, least=6, progress=lambda count, left: counts.append(count)
    )
    assert times.shape == (6,)
    assert times.min() >= 0.025
    assert counts == list(range(1, 11)), "the first four do not count"


def test_a_real_network_is_timed(tmp_path) -> None:
    config = realtime_config(tmp_path / "run", "wall", agent="dqn", env__id="toy/catch", env__length=6)
    spec = env_spec(decide(config).env)
    times = inference_times(config, spec, make_agent("dqn", config.agent, spec), seconds=0.0, least=5)
    assert (times > 0).all()


def test_the_estimate_is_the_runs_own() -> None:
    times = np.concatenate([[9.0], np.linspace(1.0, 2.0, 600)])
    assert estimate_s(RealtimeConfig(estimator="max"), times) == 9.0
    newest = np.linspace(1.0, 2.0, 600)[-512:]
    assert estimate_s(RealtimeConfig(estimator="mean"), times) == pytest.approx(newest.mean())
    found = estimate_s(RealtimeConfig(estimator="quantile", quantile=0.5), times)
    assert found == pytest.approx(np.median(newest))


@pytest.mark.parametrize(("estimate", "needed"), [(1e-4, 1), (0.01, 1), (0.0101, 2), (0.07, 7), (3.0, 300)])
def test_an_action_in_every_frame_needs_the_frames_of_an_inference(estimate, needed) -> None:
    assert RealtimeConfig(fps=100.0).needed(estimate) == needed


@pytest.mark.parametrize(
    ("options", "chosen"),
    [
        ({"inference_s": 0.025, "jitter": 0.2, "inference": 2}, 2),
        ({"inference_s": 0.025, "jitter": 0.2}, 3),
        ({"inference_s": 0.025, "jitter": 0.3}, 4),
        ({"inference_s": 0.025, "jitter": 0.3, "estimator": "mean"}, 3),
        ({"inference_s": 0.025, "jitter": 0.5, "estimator": "quantile", "quantile": 0.9}, 4),
        ({"inference_s": 9.0}, 16),
        ({"inference_s": 0.025, "mode": "sequential"}, 1),
        ({}, 1),
    ],
)
def test_on_a_virtual_clock_the_times_that_are_asked_for_decide(options, chosen) -> None:
    realtime = RealtimeConfig(fps=100.0, inference=0)
    assert decide_inference(replace(realtime, **options), virtual=True).inference == chosen


def test_a_replayed_run_has_as_many_as_were_recorded(tmp_path) -> None:
    for worker in range(3):
        np.save(tmp_path / f"realtime_actor-{worker}.durations.npy", np.ones(2))
    realtime = RealtimeConfig(fps=100.0, inference=0, replay=str(tmp_path))
    assert decide_inference(realtime, virtual=True).inference == 3


@pytest.mark.slow
def test_a_run_on_the_wall_clock_measures_and_writes_down_what_it_chose(tmp_path, quick) -> None:
    options = {"realtime__inference": 0, "realtime__inference_s": 0.0, "total_frames": 60}
    result = train(realtime_config(tmp_path / "run", "wall", **options), agent_factory=SlowAgent)
    chosen = read_config(result.run / "config.toml").realtime.inference
    assert chosen >= 3
    assert f"realtime.inference = {chosen}: the max of 5 inferences" in (result.run / "run.log").read_text()
    workers = np.load(result.run / "realtime" / "decisions.npy")[:, 0]
    assert set(workers.astype(int)) <= set(range(chosen))
    assert len(set(workers.astype(int))) >= 2


def test_no_more_than_sixteen_are_chosen_and_the_run_says_so(tmp_path, quick) -> None:
    config = realtime_config(tmp_path / "run", "wall", realtime__inference=0, realtime__fps=1000.0)
    spec = env_spec(decide(config).env)
    found, line = choose_inference(config, spec, lambda device: SlowAgent(None, spec))
    assert found.realtime.inference == 16
    assert "some frames are left to the default behaviour" in line
    named = realtime_config(tmp_path / "run", "wall", realtime__inference=2)
    assert choose_inference(named, spec, lambda device: SlowAgent(None, spec)) == (named, "")
