"""Each name makes its core, with its options."""

from __future__ import annotations

import pytest
import torch

from offbeat.networks.cores import make_core
from offbeat.networks.elstm import ELSTM
from offbeat.networks.lstm import LSTMCore
from offbeat.networks.rtu import RTU
from offbeat.networks.stacked import Stacked


@pytest.mark.parametrize(
    ("name", "kind", "gradient"),
    [
        ("elstm-rtrl", ELSTM, "rtrl"), ("elstm-tbptt", ELSTM, "tbptt"), ("rtu", RTU, "rtrl"),
        ("rtu-tbptt", RTU, "tbptt"),
    ],
)  # fmt: skip
def test_a_traced_core(name, kind, gradient):
    core = make_core(name, 4, 6)
    assert isinstance(core, kind)
    assert (core.gradient, core.input_size, core.hidden_size) == (gradient, 4, 6)
    layers = make_core(name, 4, 6, layers=3)
    assert isinstance(layers, Stacked)
    assert [type(layer) for layer in layers.layers] == [kind] * 3


def test_an_lstm():
    core = make_core("lstm", 4, 6, layers=2)
    assert isinstance(core, LSTMCore)
    assert (core.layers, core.output_size) == (2, 6)


@pytest.mark.parametrize("name", ["lstm", "elstm-rtrl", "rtu"])
def test_memory_is_drawn(name):
    torch.manual_seed(0)
    plain = make_core(name, 4, 200)
    torch.manual_seed(0)
    core = make_core(name, 4, 200, memory=50)
    names = {"lstm": "bias_hh_l0", "elstm-rtrl": "bf", "rtu": "nu"}
    assert not torch.equal(core.get_parameter(names[name]), plain.get_parameter(names[name]))


def test_the_deviation_is_an_elstms():
    torch.manual_seed(0)
    assert make_core("elstm-rtrl", 50, 200, deviation=2.0).get_parameter("F").std().item() == pytest.approx(2, rel=0.05)
