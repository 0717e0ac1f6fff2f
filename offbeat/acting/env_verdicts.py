"""From what was seen of an environment to lines of its report: what is wrong with it, and how to mend it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from gymnasium import spaces

from offbeat.acting.env_recorder import LeafLog, Log
from offbeat.acting.env_report import Findings
from offbeat.acting.env_trial import Trial
from offbeat.envs.spaces import Leaf, channel_axis
from offbeat.networks.torsos import flattened_pictures
from offbeat.types import LEGAL, ArraySpec, EnvSpec

LARGE, HOPELESS = 1e3, 1e15
"""Numbers from here on are hard to learn from; squares of these are infinite in float32."""
LARGEST = float(np.finfo(np.float32).max)
"""Of what is finite in float32."""
LARGE_PICTURE = 160
"""Pictures with longer sides than this make very large networks. Unit: pixels."""
UNSCALED = 10.0
"""Pictures of floats that reach further than this were meant to be bytes."""
SHOWN = 90
"""Spaces are shown up to so many characters."""


def short(space: object) -> str:
    """A space in not too many characters."""
    text = " ".join(str(space).split())
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..."


def describe_leaf(leaf: Leaf, channels: str) -> str:
    """What an observation's part becomes."""
    space, spec = leaf.space, leaf.spec
    text = f"{short(space)} -> {spec.dtype} {list(spec.shape)}"
    if isinstance(space, spaces.Discrete | spaces.MultiDiscrete):
        return f"{text}, one-hot"
    if isinstance(space, spaces.Box) and len(space.shape) == 3:
        axis = channel_axis(tuple(space.shape), channels, leaf.key)
        return f"{text}, a picture: axis {axis} holds its {space.shape[axis]} channels"
    if isinstance(space, spaces.Box) and len(space.shape) == 2 and spec.dtype == "uint8":
        return f"{text}, a picture of one channel"
    return text


def describe_array(spec: ArraySpec, stacked: bool) -> str:
    """An array of environments that have no Gymnasium spaces."""
    picture = ", a picture, channels first" if len(spec.shape) == 3 else ""
    return f"{spec.dtype} {list(spec.shape)}{picture}{', stacked' * stacked}"


def describe_actions(space: spaces.Space[Any] | None, spec: EnvSpec) -> str:
    """What an action space becomes; None: there is none."""
    action = spec.action
    text = f"{action.kind} {list(action.shape)}"
    if action.kind == "multi_discrete":
        text = f"components of {', '.join(map(str, action.nvec))} choices"
    elif action.kind == "discrete":
        text = f"{action.num_actions} choices"
    elif action.kind == "continuous":
        text = f"{list(action.shape)} floats, clipped to the bounds"
    return text if space is None else f"{short(space)} -> {text}"


def judge_observations(found: Findings, spec: EnvSpec, trial: Trial, log: Log | None) -> None:
    """Ranges, numbers that are none, types, buffers."""
    raw = {leaf.leaf.key: leaf for leaf in log.leaves} if log is not None else {}
    for key, array in spec.observation.items():
        seen, given = trial.seen.get(key), raw.get(key)
        if seen is None or key == LEGAL:  # a mask is no feature: ``judge_masks`` says what it is
            continue
        about = f"observation {key!r}"
        low, high = (seen.low, seen.high) if given is None else (given.low, given.high)
        if low <= high:
            text = f"seen {low:.6g} to {high:.6g}" if low < high else f"seen nothing but {low:.6g}"
            found.facts[about] = f"{found.facts.get(about, '')}; {text}".removeprefix("; ")
        _judge_numbers(found, about, array, max(abs(low), abs(high)) if low <= high else 0.0, seen.odd)
        if given is not None:
            _judge_given(found, about, given)
    if raw:
        kept = [repr(leaf.leaf.key) for leaf in raw.values() if leaf.buffered]
        found.facts["arrays"] = f"the same again, changed, in {', '.join(kept)}" if kept else "new ones at each step"
    if log is not None and log.extra:
        found.warning(
            f"observations have {', '.join(map(repr, sorted(log.extra)))}, which their space does not: left out; "
            "declare it, or put it into info"
        )


def _judge_numbers(found: Findings, about: str, spec: ArraySpec, largest: float, odd: dict[str, int]) -> None:
    if largest > LARGEST:
        found.error(f"{about} reaches {largest:.4g}, which is infinite in float32: scale it down, or clip it")
    elif odd:
        name, step = next(iter(odd.items()))
        found.error(f"{about} was {name} in step {step}: nothing can be learnt from that; give finite numbers only")
    elif largest >= LARGE and spec.dtype != "uint8":
        found.warning(
            f"{about} reaches {largest:.4g}: hard to learn from; scale it to about -1 to 1, for instance with "
            "gymnasium.wrappers.RescaleObservation or NormalizeObservation"
        )
    if not np.prod(spec.shape):
        found.warning(f"{about} has no elements: there is nothing to learn from in it")
    if flattened_pictures({about: spec}, "per_key"):
        found.warning(
            f"{about}, {list(spec.shape)}, looks like a picture, and networks flatten it: they take pictures as "
            "[channels, height, width], or with the channels last"
        )
    if len(spec.shape) == 3:
        if spec.dtype != "uint8" and largest > UNSCALED:
            found.warning(
                f"{about} is a picture of float32 that reaches {largest:.4g}: only pictures of uint8 are scaled for "
                "networks; declare it as uint8, or divide it by 255"
            )
        if max(spec.shape[1:]) > LARGE_PICTURE:
            found.warning(
                f"{about} is a picture of {spec.shape[1]} x {spec.shape[2]} pixels: networks for it are very large; "
                "scale it down, for instance with gymnasium.wrappers.ResizeObservation to 84 x 84"
            )


def _judge_given(found: Findings, about: str, given: LeafLog) -> None:
    """What the environment gave, compared with its space."""
    space = given.leaf.space
    if given.outside:
        found.warning(
            f"{about} is outside of its space, {given.outside}: taken as it is; declare bounds that hold, or clip it"
        )
    if isinstance(space, spaces.Box) and (others := sorted(given.kinds - {str(np.dtype(space.dtype or np.float32))})):
        found.warning(
            f"{about} is given as {', '.join(others)} where its space says {space.dtype}: converted at each step; give "
            f"np.asarray(observation, np.{space.dtype})"
        )
    if given.buffered:
        found.warning(
            f"{about} is one array that it changes at each step: copied here, but your own code will see old "
            "observations change; return a copy"
        )


def judge_rewards(found: Findings, trial: Trial, log: Log | None) -> None:
    """Range and kind of the rewards; whether they can be learnt from."""
    raw = np.array(log.rewards) if log is not None else _joined(trial.rewards)
    used = _joined(trial.trained_on)
    if not len(raw):
        return
    finite = raw[np.isfinite(raw)]
    if (odd := used[~np.isfinite(used)]).size and np.isfinite(raw).all() and np.abs(raw).max() <= LARGEST:
        found.error(f"the reward that is trained on was {odd[0]}, made of rewards that are finite")
    kinds = f" ({', '.join(sorted(log.reward_kinds))})" if log is not None else ""
    text = f"{finite.min():.6g} to {finite.max():.6g}, mean {finite.mean():.6g}{kinds}" if len(finite) else f"{kinds}"
    largest = float(np.abs(raw).max(initial=0.0, where=np.isfinite(raw)))
    note, largest_used = _note_for(found, used), float(np.abs(used).max(initial=0.0, where=np.isfinite(used)))
    mend = "set env.reward_clip or env.reward_scale"
    if len(finite) < len(raw):
        first = int(np.argmin(np.isfinite(raw)))
        name = str(raw[first])
        text = f"{text}, {len(raw) - len(finite)} not finite"
        then = "clipped here, but scores show it" if note == found.warning else "nothing can be learnt from that"
        note(f"reward was {name} in step {first + 1}: {then}; give finite numbers only")
    elif largest > LARGEST:
        note(f"reward reached {largest:.4g}, which is infinite in float32: {mend}")
    elif largest_used >= HOPELESS:
        found.error(f"reward reached {largest:.4g}, whose square is infinite in float32: {mend}")
    elif largest_used >= LARGE:
        found.warning(f"rewards reach {largest:.4g}: hard to learn from; {mend}")
    if trial.whole and len(finite) == len(raw) and not largest:
        found.warning("every reward was 0: random actions never earn anything, so that nothing may ever be learnt")
    found.facts["rewards"] = text.strip()


def _note_for(found: Findings, used: np.ndarray) -> Callable[[str], None]:
    """An error where what is trained on is not finite; otherwise clipping has mended it, and only scores show it."""
    return found.warning if np.isfinite(used).all() else found.error


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    return np.concatenate(parts) if parts else np.zeros(0)


def judge_endings(found: Findings, spec: EnvSpec, trial: Trial, log: Log | None) -> None:
    """How episodes end, and whether they do."""
    ends, lengths = (log.ends, log.lengths) if log is not None else (trial.ends, trial.lengths)
    parts = [f"{count} {name}" for name, count in ends.items() if count]
    cut = len(trial.lengths) - sum(ends.values())
    if cut > 0:
        parts.append(f"{cut} cut by env.max_steps")
        lengths = trial.lengths
    limit = f"; limit {spec.max_episode_steps} steps" if spec.max_episode_steps else ""
    if parts:
        found.facts["endings"] = f"{', '.join(parts)}, after {min(lengths)} to {max(lengths)} steps{limit}"
        return
    found.facts["endings"] = f"none within {trial.steps} steps{limit}"
    if trial.whole and not spec.max_episode_steps:
        found.warning(
            f"no episode ended within {trial.steps} steps of random actions: if none ever ends, evaluations and scores "
            "have no end either; set env.max_steps"
        )


def judge_masks(found: Findings, spec: EnvSpec, trial: Trial, log: Log | None) -> None:
    """Whether actions are masked, and whether each mask leaves one."""
    if LEGAL in spec.observation and spec.action.choices:
        counts, of = sorted(trial.legal), " in its narrowest component" if len(spec.action.choices) > 1 else ""
        text = f"{LEGAL!r}: {counts[0]} to {counts[-1]} legal actions{of}" if counts else f"{LEGAL!r}"
        found.facts["masks"] = f"{text}; agents take no other"
        if trial.legal[0]:
            found.warning(
                f"no action was legal in {trial.legal[0]} rows: all count as legal there; end the episode instead, or "
                "leave one that does nothing"
            )
    elif log is not None and log.masks:
        names = ", ".join(sorted(log.masks))
        found.facts["masks"] = f"{names}: not read"
        found.warning(
            f"{names} looks like a mask of legal actions, and agents do not read it: call it {LEGAL!r}, one flag for "
            "each action, in a Dict observation"
        )
    else:
        found.facts["masks"] = "none"
