"""Sizes of models, and for how many frames one of each thinks: the table that realtime presets are made from.

Source: the README of CERC-AAI/realtime_rl (Riemer et al. 2024, "Enabling Realtime Reinforcement Learning at Scale with
Staggered Asynchronous Inference"). Its scripts set the delays only and always build the network of k = 1; here the
width of a row is what its size means.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ModelSize:
    """One row."""

    label: str
    """What the size is called, e.g. ``10M``: about as many weights."""
    torso: str
    """``deep1`` or ``deep2``, for ``agent.torso``."""
    width: float
    """The k that is given for the label, for ``agent.torso_width``. It was chosen for ``deep1``: with it ``deep2`` has
    more weights than its label says."""
    weights: int
    """Weights of DQN's plain network of that width, for 6 actions and one frame of 84 x 84."""
    label_width: float
    """The width with which the network has as many weights as its label says, for ``agent.torso_width``."""
    label_weights: int
    """Weights with ``label_width``."""
    tetris_frames: int | None
    """Delay d in the experiments with Tetris on the Game Boy. Unit: frames of 1/59.7275 s. None: not among them."""
    atari_frames: int
    """Delay d in the experiments with Atari. Unit: frames of 1/60 s."""


MODEL_SIZES = (
    ModelSize("55K", "deep1", 0.0625, 54_178, 0.0625, 54_178, 1, 1),
    ModelSize("1M", "deep1", 1.0, 903_718, 1.0, 903_718, 5, 5),
    ModelSize("10M", "deep1", 7.0, 10_368_742, 7.0, 10_368_742, 8, 8),
    ModelSize("100M", "deep1", 29.0, 104_682_918, 29.0, 104_682_918, 70, 70),
    ModelSize("1B", "deep1", 98.0, 1_008_092_742, 98.0, 1_008_092_742, 596, 599),
    ModelSize("70K", "deep2", 0.0625, 70_108, 0.0625, 70_108, None, 3),
    ModelSize("1M", "deep2", 1.0, 1_288_198, 0.8125, 1_011_532, None, 29),
    ModelSize("10M", "deep2", 7.0, 18_866_182, 4.6875, 10_087_340, None, 47),
    ModelSize("100M", "deep2", 29.0, 228_083_718, 18.5, 99_852_678, None, 80),
    ModelSize("1B", "deep2", 98.0, 2_359_881_222, 63.0625, 1_000_792_348, None, 750),
)
"""All rows: those of ``deep1`` first, then those of ``deep2``, each from small to large."""


def model_size(label: str, torso: str = "deep1") -> ModelSize:
    """The row of a size and a torso. ValueError, saying which there are, where there is none."""
    for row in MODEL_SIZES:
        if (row.label, row.torso) == (label, torso):
            return row
    known = ", ".join(f"{row.label} ({row.torso})" for row in MODEL_SIZES)
    raise ValueError(f"no model is of size {label!r} with torso {torso!r}; allowed: {known}")
