"""environment.json: on what machine, with which versions and by which command a run was made."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from offbeat.config.auto import usable_cores
from offbeat.run.log import put_aside

FILE_NAME = "environment.json"

PACKAGES = (
    "offbeat", "torch", "numpy", "gymnasium", "ale-py", "envpool", "minatar", "open_spiel", "vizdoom", "popgym",
    "pyboy", "stable-retro", "safetensors", "opencv-python-headless", "tensorboard", "rich", "matplotlib",
)  # fmt: skip
"""Packages whose versions can change a run's numbers or files; those not installed are left out."""

CPU_FLAGS = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16", "asimd", "bf16")
"""Instruction sets that decide which kernels torch picks."""


def write_environment(
    run_dir: Path, *, seed: int, command: list[str] | None = None, say: Callable[[str], None] = print
) -> dict[str, Any]:
    """Write ``run_dir/environment.json``; a resumed run keeps the first one and adds itself under ``resumed``.

    No run ends for it: one that cannot be read is moved aside, one that cannot be written is not, and both are said.

    Args:
        seed: the run's seed.
        command: command line; default: this process's.
        say: hears what is wrong.
    """
    path = run_dir / FILE_NAME
    now = describe_environment(seed=seed, command=command)
    temporary = path.with_suffix(".json.tmp")
    try:
        written = _read(path, say) or now
        if written is not now:
            written.setdefault("resumed", []).append(now)
        temporary.write_text(json.dumps(written, indent=2) + "\n")
        os.replace(temporary, path)
    except OSError as error:
        say(f"{path} cannot be written ({error.strerror or error}); the run goes on without it")
        with suppress(OSError):  # a full disk may leave a part of it, a disk that cannot be written nothing
            temporary.unlink(missing_ok=True)
    return now


def _read(path: Path, say: Callable[[str], None]) -> dict[str, Any] | None:
    """What an earlier start wrote; None if it did not, or if that is torn and was moved aside. Raises OSError."""
    if not os.path.lexists(path):
        return None
    reason = "it is no file"
    if path.is_file():
        try:
            written = json.loads(path.read_bytes())
            if isinstance(written, dict) and isinstance(written.get("resumed", []), list):
                return written
            reason = "it does not hold what a run writes"
        except (ValueError, RecursionError, PermissionError) as error:
            reason = str(error)
    say(f"{path} cannot be read ({reason}): moved to {put_aside(path)}, begun anew")
    return None


def describe_environment(*, seed: int, command: list[str] | None = None) -> dict[str, Any]:
    """Versions, machine, seed, command and source commit, as JSON can hold them."""
    return {
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "command": sys.orig_argv if command is None else command,
        "folder": _folder(),
        "seed": seed,
        "python": platform.python_version(),
        "versions": package_versions(),
        "commit": source_commit(),
        "machine": describe_machine(),
    }


def _folder() -> str | None:
    try:
        return os.getcwd()
    except OSError:  # it was removed
        return None


def package_versions() -> dict[str, str]:
    """Installed versions of ``PACKAGES``."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def describe_machine() -> dict[str, Any]:
    """System, processor with the instruction sets of interest, usable cores, memory in GiB, GPUs."""
    model, flags = _processor()
    return {
        "system": platform.platform(),
        "processor": model or platform.processor() or platform.machine(),
        "cpu_flags": [flag for flag in CPU_FLAGS if flag in flags],
        "cores": usable_cores(),
        "memory_gib": _memory_gib(),
        "gpus": _gpus(),
    }


def source_commit(folder: Path | None = None) -> str | None:
    """Commit of the checkout that offbeat runs from, with ``+changes`` where files differ; None outside of one."""
    folder = folder or Path(__file__).resolve().parents[1]
    if not (folder.parent / ".git").exists():
        return None  # an installed package inside somebody else's checkout is not that checkout
    try:
        commit = _git(folder, "rev-parse", "HEAD")
        changed = _git(folder, "status", "--porcelain", "--untracked-files=no", "--", ".")
    except (OSError, subprocess.SubprocessError):
        return None
    return commit + ("+changes" if changed else "")


def _git(folder: Path, *words: str) -> str:
    command = ["git", "-C", str(folder), *words]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=10).stdout.strip()


def _processor() -> tuple[str, set[str]]:
    """Model name and flags of the first processor; empty where the system does not tell (not Linux)."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return "", set()
    model, flags = "", set[str]()
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip() == "model name" and not model:
            model = value.strip()
        if name.strip() in ("flags", "Features") and not flags:
            flags = set(value.split())
    return model, flags


def _memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 2)
    except (AttributeError, ValueError, OSError):
        return None


def _gpus() -> list[str]:
    import torch

    if not torch.cuda.is_available():
        return []
    return [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
