"""The networks of the Atari tasks in plain torch, for peers that have none of their own or would build another one.

Both take stacked frames as floats [B, C, 84, 84] and give the features that policy and value share.
"""

from __future__ import annotations

from torch import Tensor, nn

RESIDUAL_UNITS = 256
"""Width of what ``residual_torso`` gives."""


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
