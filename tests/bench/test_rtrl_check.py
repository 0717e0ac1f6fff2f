"""The difference between RTRL and full backpropagation, as a user is told it."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from offbeat.bench.rtrl_check import compare, diagnose_rtrl
from offbeat.config.run_config import apply_overrides, load_preset
from offbeat.errors import UserError
from offbeat.networks.elstm import ELSTM
from offbeat.networks.rtu import RTU
from offbeat.networks.stacked import Stacked


@pytest.mark.parametrize("kind", [ELSTM, RTU])
@pytest.mark.parametrize("unroll", [1, 7])
def test_one_layer_is_exact_and_truncation_is_not(kind, unroll):
    torch.manual_seed(0)
    differences = compare(kind(4, 6), 4, unroll)
    assert {one.name for one in differences} == {name for name, _ in kind(4, 6).named_parameters()}
    assert max(one.rtrl for one in differences) < 1e-12
    assert max(one.truncated for one in differences) > 1e-2


def test_a_wrong_gradient_is_seen(monkeypatch, capsys):
    monkeypatch.setattr(ELSTM, "advance", lambda core, trace, at, steps: trace["c.Z"].mul_(0.9))
    config = load_preset("r2ac-memory-chain")
    assert not diagnose_rtrl(config)
    assert "NOT exact" in capsys.readouterr().out


def test_of_layers_the_last_is_exact():
    torch.manual_seed(0)
    differences = compare(Stacked(partial(ELSTM, hidden_size=5), 4, 2), 4, 3)
    assert max(one.rtrl for one in differences if one.name.startswith("layers.1.")) < 1e-12
    assert max(one.rtrl for one in differences if one.name.startswith("layers.0.")) > 1e-6


def test_is_asked_of_a_configuration(capsys):
    assert diagnose_rtrl(load_preset("r2ac-memory-chain"))
    said = capsys.readouterr().out
    assert "ELSTM with inputs of 64: 5 unrolls of 5 rows" in said
    assert "exact" in said
    config = apply_overrides(load_preset("r2ac-memory-chain"), [("agent.core", "rtu"), ("agent.core_layers", "2")])
    assert diagnose_rtrl(config)
    assert "SnAp-1" in capsys.readouterr().out


def test_what_does_not_learn_by_it_is_refused():
    with pytest.raises(UserError, match=r"agent r2ac with agent.core='elstm-tbptt' does not learn by RTRL"):
        diagnose_rtrl(apply_overrides(load_preset("r2ac-memory-chain"), [("agent.core", "elstm-tbptt")]))
    with pytest.raises(UserError, match="agent dqn does not learn by RTRL"):
        diagnose_rtrl(load_preset("dqn-minatar"))
