"""How busy a GPU is, and whose: asked of NVML through torch, of ``nvidia-smi`` where torch has no binding for it."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from statistics import mean
from types import TracebackType

import torch

LOOK_S = 0.5
"""The GPU is asked so often; it answers for the last sixth of a second, or the last second. Unit: seconds."""
ANSWER_S = 10.0
"""``nvidia-smi`` may take so long to answer. Unit: seconds."""

Look = Callable[[], float | None]
"""Gives the share of time, in percent, in which the GPU computed something just now; None: it does not tell."""


class GpuWatch:
    """The GPU's share of busy time while this context lasts, looked at by a thread of its own.

    Args:
        look: asks the GPU; None: there is none.
        every_s: time between two looks. Unit: seconds.

    Attributes:
        seen: what each look gave, in percent.
        trouble: why it could not be asked, in one line; "" where it could.
    """

    def __init__(self, look: Look | None, every_s: float = LOOK_S) -> None:
        self._look, self._every_s = look, every_s
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self.seen: list[float] = []
        self.trouble = ""

    def __enter__(self) -> GpuWatch:
        if self._look is not None:
            self._thread = threading.Thread(target=self._watch, name="gpu watch", daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        if self._thread is not None:
            self._thread.join(ANSWER_S)

    def _watch(self) -> None:
        assert self._look is not None
        while not self._ended.wait(self._every_s):
            try:
                share = self._look()
            except Exception as error:  # of a driver's library: a benchmark goes on without
                self.trouble = f"{type(error).__name__}: {error}"
                return
            if share is not None:
                self.seen.append(share)

    @property
    def busy(self) -> float | None:
        """Mean of all looks, in percent; None where there was none."""
        return mean(self.seen) if self.seen else None


def make_look(device: str) -> Look | None:
    """How to ask ``device``, e.g. ``cuda:1``; None for a processor."""
    if not device.startswith("cuda"):
        return None
    index = torch.device(device).index or 0
    try:
        torch.cuda.utilization(index)
    except Exception as error:  # no binding is installed, or the GPU (a part of one) does not tell
        name, why = gpu_uuid(index), f"{type(error).__name__}: {error}"
        return lambda: ask_smi(name, why)
    return lambda: float(torch.cuda.utilization(index))


def ask_smi(gpu: str, otherwise: str = "") -> float | None:
    """What ``nvidia-smi`` says of ``gpu``, in percent; None where it does not tell. RuntimeError where there is no such
    command, or it fails; ``otherwise``: why it had to be asked.
    """
    answer = smi("utilization.gpu", gpu)
    if answer is None:
        raise RuntimeError(f"nvidia-smi does not answer; before it, torch: {otherwise}")
    return float(answer) if answer.isdecimal() else None


def smi(question: str, gpu: str = "") -> str | None:
    """The answer of ``nvidia-smi`` to one ``--query-gpu``, its first line; None where it cannot be run."""
    command = ["nvidia-smi", f"--query-gpu={question}", "--format=csv,noheader,nounits", *([f"--id={gpu}"] * bool(gpu))]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=ANSWER_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    lines = done.stdout.strip().splitlines()
    return lines[0].strip() if lines else None


def gpu_uuid(index: int) -> str:
    """What ``nvidia-smi`` calls a GPU that torch counts as ``index``, which sees only those that it may use."""
    uuid = getattr(torch.cuda.get_device_properties(index), "uuid", None)
    return str(index) if uuid is None else f"GPU-{str(uuid).removeprefix('GPU-')}"


def describe_gpu(device: str, root: Path = Path("/")) -> str:
    """Name, memory and driver of ``device`` in one line; ``root``: where ``proc`` lies."""
    if not device.startswith("cuda"):
        return "no GPU: all on the processor"
    index = torch.device(device).index or 0
    seen = torch.cuda.get_device_properties(index)
    return f"{seen.name}, {seen.total_memory / 2**30:.0f} GiB, driver {driver(root)}, CUDA {torch.version.cuda}"


def driver(root: Path = Path("/")) -> str:
    """Version of NVIDIA's driver, as ``nvidia-smi`` or the kernel's module says it."""
    if (answer := smi("driver_version")) is not None:
        return answer
    try:
        words = (root / "proc/driver/nvidia/version").read_text().split()
    except OSError:
        words = []
    numbers = [word for word in words if word[:1].isdecimal() and word.count(".") >= 1]
    return numbers[0] if numbers else "unknown"
