"""The base of agents' networks: layout of images and initial states."""

from __future__ import annotations

import pytest
import torch

from offbeat.networks.base import TorsoNetwork
from offbeat.networks.lstm import LSTMCore
from offbeat.networks.torsos import Torso
from offbeat.types import ArraySpec


@pytest.mark.parametrize("core", [None, LSTMCore(128, 8)])
def test_layout_reaches_the_torso_and_states_come_from_the_core(core: LSTMCore | None) -> None:
    network = TorsoNetwork()
    network.torso = Torso({"map": ArraySpec((2, 10, 10), "uint8")}, "minatar")
    network.core = core
    assert not network.channels_last
    network.channels_last = True
    assert network.torso.channels_last and network.channels_last
    state = network.initial_state(3)
    assert state.keys() == (set() if core is None else {"h", "c"})
    assert all(value.shape == (3, 1, 8) and not torch.any(value) for value in state.values())
