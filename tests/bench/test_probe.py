"""What a realtime run needs of this machine: the arithmetic, what is measured, and what the command says."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from offbeat.agents.make import make_agent
from offbeat.bench import probe as module
from offbeat.bench.needs import Measured, Times, as_dict, cannot, sentences, table, times_of
from offbeat.bench.probe import copy_bandwidth, each_s, frame_times, one_stream, realtime_of, updates_per_step
from offbeat.cli import main
from offbeat.config.auto import decide
from offbeat.config.run_config import apply_overrides, load_preset
from offbeat.envs.registry import env_spec, frame_rate
from offbeat.errors import UserError


def times(mean: float) -> Times:
    """All alike."""
    return Times(100, mean, mean, mean, mean, mean)


MEASURED = Measured(
    fps=50.0, estimator="max", estimate_s=0.07, inference=times(0.06), learning=times(0.2), frame=times(0.001),
    updates_per_step=0.25, updates_why="because", learner_threads=2, learner_on_gpu=False, weights=10**6,
    weight_bytes=4 * 10**6, copied_bytes_per_s=8e9, cores=10, memory_bytes=2**30, available_bytes=2**33,
)  # fmt: skip


@pytest.fixture
def quick(monkeypatch) -> None:
    monkeypatch.setattr(module, "LEAST", 3)
    monkeypatch.setattr(module, "COPY_BYTES", 2**20)


def test_what_is_needed_follows_from_what_was_measured() -> None:
    assert MEASURED.inference_processes == 4  # 0.07 s of frames of 0.02 s
    assert MEASURED.delay_frames == 4
    assert MEASURED.learning_processes == 3  # a quarter of 0.2 s in each frame
    assert MEASURED.inference_cores == pytest.approx(3.0)
    assert MEASURED.learning_cores == pytest.approx(5.0)  # 12.5 updates per second of 0.2 s on two cores
    assert MEASURED.frame_cores == pytest.approx(0.05)
    assert MEASURED.forwards_per_s == pytest.approx((10 - 5.05) / 0.06)
    assert MEASURED.weight_bytes_per_s == pytest.approx(2e8)
    assert cannot(MEASURED) == []
    assert "All of it can be met here." in sentences(MEASURED)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"frame": times(0.03)}, "frames would be missed"),
        ({"cores": 8}, "8.05 cores busy and 8 are usable; they allow 49.2 forwards per second where 50 are needed"),
        ({"weight_bytes": 2 * 10**8}, "read 10 GB/s of weights, and copying moves 8 GB/s"),
        ({"memory_bytes": 2**34}, "the run takes 16.00 GiB and 8.00 GiB are available"),
        ({"estimate_s": 30.0}, "kept for 1,000 frames, so actions 1,500 frames old"),
    ],
)
def test_what_cannot_be_met_is_said_with_its_reason(changed, said) -> None:
    (line,) = cannot(replace(MEASURED, **changed))
    assert said in line
    assert "This cannot be met here:" in sentences(replace(MEASURED, **changed))


def test_times_are_described_and_shown() -> None:
    found = times_of(np.arange(1.0, 101.0) / 1000)
    assert (found.count, found.max) == (100, 0.1)
    assert found.median == pytest.approx(0.0505)
    assert found.p90 == pytest.approx(0.0901)
    assert "70 ms" not in "".join(table(MEASURED))
    assert "60 ms" in table(MEASURED)[1]
    assert json.loads(json.dumps(as_dict(MEASURED)))["inference_processes"] == 4


@pytest.mark.parametrize(
    ("preset", "options", "ratio"),
    [
        ("realtime-dqn", {}, 0.25),
        ("dqn-minatar", {"replay.samples_per_insert": "0"}, 0.0),
        ("impala-catch", {"learner.batch_size": "1"}, 1 / 20),
    ],
)
def test_updates_per_step_are_the_presets_own(preset, options, ratio) -> None:
    config = apply_overrides(load_preset(preset), list(options.items()))
    config = realtime_of(config, 60.0)
    agent = make_agent(config.agent_name, config.agent, env_spec(decide(config).env))
    if preset == "impala-catch":
        ratio = 1 / config.learner.unroll_length
    assert updates_per_step(config, agent)[0] == pytest.approx(ratio)


def test_a_fifo_takes_one_unroll_of_the_one_environment() -> None:
    config = load_preset("impala-catch")
    assert config.learner.batch_size > 1
    assert one_stream(config).learner.batch_size == 1
    dqn = load_preset("realtime-dqn")
    assert one_stream(dqn) is dqn


@pytest.mark.parametrize(
    ("env", "rate"), [("Pong", 15.0), ("CartPole-v1", 50.0), ("toy/catch", None), ("minatar/breakout", None)]
)
def test_environments_say_how_fast_they_are(env, rate) -> None:
    assert frame_rate(apply_overrides(load_preset("impala-atari"), [("env", env)]).env) == rate


def test_the_frame_rate_is_given_or_the_environments_own() -> None:
    cartpole, catch = load_preset("impala-cartpole"), load_preset("impala-catch")
    assert realtime_of(cartpole, 0.0).realtime.fps == 50.0
    assert realtime_of(cartpole, 7.0).realtime.fps == 7.0
    asked = apply_overrides(catch, [("realtime.fps", "12")])
    assert realtime_of(asked, 0.0).realtime.fps == 12.0
    with pytest.raises(UserError, match="give --fps"):
        realtime_of(catch, 0.0)


def test_each_call_is_timed_and_the_first_do_not_count(quick) -> None:
    turns: list[int] = []
    assert len(each_s(turns.append, 0.0)) == 3
    assert turns == [0, 1, 2, 3, 4]
    assert copy_bandwidth() > 0


def test_frames_are_played_across_episodes(quick, monkeypatch) -> None:
    monkeypatch.setattr(module, "LEAST", 40)  # games of Catch have 9 steps
    assert len(frame_times(load_preset("impala-catch"), 0.0, None, lambda count, left_s: None)) == 40


def test_the_command_measures_and_advises(quick, capsys, tmp_path) -> None:
    given = ["dqn-minatar", "--fps", "30", "--seconds", "0.01", "--agent.head-size", "16"]
    saved = tmp_path / "times.npy"
    assert main(["realtime", "probe", *given, "--save", str(saved)]) == 0
    out, err = capsys.readouterr()
    assert "measuring: one update" in err
    count = next(line for line in out.splitlines() if line.startswith("inference processes")).split()[2]
    wall = "offbeat train dqn-minatar --agent.head-size 16 --realtime.fps 30 --realtime.inference " + count
    assert wall in out
    assert f"offbeat train dqn-minatar --agent.head-size 16 --delay.inference-frames {count}" in out
    assert np.load(saved, allow_pickle=False).min() > 0


def test_the_command_gives_json_and_takes_a_fifo(quick, capsys) -> None:
    assert main(["realtime", "probe", "impala-catch", "--fps", "30", "--seconds", "0.01", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["fps"] == 30
    assert found["inference"]["count"] >= module.LEAST
    assert "--replay.samplers.0.kind uniform" in found["wall"]
    assert "--learner.batch-size" not in found["simulated"]


def test_what_cannot_be_measured_is_said(capsys) -> None:
    assert main(["realtime", "probe", "impala-catch"]) == 2
    assert "give --fps, e.g. --fps 30" in capsys.readouterr().err
    assert main(["realtime", "probe", "r2d2-tmaze", "--fps", "30"]) == 2
    assert "reads its last action and reward" in capsys.readouterr().err
    assert main(["realtime", "probe", "r2d2-hanabi", "--fps", "30"]) == 2
    assert "is a game of 2 players" in capsys.readouterr().err
    assert main(["realtime", "prob"]) == 2
    assert "probe, scaling" in capsys.readouterr().err
