"""offbeat: asynchronous deep reinforcement learning. ``offbeat.train``, ``offbeat.load`` and ``offbeat.evaluate``.

Importing it is cheap; torch is imported by the first call.
"""

from __future__ import annotations

import sys
from types import ModuleType

from offbeat.api import evaluate, load, train

__all__ = ["evaluate", "load", "train"]


class _Package(ModuleType):
    """Keeps the functions ``train`` and ``evaluate`` where importing the modules of these names would replace them."""

    def __setattr__(self, name: str, value: object) -> None:
        if name in __all__ and isinstance(value, ModuleType):
            return
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
