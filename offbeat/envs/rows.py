"""What all adapters do to rows: make them, the reward as trained on, checks of actions and of unused switches."""

from __future__ import annotations

import functools
from dataclasses import fields

import numpy as np

from offbeat.envs.base import EnvConfig, UnusedSwitch
from offbeat.types import ActionSpec, ArrayDict, EnvStep

_ALSO_HARMLESS = {"frame_skip": 1, "frame_stack": 1, "noop_max": 0, "fire_reset": False, "vectorised": "no"}


def transform_reward(raw: np.ndarray, config: EnvConfig) -> np.ndarray:
    """The reward as trained on, float32 [n], from the raw reward [n].

    ``none``: r; ``sign``: sign(r); ``clamp``: min(1, max(-1, r)); ``soft_asymmetric``: 5 tanh(r / 5), times 0.3 where
    r < 0. Then times ``config.reward_scale``.
    """
    if config.reward_clip == "sign":
        reward = np.sign(raw)
    elif config.reward_clip == "clamp":
        reward = np.clip(raw, -1.0, 1.0)
    elif config.reward_clip == "soft_asymmetric":
        squeezed = 5.0 * np.tanh(raw / 5.0)
        reward = np.where(raw < 0, 0.3 * squeezed, squeezed)
    else:
        reward = raw
    if config.reward_scale != 1.0:
        reward = reward * config.reward_scale
    return np.asarray(reward, np.float32)


@functools.cache
def in_order(count: int) -> np.ndarray:
    """Environments 0 to ``count`` - 1, [count] int64: always the same array, which cannot be written to."""
    ids = np.arange(count)
    ids.flags.writeable = False
    return ids


def ordered(rows: EnvStep, count: int) -> EnvStep:
    """``rows``, whose ``env_ids`` are ``in_order(count)`` itself if they are of all environments, in their order."""
    known = in_order(count)
    if rows.env_ids is not known and np.array_equal(rows.env_ids, known):
        rows.env_ids = known
    return rows


def make_rows(
    config: EnvConfig,
    observation: ArrayDict,
    reward: np.ndarray,
    terminated: np.ndarray,
    truncated: np.ndarray,
    first: np.ndarray,
) -> EnvStep:
    """Rows of environments 0 to n - 1, in this order, from their raw rewards [n] and flags bool [n]."""
    raw = np.asarray(reward, np.float32)
    return EnvStep(
        env_ids=in_order(len(raw)),
        observation=observation,
        reward=transform_reward(raw, config),
        raw_reward=raw,
        terminated=terminated,
        truncated=truncated,
        first=first,
        valid=~(terminated | truncated),
    )


def handed_out(rows: EnvStep | None) -> EnvStep:
    """``rows``, if there are any that ``recv`` has not given yet; RuntimeError otherwise."""
    if rows is None:
        raise RuntimeError("recv() needs a reset() or send() before it")
    return rows


def check_actions(action: np.ndarray, spec: ActionSpec, count: int) -> np.ndarray:
    """``action`` as int64 [count] or [count, components], or float32 [count, *shape].

    ValueError where shape, kind or range is wrong.
    """
    array = np.asarray(action)
    expected = (count, *spec.array.shape)
    if array.shape != expected:
        raise ValueError(f"actions have shape {array.shape}; expected {expected}, one for each row of the last recv")
    if spec.kind == "continuous":
        return array.astype(np.float32, copy=False)
    if array.dtype.kind not in "iu":
        raise ValueError(
            f"actions have dtype {array.dtype}; expected integers below {', '.join(map(str, spec.choices))}"
        )
    most = spec.num_actions if spec.kind == "discrete" else np.array(spec.nvec)
    # As unsigned numbers those below 0 are large.
    wrong = array.view(np.uint64) >= most if array.dtype == np.int64 else (array < 0) | (array >= most)
    if count and wrong.any():
        allowed = ", ".join(f"0 to {choices - 1}" for choices in spec.choices)
        raise ValueError(f"actions reach from {array.min()} to {array.max()}; allowed are {allowed}")
    return array.astype(np.int64, copy=False)


def reject_unused(config: EnvConfig, used: tuple[str, ...]) -> None:
    """``UnusedSwitch`` for a switch that was changed though it means nothing to this environment.

    ``used`` names the fields that do mean something besides ``id``, ``reward_clip`` and ``reward_scale``. Values that
    ask for nothing (a frame skip of 1) are accepted.
    """
    known = {"id", "reward_clip", "reward_scale", "delay", *used}
    for field in fields(EnvConfig):
        value = getattr(config, field.name)
        if field.name in known or value == field.default or value == _ALSO_HARMLESS.get(field.name, field.default):
            continue
        raise UnusedSwitch(config, field.name, field.default)


def check_config(config: EnvConfig) -> None:
    """ValueError naming the first field that is out of its range."""
    config.delay.check()
    ranges = {
        "frame_skip": (1, 1000), "frame_size": (1, 160), "frame_stack": (1, 1000), "sticky": (0.0, 1.0),
        "noop_max": (0, 10_000), "max_frames": (1, 2**31 - 1), "length": (1, 10**6), "max_steps": (0, 2**31 - 1),
        "num_levels": (0, 2**31 - 1), "start_level": (0, 2**31 - 1), "turn_frames": (0, 2**62), "turns": (0, 10**6),
    }  # fmt: skip
    for name, (low, high) in ranges.items():
        value = getattr(config, name)
        if not low <= value <= high:
            raise ValueError(f"{name}={value} is out of range; allowed are {low} to {high}")
    choices = {
        "backend": ("auto", "ale", "ale-single", "envpool", "pyboy", "retro"),
        "stack_padding": ("zero", "repeat"),
        "life_loss": ("ignore", "terminal", "end_episode"),
        "channels": ("auto", "first", "last"),
        "renderer": ("software", "hardware"),
        "vectorised": ("auto", "yes", "no"),
        "distribution_mode": ("easy", "hard", "extreme", "memory", "exploration"),
        "reward_clip": ("none", "sign", "clamp", "soft_asymmetric"),
        "several": ("at_once", "in_turn"),
    }
    for name, allowed in choices.items():
        if getattr(config, name) not in allowed:
            raise ValueError(f"{name}={getattr(config, name)!r} is unknown; allowed are {', '.join(allowed)}")
