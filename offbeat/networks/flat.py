"""All weights of a module in one flat vector, so that copying a network's weights is one memcpy.

Parameters and floating-point buffers become views of the vector: writing into the vector changes the network, and
optimisers that hold the parameters stay valid.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

ALIGNMENT = 16
"""Each tensor starts at a multiple of so many floats (64 bytes): the alignment that a tensor of its own would have."""


@dataclass(frozen=True)
class FlatEntry:
    """Where one tensor of a module lies in its flat vector."""

    name: str
    shape: tuple[int, ...]
    offset: int  # floats from the start

    @property
    def size(self) -> int:
        """Number of floats."""
        return torch.Size(self.shape).numel()


def flat_spec(network: nn.Module) -> list[FlatEntry]:
    """Name, shape and offset of each parameter and float buffer, in order: the same for every copy of a network."""
    entries, offset = [], 0
    for name, tensor in flat_tensors(network):
        entries.append(FlatEntry(name, tuple(tensor.shape), offset))
        offset += -(-tensor.numel() // ALIGNMENT) * ALIGNMENT
    return entries


def flat_size(network: nn.Module) -> int:
    """Length P of the flat vector, padding included."""
    return sum(-(-tensor.numel() // ALIGNMENT) * ALIGNMENT for _, tensor in flat_tensors(network))


@torch.no_grad()
def flatten_parameters(network: nn.Module) -> Tensor:
    """Move all parameters and float buffers of ``network`` into views of one vector and return it.

    Idempotent: a network that is flat already gives its vector again. Call it again after ``network.to(device)`` or a
    deep copy, which undo it. Integer buffers stay where they are. Padding between tensors is zero.

    Args:
        network: all parameters float32, or all float64, on one device.

    Returns:
        [P] of that dtype on the network's device, sharing memory with the network.

    Raises:
        ValueError: a parameter or float buffer has another dtype, or they are on several devices.
    """
    tensors = flat_tensors(network)
    spec, size = flat_spec(network), flat_size(network)
    device = tensors[0][1].device if tensors else torch.device("cpu")
    dtype = tensors[0][1].dtype if tensors else torch.float32
    for name, tensor in tensors:
        if tensor.dtype not in (torch.float32, torch.float64):
            raise ValueError(f"{name}: expected float32 weights, got {tensor.dtype}; convert with network.float()")
        if tensor.dtype != dtype:
            raise ValueError(f"{name}: expected {dtype} weights as the others, got {tensor.dtype}")
        if tensor.device != device:
            raise ValueError(f"{name}: expected all weights on {device}, got {tensor.device}; move the network first")
    existing = _existing(tensors, spec, size)
    if existing is not None:
        return existing
    flat = torch.zeros(size, dtype=dtype, device=device)
    for (_, tensor), entry in zip(tensors, spec, strict=True):
        view = flat[entry.offset : entry.offset + entry.size].view(entry.shape)
        view.copy_(tensor)
        tensor.data = view
    return flat


class WeightViews:
    """Lets a network's weights lie in one vector or another, without copying any.

    Args:
        network: keeps its parameters, as objects, for as long as this is used.
    """

    def __init__(self, network: nn.Module) -> None:
        self._tensors, self._spec, self._size = flat_tensors(network), flat_spec(network), flat_size(network)
        self._views: dict[int, tuple[Tensor, list[Tensor]]] = {}
        self._at = 0

    def look_at(self, flat: Tensor) -> None:
        """Make all parameters and float buffers views of ``flat`` [P], as it is.

        ValueError where the vector is of another length or dtype than the network's own.
        """
        address = flat.data_ptr()
        if address == self._at and address in self._views:
            return
        if address not in self._views:
            dtype = self._tensors[0][1].dtype if self._tensors else flat.dtype
            if flat.shape != (self._size,) or flat.dtype != dtype:
                raise ValueError(f"flat: expected {dtype} [{self._size}], got {flat.dtype} {list(flat.shape)}")
            ends = [(entry.offset, entry.offset + entry.size, entry.shape) for entry in self._spec]
            self._views[address] = flat, [flat[start:end].view(shape) for start, end, shape in ends]
        for (_, tensor), view in zip(self._tensors, self._views[address][1], strict=True):
            tensor.data = view
        self._at = address


def view_parameters(network: nn.Module, flat: Tensor) -> None:
    """Make all parameters and float buffers of ``network`` views of ``flat`` [P], once: see ``WeightViews``."""
    WeightViews(network).look_at(flat)


def flat_tensors(network: nn.Module) -> list[tuple[str, Tensor]]:
    """What lies in the flat vector, in order: parameters, then float buffers."""
    buffers = [(name, buffer) for name, buffer in network.named_buffers() if buffer.is_floating_point()]
    return [*network.named_parameters(), *buffers]


def _existing(tensors: list[tuple[str, Tensor]], spec: list[FlatEntry], size: int) -> Tensor | None:
    """The vector that all tensors are views of already, laid out as ``spec`` says; None if there is none."""
    if not tensors:
        return None
    storage, dtype, width = tensors[0][1].untyped_storage(), tensors[0][1].dtype, tensors[0][1].element_size()
    base = storage.data_ptr()
    if storage.nbytes() != width * size:
        return None
    for (_, tensor), entry in zip(tensors, spec, strict=True):
        in_place = tensor.data_ptr() == base + width * entry.offset and tensor.is_contiguous()
        if not in_place or tensor.untyped_storage().data_ptr() != base:
            return None
    return torch.empty(0, dtype=dtype, device=storage.device).set_(storage, 0, (size,), (1,))
