"""Whether an exported file does what the agent does, on observations of the run's own environment.

The agent plays the environment, through the ends of episodes, and what it saw, did and computed is recorded: in the
environment's own terms, as a user's program sees them. The file is then asked row by row, with its own recurrent state,
and once for all rows together, with the agent's.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from offbeat.acting.observer import Observer
from offbeat.agents.base import Agent
from offbeat.algorithms.legal import FORBIDDEN
from offbeat.envs.base import EnvConfig
from offbeat.envs.delay import undelayed
from offbeat.envs.factories import Factory, makes_one_env
from offbeat.envs.game_lists import scored
from offbeat.envs.gymnasium import looked_at
from offbeat.envs.registry import make_env, single_factory
from offbeat.envs.spaces import MASK, Translator
from offbeat.envs.vectorised import singly
from offbeat.errors import UserError
from offbeat.networks.noisy import set_noise
from offbeat.run.exported import ExportedNetwork, mapped, tensors
from offbeat.types import LEGAL, CoreState, EnvStep, Inputs

File = Callable[[dict[str, Any]], dict[str, Any]]
"""What was written, loaded again: inputs by name, state included -> outputs by name."""
TOLERANCE = 1e-4
"""How far numbers may differ, in units of the largest magnitude of that output, or of 1 where all are smaller."""
SEED = 0


@dataclass(frozen=True)
class Row:
    """What the agent saw of ``n`` environments and made of it."""

    inputs: dict[str, Any]
    """As the file takes them, but for the state: [1, n, ...]."""
    state: CoreState
    """The agent's, before it."""
    outputs: dict[str, Any]
    """As the file should give them."""


@dataclass(frozen=True)
class Verdict:
    """Of a file that does what the agent does."""

    observations: int
    episodes: int
    """That were begun."""
    difference: float
    """The largest, in the units of ``TOLERANCE``."""

    def __str__(self) -> str:
        return (
            f"checked on {self.observations} observations of {self.episodes} episodes: the same actions as the "
            f"agent's, other outputs within {self.difference:.2g}"
        )


def check(
    file: File, agent: Agent, config: EnvConfig, count: int, translator: Translator | None, factory: Factory | None
) -> Verdict:
    """Play ``count`` observations and compare. UserError, in one line, where the file does not do what the agent does.

    Args:
        file: what was written.
        agent: with the weights that were.
        config, factory: of the environment.
        translator: of the file's terms; None: offbeat's own.
    """
    return compare(file, agent, record(agent, config, count, translator, factory))


def record(
    agent: Agent, config: EnvConfig, count: int, translator: Translator | None, factory: Factory | None
) -> list[Row]:
    """At least ``count`` observations, of two episodes or more, played greedily."""
    kept = _Kept()
    if translator is not None:
        factory = factory or single_factory(config.id)
        assert factory is not None, "only environments of Gymnasium have a translator"
        config = undelayed(config)  # what is heard is what is seen
        config = singly(config) if makes_one_env(factory) else config
        factory = _listening(factory, kept)
    players = agent.spec.players
    rows: list[Row] = []
    with looked_at(config.id) as keep:
        envs = keep(make_env(scored(config), players, factory=factory))
        observer = Observer(agent.spec, agent.spec.action.array, players, wants_last=agent.wants_last)
        state, again = agent.initial_state(players), False
        envs.reset(SEED)
        while len(rows) * players < count:
            step = envs.recv()
            row, action = _answered(agent, observer.observe(step), state, step, translator, kept)
            observer.remember(step, action)
            state, again = row.outputs["state"], again or (bool(rows) and bool(step.first.any()))
            rows.append(row)
            if not again and 2 * len(rows) * players >= count:
                again = True  # a long game: begin another one
                envs.reset(SEED + 1)
            else:
                envs.send(action)
    return rows


def compare(file: File, agent: Agent, rows: list[Row]) -> Verdict:
    """Ask the file for each row in turn, and for all at once."""
    players = rows[0].inputs["first"].shape[1]
    scale = {name: _magnitude(value) for name, value in tensors(_joined([row.outputs for row in rows]), "")}
    state, worst = agent.initial_state(players), 0.0
    for number, row in enumerate(rows):
        output = _given(file, row.inputs | {"state": state})
        worst = max(worst, _difference(output, row.outputs, scale, agent, f"observation {number + 1} of {len(rows)}"))
        state = output["state"]
    inputs = _joined([row.inputs for row in rows]) | {"state": _joined([row.state for row in rows], 0)}
    wanted = _joined([row.outputs for row in rows])
    worst = max(worst, _difference(_given(file, inputs), wanted, scale, agent, f"{len(rows)} observations at once"))
    episodes = sum(int(row.inputs["first"].sum()) for row in rows) // agent.spec.players
    return Verdict(len(rows) * players, episodes, worst)


def _answered(
    agent: Agent, inputs: Inputs, state: CoreState, step: EnvStep, translator: Translator | None, kept: _Kept
) -> tuple[Row, np.ndarray]:
    """A row, and the actions [n, ...] as offbeat stores them."""
    inputs = Inputs(_copied(inputs.observation), inputs.first.clone(), inputs.last_action, inputs.last_reward)
    seen = {"observation": inputs.observation, "first": inputs.first}
    if translator is not None:
        seen["observation"] = kept.tensors(translator.observation_space)
    if agent.wants_last:
        seen |= {"last_action": inputs.last_action, "last_reward": inputs.last_reward}
    if translator is not None and LEGAL in agent.spec.observation and LEGAL not in translator.leaves:
        seen[MASK] = torch.from_numpy(step.observation[LEGAL].copy())[None]
    with torch.no_grad():
        acted = agent.act(inputs, state, None, True)
        set_noise(agent.network, None, quiet=True)
        network = ExportedNetwork(agent).eval()
        outputs = network(inputs.observation, inputs.first, state, inputs.last_action, inputs.last_reward)
        set_noise(agent.network, None)
    action = acted.action.numpy()
    outputs = outputs | {"state": acted.state}
    if "action" in outputs:
        own = action if translator is None else np.asarray(translator.action(action, True))
        outputs["action"] = torch.from_numpy(own.copy())[None]
    if "last_action" in outputs:
        outputs["last_action"] = acted.action[None]
    return Row(seen, _copied(state), _copied(outputs)), action


def _given(file: File, inputs: dict[str, Any]) -> dict[str, Any]:
    with torch.no_grad():
        return file(inputs)


def _difference(
    got: dict[str, Any], wanted: dict[str, Any], scale: dict[str, float], agent: Agent, where: str
) -> float:
    """The largest difference in units of the tolerance's. UserError where it is more than that."""
    found, worst = dict(tensors(got, "")), 0.0
    close = _ties(wanted, scale, agent)
    for name, value in tensors(wanted, ""):
        other = found.get(name)
        if other is None or other.shape != value.shape:
            raise _differs(where, name, None if other is None else list(other.shape), list(value.shape))
        if name in ("action", "last_action") and agent.spec.action.choices:
            same = (other == value).reshape(*value.shape[:2], -1).all(-1) | close
            if not same.all():
                at = tuple(torch.nonzero(~same)[0].tolist())
                raise _differs(where, name, other[at].tolist(), value[at].tolist())
            continue
        apart = _apart(other, value) / scale[name]
        if not apart <= TOLERANCE:
            raise _differs(where, name, f"{apart:.3g} away", f"at most {TOLERANCE:g}")
        worst = max(worst, apart)
    return worst


def _differs(where: str, name: str, got: object, wanted: object) -> UserError:
    best = " (a file takes its network's best action, whatever else act() of an agent does)" if "action" in name else ""
    return UserError(
        f"the file does not do what the agent does: at {where} its {name} is {got}; expected {wanted}{best}. It was "
        "not kept; --check 0 (check=0) writes it unchecked"
    )


def _ties(wanted: dict[str, Any], scale: dict[str, float], agent: Agent) -> Tensor:
    """[1, n] bool: where two choices are so close that rounding may decide between them."""
    name = "q" if "q" in wanted else "policy"
    close = torch.zeros(wanted[name].shape[:2], dtype=torch.bool) if name in wanted else torch.zeros(1, 1) > 0
    if name in wanted and agent.spec.action.choices:
        for part in torch.split(wanted[name], list(agent.spec.action.choices), -1):
            best = part.topk(min(2, part.shape[-1]), -1).values
            close |= (best[..., 0] - best[..., -1] < TOLERANCE * scale[name]) & (part.shape[-1] > 1)
    return close


def _magnitude(value: Tensor) -> float:
    """The largest magnitude among numbers that stand for something, at least 1."""
    numbers = value.double().abs()
    return max(1.0, float(numbers[numbers < -FORBIDDEN / 2].max())) if (numbers < -FORBIDDEN / 2).any() else 1.0


def _apart(got: Tensor, wanted: Tensor) -> float:
    """The largest difference; 0 where both are the same, infinity and NaN included."""
    one, other = got.double(), wanted.double()
    same = (got == wanted) | (one.isnan() & other.isnan()) | ((one < FORBIDDEN / 2) & (other < FORBIDDEN / 2))
    return float(torch.where(same, 0.0, (one - other).abs()).max()) if one.numel() else 0.0


def _joined(parts: list[Any], axis: int = 1) -> Any:
    """The same structure with the tensors of all ``parts`` one after the other; states of a row lie on axis 0."""
    first = parts[0]
    if isinstance(first, dict):
        return {key: _joined([part[key] for part in parts], 0 if key == "state" else axis) for key in first}
    if isinstance(first, tuple):
        return tuple(_joined([part[i] for part in parts], axis) for i in range(len(first)))
    return torch.cat(parts, axis)


def _copied(value: Any) -> Any:
    return mapped(value, torch.clone)


class _Kept:
    """What the environment gave last."""

    observation: Any = None
    batched: bool = False

    def tensors(self, space: spaces.Space[Any]) -> Any:
        """It as the file takes it, [1, n, ...], of ``space``'s structure and dtypes."""
        return self._tensors(space, self.observation)

    def _tensors(self, space: spaces.Space[Any], given: Any) -> Any:
        if isinstance(space, spaces.Dict):
            return {key: self._tensors(space.spaces[key], given[key]) for key in sorted(space.spaces)}
        if isinstance(space, spaces.Tuple):
            return tuple(self._tensors(part, value) for part, value in zip(space.spaces, given, strict=True))
        array = torch.from_numpy(np.array(given, space.dtype))
        return array[None] if self.batched else array[None, None]


def _listening(factory: Factory, kept: _Kept) -> Factory:
    """A factory of the same environments that notes what they give."""

    @functools.wraps(factory, updated=())  # so that it is called in the same way
    def listening(*given: Any, **options: Any) -> object:
        made = factory(*given, **options)
        if isinstance(made, gymnasium.vector.VectorEnv):
            return _ListeningToMany(made, kept)
        return _Listening(made, kept) if isinstance(made, gymnasium.Env) else made

    return listening


class _Listening(gymnasium.Wrapper[Any, Any, Any, Any]):
    """One environment, whose observations are noted."""

    def __init__(self, env: gymnasium.Env[Any, Any], kept: _Kept) -> None:
        super().__init__(env)
        self._kept = kept

    def reset(self, **given: Any) -> Any:  # type: ignore[override]
        return self._noted(self.env.reset(**given))

    def step(self, action: Any) -> Any:
        return self._noted(self.env.step(action))

    def _noted(self, outcome: Any) -> Any:
        self._kept.observation = outcome[0]
        return outcome


class _ListeningToMany(gymnasium.vector.VectorWrapper):
    """A batch of environments, whose observations are noted."""

    def __init__(self, env: gymnasium.vector.VectorEnv[Any, Any, Any], kept: _Kept) -> None:
        super().__init__(env)
        self._kept, kept.batched = kept, True

    def reset(self, **given: Any) -> Any:  # type: ignore[override]
        return self._noted(self.env.reset(**given))

    def step(self, actions: Any) -> Any:
        return self._noted(self.env.step(actions))

    def _noted(self, outcome: Any) -> Any:
        self._kept.observation = outcome[0]
        return outcome
