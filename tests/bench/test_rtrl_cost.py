"""What ``offbeat bench rtrl`` times is what it says, and it prints it."""

from __future__ import annotations

import json

import pytest

from offbeat.bench import rtrl_cost
from offbeat.bench.rtrl_cost import bench_rtrl, in_turns
from offbeat.commands.checks import bench
from offbeat.config.run_config import load_preset
from offbeat.errors import UserError


def test_both_take_turns_and_the_ratio_is_of_neighbours():
    done = []
    cost = in_turns("it", lambda: done.append("truncated"), lambda: done.append("rtrl"), 0.0)
    assert done == ["truncated", "rtrl"] * (2 + 5)
    assert cost.ratio_low <= cost.ratio <= cost.ratio_high


def test_it_is_printed_and_written(tmp_path, capsys, monkeypatch):
    for name, value in (("HIDDEN", 8), ("INPUTS", 5), ("ROWS", 3), ("EPISODES", 2)):
        monkeypatch.setattr(rtrl_cost, name, value)
    assert bench(["rtrl", "r2ac-memory-chain", "--seconds", "0.01", "--json", str(tmp_path / "cost.json")]) == 0
    said = capsys.readouterr().out
    assert "core: N = 8, D = 5, T = 3, B = 2" in said
    assert "update of r2ac-memory-chain" in said
    assert f"sensitivities of the core: {2 * 8 * 5 + 4 * 8} numbers" in said
    assert [one["what"] for one in json.loads((tmp_path / "cost.json").read_text())] == [
        "core",
        "update of r2ac-memory-chain",
    ]


def test_an_agent_without_rtrl_is_refused():
    with pytest.raises(UserError, match=r"agent dqn .* has no eLSTM"):
        bench_rtrl(load_preset("dqn-minatar"), seconds=0)
    with pytest.raises(UserError, match=r"agent r2ac with agent\.core='lstm' has no eLSTM"):
        bench(["rtrl", "r2ac-memory-chain", "--agent.core", "lstm"])
