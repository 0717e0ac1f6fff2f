"""The one shape check that every function in ``algorithms`` uses."""

from __future__ import annotations

from torch import Tensor


def check_shapes(expected: tuple[int, ...], **tensors: Tensor | None) -> None:
    """Raise ValueError unless each tensor has exactly the shape ``expected``; None is skipped.

    The message names the argument, the shape that was expected and the one it has.
    """
    for name, tensor in tensors.items():
        if tensor is not None and tensor.shape != expected:
            raise ValueError(f"{name}: expected shape {list(expected)}, got {list(tensor.shape)}")


def check_axes(axes: str, **tensors: Tensor) -> None:
    """Raise ValueError unless each tensor has as many axes as ``axes`` names, e.g. ``"T, B"``."""
    count = axes.count(",") + 1
    for name, tensor in tensors.items():
        if tensor.dim() != count:
            raise ValueError(f"{name}: expected {count} axes [{axes}], got shape {list(tensor.shape)}")
