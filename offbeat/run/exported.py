"""What ``offbeat export`` writes, as modules that ``torch.export`` can follow: a network that takes what the
environment gives and says what the environment takes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn

from offbeat.agents.base import Agent
from offbeat.agents.q_agent import QAgent
from offbeat.algorithms.actor_critic import multi_categorical_mode
from offbeat.algorithms.legal import mask_illegal
from offbeat.envs.spaces import Leaf, Translator
from offbeat.networks.heads import legal_actions
from offbeat.types import LEGAL, ActionSpec, CoreState, TensorDict

DESCRIPTION = "offbeat.json"
"""Under which name a file holds what it takes and gives."""


class ExportedNetwork(nn.Module):
    """The agent's network with plain outputs, see ``offbeat.run.export``.

    Where there is a mask of actions, logits or values of those that are not legal are -1e30, so that the largest is
    always a legal one's.
    """

    def __init__(self, agent: Agent, observe: OwnObservation | None = None, decide: OwnAction | None = None) -> None:
        """The agent's network is shared, not copied. ``observe``, ``decide``: None in offbeat's own terms."""
        super().__init__()
        self.network = agent.network
        self.values: Callable[[Tensor], Tensor] | None = agent.values if isinstance(agent, QAgent) else None
        self.observe, self.decide = observe, decide
        self.action, self.wants_last = agent.spec.action, agent.wants_last

    def forward(
        self,
        observation: Any,
        first: Tensor,
        state: CoreState,
        last_action: Tensor | None = None,
        last_reward: Tensor | None = None,
        action_mask: Tensor | None = None,
    ) -> dict[str, Any]:
        """One row for B environments; last action and reward only where the network reads them, and of no meaning where
        an episode starts; the mask only where ``info`` holds it.
        """
        seen: TensorDict = observation if self.observe is None else self.observe(observation)
        if action_mask is not None:
            seen = seen | {LEGAL: action_mask}
        last_action, last_reward = _since_start(last_action, first), _since_start(last_reward, first)
        output = self.network(seen, first, state, last_action, last_reward)._asdict()
        if self.values is not None:
            output = {"q": mask_illegal(self.values(output["value"]), legal_actions(seen)), "state": output["state"]}
        scores = output.get("q", output.get("policy"))
        if scores is None:  # a network of the user's own, with outputs of its own
            return dict(output)
        stored = best_action(scores.detach(), self.action)
        output["action"] = stored if self.decide is None else self.decide(stored)
        if self.wants_last:
            output["last_action"] = stored
        return dict(output)


class Flat(nn.Module):
    """An exported network whose tensors come and go one after the other, for files that know of no structures."""

    def __init__(self, module: ExportedNetwork, inputs: dict[str, Any]) -> None:
        """``inputs``: of ``module`` by name, of which only the structure counts."""
        super().__init__()
        self.module, self.inputs = module, inputs

    def forward(self, *given: Tensor) -> tuple[Tensor, ...]:
        """Tensors in the order of ``tensors(inputs)`` -> those of the outputs in theirs, each one of its own."""
        left = iter(given)
        output = self.module(**mapped(self.inputs, lambda _: next(left)))
        return tuple(tensor.clone() for _, tensor in tensors(output))


def _since_start(given: Tensor | None, first: Tensor) -> Tensor | None:
    """The last actions or rewards [1, B, ...] as an agent sees them: zeros where an episode starts."""
    return None if given is None else given.masked_fill(first.reshape(*first.shape, *[1] * (given.dim() - 2)), 0)


def best_action(scores: Tensor, action: ActionSpec) -> Tensor:
    """The greedy action [1, B, ...] as offbeat stores it, of logits, values, or means and log_stds [1, B, ...]."""
    if action.kind == "discrete":
        return scores.argmax(-1)
    if action.kind == "multi_discrete":
        return multi_categorical_mode(scores, action.nvec)
    return scores.chunk(2, -1)[0].reshape(*scores.shape[:2], *action.shape)


class OwnObservation(nn.Module):
    """From observations of a Gymnasium space, every array [1, B, ...], to what the network reads."""

    def __init__(self, translator: Translator) -> None:
        """For the leaves of ``translator``."""
        super().__init__()
        self.leaves = translator.leaves
        for index, leaf in enumerate(self.leaves.values()):
            if leaf.encode.places is not None:
                self.register_buffer(f"places_{index}", torch.as_tensor(leaf.encode.places))

    def forward(self, observation: Any) -> TensorDict:
        """Key -> [1, B, ...], the same numbers as ``Translator.observation`` gives."""
        return {
            key: self._convert(leaf, leaf.pick(observation), getattr(self, f"places_{index}", None))
            for index, (key, leaf) in enumerate(self.leaves.items())
        }

    def _convert(self, leaf: Leaf, value: Tensor, places: Tensor | None) -> Tensor:
        dtype: torch.dtype = getattr(torch, leaf.spec.dtype)
        if places is not None:
            chosen = places + value.to(torch.int64).reshape(*value.shape[:2], -1)
            blank = torch.zeros((*value.shape[:2], *leaf.spec.shape), device=value.device)
            return blank.scatter(-1, chosen, 1.0).to(dtype)
        if leaf.encode.axes == "channels last":
            value = value.movedim(-1, 2)
        elif leaf.encode.axes == "no channels":
            value = value.unsqueeze(2)
        return value.to(dtype)


class OwnAction(nn.Module):
    """From actions as offbeat stores them, [1, B, ...], to members of a Gymnasium space."""

    low: Tensor
    high: Tensor
    start: Tensor

    def __init__(self, space: spaces.Space[Any]) -> None:
        """For ``space``."""
        super().__init__()
        self.dtype: torch.dtype = getattr(torch, np.dtype(space.dtype or np.int64).name)
        self.shape, self.bounded = tuple(space.shape or ()), isinstance(space, spaces.Box)
        if isinstance(space, spaces.Box):
            self.register_buffer("low", torch.as_tensor(space.low))
            self.register_buffer("high", torch.as_tensor(space.high))
        else:
            self.register_buffer("start", torch.as_tensor(np.asarray(getattr(space, "start", 0), np.int64)))

    def forward(self, action: Tensor) -> Tensor:
        """[1, B, *shape of the space] of its dtype, the same numbers as ``Translator.action`` gives."""
        action = action.reshape(*action.shape[:2], *self.shape)
        if self.bounded:
            return action.to(self.dtype).clamp(self.low, self.high)
        return (action + self.start).to(self.dtype)


def example(space: spaces.Space[Any], batch: int) -> Any:
    """Zeros, or the first of numbered choices, [1, batch, ...]: of the structure, shapes and dtypes of an observation
    space; keys are sorted, since ``torch.export`` fixes their order.
    """
    if isinstance(space, spaces.Dict):
        return {key: example(space.spaces[key], batch) for key in sorted(space.spaces)}
    if isinstance(space, spaces.Tuple):
        return tuple(example(part, batch) for part in space.spaces)
    return torch.from_numpy(np.full((1, batch, *(space.shape or ())), getattr(space, "start", 0), space.dtype))


def mapped(value: Any, change: Callable[[Tensor], Any]) -> Any:
    """The same structure of dictionaries and tuples with ``change`` of each tensor in its place."""
    if isinstance(value, dict):
        return {key: mapped(part, change) for key, part in value.items()}
    return tuple(mapped(part, change) for part in value) if isinstance(value, tuple) else change(value)


def tensors(value: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """(name joined with ".", tensor) of all in a structure called ``name``."""
    if isinstance(value, Tensor):
        yield name, value
        return
    for key, part in value.items() if isinstance(value, dict) else enumerate(value):
        yield from tensors(part, f"{name}.{key}" if name else str(key))
