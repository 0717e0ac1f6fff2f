"""Everything about a configuration that can be refused before anything is spawned, each with one clear line."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from offbeat.acting.final_sets import final_sets
from offbeat.config.auto import decide
from offbeat.config.memory import available_memory
from offbeat.config.options import ranged
from offbeat.config.ranges import RANGES
from offbeat.config.realtime_checks import check_realtime
from offbeat.errors import UserError, in_short, told

if TYPE_CHECKING:
    from offbeat.config.run_config import RunConfig
    from offbeat.envs.base import EnvConfig
    from offbeat.types import EnvSpec

GIB = 2**30
PURPOSE = {"eval_env": "evaluation", "valid_env": "validation", "final_env": "the final sets"}
"""Section of environments -> what they are for."""


def validate(
    config: RunConfig,
    *,
    new_run: bool = True,
    env_factory: Callable[..., object] | None = None,
    go_on: str = "",
) -> None:
    """Raise ``UserError`` (or ``EnvUnavailable``) for a configuration that cannot run here; otherwise do nothing.

    ``new_run``: also refuse a run folder that is in use. ``env_factory``: a user's own environment, in place of the one
    that ``env.id`` names. ``go_on``: how to go on with the run in such a folder. Nothing is allocated, spawned or
    written.
    """
    check_ranges(config)
    check_device("device", config.device)
    check_device("learner.device", config.learner.device)
    for index, device in enumerate(config.inference.device):
        check_device(f"inference.device.{index}", device)
    check_delay(config)
    config = decide(config)  # what is auto must fit too
    check_learners(config)
    check_realtime(config, env_factory)
    check_demonstrations(config)
    check_shares(config)
    check_policy_lag(config)
    check_roles(config)
    check_lists(config)
    check_environments(config, env_factory)
    if new_run and config.out:
        check_run_folder(Path(config.out), go_on)


def check_ranges(config: RunConfig) -> None:
    """Refuse numbers outside of their ranges."""
    from offbeat.config.run_config import SECTIONS

    check_range("total_frames", config.total_frames)
    check_range("seed", config.seed)
    for section in SECTIONS:
        for name, value in vars(getattr(config, section)).items():
            check_range(ranged(f"{section}.{name}"), value, f"{section}.{name}")
    for index, sampler in enumerate(config.replay.samplers):
        for name, value in vars(sampler).items():
            check_range(f"replay.samplers.{name}", value, f"replay.samplers.{index}.{name}")


def check_range(name: str, value: Any, shown: str | None = None) -> None:
    """Refuse ``value`` outside the range of option ``name``, called ``shown`` in messages. Only numbers have one."""
    low, high = RANGES.get(name, (0, math.inf))
    _within(shown or name, value, low, high)


def _within(name: str, value: Any, low: float, high: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return
    if not low <= value <= high or math.isinf(value):
        bounds = f"at least {low:g}" if high == math.inf else f"in [{low:g}, {high:g}]"
        bounds = f"finite, {bounds}" if math.isinf(value) else bounds
        raise UserError(f"{name}={value} is out of range; it must be {bounds}")


def check_learners(config: RunConfig) -> None:
    """Refuse several learners where they cannot work beside each other, and assemblers that could do nothing."""
    from offbeat.replay.make import check_shared

    learner = config.learner
    ahead, threads = learner.prefetch, learner.assemblers
    if ahead != "auto" and threads != "auto" and threads > ahead + 1:
        raise UserError(
            f"learner.assemblers={threads} have nothing to do with learner.prefetch={ahead}, by which {ahead + 1} "
            f"batches at most are drawn ahead; use learner.prefetch={threads - 1} or more, or auto"
        )
    if learner.count == 1:
        return
    shown = f"learner.count={learner.count}"
    if config.engine != "local" or config.deterministic:
        fixed = "deterministic=true" if config.deterministic else f'engine="{config.engine}"'
        raise UserError(
            f"{shown} with {fixed}: several learners run freely beside each other, so such a run cannot be repeated; "
            'use engine="local" without deterministic, or learner.count=1'
        )
    if learner.mode == "sync":
        check_together(config, shown)
        return
    try:
        check_shared(config.replay)
    except ValueError as error:
        raise UserError(f"{shown} with {error}, or use learner.count=1") from error


def check_together(config: RunConfig, shown: str) -> None:
    """Refuse learners that step together where they cannot share a batch."""
    learner = config.learner
    if config.realtime.fps:
        raise UserError(f'{shown} beside a realtime environment need learner.mode="async", got "sync"')
    if learner.batch_size < learner.count:
        raise UserError(
            f"{shown}: each needs an item of a batch at least; got learner.batch_size={learner.batch_size}, use "
            f"{learner.count} or more"
        )
    if learner.max_batch_age:
        raise UserError(
            f"{shown} with learner.max_batch_age={learner.max_batch_age}: what was dealt to several learners is "
            "trained on; use learner.max_batch_age=0"
        )


def check_shares(config: RunConfig) -> None:
    """Refuse shares that do not split a batch. The rest is checked on the made agent, as it says what is drawn."""
    from offbeat.replay.demonstrated import items_shown
    from offbeat.replay.make import split_batch

    try:
        aside = items_shown(config.demonstrations, config.learner.batch_size)
        split_batch(config.replay, config.learner.batch_size - aside)
    except ValueError as error:
        raise UserError(str(error)) from error


def check_demonstrations(config: RunConfig) -> None:
    """Refuse a demonstration that there is no use for, or that the run could not learn from."""
    shown, learner = config.demonstrations, config.learner
    if not shown.path:
        for name in ("pretrain_steps", "share"):
            if getattr(shown, name):
                raise UserError(
                    f"demonstrations.{name}={getattr(shown, name):g} needs a demonstration; set demonstrations.path to "
                    "one ('offbeat play ENV --record-demo FILE' makes it)"
                )
        return
    if not (shown.pretrain_steps or shown.share):
        raise UserError(
            f"demonstrations.path={shown.path!r} has no effect without demonstrations.pretrain_steps or "
            "demonstrations.share above 0"
        )
    refused = {
        f"learner.count={learner.count}: one learner alone draws from it; use learner.count=1": learner.count > 1,
        f'learner.mode="{learner.mode}": use learner.mode="sync"': learner.mode != "sync",
        "realtime.fps: such a world does not wait for pretraining; train with [delay] instead": config.realtime.fps > 0,
        f"env.ids={list(config.env.ids)}: it is of one environment; use env.id": bool(config.env.ids),
    }
    for why, found in refused.items():
        if found:
            raise UserError(f"demonstrations.path={shown.path!r} does not go with {why}")


def check_delay(config: RunConfig) -> None:
    """Refuse options of a delay that do not go together, and a file of delays that is none."""
    try:
        config.delay.check()
    except ValueError as error:
        raise UserError(str(error)) from error


def check_policy_lag(config: RunConfig) -> None:
    """Refuse a bound on the policy lag that the weights that actors have exceed before the next are published."""
    lag, every = config.learner.max_policy_lag, config.learner.publish_every
    if lag and not config.replay.paced:
        raise UserError(
            f"learner.max_policy_lag={lag} has no effect without a fifo among replay.samplers; leave it at 0"
        )
    if 0 < lag < every:
        raise UserError(
            f"learner.max_policy_lag={lag} is less than learner.publish_every={every}: the learner would skip the "
            f"unrolls of all weights that actors have, and never publish others; use {every} or more, or 0 for no bound"
        )


def check_roles(config: RunConfig) -> None:
    """Refuse counts of environments and workers that do not fit each other."""
    actor = config.actor
    if actor.batch > actor.envs_per_worker:
        raise UserError(f"actor.batch={actor.batch} is more than actor.envs_per_worker={actor.envs_per_worker}")
    if not config.inference.device:
        raise UserError('inference.device is empty; name at least one, e.g. "auto"')
    if config.inference.min_batch > config.inference.max_batch:
        raise UserError(
            f"inference.min_batch={config.inference.min_batch} is more than "
            f"inference.max_batch={config.inference.max_batch}"
        )
    if (
        config.learner.compile
        and shutil.which(os.environ.get("CXX", "g++")) is None
        and shutil.which("clang++") is None
    ):
        raise UserError(
            "learner.compile=true needs a C++ compiler and none is installed; install g++, or leave it false"
        )


def check_lists(config: RunConfig) -> None:
    """``UserError`` for lists of games that the run's roles could not play."""
    env, actor = config.env, config.actor
    if not env.ids:
        return
    count = actor.workers * actor.envs_per_worker
    if config.realtime.fps:
        raise UserError(f"env.ids={list(env.ids)}: a realtime run has one environment, and plays one game; give env.id")
    if actor.batch and actor.batch != actor.envs_per_worker:
        raise UserError(f"actor.batch={actor.batch}: the games of env.ids are stepped all at once; leave it at 0")
    if env.several == "at_once" and count < len(env.ids):
        raise UserError(
            f"env.ids names {len(env.ids)} games at once and there are {count} environments (actor.workers x "
            f"actor.envs_per_worker); use at least {len(env.ids)}"
        )


def check_device(name: str, device: str) -> None:
    """Refuse a device that is misspelt or not there."""
    kind, _, index = device.partition(":")
    if kind not in ("auto", "cpu", "cuda") or (index and (kind != "cuda" or not index.isdecimal())):
        raise UserError(f"{name}={device!r} is not allowed; choose one of: auto, cpu, cuda, cuda:N")
    if kind != "cuda":
        return
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if count == 0:
        built = "torch finds no GPU" if torch.version.cuda else f"torch {torch.__version__} is built without CUDA"
        raise UserError(f"{name}={device!r}, but {built}; use cpu, or see 'offbeat doctor'")
    if index and int(index) >= count:
        raise UserError(f"{name}={device!r}, but there are only {count} GPUs; use cuda:0 to cuda:{count - 1}")


def check_environments(config: RunConfig, factory: Callable[..., object] | None = None) -> None:
    """Refuse environments that do not exist, are not installed, or differ between training and evaluation."""
    played: list[tuple[str, str, EnvConfig]] = [("eval_env", "evaluation", config.eval_env)]
    if config.validation.wanted:
        played.append(("valid_env", "validation", config.valid_env))
    sets = final_sets(config.final, config.env, config.final_env)
    played += [("final_env", "final", env) for env in dict.fromkeys(one.env for one in sets)]
    spec = _spec_of("env", config.env, factory)
    _check_players("actor.envs_per_worker", config.actor.envs_per_worker, spec)
    for name, section, env in played:
        counts, seen = getattr(config, section), _spec_of(name, env, factory, like=spec)
        if spec.action != seen.action or spec.network_observation != seen.network_observation:
            raise UserError(
                f"{name} {env.id!r} has other observations or actions than env {config.env.id!r}; "
                f"set the same frame_stack and full_action_space, or an environment of the same kind"
            )
        _check_players(f"{section}.envs", counts.envs, seen)
        games = counts.envs // seen.players
        if counts.episodes % games:
            shown = f"the {games} games of " if seen.players > 1 else ""
            raise UserError(
                f"{section}.episodes={counts.episodes} cannot be shared equally by {shown}{section}.envs="
                f"{counts.envs}; use a multiple of {games}"
            )


def _spec_of(
    section: str, env: EnvConfig, factory: Callable[..., object] | None, like: EnvSpec | None = None
) -> EnvSpec:
    """What an environment gives and takes; UserError where it cannot be made, or is not ``like`` that of training."""
    from offbeat.envs.base import EnvUnavailable
    from offbeat.envs.manners import check_like
    from offbeat.envs.registry import env_spec

    try:
        seen = env_spec(env, factory)
        if factory is not None and like is not None:
            check_like(seen, like, f"that for {PURPOSE[section]}", "that for training")
        return seen
    except EnvUnavailable:
        raise
    except ValueError as error:  # a switch that means nothing to the environment
        raise UserError(f"[{section}] {error}") from error
    except Exception as error:  # the environment's own, of any class
        raise UserError(f"[{section}] {env.id} cannot be made: {told(error)}") from error


def _check_players(name: str, count: int, spec: EnvSpec) -> None:
    """Refuse a count of environments that leaves a game without some of its players."""
    if count % spec.players:
        raise UserError(
            f"{name}={count}: {spec.id} has {spec.players} players, and each is an environment; "
            f"use a multiple of {spec.players}"
        )


def check_run_folder(path: Path, go_on: str = "") -> None:
    """Refuse a run folder that already holds something, or whose place cannot be written. ``go_on``: how to go on with
    a run that is there.
    """
    try:
        exists, folder = path.exists(), path.is_dir()
        used = folder and any(path.iterdir())
    except (OSError, ValueError) as error:  # a name that the file system does not take
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"out={in_short(str(path))!r} cannot be a folder: {reason}") from error
    if exists and not folder:
        raise UserError(f"out={str(path)!r} is a file; name a folder that does not exist yet")
    if used:
        is_run = go_on and (path / "config.toml").is_file()
        way = f", or go on with the run in it: {go_on}" if is_run else ""
        raise UserError(f"run folder {str(path)!r} is already in use; name another with --out{way}")
    parent = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
    if not parent.is_dir():
        raise UserError(f"out={str(path)!r} lies below {str(parent)!r}, which is a file; name another with --out")
    if not os.access(parent, os.W_OK):
        raise UserError(
            f"out={str(path)!r} cannot be written: no permission in {str(parent)!r}; name another with --out"
        )


def check_resources(config: RunConfig, needed_bytes: int, out: Path, *, roles_bytes: int = 0) -> None:
    """Refuse a run that fits neither the memory nor the disk.

    ``needed_bytes``: streams and weights; ``roles_bytes``: what the processes take besides. Disk: the checkpoints kept
    (and one being written) with the streams in them where they are saved, plus 64 MiB for logs.
    """
    memory, available = needed_bytes + roles_bytes, available_memory()
    if memory > available:
        processes = "realtime.inference, " if config.realtime.fps and roles_bytes > needed_bytes else ""
        raise UserError(
            f"the run needs {memory / GIB:.2f} GiB of memory for its streams and roles and {available / GIB:.2f} GiB "
            f"are available; lower {processes}"
            "replay.capacity, actor.envs_per_worker or actor.workers"
        )
    checkpoint = config.checkpoint
    saved = needed_bytes if checkpoint.replay and needed_bytes <= checkpoint.max_replay_gb * GIB else 0
    disk, free = saved * (checkpoint.keep + 1) + 64 * 2**20, free_disk(out)
    if disk > free:
        raise UserError(
            f"the run needs up to {disk / GIB:.2f} GiB of disk for its checkpoints and {free / GIB:.2f} GiB are free "
            f"at {str(out)!r}; lower checkpoint.keep, set checkpoint.replay=false, or name another folder with --out"
        )


def free_disk(path: Path) -> int:
    """Free bytes at ``path`` or, where it does not exist yet, at the folder above it that does."""
    return shutil.disk_usage(next(folder for folder in (path, *path.absolute().parents) if folder.exists())).free
