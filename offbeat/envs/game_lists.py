"""Lists of games: what their rows and actions are like together, and what is said of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from offbeat.envs.base import EnvConfig
from offbeat.types import LEGAL, ActionSpec, ArraySpec, EnvSpec

OF_LIST: dict[str, object] = {"ids": (), "several": "at_once", "turn_frames": 0, "turns": 1}
"""The switches of a list, as an environment of one game has them."""
ALIKE = ("frame_skip", "frame_stack", "stacked", "stack_padding", "privileged", "players")
"""What the specs of all games must have in common, beside the form of observations and actions."""


def configs_of(config: EnvConfig) -> list[EnvConfig]:
    """The options of each game of a list. ValueError for a list that names a game twice."""
    if len(set(config.ids)) < len(config.ids):
        raise ValueError(f"ids={list(config.ids)} names a game twice; each is to be there once")
    return [replace(config, **{**OF_LIST, "id": game}) for game in config.ids]  # type: ignore[arg-type]


def scored(config: EnvConfig) -> EnvConfig:
    """How scores are played: each environment one game of the list."""
    return replace(config, several="at_once", turn_frames=0, turns=1) if config.ids else config


def joined_spec(config: EnvConfig, specs: Sequence[EnvSpec]) -> EnvSpec:
    """What rows and actions of a list look like, from the ``specs`` of its games.

    ValueError naming two games whose rows cannot be made alike.
    """
    first = specs[0]
    for other in specs[1:]:
        for name in ALIKE:
            if getattr(first, name) != getattr(other, name):
                raise _unlike(first, other, name, getattr(first, name), getattr(other, name))
    if first.players > 1:
        raise ValueError(f"{first.id} has {first.players} players; games of a list have one")
    action = _joined_action(specs)
    seen = {key: array for key, array in first.observation.items() if key != LEGAL}
    for other in specs[1:]:
        known = {key for key in other.observation if key != LEGAL}
        if known != seen.keys():
            raise _unlike(first, other, "observation", sorted(seen), sorted(known))
    observation = {key: _joined_array(key, specs) for key in seen}
    if action.choices and any(spec.action != action or LEGAL in spec.observation for spec in specs):
        observation[LEGAL] = ArraySpec((sum(action.choices),), "bool")
    limits = [spec.max_episode_steps for spec in specs]
    known_limits = [limit for limit in limits if limit is not None]
    return replace(
        first,
        id=config.id,
        observation=observation,
        action=action,
        max_episode_steps=max(known_limits) if len(known_limits) == len(limits) else None,
        random_score=None,
        reference_score=None,
    )


def _joined_action(specs: Sequence[EnvSpec]) -> ActionSpec:
    """Of discrete actions the largest count; others must be equal."""
    first = specs[0]
    if all(spec.action.kind == "discrete" for spec in specs):
        return max((spec.action for spec in specs), key=lambda action: action.num_actions)
    for other in specs[1:]:
        if other.action != first.action:
            raise _unlike(first, other, "action", _said(first.action), _said(other.action))
    return first.action


def _said(action: ActionSpec) -> str:
    """What it is, for people."""
    if action.kind == "discrete":
        return f"one of {action.num_actions}"
    if action.kind == "multi_discrete":
        return f"one of each of {list(action.nvec)}"
    return f"{list(action.shape)} numbers from {list(action.low)} to {list(action.high)}"


def _joined_array(key: str, specs: Sequence[EnvSpec]) -> ArraySpec:
    """Of pictures of one size those with the most channels; others must be equal but for their bounds."""
    first, *others = arrays = [spec.observation[key] for spec in specs]
    for spec, other in zip(specs[1:], others, strict=True):
        pictures = len(first.shape) == len(other.shape) == 3 and first.shape[1:] == other.shape[1:]
        if other.dtype != first.dtype or not (pictures or other.shape == first.shape):
            raise _unlike(specs[0], spec, f"observation {key!r}", first, other)
    bounds = [[getattr(array, name) for array in arrays] for name in ("low", "high")]
    low, high = (None if None in found else choose(found) for found, choose in zip(bounds, (min, max), strict=True))
    return ArraySpec(max((array.shape for array in arrays), default=()), first.dtype, low, high)


def _unlike(one: EnvSpec, other: EnvSpec, name: str, here: object, there: object) -> ValueError:
    return ValueError(
        f"{one.id} and {other.id} cannot be in one list: {name} is {here} and {there}; games of a list may differ in "
        "the channels of pictures and in the number of discrete actions only"
    )


def described(config: EnvConfig, specs: Sequence[EnvSpec]) -> Iterator[str]:
    """What a run says of its list: who plays what, and what is padded."""
    if config.several == "at_once":
        yield f"{len(specs)} games at once: environment i plays game i mod {len(specs)} of {config.id}"
    else:
        times = {0: "over and over", 1: "once"}.get(config.turns, f"{config.turns} times")
        yield (
            f"{len(specs)} games in turn, {config.turn_frames:,} frames each, the list {times}: {config.id}; episodes "
            "that are going on at a change are truncated"
        )
    whole = joined_spec(config, specs)
    for spec in specs:
        padded = [
            f"{array.shape[0]} of {whole.observation[key].shape[0]} channels"
            for key, array in spec.observation.items()
            if key != LEGAL and array.shape != whole.observation[key].shape
        ]
        if spec.action != whole.action:
            padded.append(f"{spec.action.num_actions} of {whole.action.num_actions} actions")
        if padded:
            yield f"{spec.id} has {' and '.join(padded)}: other channels are zeros, other actions masked out"
