"""What ``offbeat serve`` serves: an agent with a place for each client, where its state and last action are kept."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from offbeat.acting.episodes import Player, network_device
from offbeat.acting.trace_facts import weights_hash
from offbeat.agents.base import Agent, policy_name
from offbeat.envs.base import Misbehaved
from offbeat.envs.spaces import Leaf, Translator
from offbeat.serving.client import DTYPES
from offbeat.serving.connection import Refusal, shown
from offbeat.types import LEGAL, ArrayDict, ArraySpec, EnvStep

PREFIX = "observation/"
"""Names of a question's arrays that are parts of its observation begin so; ``reward`` is the other one."""
WARM_UP = 8
"""Forwards before anybody is served: in the first ones libraries get ready."""
ROOM = 4096
"""Of a message beside its arrays. Unit: bytes."""


@dataclass(frozen=True)
class Asked:
    """A question that was found to be in order."""

    observation: ArrayDict  # key -> [1, ...], a single frame as rows have it
    first: bool
    reward: float
    """That the last action earned."""


@dataclass(frozen=True)
class _Part:
    """One array of an observation as clients send it, and what rows have of it.

    Args:
        key: in rows.
        sent: its shape and dtype on the way.
        leaf: looks at its numbers and converts it; None: it is as rows have it.
        example: number that every element may be, or one for each.
    """

    key: str
    sent: ArraySpec
    leaf: Leaf | None
    example: Any

    def read(self, array: np.ndarray) -> np.ndarray:
        """[1, ...] as rows have it. ``Misbehaved`` for numbers outside of the space."""
        return (array if self.leaf is None else self.leaf.encode(self.leaf.checked(array, 0), 0))[None]


class ServedPolicy:
    """An agent that acts for ``slots`` clients, each of which is an environment of its own to it.

    Args:
        agent: with the weights that are served.
        translator: between a Gymnasium environment's spaces and rows; None: clients send rows' single frames.
        greedy: the most probable action, else one that is drawn with ``seed``.
        version: of the weights, learner updates.
        told: more that a hello says, texts.
    """

    def __init__(
        self,
        agent: Agent,
        *,
        translator: Translator | None = None,
        greedy: bool = True,
        seed: int = 0,
        slots: int = 16,
        version: int = 0,
        told: Mapping[str, str] | None = None,
    ) -> None:
        self.slots, self.version = slots, version
        self._agent, self._translator = agent, translator
        agent.network.eval()
        self._parts = _parts(agent, translator)
        self._hidden = {key: agent.spec.observation[key].zeros(1) for key in agent.spec.privileged}
        sent = {name: part.sent for name, part in self._parts.items()}
        self.most_bytes = ROOM + sum(2 * len(name) + 256 + spec.nbytes for name, spec in sent.items())
        """Longest question that may come."""
        asks = {
            name: {"shape": list(part.sent.shape), "dtype": part.sent.dtype, "example": part.example}
            for name, part in self._parts.items()
        }
        self.about = {
            "env": agent.spec.id,
            "policy": policy_name(agent, greedy),
            "version": str(version),
            "weights": weights_hash(agent.network.state_dict()),
            "recurrent": str(int(bool(agent.initial_state(1)))),
            "needs_reward": str(int(agent.wants_last)),
            "most_bytes": str(self.most_bytes),
            "clients": str(slots),
            "observation": json.dumps(asks),
            "action": json.dumps(self._action()),
            **(told or {}),
        }
        """What a hello says, texts."""

        def player(count: int) -> Player:
            generator = torch.Generator(network_device(agent)).manual_seed(seed)
            return Player(agent, count, greedy=greedy, generator=generator)

        warm = player(1)
        for index in range(WARM_UP):
            warm.act(_step([0], [Asked(self._zeros(), index == 0, 0.0)]))
        self._player = player(slots)

    def _zeros(self) -> ArrayDict:
        """An observation that may be, as rows have it, [1, ...]."""
        rows = {part.key: part.read(example(part.sent, part.example)) for part in self._parts.values()}
        return rows | self._hidden

    def _action(self) -> dict[str, Any]:
        """What a hello says of actions."""
        spec = self._agent.spec.action
        stored = spec.array.zeros(1)
        given = np.asarray(stored[0] if self._translator is None else self._translator.action(stored, False))
        return {"kind": spec.kind, "shape": list(given.shape), "dtype": given.dtype.name}

    def read(self, texts: Mapping[str, str], arrays: ArrayDict) -> Asked:
        """A question as it came. ``Refusal`` of code ``request`` where it is not what the policy reads."""
        wanted = {f"{PREFIX}{name}": part for name, part in self._parts.items()}
        given = arrays.keys() - {"reward"}
        if given != wanted.keys():
            missing, more = sorted(wanted.keys() - given), sorted(given - wanted.keys())
            said = [f"{word} {shown(names[0])}" for word, names in (("lacks", missing), ("has", more)) if names]
            raise Refusal("request", f"a question {' and '.join(said)}; it is {', '.join(sorted(wanted))}")
        first = texts.get("first", "0")
        if first not in ("0", "1"):
            raise Refusal("request", f"first is {shown(first)}; it must be '0' or '1'")
        observation = dict(self._hidden)
        for name, part in wanted.items():
            array, sent = arrays[name], part.sent
            if array.shape != sent.shape or array.dtype.name != sent.dtype:
                raise Refusal(
                    "request",
                    f"{name} is {array.dtype.name} {list(array.shape)}; it must be {sent.dtype} {list(sent.shape)}",
                )
            try:
                observation[part.key] = part.read(array)
            except Misbehaved as error:
                raise Refusal("request", str(error)) from error
        return Asked(observation, first == "1", self._reward(arrays.get("reward"), first == "1"))

    def _reward(self, given: np.ndarray | None, first: bool) -> float:
        if given is None:
            if self._agent.wants_last and not first:
                raise Refusal("request", "this policy reads the reward that its last action earned; send reward too")
            return 0.0
        if given.shape != () or given.dtype != np.float32 or not np.isfinite(given):
            raise Refusal(
                "request", f"reward is {given.dtype.name} {list(given.shape)}; it must be a finite float32 []"
            )
        return float(given)

    def act(self, slots: Sequence[int], asked: Sequence[Asked]) -> list[np.ndarray]:
        """The actions of the clients at these places, each as its environment takes it; computed at once."""
        action = self._player.act(_step(slots, asked))
        if self._translator is None:
            return list(action)
        return [np.asarray(self._translator.action(action[i : i + 1], False)) for i in range(len(action))]


def _step(slots: Sequence[int], asked: Sequence[Asked]) -> EnvStep:
    """Questions as rows of environments."""
    observation = {key: np.concatenate([one.observation[key] for one in asked]) for key in asked[0].observation}
    reward = np.array([one.reward for one in asked], np.float32)
    first, off = np.array([one.first for one in asked]), np.zeros(len(asked), bool)
    return EnvStep(np.array(slots, np.int64), observation, reward, reward, off, off, first, ~off)


def _parts(agent: Agent, translator: Translator | None) -> dict[str, _Part]:
    """Name of an array on the way -> what it is. ValueError for one of a dtype that cannot be sent."""
    leaves = {} if translator is None else translator.leaves
    parts: dict[str, _Part] = {}
    for key, spec in agent.spec.observation.items():
        if key in agent.spec.privileged:
            continue
        if key not in leaves:
            parts[key] = _Part(key, spec, None, int(key == LEGAL))
            continue
        space = leaves[key].space
        sent = ArraySpec(tuple(space.shape or ()), np.dtype(space.dtype).name)
        start = 1 if key == LEGAL else np.asarray(getattr(space, "start", 0)).tolist()
        parts[leaves[key].key] = _Part(key, sent, leaves[key], start)
    known = {np.dtype(dtype).name for dtype in DTYPES.values()}
    for name, part in parts.items():
        if part.sent.dtype not in known:
            raise ValueError(f"{agent.spec.id}: {name!r} is of {part.sent.dtype}, which cannot be sent")
    return parts


def example(spec: ArraySpec, number: Any) -> np.ndarray:
    """An array of ``spec`` in which every element, or each for itself, is ``number``."""
    return np.array(np.broadcast_to(np.asarray(number), spec.shape), spec.dtype)


def served_policy(
    run: Path,
    *,
    policy: str | None = None,
    seed: int = 0,
    slots: int = 16,
    device: str = "cpu",
    checkpoint: Path | str | None = None,
    **own: Any,
) -> ServedPolicy:
    """A run's agent with its newest weights, for so many clients.

    Args:
        run: run folder.
        policy: ``greedy`` or ``sampled``; None: as the run's evaluation.
        checkpoint: other weights than the newest, as of ``offbeat.run.load.load_agent``.
        own: the run's ``env_factory``, ``agent_factory`` or ``torso``, if it had one of the user's.
    """
    from offbeat.envs.registry import translator
    from offbeat.run.load import Restored, load_agent, run_config
    from offbeat.scoring.evaluate import choose_policy

    config = run_config(run)
    loaded = Restored(config, *load_agent(run, config, checkpoint=checkpoint, device=device, **own))
    told = {"run": run.absolute().name, "agent": config.agent_name, "agent_steps": str(loaded.agent_steps)}
    return ServedPolicy(
        loaded.agent,
        translator=translator(config.eval_env, own.get("env_factory")),
        greedy=choose_policy(loaded, policy),
        seed=seed,
        slots=slots,
        version=loaded.version,
        told=told,
    )
