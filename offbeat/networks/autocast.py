"""Autocast switched off, and what it keeps of weights that it has rounded."""

from __future__ import annotations

import functools
from contextlib import AbstractContextManager, nullcontext

import torch
from torch.nn import functional


def without_autocast(device_type: str) -> AbstractContextManager[None]:
    """No autocast inside. Nothing at all where there is none: an exported network that switches it off cannot be loaded
    by torch 2.6.
    """
    return torch.autocast(device_type, enabled=False) if torch.is_autocast_enabled(device_type) else nullcontext()


@functools.cache
def keeps_history(device_type: str) -> bool:
    """Whether weights that were rounded under autocast where no gradient was wanted are rounded anew where one is.

    Torch 2.6 takes those of before, which lead nowhere: a network that is run without gradients first, as to choose
    the next action or to burn in a recurrent state, then gets none for the layers that it shares with that.
    """
    with torch.inference_mode(False), torch.enable_grad():
        weight, x = torch.ones(1, 1, device=device_type, requires_grad=True), torch.ones(1, 1, device=device_type)
        with torch.autocast(device_type, torch.bfloat16, cache_enabled=True):
            with torch.no_grad():
                functional.linear(x, weight)
            return functional.linear(x, weight).requires_grad
