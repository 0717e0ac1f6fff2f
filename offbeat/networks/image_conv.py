"""Parts of image trunks: the convolution that takes images as they are stored, and the residual block."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from offbeat.networks.narrow import is_narrow, narrow_conv


class Conv(nn.Conv2d):
    """A convolution, by whichever code of torch is the faster for its number of channels."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if is_narrow(self, input):
            return narrow_conv(self, input, weight, bias)
        return super()._conv_forward(input, weight, bias)


class ImageConv(Conv):
    """A trunk's first convolution: takes images as they are stored, casts them, and scales them to [0, 1].

    The scale is applied to the weights, which gives the same result without a pass over the images; in bfloat16 it is
    also more exact, because 0 ... 255 are exact there and their fractions are not.

    ``centered``: each filter's mean is taken off it, so that it sees contrast and not brightness (Huang et al. 2017,
    "Centered Weight Normalization"). A plain filter answers an even background with that brightness times its sum,
    which is more than small things on it add; where the sum is negative the ReLU behind it is silent for good.
    """

    def __init__(self, channels: int, width: int, kernel: int, stride: int, padding: int, scale: float) -> None:
        """``channels`` in, ``width`` out; ``scale``: factor that brings the stored image to [0, 1]."""
        super().__init__(channels, width, kernel, stride, padding)
        self.scale = scale
        self.centered = False
        self.channels_last = False

    def forward(self, image: Tensor) -> Tensor:
        """image: [B, C, H, W], any dtype. Returns [B, width, H', W']."""
        return self._conv_forward(self.cast(image), self.scaled_weight(), self.bias)

    def scaled_weight(self) -> Tensor:
        """The weights for images as they are stored."""
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True) if self.centered else self.weight
        return weight if self.scale == 1.0 else weight * self.scale

    def cast(self, image: Tensor) -> Tensor:
        """image [B, C, H, W] in the layout and dtype in which ``forward`` reads it; itself where it is so already."""
        dtype = self.weight.dtype
        if torch.is_autocast_enabled(image.device.type):
            dtype = torch.get_autocast_dtype(image.device.type)
        layout = torch.channels_last if self.channels_last else torch.contiguous_format
        # Pixels change places as bytes and are cast afterwards, along memory: a third of the time of both at once.
        return image.contiguous(memory_format=layout).to(dtype)


class Residual(nn.Module):
    """x + conv(relu(conv(relu(x))))."""

    def __init__(self, width: int) -> None:
        """``width``: channels, before and after."""
        super().__init__()
        self.first = Conv(width, width, 3, padding=1)
        self.second = Conv(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """x: [B, width, H, W]. Returns the same shape."""
        # Nothing else needs the first convolution's output, so its ReLU may overwrite it; x is needed for the sum.
        return x + self.second(functional.relu(self.first(functional.relu(x)), inplace=True))
