"""Torch's generators that a learner draws from, as a checkpoint holds them and as others leave them; and the kernels of
deterministic runs.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

CUBLAS = ("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
"""What cuBLAS reads when it is first used: with it equal products of matrices give equal bits."""


def generator_state(device: torch.device) -> dict[str, torch.Tensor]:
    """The processor's generator and, where ``device`` is a GPU, that one's own."""
    saved = {"generator": torch.get_rng_state()}
    if device.type == "cuda":
        saved["cuda_generator"] = torch.cuda.get_rng_state(device)
    return saved


def load_generator_state(part: Mapping[str, Any], device: torch.device) -> None:
    """Back to what ``part`` holds of ``generator_state``; a generator that it lacks stays as it is."""
    if "generator" in part:
        torch.set_rng_state(torch.as_tensor(part["generator"], dtype=torch.uint8))
    if "cuda_generator" in part and device.type == "cuda":
        torch.cuda.set_rng_state(torch.as_tensor(part["cuda_generator"], dtype=torch.uint8), device)


@contextmanager
def drawing_anew(seed: int, device: torch.device) -> Iterator[None]:
    """Torch's generators of the processor and of ``device`` begin at ``seed``, and afterwards go on where they were.

    Roles in one process must not disturb what the learner draws. ``torch.manual_seed`` would: it seeds every GPU.
    """
    cards = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=cards):
        torch.default_generator.manual_seed(seed)
        for card in cards:
            with torch.cuda.device(card):
                torch.cuda.manual_seed(seed)
        yield


def choose_deterministic_kernels(device: torch.device) -> None:
    """On a GPU, all that torch offers for equal bits from equal numbers; call it before the device is used.

    Operations that have no such kernel warn. On processors there is nothing to choose.
    """
    if device.type != "cuda":
        return
    os.environ.setdefault(*CUBLAS)
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(True, warn_only=True)
