"""What ``auto`` means on this machine: decided once per run, written to its config.toml, kept by a resume."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from offbeat.config.env_lists import with_turns
from offbeat.runtime.realtime_config import MOST, RealtimeConfig

if TYPE_CHECKING:
    from offbeat.config.run_config import RunConfig

CPU_BF16_FLAGS = ("avx512_bf16", "amx_bf16", "bf16")
"""Flags of /proc/cpuinfo of processors that multiply bfloat16; the last is Arm's."""
LEARNER_SHARE = 0.4
"""Share of the cores that learning gets on a machine without a GPU: about its share of the time of a step of Atari."""
MOST_LEARNER_THREADS = 8
"""More threads than this hardly make a learner faster. Not measured: machines here had 2 cores."""


UNMEASURED_ENVS = 32
"""Environments of an actor that a run chooses where it does not measure what a step costs."""


def decide(config: RunConfig, *, measures: bool = False) -> RunConfig:
    """``config`` with every ``auto`` that depends on the machine replaced by what it stands for here.

    ``measures``: a run is about to choose its environments from what a step costs here (``run.actor_times``): they stay
    0 then, unless it has a fixed schedule, where results must not hang on time.
    """
    device = choose_device(config.device)
    learner = replace(config.learner, device=choose_device(config.learner.device, device))
    if learner.precision == "auto":
        learner = replace(learner, precision="bf16" if computes_bf16(learner.device) else "fp32")
    inference = replace(config.inference, device=tuple(choose_device(one, device) for one in config.inference.device))
    on_gpu = learner.device.startswith("cuda")
    learner = replace(learner, threads=learner.threads or learner_threads(usable_cores(), on_gpu, learner.count))
    actor = config.actor
    if actor.precision == "auto" and on_gpu and not computes_bf16("cpu"):
        actor = replace(actor, precision="fp32")  # elsewhere it goes on meaning the learner's
    if actor.inference == "auto":
        server = any(one.startswith("cuda") for one in inference.device)
        actor = replace(actor, inference="server" if server else "actor")
    if config.realtime.fps:  # one environment, whose actions come from processes of their own
        actor = replace(actor, workers=1, envs_per_worker=1, inference="actor")
        config = replace(config, delay=replace(config.delay, joined=True))
    if not (actor.envs_per_worker or (measures and config.engine == "local" and not config.deterministic)):
        actor = replace(actor, envs_per_worker=UNMEASURED_ENVS)
    workers = actor.workers or actor_workers(usable_cores(), learner.threads * learner.count)
    threads = actor.env_threads or env_threads(usable_cores(), learner.threads * learner.count, workers)
    actor = replace(actor, workers=workers, env_threads=threads)
    realtime = decide_inference(config.realtime, virtual=config.engine == "inline")
    config = replace(config, env=with_turns(config.env, config.total_frames))
    return replace(config, device=device, learner=learner, inference=inference, actor=actor, realtime=realtime)


def decide_inference(realtime: RealtimeConfig, *, virtual: bool) -> RealtimeConfig:
    """Inference processes of a run that leaves them to us (0), where nothing has to be measured for it.

    One where the mode has one. On a virtual clock, as many as were recorded, or as the times that are asked for need.
    On the wall clock a run measures first, see ``offbeat.run.inference_times``.
    """
    if not realtime.fps or realtime.inference:
        return realtime
    if realtime.mode != "async":
        return replace(realtime, inference=1)
    if not virtual:
        return realtime
    recorded = len(list(Path(realtime.replay).glob("realtime_actor*.durations.npy"))) if realtime.replay else 0
    return replace(realtime, inference=min(MOST, recorded or realtime.needed(realtime.virtual_s)))


def usable_cores() -> int:
    """Cores that the scheduler lets this process use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def learner_threads(cores: int, on_gpu: bool, count: int = 1) -> int:
    """Torch threads of each of ``count`` learners: ``LEARNER_SHARE`` of the cores; one where a GPU does the work."""
    return 1 if on_gpu else max(1, min(MOST_LEARNER_THREADS, round(LEARNER_SHARE * cores) // count))


def actor_workers(cores: int, learner: int) -> int:
    """Actor processes: one for every two cores that the learners' threads leave. ``learner``: threads of all."""
    return max(1, (cores - learner) // 2)


def env_threads(cores: int, learner: int, workers: int) -> int:
    """Native threads of the environments of each actor.

    A learner with one thread never waits for another one of its own, so the games may use its core while it waits, and
    all cores are shared out. Threads that wait for each other (two or more) lose most of their speed where they have to
    share a core, so then the learner's cores are left alone.
    """
    left = cores if learner == 1 else cores - learner
    return max(1, left // workers)


def wanted_cores(config: RunConfig) -> int:
    """Cores that a run keeps busy, the scores played beside it left out; all of this machine's where it counts its
    actors or their threads by them, or computes on a GPU.
    """
    cores, actor, on_gpu = usable_cores(), config.actor, _on_gpu(config)
    count = config.learner.count
    learner = count * (config.learner.threads or learner_threads(cores, on_gpu, count))
    if on_gpu:
        return cores
    if config.engine == "inline":
        return min(cores, max(learner, actor.threads))
    if config.deterministic:  # in turns
        return min(cores, max(learner, (actor.workers or actor_workers(cores, learner)) * actor.threads))
    if not actor.workers or not actor.env_threads:
        return cores
    return min(cores, learner + actor.workers * max(actor.threads, actor.env_threads))


def shared_out(config: RunConfig, cores: int) -> dict[str, int]:
    """Options that take the place of what a run would choose from all cores of the machine, where it has so many.

    None for runs with a fixed schedule: how many threads and actors there are decides what comes out of them.
    """
    if config.engine == "inline" or config.deterministic:
        return {}
    count = config.learner.count
    each = config.learner.threads or learner_threads(cores, _on_gpu(config), count)
    learner = each * count
    workers = config.actor.workers or actor_workers(cores, learner)
    chosen = {
        "learner.threads": (config.learner.threads, each),
        "actor.workers": (config.actor.workers, workers),
        "actor.env_threads": (config.actor.env_threads, env_threads(cores, learner, workers)),
    }
    return {name: value for name, (given, value) in chosen.items() if not given}


def _on_gpu(config: RunConfig) -> bool:
    """Whether its learner computes on one."""
    return choose_device(config.learner.device, choose_device(config.device)).startswith("cuda")


def choose_device(name: str, otherwise: str = "") -> str:
    """A device's own name; for ``auto``: ``otherwise``, or CUDA where there is one."""
    if name != "auto":
        return name
    import torch  # late: a wrong option should be told at once, and torch takes seconds

    return otherwise or ("cuda" if torch.cuda.is_available() else "cpu")


def computes_bf16(device: str) -> bool:
    """Whether the device multiplies bfloat16 itself, so that it pays."""
    if device.startswith("cuda"):
        import torch

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
