"""offbeat: asynchronous deep reinforcement learning. ``offbeat.train``, ``offbeat.load``, ``offbeat.evaluate``.

Importing it is cheap; torch is imported by the first call.
"""

from __future__ import annotations

import sys
from types import ModuleType

from offbeat.api import evaluate, export, load, plot, record, resume, train

__all__ = ["evaluate", "export", "load", "plot", "record", "resume", "train"]


class _Package(ModuleType):
    """Keeps functions such as ``train`` where importing the modules of the same names would replace them."""

    def __setattr__(self, name: str, value: object) -> None:
        if name in __all__ and isinstance(value, ModuleType):
            return
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
