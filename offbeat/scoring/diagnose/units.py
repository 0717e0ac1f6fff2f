"""Silent units: which neurons of a network pass nothing on, watched while it acts on real observations."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from offbeat.scoring.diagnose.record import Layer

SATURATED = 0.99
"""A tanh beyond this passes less than 2 % of a gradient on: its derivative is 1 - tanh^2."""
KINDS = {"relu": "relu", "relu_": "relu", "tanh": "tanh", "tanh_": "tanh"}
"""Functions of torch -> activation."""
CORE = "core"
"""What recurrent cores are called in networks: their gates are meant to be open or closed."""


class Watch(TorchFunctionMode):
    """Sees every relu and tanh that is computed while it is entered, and keeps of each unit whether it ever moved.

    Attributes:
        layers: what was seen so far, in the order of a forward.
    """

    def __init__(self) -> None:
        super().__init__()
        self._module, self._place = "", 0
        self._alive: dict[tuple[int, str, str], Tensor] = {}

    @property
    def layers(self) -> tuple[Layer, ...]:
        """Each activation with the number of its units, and of those that never were in their range."""
        found = sorted(self._alive.items())
        return tuple(
            Layer(name, kind, alive.numel(), alive.numel() - int(alive.sum())) for (_, name, kind), alive in found
        )

    def begin(self) -> None:
        """A forward begins."""
        self._module, self._place = "", 0

    def enter(self, name: str) -> None:
        """The module of that name begins."""
        self._module = name

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call ``func``, and look at what it gives."""
        output = func(*args, **(kwargs or {}))
        kind = KINDS.get(getattr(func, "__name__", ""))
        if kind is not None and isinstance(output, Tensor) and self._module.split(".")[0] != CORE:
            self._see(kind, output.detach())
        return output

    def _see(self, kind: str, output: Tensor) -> None:
        """``output``: [..., N], or images [B, N, H, W], whose channels are the units."""
        key = (self._place, self._module, kind)
        self._place += 1
        moved = output > 0 if kind == "relu" else output.abs() < SATURATED
        others = (0, 2, 3) if output.ndim == 4 else tuple(range(output.ndim - 1))
        alive = moved.amax(others) if others else moved
        before = self._alive.get(key)
        self._alive[key] = alive if before is None else before | alive


@contextmanager
def watched(network: nn.Module) -> Iterator[Watch]:
    """Meanwhile forwards of ``network`` are watched: hooks say which module they have come to."""
    watch = Watch()
    hooks = [network.register_forward_pre_hook(lambda *_: watch.begin())]
    for name, module in network.named_modules():
        if name and any(True for _ in module.parameters(recurse=False)):
            hooks.append(module.register_forward_pre_hook(_entering(watch, name)))
    try:
        with watch:
            yield watch
    finally:
        for hook in hooks:
            hook.remove()


def _entering(watch: Watch, name: str) -> Callable[..., None]:
    def enter(module: nn.Module, inputs: Any) -> None:
        watch.enter(name)

    return enter
