"""``offbeat doctor``: what this machine has, what is installed, and what ``auto`` chooses here."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import sys
from dataclasses import replace
from importlib import metadata
from pathlib import Path

from offbeat.config.auto import LEARNER_SHARE, decide, usable_cores
from offbeat.config.validation import GIB, available_memory, free_disk

EXTRAS = {
    "atari": ("ale_py", "cv2"),
    "envpool": ("envpool",),
    "minatar": ("minatar",),
    "hanabi": ("pyspiel",),
    "vizdoom": ("vizdoom", "cv2"),
    "gameboy": ("pyboy", "stable_retro", "cv2"),
    "popgym": ("popgym",),
    "rtgym": ("rtgym",),
    "video": ("imageio_ffmpeg",),
    "box2d": ("Box2D",),
    "mujoco": ("mujoco",),
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
    "wandb": ("wandb",),
    "mlflow": ("mlflow",),
}
"""Extra -> the modules that it brings."""

PACKAGES = ("offbeat", "torch", "numpy", "gymnasium", "ale-py", "safetensors")


def report() -> str:
    """The whole report, one fact per line."""
    sections = {
        "versions": versions(),
        "machine": machine(),
        "torch": torch_facts(),
        "short cuts": short_cuts(),
        "extras": extras(),
        "auto chooses": choices(),
    }
    lines = []
    for title, facts in sections.items():
        lines += [f"{title}:", *(f"  {name:<18} {fact}" for name, fact in facts.items()), ""]
    return "\n".join(lines).rstrip()


def versions() -> dict[str, str]:
    """Versions of Python, the system and the packages that matter."""
    found = {"python": platform.python_version(), "system": platform.platform()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def machine() -> dict[str, str]:
    """Cores, memory and disk that this process may use."""
    facts = {
        "cores": f"{usable_cores()} usable of {os.cpu_count()}",
        "memory available": f"{available_memory() / GIB:.1f} GiB (the container's limit included)",
        "disk free here": f"{free_disk(Path.cwd()) / GIB:.1f} GiB",
        "C++ compiler": shutil.which("g++") or shutil.which("clang++") or "none (learner.compile=true needs one)",
        "display": "yes" if os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY") else "none (use record)",
    }
    shm = Path("/dev/shm")
    if shm.exists():
        facts["/dev/shm"] = f"{free_disk(shm) / GIB:.2f} GiB free (not a limit: streams live in memfd or a mapped file)"
    facts["memfd"] = "yes" if hasattr(os, "memfd_create") else "no; mapped files are used"
    return facts


def torch_facts() -> dict[str, str]:
    """GPUs and precisions."""
    import torch

    facts = {"CUDA in torch": torch.version.cuda or "no"}
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            seen = torch.cuda.get_device_properties(index)
            facts[f"cuda:{index}"] = f"{seen.name}, {seen.total_memory / GIB:.0f} GiB"
        facts["bf16 on GPU"] = "yes" if torch.cuda.is_bf16_supported() else "no"
    else:
        facts["GPU"] = "none"
    facts["bf16 on CPU"] = cpu_bf16()
    facts["CPU capability"] = torch.backends.cpu.get_cpu_capability()
    return facts


def cpu_bf16() -> str:
    """Whether the processor computes in bf16 or torch has to imitate it."""
    info = Path("/proc/cpuinfo")
    if not info.exists():
        return "unknown"
    flags = info.read_text()
    found = [name for name in ("amx_bf16", "avx512_bf16", "avx_ne_convert", "bf16") if f" {name}" in flags]
    return f"yes ({found[0]})" if found else "no (imitated: slower than fp32)"


def short_cuts() -> dict[str, str]:
    """What torch and numba do here though they do not promise it; without it the same results come more slowly."""
    import torch

    from offbeat.agents import joined_loss
    from offbeat.networks import joined, rounded
    from offbeat.replay import kernels

    tried = {
        "layers in one step": joined.missing(),
        "loss in few steps": joined_loss.missing(),
        "copies in one call": rounded.missing(torch.device("cpu")),
        "stacks in vectors": kernels.missing(),
    }
    return {name: f"no, done the plain way: {reason}" if reason else "yes" for name, reason in tried.items()}


def extras() -> dict[str, str]:
    """Each extra: installed, or the command that installs it."""
    found = {}
    for extra, modules in EXTRAS.items():
        missing = [module for module in modules if importlib.util.find_spec(module) is None]
        found[extra] = f"missing {', '.join(missing)}: pip install 'offbeat[{extra}]'" if missing else "installed"
    return found


def choices() -> dict[str, str]:
    """What options that say ``auto`` (threads and workers: 0) become on this machine, and why."""
    from offbeat.config.run_config import load_preset
    from offbeat.run.actor_times import NEAR, TRIED

    asked = load_preset("impala-atari")
    everything = replace(asked.actor, workers=0, env_threads=0, inference="auto")
    learner = replace(asked.learner, threads=0, precision="auto")
    chosen = decide(replace(asked, actor=everything, learner=learner))
    gpu = chosen.device.startswith("cuda")
    bf16 = ("yes" if chosen.learner.precision == "bf16" else "no") if gpu else cpu_bf16()
    atari = "ale" if importlib.util.find_spec("ale_py") else "none: pip install 'offbeat[atari]'"
    return {
        "device": f"{chosen.device}: " + ("torch sees a GPU" if gpu else "torch sees no GPU"),
        "learner.precision": f"{chosen.learner.precision}: bf16 on the {'GPU' if gpu else 'processor'}? {bf16}",
        "learner.threads": f"{chosen.learner.threads}: "
        + ("the GPU does the work" if gpu else f"{LEARNER_SHARE:.0%} of {usable_cores()} cores"),
        "actor.workers": f"{chosen.actor.workers}: one for every two cores that the learner leaves",
        "actor.envs_per_worker": f"0: the fewest of {', '.join(map(str, TRIED))} whose step costs at most {NEAR:g} "
        "times the least, measured as a run begins",
        "actor.env_threads": f"{chosen.actor.env_threads} for each actor: the cores that are left",
        "actor.inference": f"{chosen.actor.inference}: " + ("one batch on the GPU serves all" if gpu else "no GPU"),
        "env.backend": f"{atari}; ale-single in deterministic runs" if atari == "ale" else atari,
        "python": sys.executable,
    }
