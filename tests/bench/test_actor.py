"""``bench actor`` counts the calls and the time of each part of an actor's round, whatever the agent."""

from __future__ import annotations

import json
import sys
import time

import pytest

from offbeat.bench import actor as bench
from offbeat.bench.actor import PARTS, _Meter, bench_actor, measure_round
from offbeat.config.run_config import load_preset
from offbeat.errors import UserError
from tests.runtime.parts import item_config, small_config


def _leaf():
    return None


def _inner():
    _leaf()
    _leaf()


def test_calls_belong_to_the_outermost_metered_call():
    meter = _Meter()
    part, other = meter.wrapped(_inner, "step"), meter.wrapped(_leaf, "act")
    with meter.counting():
        part()  # itself, and two within
        other()
        _leaf()
    found = {name: number for name, number in meter.calls.items() if number}
    assert found["step"] == 3 and found["act"] == 1
    assert found["loop"] <= 8, "the leaf, and what ends the counting"
    assert sys.getprofile() is None


def test_a_metered_call_within_another_is_a_part_of_its_own():
    meter = _Meter()
    within = meter.wrapped(_leaf, "act")
    outer = meter.wrapped(lambda: within(), "step")
    with meter.counting():
        outer()
    assert (meter.calls["step"], meter.calls["act"]) == (1, 1)


def test_time_is_that_of_the_part_that_took_it():
    def burn():
        until = time.thread_time() + 0.02
        while time.thread_time() < until:
            pass

    meter = _Meter()
    with meter.timing():
        meter.wrapped(burn, "append")()
    assert meter.seconds["append"] >= 0.02 > 10 * meter.seconds["stage"]


@pytest.mark.parametrize("config", [small_config(), item_config("r2d2"), load_preset("impala-pendulum")])
def test_every_part_of_a_round_is_found(config):
    found = measure_round(config, 3, 0.0)
    assert found.envs == 3 and found.us > 0
    assert all(found.calls[name] > 0 and found.part_us[name] > 0 for name in PARTS)
    assert found.calls["all"] == pytest.approx(sum(found.calls[name] for name in PARTS))


def test_the_report_is_printed_and_kept(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(bench, "LEAST_TIMED", 1)
    found = bench_actor(small_config(), counts=(2, 4), seconds=0.0, file=tmp_path / "report.json")
    said = capsys.readouterr().out
    assert "2 environments" in said and "steps/s of one core" in said
    kept = json.loads((tmp_path / "report.json").read_text())
    assert [one["envs"] for one in kept] == [one.envs for one in found] == [2, 4]


def test_the_command_takes_numbers_of_environments(monkeypatch):
    from offbeat.commands import checks

    seen = {}
    monkeypatch.setattr(bench, "bench_actor", lambda config, **named: seen.update(named, preset=config.preset))
    checks.bench(["actor", "impala-catch", "--envs", "4,8", "--seconds", "1"])
    assert seen["counts"] == (4, 8) and seen["preset"] == "impala-catch" and seen["seconds"] == 1
    with pytest.raises(UserError, match="--envs='4,x' is not a list of numbers"):
        checks.bench(["actor", "--envs", "4,x"])
