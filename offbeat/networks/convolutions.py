"""Convolutions for images as they are stored, arranged so that processors compute them fast."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class BlockConv(nn.Conv2d):
    """A convolution whose kernel is a multiple of its stride, without padding.

    On a processor, with channels last, it is computed without a stride over blocks: each stride x stride block of
    pixels becomes one pixel with stride^2 times the channels. The sums are the same; few channels and large strides
    leave most of a processor's vector and matrix units idle, above all in the gradient of the weights.
    """

    def __init__(self, channels: int, width: int, kernel: int, stride: int) -> None:
        """``channels`` in, ``width`` out; ``kernel`` must be a multiple of ``stride``."""
        if kernel % stride:
            raise ValueError(f"kernel={kernel} is not a multiple of stride={stride}")
        super().__init__(channels, width, kernel, stride)
        self.scale = 1.0
        self.prepared: Tensor | None = None
        """Weights as blocks need them, where they do not change with every forward; see ``networks.rounded``."""

    def forward(self, input: Tensor) -> Tensor:
        """input: [B, C, H, W], float or bytes that are cast here. Returns [B, width, H', W']."""
        dtype = compute_dtype(input, self.weight)
        stride = self.stride[0]
        if stride == 1 or not _can_block(input, stride):
            return self._conv_forward(input.to(dtype), self._scaled().to(dtype), self.bias)
        weight = self.block_weight(dtype) if self.prepared is None else self.prepared
        bias = None if self.bias is None else self.bias.to(dtype)
        return functional.conv2d(to_blocks(input, stride).to(dtype), weight, bias)

    def block_weight(self, dtype: torch.dtype) -> Tensor:
        """The weights for blocks: [width, stride^2 C, kernel / stride, kernel / stride]."""
        return blocked_weight(self._scaled().to(dtype), self.stride[0])

    def _scaled(self) -> Tensor:
        return self.weight if self.scale == 1.0 else self.weight * self.scale


class ImageConv(BlockConv):
    """A trunk's first convolution: takes images as they are stored, casts them, and scales them to [0, 1].

    The scale is applied to the weights, which gives the same result without a pass over the images; in bfloat16 it is
    also more exact, because 0 ... 255 are exact there and their fractions are not.
    """

    def __init__(self, channels: int, width: int, kernel: int, stride: int, padding: int, scale: float) -> None:
        """``channels`` in, ``width`` out; ``scale``: factor that brings the stored image to [0, 1]."""
        super().__init__(channels, width, kernel, stride)
        self.padding = (padding, padding)
        self.scale = scale
        self.channels_last = False

    def forward(self, input: Tensor) -> Tensor:
        """input: [B, C, H, W], any dtype. Returns [B, width, H', W']."""
        layout = torch.channels_last if self.channels_last else torch.contiguous_format
        # Pixels change places as bytes and are cast afterwards, along memory: a third of the time of both at once.
        return super().forward(input.contiguous(memory_format=layout))


def compute_dtype(image: Tensor, weight: Tensor) -> torch.dtype:
    """The dtype that a convolution computes in: autocast's, else that of the weights."""
    if torch.is_autocast_enabled(image.device.type):
        return torch.get_autocast_dtype(image.device.type)
    return weight.dtype


def to_blocks(image: Tensor, stride: int) -> Tensor:
    """Blocks of [B, C, H, W], channels last in memory, as pixels: [B, stride^2 C, H / stride, W / stride], likewise.

    The new channels are ordered (row in the block, column in the block, channel).
    """
    batch, channels, height, width = image.shape
    rows = image.permute(0, 2, 3, 1).view(batch, height // stride, stride, width // stride, stride * channels)
    if rows.dtype == torch.uint8 and rows.shape[-1] == 16:  # a block's row moves as one element of 16 bytes
        blocks = rows.view(torch.complex128).transpose(2, 3).contiguous().view(torch.uint8)
    else:
        blocks = rows.transpose(2, 3).contiguous()
    size = stride * stride * channels
    return blocks.view(batch, height // stride, width // stride, size).permute(0, 3, 1, 2)


def blocked_weight(weight: Tensor, stride: int) -> Tensor:
    """Weights [width, C, k, k] of a strided convolution for ``to_blocks``, [width, stride^2 C, k / stride, ...]."""
    width, channels, kernel, _ = weight.shape
    taps = kernel // stride
    split = weight.reshape(width, channels, taps, stride, taps, stride).permute(0, 3, 5, 1, 2, 4)
    return split.reshape(width, stride * stride * channels, taps, taps)


def _can_block(image: Tensor, stride: int) -> bool:
    if image.device.type != "cpu" or torch.compiler.is_compiling() or image.shape[1] == 1:
        return False
    whole = image.shape[2] % stride == 0 and image.shape[3] % stride == 0
    return whole and image.is_contiguous(memory_format=torch.channels_last)
