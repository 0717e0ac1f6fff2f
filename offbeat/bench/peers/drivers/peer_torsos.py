"""The networks of the Atari tasks in plain torch, for peers that have none of their own or would build another one.

All take stacked frames as floats [B, C, 84, 84] and give the features that policy and value share.
"""

from __future__ import annotations

from torch import Tensor, nn

NATURE_UNITS, RESIDUAL_UNITS = 512, 256
"""Widths of what the torsos give."""


def nature_torso(channels: int) -> nn.Module:
    """The network of Mnih et al. 2015: [B, 512]."""
    return nn.Sequential(
        nn.Conv2d(channels, 32, 8, 4), nn.ReLU(), nn.Conv2d(32, 64, 4, 2), nn.ReLU(), nn.Conv2d(64, 64, 3), nn.ReLU(),
        nn.Flatten(), nn.Linear(64 * 7 * 7, NATURE_UNITS), nn.ReLU(),
    )  # fmt: skip


class Residual(nn.Module):
    """x + conv(relu(conv(relu(x)))), as wide as it came."""

    def __init__(self, width: int) -> None:
        """``width``: channels."""
        super().__init__()
        self.layers = nn.Sequential(
            nn.ReLU(), nn.Conv2d(width, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1)
        )

    def forward(self, x: Tensor) -> Tensor:
        """[B, width, H, W] to the same shape."""
        return x + self.layers(x)


def residual_torso(channels: int) -> nn.Module:
    """The deep network of Espeholt et al. 2018 (figure 3, right) without its LSTM: [B, 256]."""
    layers: list[nn.Module] = []
    for width in (16, 32, 32):
        layers += [nn.Conv2d(channels, width, 3, padding=1), nn.MaxPool2d(3, 2, padding=1)]
        layers += [Residual(width), Residual(width)]
        channels = width
    units = channels * 11 * 11  # 84 pixels halved three times, rounded up
    return nn.Sequential(*layers, nn.ReLU(), nn.Flatten(), nn.Linear(units, RESIDUAL_UNITS), nn.ReLU())


TORSOS = {"atari": (nature_torso, NATURE_UNITS), "atari-deep": (residual_torso, RESIDUAL_UNITS)}
"""Task -> torso and its width."""
