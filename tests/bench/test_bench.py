"""The benchmarks measure what they say: parts, limits, live runs, memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch

from offbeat.agents.make import make_agent
from offbeat.bench import parts as parts_module
from offbeat.bench.live import endless, memory_of, process_family, processor_s_of
from offbeat.bench.parts import Parts, make_unroll, per_call_s, time_env, time_forward, time_train
from offbeat.bench.soak import growth
from offbeat.bench.throughput import EndToEnd, as_table, bench_throughput, limit, summarise
from offbeat.config import apply_overrides, load_preset, validate
from offbeat.envs.registry import env_spec


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(parts_module, "WARM_S", 0.0)


def test_limit_is_the_sum_of_the_best_parts():
    parts = Parts(env_s=0.002, forward_s={32: 0.003, 128: 0.001}, train_s={320: 0.005, 640: 0.004})
    assert limit(parts, 1.0, cores=2, skip=4) == pytest.approx(8 / 0.007)
    assert limit(parts, 8.0, cores=2, skip=4) == pytest.approx(8 / 0.035)
    assert limit(parts, 1.0, cores=2, skip=4, learner_on_gpu=True) == pytest.approx(4 / 0.004)
    assert limit(parts, 0.1, cores=2, skip=4, learner_on_gpu=True) == pytest.approx(4 / 0.0015)


def test_per_call_is_a_mean_by_the_given_clock(quick):
    now = [0.0]

    def call(turn):
        now[0] += 0.25

    assert per_call_s(call, 0.0, clock=lambda: now[0]) == pytest.approx(0.25)


@pytest.mark.parametrize("preset", ["impala-catch", "impala-tmaze", "impala-pendulum"])
def test_parts_of_small_presets_take_time(preset, quick):
    config = load_preset(preset)
    spec = env_spec(config.env)
    assert 0 < time_env(config, 0.01) < 1
    assert 0 < time_forward(config, spec, 4, 0.01) < 1
    assert 0 < time_train(config, spec, 2, 0.01) < 1


@pytest.mark.parametrize("preset", ["impala-catch", "impala-tmaze", "impala-pendulum"])
def test_made_unrolls_are_what_the_loss_reads(preset):
    config = load_preset(preset)
    spec = env_spec(config.env)
    agent = make_agent(config.agent_name, config.agent, spec)
    unroll = make_unroll(spec, agent, length=5, width=3)
    assert unroll.reward.shape == (5, 3) and unroll.inputs.shape == (6, 3)
    assert torch.isfinite(agent.loss(unroll, 0.0).loss)
    for key, item in spec.network_observation.items():
        assert unroll.inputs.observation[key].shape == (6, 3, *item.shape)
        assert unroll.inputs.observation[key].dtype == getattr(torch, item.dtype)


def test_a_measured_run_is_valid_and_neither_ends_nor_saves():
    config = endless(load_preset("impala-catch"))
    validate(config)
    assert config.total_frames > 10**15 and not config.evaluation.at_end and not config.checkpoint.every_s


def test_growth_compares_the_ends():
    assert growth([100] * 50) == 0
    assert growth([100] * 12 + [900] + [103] * 12) == pytest.approx(3.0)
    assert growth([200, 100]) == pytest.approx(-50.0)
    assert growth([]) == 0


@pytest.mark.skipif(not os.path.exists("/proc/self/smaps_rollup"), reason="Linux only")
def test_a_family_has_its_grandchildren_and_their_memory():
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'print(1, flush=True); input()'])"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout.readline() == b"1\n"  # the grandchild is there
        family = process_family(parent.pid)
        assert len(family) == 2 and family[0] == parent.pid
        assert all(2**20 < memory_of(pid) < 2**30 for pid in family)
        assert all(processor_s_of(pid) >= 0 for pid in family)
        parent.communicate(b"\n")
    assert process_family(parent.pid) == [] and memory_of(parent.pid) == 0 and processor_s_of(parent.pid) == 0


def test_report_is_plain_data_and_a_table():
    config = apply_overrides(load_preset("impala-catch"), [])
    measured = Parts(0.001, {8: 0.001}, {160: 0.002})
    run = EndToEnd(400.0, 1.0, 1.5, 0.005, 4.0, 2**28, None, 0.1)
    report = json.loads(json.dumps(summarise(config, [measured] * 2, [run] * 2, cores=2, skip=1)))
    assert report["limit"] == [500.0, 500.0] and report["ratio"] == [0.8, 0.8]
    assert as_table(report).row_count == 13


@pytest.mark.slow
def test_throughput_of_a_real_run(tmp_path, monkeypatch):
    from offbeat.bench import throughput

    monkeypatch.setattr(throughput, "WARM_UP_S", 1.0)
    report = bench_throughput(load_preset("impala-catch"), seconds=2.0, rounds=1, file=tmp_path / "report.json")
    assert json.loads((tmp_path / "report.json").read_text())["preset"] == "impala-catch"
    assert 0 < report["ratio"][0] < 2
    assert report["runs"][0]["samples_per_step"] == pytest.approx(1.0, abs=0.3)
    assert report["runs"][0]["memory_bytes"] > 2**26
