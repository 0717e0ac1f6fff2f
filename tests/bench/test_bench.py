"""The benchmarks measure what they say: parts, limits, live runs, memory."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys

import numpy as np
import pytest

from offbeat.agents import dqn
from offbeat.agents.target import TargetNetwork
from offbeat.bench import parts as parts_module
from offbeat.bench.live import Point, endless, memory_of, process_family, processor_s_of, rows_before_training
from offbeat.bench.parts import Parts, _measure, per_call_s, time_env, time_forward, time_train, train_widths
from offbeat.bench.soak import growth, ring_rows, warm_from
from offbeat.bench.throughput import EndToEnd, as_table, bench_throughput, end_to_end, limit, second_half, summarise
from offbeat.config.run_config import apply_overrides, load_preset
from offbeat.config.validation import validate
from offbeat.envs.registry import env_spec
from offbeat.replay.streams import StreamStore
from offbeat.runtime.world import plan_layout
from offbeat.types import LEGAL, UNROLL, ActionSpec, ArraySpec, EnvSpec, EnvStep, ItemSpec
from tests.runtime.parts import ITEM_AGENTS, item_config


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


@pytest.mark.parametrize("name", sorted(ITEM_AGENTS))
def test_parts_of_value_based_agents_take_time(name, quick):
    config = item_config(name)
    spec = env_spec(config.env)
    assert 0 < time_forward(config, spec, 6, 0.01) < 1
    assert 0 < time_train(config, spec, 3, 0.01) < 1


def test_exploration_is_asked_for_in_every_forward(quick, monkeypatch):
    asked = []
    own = dqn.Agent.exploration

    def exploration(self, stream, num_streams, agent_steps):
        asked.append((len(stream), num_streams))
        return own(self, stream, num_streams, agent_steps)

    monkeypatch.setattr(dqn.Agent, "exploration", exploration)
    acted = []
    act = dqn.Agent.act
    monkeypatch.setattr(dqn.Agent, "act", lambda self, inputs, *rest: acted.append(inputs) or act(self, inputs, *rest))
    config = item_config("dqn")
    time_forward(config, env_spec(config.env), 3, 0.0)
    time_forward(config, env_spec(config.env), 6, 0.0)
    assert set(asked) == {(3, 4), (6, 6)} and len(asked) == len(acted)  # there are 4 environments
    assert all(inputs.epsilon.shape == inputs.first.shape for inputs in acted)


def test_target_networks_are_renewed_while_training_is_timed(quick, monkeypatch):
    updates = []
    monkeypatch.setattr(TargetNetwork, "trained", lambda self, batch, number: updates.append(number))
    config = item_config("dqn")
    time_train(config, env_spec(config.env), 3, 0.0)
    assert updates == list(range(1, len(updates) + 1)) and len(updates) >= 5


class Picky:
    """Two environments, three actions, of which only the one that the mask shows is taken."""

    spec = EnvSpec("picky", {LEGAL: ArraySpec((3,), "bool")}, ActionSpec("discrete", 3))

    def __init__(self):
        self.turn = 0

    def reset(self, seed):
        """Nothing to do."""

    def recv(self):
        """Action ``turn`` mod 3 in one environment, the one after it in the other."""
        self.legal = (self.turn + np.arange(2)) % 3
        mask = np.arange(3) == self.legal[:, None]
        zero, no = np.zeros(2, np.float32), np.zeros(2, bool)
        return EnvStep(np.arange(2), {LEGAL: mask}, zero, zero, no, no, no, ~no)

    def send(self, action):
        """Refuse any other action."""
        assert (action == self.legal).all()
        self.turn += 1

    def close(self):
        """Nothing to free."""


def test_environments_are_stepped_with_legal_actions(quick, monkeypatch):
    envs = Picky()
    monkeypatch.setattr(parts_module, "make_env", lambda *_, **__: envs)
    assert time_env(item_config("dqn"), 0.0) > 0
    assert envs.turn >= 5


def test_training_is_timed_at_the_own_batch_and_around_it():
    assert train_widths(32, 20, UNROLL) == [32, 6, 16]
    assert train_widths(16, 5, UNROLL) == [16, 26, 64, 128]
    assert train_widths(4, 1, ItemSpec("transition")) == [4, 128, 512, 2048]
    assert train_widths(512, 1, ItemSpec("transition")) == [512, 2048]
    assert train_widths(32, 24, ItemSpec("sequence", length=24)) == [32, 85]
    assert train_widths(64, 80, ItemSpec("sequence", length=80)) == [64]


@pytest.mark.parametrize(("name", "rows"), [("dqn", 8), ("r2d2", 2 * 4)])
def test_the_own_batch_comes_first(name, rows, quick, monkeypatch):
    monkeypatch.setattr(os, "sched_setaffinity", lambda *_: None, raising=False)
    monkeypatch.setattr(parts_module, "FORWARD_BATCHES", (8,))
    monkeypatch.setattr(parts_module, "ITEM_ROWS", (4, 32))
    parts = _measure(item_config(name), 0.01)
    assert parts.batch_rows == rows and list(parts.train_s) == [rows, 32] and list(parts.forward_s) == [4, 8]


def test_a_measured_run_is_valid_and_neither_ends_nor_saves():
    config = endless(load_preset("impala-catch"))
    validate(config)
    assert config.total_frames > 10**15 and not config.evaluation.at_end and not config.checkpoint.every_s


def test_what_must_be_stored_before_training():
    assert rows_before_training(load_preset("impala-catch")) == 0
    assert rows_before_training(load_preset("apex-catch")) == 1000
    assert rows_before_training(apply_overrides(load_preset("apex-catch"), [("replay.samplers.0.min_rows", "7")])) == 7


def points(*rows):
    """Reports (seconds, agent steps, updates, rows trained on without padding)."""
    return [
        Point(seconds, steps, 4 * steps, samples=samples, updates=updates, policy_lag=None, learner_wait=wait)
        for (seconds, steps, updates, samples), wait in zip(rows, (0.9, 0.2, 0.4), strict=True)
    ]


def test_the_end_to_end_numbers_are_those_between_the_reports():
    seen = points((10.0, 1000, 50, 900), (12.0, 1500, 60, 1000), (14.0, 1900, 68, 1080))
    run = end_to_end(seen, 40, cpu_s=6.0, start_s=3.0, memory_bytes=5)
    assert run.frames_per_s == 900 * 4 / 4.0
    assert run.samples_per_step == 18 * 40 / 900 and run.real_share == 180 / (18 * 40)
    assert run.cores_used == 1.5 and run.step_cpu_s == 6 / 900
    assert run.learner_wait == pytest.approx(0.3) and run.policy_lag is None  # the first report was about time before
    assert run.second_half == pytest.approx(200 / 250)
    assert second_half(seen[:2]) is None


def test_growth_compares_the_ends():
    assert growth([100] * 50) == 0
    assert growth([100] * 12 + [900] + [103] * 12) == pytest.approx(3.0)
    assert growth([200, 100]) == pytest.approx(-50.0)
    assert growth([]) == 0


@pytest.mark.parametrize("name", ["dqn", "r2d2"])
def test_replay_has_been_written_to_when_ring_rows_have_come(name):
    config = item_config(name)
    spec = env_spec(config.env)
    agent = parts_module._agent(config, spec, "cpu")
    store = StreamStore.allocate(plan_layout(config, spec, agent))
    assert store.layout.ring * store.layout.num_streams <= ring_rows(config) < 2 * config.replay.capacity
    assert ring_rows(load_preset("impala-catch")) == 0


def test_a_run_is_warm_when_replay_is_full():
    assert warm_from(900.0, 0.0) == 120.0
    assert warm_from(900.0, 300.0) == 300.0
    assert warm_from(900.0, math.inf) == 120.0
    assert warm_from(60.0, 10.0) == 0.0


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


def test_table_tells_padding_rate_control_and_drift():
    config = apply_overrides(load_preset("r2d2-tmaze"), [("replay.samples_per_insert", "4")])
    run = EndToEnd(400.0, 4.02, 1.5, 0.005, 4.0, 2**28, 90.0, 0.1, real_share=0.75, second_half=1.01)
    report = json.loads(json.dumps(summarise(config, [Parts(0.001, {8: 0.001}, {768: 0.002})], [run], 2, 1)))
    assert report["limit"] == [pytest.approx(2 / 0.01004)] and report["samples_per_insert"] == 4
    table = as_table(report)
    shown = [list(column.cells) for column in table.columns]
    lines = {name: (value, unit) for name, value, _, _, unit in zip(*shown, strict=True)}
    assert lines["rows trained per step"] == ("4.02", "told to: 4")
    assert lines["... that are transitions"] == ("75.0", "%")
    assert lines["frames/s, second half"] == ("101.0", "% of the first")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("preset", "options", "rows", "batch"),
    [
        ("impala-catch", [], 1.0, 160),
        ("apex-catch", [("replay.samples_per_insert", "2"), ("learner.batch_size", "32")], 2.0, 32),
        ("r2d2-tmaze", [("replay.samplers.0.min_rows", "2000")], 8.0, 16 * 24),
    ],
)
def test_throughput_of_a_real_run(preset, options, rows, batch, tmp_path, monkeypatch):
    from offbeat.bench import throughput

    monkeypatch.setattr(throughput, "WARM_UP_S", 1.0)
    config = apply_overrides(load_preset(preset), options)
    report = bench_throughput(config, seconds=4.0, rounds=1, file=tmp_path / "report.json")
    assert json.loads((tmp_path / "report.json").read_text())["preset"] == preset
    assert 0 < report["ratio"][0] < 2
    run = report["runs"][0]
    assert run["samples_per_step"] == pytest.approx(rows, rel=0.3)
    assert (run["real_share"] < 1) == (preset != "apex-catch")  # unrolls go across ends, sequences have padding
    assert next(iter(report["parts"]["train_s"])) == batch
    assert run["memory_bytes"] > 2**26
