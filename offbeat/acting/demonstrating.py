"""Taking a demonstration down while it is played, and what its rows are to a run: the same rows that its actors write.

A demonstration holds what an environment shows and pays without a delay, before frame stacks and before rewards are
clipped: a run's own options of those are applied here, when it is read. Under a delay the rows are those of decisions
that act in the frames of the demonstration: each decides, from an observation that is as old as the delay says, on the
action that was taken in the frame in which it acts. Where what was played between two decisions is not what the
default behaviour would have done, there was no such decision, and nothing is learnt from that row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from offbeat.acting.trace_facts import versions
from offbeat.envs.base import EnvConfig
from offbeat.envs.delay import DelayedVector, undelayed
from offbeat.envs.rows import transform_reward
from offbeat.errors import in_short
from offbeat.replay.demonstrated import DemonstratedRows
from offbeat.storage.demonstrations import (
    BY_ROW,
    OBSERVATION,
    Demonstration,
    DemonstrationError,
    demonstrations_at,
    read_demonstration,
)
from offbeat.types import ArrayDict, EnvSpec, EnvStep

SAME = ("frame_skip", "frame_size", "sticky", "life_loss", "full_action_space", "length", "channels",
        "distribution_mode")  # fmt: skip
"""Options of an environment that must be those of the run. Others say how episodes begin and end, what of the rows is
shown or paid, or where files are."""

UNTOLD = ("delay", "rom", "folder")
"""Options that a demonstration does not tell: it has no delay, and where somebody keeps files is nobody's business."""


class Recorder:
    """Takes down one environment's rows and the actions that it is given."""

    def __init__(self) -> None:
        self._rows: list[dict[str, Any]] = []
        self._taken: list[np.ndarray] = []

    def row(self, step: EnvStep) -> None:
        """The row [1] that came; rows that belong to no episode are left out."""
        row = {f"{OBSERVATION}{key}": value[0].copy() for key, value in step.observation.items()}
        row |= {name: getattr(step, name)[0] for name in ("raw_reward", "terminated", "truncated", "first", "valid")}
        row["elapsed"] = 1 if step.elapsed is None else int(step.elapsed[0])
        self._rows.append(row)

    def sent(self, action: np.ndarray) -> None:
        """The action [1, ...] that was taken at it."""
        self._taken.append(action[0].copy())

    def demonstration(self, facts: Mapping[str, Any]) -> Demonstration | None:
        """What was taken down, as episodes that end; None if no action was answered.

        An episode that was broken off ends, truncated, with the newest row. ``facts``: who played what.
        """
        rows, taken = self._rows, self._taken[: len(self._rows) - 1]
        none = next(iter(taken), np.zeros((), np.int64))
        arrays = dict[str, np.ndarray]()
        kept = [i for i, row in enumerate(rows) if row["valid"] or not row["first"]]
        if kept and rows[kept[-1]]["first"]:  # an episode without an action
            kept.pop()
        if len(kept) < 2:
            return None
        last = kept[-1]
        broken = bool(rows[last]["valid"])
        valid = np.array([bool(rows[i]["valid"]) and i != last for i in kept])
        led = [rows[i + 1] if acted else None for i, acted in zip(kept, valid, strict=True)]
        for name in rows[0]:
            if name.startswith(OBSERVATION):
                arrays[name] = np.stack([rows[i][name] for i in kept])
        arrays["action"] = np.stack([taken[i] if acted else np.zeros_like(none) for i, acted in zip(kept, valid)])
        for name, source in (("reward", "raw_reward"), ("terminated", ""), ("truncated", ""), ("elapsed", "")):
            values = [0 if row is None else row[source or name] for row in led]
            arrays[name] = np.array(values).astype(BY_ROW[name])
        arrays |= {"first": np.array([bool(rows[i]["first"]) for i in kept]), "valid": valid}
        if broken:
            arrays["truncated"][-2] = not arrays["terminated"][-2]
        ended = int((~valid).sum())
        return Demonstration({**facts, "episodes": ended, "broken_off": int(broken)}, arrays)


def facts_of(config: EnvConfig, spec: EnvSpec, seed: int, played_by: str) -> dict[str, Any]:
    """What a demonstration says of how it came about. ``config``, ``spec``: of the environment, without a delay."""
    options = asdict(undelayed(config))
    for name in UNTOLD:
        del options[name]
    shown = {key: [part.dtype, list(part.shape)] for key, part in spec.observation.items()}
    action = {"kind": spec.action.kind, "choices": list(spec.action.choices), "shape": list(spec.action.shape)}
    return {
        "env": config.id, "options": options, "observation": shown, "action": action, "seed": seed,
        "versions": versions(config), "played_by": played_by,
    }  # fmt: skip


def read_for(path: Path, config: EnvConfig, bare: EnvSpec, discount: float) -> DemonstratedRows:
    """The rows of a file, or of all files in a folder, as those of a run.

    Args:
        config: of the run's environments, its delay included.
        bare: their spec without the delay.
        discount: gamma.

    DemonstrationError naming what does not fit.
    """
    found = []
    for file in demonstrations_at(path):
        made = read_demonstration(file)
        if wrong := _misfit(made, undelayed(config), bare):
            raise DemonstrationError(f"{file}: {wrong}")
        found.append(rows_of(made, config, bare, discount))
    joined = found[0]
    for other in found[1:]:
        joined = joined.joined(other)
    if not joined.usable.any():
        raise DemonstrationError(
            f"{path}: nothing can be learnt from it under this delay: between its decisions other actions were taken "
            "than the default behaviour takes; play it with the default action between decisions, or use "
            'delay.mode="async"'
        )
    return joined


def rows_of(made: Demonstration, config: EnvConfig, bare: EnvSpec, discount: float) -> DemonstratedRows:
    """The rows of one demonstration as the actors of a run would have written them."""
    player = _Playback(made, undelayed(config), bare)
    env = DelayedVector(config.delay, 1, lambda: player, config.id) if config.delay.active else player
    taken: list[_Row] = []
    env.reset(0)
    while True:
        step = env.recv()
        action, player.strange = player.due(), False
        if taken and not step.first[0]:
            taken[-1].led(step, discount)
        taken.append(_Row(step, action))
        if not step.valid[0] and player.ended():
            return _joined(taken)
        env.send(action[None])
        taken[-1].usable = bool(step.valid[0]) and not player.strange


class _Row:
    """A row, what its action led to, and whether it happened as it says."""

    def __init__(self, step: EnvStep, action: np.ndarray) -> None:
        self.observation = {key: value[0].copy() for key, value in step.observation.items()}
        self.first, self.valid, self.action = bool(step.first[0]), bool(step.valid[0]), action
        self.usable = self.terminated = self.truncated = False
        self.reward, self.discount, self.elapsed = 0.0, 0.0, 1

    def led(self, step: EnvStep, discount: float) -> None:
        """The row that followed it in its episode."""
        self.elapsed = 1 if step.elapsed is None else int(step.elapsed[0])
        self.reward, self.terminated = float(step.reward[0]), bool(step.terminated[0])
        self.truncated = bool(step.truncated[0])
        self.discount = 0.0 if self.terminated else float(np.power(discount, self.elapsed))
        self.usable &= self.elapsed > 0  # not of an episode that was over before any decision acted


def _joined(rows: list[_Row]) -> DemonstratedRows:
    """Rows as columns; what belongs to no episode is left out."""
    kept = [row for row in rows if row.valid or not row.first]
    columns: ArrayDict = {
        f"{OBSERVATION}{key}": np.stack([row.observation[key] for row in kept]) for key in kept[0].observation
    }
    columns["action"] = np.stack([row.action for row in kept])
    kinds = BY_ROW | {"discount": "float32"}
    columns |= {name: np.array([getattr(row, name) for row in kept], kind) for name, kind in kinds.items()}
    return DemonstratedRows(columns, np.array([row.usable for row in kept]))


class _Playback:
    """A demonstration as a ``VectorEnv`` of one environment: it shows its rows, whatever it is sent.

    ``strange``: it was sent another action than was taken.
    """

    num_envs = batch_size = 1

    def __init__(self, made: Demonstration, config: EnvConfig, spec: EnvSpec) -> None:
        self.spec, self.strange = spec, False
        self._arrays, self._at = made.arrays, 0
        self._reward = transform_reward(made.arrays["reward"], config)

    def due(self) -> np.ndarray:
        """The action that was taken at the newest row."""
        action: np.ndarray = self._arrays["action"][self._at]
        return action

    def ended(self) -> bool:
        """Whether the newest row is the last."""
        return self._at + 1 == len(self._arrays["valid"])

    def reset(self, seed: int) -> None:
        """Back to the first row."""
        self._at = 0

    def recv(self) -> EnvStep:
        """The row where it is."""
        at, arrays = self._at, self._arrays
        first = bool(arrays["first"][at])
        led = np.array([0.0 if first else self._reward[at - 1]], np.float32)
        raw = np.array([0.0 if first else arrays["reward"][at - 1]], np.float32)
        flags = {name: np.array([not first and arrays[name][at - 1]]) for name in ("terminated", "truncated")}
        return EnvStep(
            env_ids=np.zeros(1, np.int64),
            observation={key: arrays[f"{OBSERVATION}{key}"][at : at + 1] for key in self.spec.observation},
            reward=led,
            raw_reward=raw,
            first=np.array([first]),
            valid=arrays["valid"][at : at + 1],
            elapsed=np.array([0 if first else arrays["elapsed"][at - 1]], np.int32),
            **flags,
        )

    def send(self, action: np.ndarray) -> None:
        """On to the next row."""
        self.strange |= bool(self._arrays["valid"][self._at]) and not np.array_equal(action[0], self.due())
        self._at += 1

    def state(self) -> ArrayDict:
        """Where it is."""
        return {"at": np.array([self._at])}

    def load_state(self, state: ArrayDict) -> None:
        """Back there."""
        self._at = int(state["at"][0])

    def close(self) -> None:
        """Nothing is open."""


def _misfit(made: Demonstration, config: EnvConfig, bare: EnvSpec) -> str:
    """What of a demonstration is not as the run has it, what it is and what is allowed; empty: nothing."""
    parts: list[tuple[str, Any, Any]] = [("environment", made.facts["env"].lower(), config.id.lower())]
    given = made.facts.get("options")
    options = given if isinstance(given, dict) else {}
    own = asdict(config)
    parts += [(f"env.{name}", options.get(name), own[name]) for name in SAME]
    shown = {key: [part.dtype, list(part.shape)] for key, part in bare.observation.items()}
    prefix = len(OBSERVATION)
    held = {name[prefix:]: array for name, array in made.arrays.items() if name.startswith(OBSERVATION)}
    parts.append(("observations", {k: [v.dtype.name, list(v.shape[1:])] for k, v in held.items()}, shown))
    action = made.arrays["action"]
    spec = bare.action.array
    parts.append(("actions", [action.dtype.name, list(action.shape[1:])], [spec.dtype, list(spec.shape)]))
    for what, got, allowed in parts:
        if got != allowed:
            return f"its {what}: got {in_short(repr(got))}, allowed is {in_short(repr(allowed))}"
    if bare.action.choices and ((action < 0) | (action >= np.array(bare.action.choices))).any():
        return f"its actions: got {action.min()} to {action.max()}, allowed are 0 to {max(bare.action.choices) - 1}"
    return ""
