"""Convolutions over blocks are the strided convolutions that they stand for."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from offbeat.networks.convolutions import BlockConv, ImageConv, blocked_weight, to_blocks


@pytest.mark.parametrize(("channels", "kernel", "stride", "side"), [(4, 8, 4, 84), (32, 4, 2, 20), (3, 6, 3, 12)])
def test_blocks_give_the_strided_convolution(channels: int, kernel: int, stride: int, side: int) -> None:
    torch.manual_seed(0)
    image = torch.randn(2, channels, side, side).contiguous(memory_format=torch.channels_last)
    weight = torch.randn(5, channels, kernel, kernel)
    blocks = to_blocks(image, stride)
    assert blocks.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(
        functional.conv2d(blocks, blocked_weight(weight, stride)),
        functional.conv2d(image, weight, stride=stride),
        rtol=1e-4, atol=1e-4,
    )  # fmt: skip


def test_blocks_of_bytes_are_the_same_blocks() -> None:
    image = torch.randint(0, 256, (2, 4, 84, 84), dtype=torch.uint8).contiguous(memory_format=torch.channels_last)
    assert torch.equal(to_blocks(image, 4).float(), to_blocks(image.float(), 4))


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_gradients_are_those_of_the_plain_layer(layout: torch.memory_format) -> None:
    torch.manual_seed(0)
    layer = BlockConv(32, 64, 4, 2)
    image = torch.randn(3, 32, 20, 20).contiguous(memory_format=layout).requires_grad_()
    layer(image).square().sum().backward()
    plain = image.detach().clone().requires_grad_()
    weight, bias = (parameter.detach().clone().requires_grad_() for parameter in (layer.weight, layer.bias))
    functional.conv2d(plain, weight, bias, 2).square().sum().backward()
    for ours, theirs in ((image, plain), (layer.weight, weight), (layer.bias, bias)):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize(("side", "kernel", "stride", "padding"), [(84, 8, 4, 0), (85, 8, 4, 0), (10, 3, 1, 1)])
def test_image_conv_scales_stored_images(
    channels_last: bool, side: int, kernel: int, stride: int, padding: int
) -> None:
    torch.manual_seed(0)
    layer = ImageConv(4, 6, kernel, stride, padding, 1 / 255)
    layer.channels_last = channels_last
    image = torch.randint(0, 256, (2, 4, side, side), dtype=torch.uint8)
    expected = functional.conv2d(image.float() / 255, layer.weight, layer.bias, stride, padding)
    torch.testing.assert_close(layer(image), expected, rtol=1e-4, atol=1e-4)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = layer(image)
    assert rounded.dtype == torch.bfloat16
    torch.testing.assert_close(rounded.float(), expected, rtol=0.05, atol=0.05)


def test_a_kernel_that_its_stride_does_not_divide_is_refused() -> None:
    with pytest.raises(ValueError, match="kernel=5 is not a multiple of stride=2"):
        BlockConv(1, 1, 5, 2)
