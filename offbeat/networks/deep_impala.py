"""IMPALA's deep network widened and deepened, as networks of a chosen size for realtime learning.

``deep1`` (15 convolutions) and ``deep2`` (30) after Riemer et al. 2024, "Enabling Realtime Reinforcement Learning at
Scale with Staggered Asynchronous Inference", who scale the residual network of Espeholt et al. 2018 (figure 3, right)
by one factor k. Here k is ``width``: the first sequence has ``int(16 k)`` channels, each other ``int(32 k)``. A
sequence is a 3 x 3 convolution and a max-pooling over 3 x 3, neither padded, then two residual blocks; a ReLU follows
the last.

Differs from the published code: images are scaled to [0, 1], and flattened with their channels last.
"""

from __future__ import annotations

from torch import nn

from offbeat.networks.image_conv import Conv, ImageConv, Residual

STRIDES = {"deep1": (2, 2, 2), "deep2": (2, 1, 1, 1, 2, 1)}
"""Torso -> stride of the max-pooling of each of its sequences."""
NARROWEST = 1 / 16
"""Least ``width``: the first sequence then has one channel."""
_LOST = 4  # pixels that an unpadded convolution and an unpadded max-pooling take off a side


def channels(kind: str, width: float) -> list[int]:
    """Channels of each sequence of ``kind`` at ``width``. ValueError where the first would have none."""
    if not width >= NARROWEST:
        raise ValueError(f"width={width} is out of range; allowed: {NARROWEST} or above")
    return [int(16 * width), *[int(32 * width)] * (len(STRIDES[kind]) - 1)]


def mapped_side(kind: str, side: int) -> int:
    """Pixels a side of what ``kind`` makes of an image with ``side`` pixels a side; 0 or less: nothing is left."""
    for stride in STRIDES[kind]:
        side = (side - _LOST - 1) // stride + 1
    return side


def least_side(kind: str) -> int:
    """Pixels a side of the smallest image of which ``kind`` leaves one."""
    side = 1
    for stride in reversed(STRIDES[kind]):
        side = (side - 1) * stride + 1 + _LOST
    return side


class DeepImpala(nn.Sequential):
    """The trunk: images [B, C, H, W] as they are stored -> [B, int(32 k), H', W'].

    Attributes:
        flat_size: numbers of its output for one image.
    """

    def __init__(self, kind: str, shape: tuple[int, ...], width: float, scale: float) -> None:
        """``shape``: C, H, W of images of at least ``least_side`` pixels; ``scale``: see ``ImageConv``."""
        found, height, across = shape
        layers: list[nn.Module] = []
        for stage, (stride, count) in enumerate(zip(STRIDES[kind], channels(kind, width), strict=True)):
            first = ImageConv(found, count, 3, 1, 0, scale) if stage == 0 else Conv(found, count, 3)
            layers += [first, nn.MaxPool2d(3, stride), Residual(count), Residual(count)]
            found = count
        super().__init__(*layers, nn.ReLU(inplace=True))
        self.flat_size: int = found * mapped_side(kind, height) * mapped_side(kind, across)
