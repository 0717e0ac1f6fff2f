"""The table of sizes of models: its numbers of weights are those of the networks, its delays the published ones."""

from __future__ import annotations

import pytest
import torch

from offbeat.agents import dqn
from offbeat.config.model_sizes import MODEL_SIZES, ModelSize, model_size
from offbeat.types import ActionSpec, ArraySpec, EnvSpec

SPEC = EnvSpec("test", {"observation": ArraySpec((1, 84, 84), "uint8", 0, 255)}, ActionSpec("discrete", 6))
UNITS = {"K": 1e3, "M": 1e6, "B": 1e9}
PUBLISHED = {
    ("55K", "deep1"): (1, 1), ("70K", "deep2"): (None, 3), ("1M", "deep1"): (5, 5), ("10M", "deep1"): (8, 8),
    ("1M", "deep2"): (None, 29), ("10M", "deep2"): (None, 47), ("100M", "deep1"): (70, 70),
    ("100M", "deep2"): (None, 80), ("1B", "deep1"): (596, 599), ("1B", "deep2"): (None, 750),
}  # fmt: skip
"""Size and torso -> delays with Tetris and with Atari, frames, as the README of the published code has them."""

by_row = pytest.mark.parametrize("row", MODEL_SIZES, ids=lambda row: f"{row.label}-{row.torso}")


def weights(torso: str, width: float) -> int:
    with torch.device("meta"):
        config = dqn.Config(torso=torso, torso_width=width, dueling=False)
        return sum(weight.numel() for weight in dqn.Agent(config, SPEC, "meta").network.parameters())


@by_row
def test_numbers_of_weights_are_those_of_the_networks(row: ModelSize) -> None:
    assert weights(row.torso, row.width) == row.weights
    assert weights(row.torso, row.label_width) == row.label_weights


@by_row
def test_a_label_says_how_many_weights_there_are(row: ModelSize) -> None:
    said = float(row.label[:-1]) * UNITS[row.label[-1]]
    assert row.label_weights == pytest.approx(said, rel=0.1)
    if row.torso == "deep1":
        assert row.label_width == row.width


def test_delays_are_the_published_ones() -> None:
    assert {(row.label, row.torso): (row.tetris_frames, row.atari_frames) for row in MODEL_SIZES} == PUBLISHED


def test_a_row_is_found_by_size_and_torso() -> None:
    assert model_size("1B").atari_frames == 599
    assert model_size("1B", "deep2").atari_frames == 750
    with pytest.raises(ValueError, match=r"no model is of size '70K' with torso 'deep1'; allowed: 55K \(deep1\), 1M"):
        model_size("70K")
