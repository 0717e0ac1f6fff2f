"""What ``auto`` means on this machine: decided once per run, written to its config.toml, kept by a resume."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from offbeat.config import RunConfig

CPU_BF16_FLAGS = ("avx512_bf16", "amx_bf16", "bf16")
"""Flags of /proc/cpuinfo of processors that multiply bfloat16; the last is Arm's."""


def decide(config: RunConfig) -> RunConfig:
    """``config`` with every ``auto`` that depends on the machine replaced by what it stands for here."""
    device = choose_device(config.device)
    learner = replace(config.learner, device=choose_device(config.learner.device, device))
    if learner.precision == "auto":
        learner = replace(learner, precision="bf16" if computes_bf16(learner.device) else "fp32")
    inference = replace(config.inference, device=choose_device(config.inference.device, device))
    return replace(config, device=device, learner=learner, inference=inference)


def choose_device(name: str, otherwise: str = "") -> str:
    """A device's own name; for ``auto``: ``otherwise``, or CUDA where there is one."""
    if name != "auto":
        return name
    return otherwise or ("cuda" if torch.cuda.is_available() else "cpu")


def computes_bf16(device: str) -> bool:
    """Whether the device multiplies bfloat16 itself, so that it pays."""
    if torch.device(device).type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    flags = cpu_flags()
    return any(flag in flags for flag in CPU_BF16_FLAGS)


def cpu_flags() -> set[str]:
    """The processor's flags; empty where /proc/cpuinfo is missing."""
    path = Path("/proc/cpuinfo")
    if not path.exists():
        return set()
    lines = [line for line in path.read_text().splitlines() if line.lower().startswith(("flags", "features"))]
    return set(lines[0].split(":", 1)[1].split()) if lines else set()
