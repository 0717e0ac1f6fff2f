"""What an agent is: a network, how it acts, and its loss. One file per agent, nothing about processes or buffers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from offbeat.types import ActOutput, ArraySpec, CoreState, EnvSpec, Inputs, ItemSpec, LossOutput, TensorDict


class Agent(Protocol):
    """An agent bound to one environment spec. Holds its network; each role builds its own copy from config and spec."""

    spec: EnvSpec
    config: Any
    network: nn.Module
    discount: float  # gamma, in [0, 1]: actors write discount rows with it
    wants_last: bool  # True: Inputs carry last_action and last_reward
    items: ItemSpec  # what ``loss`` is given

    def initial_state(self, batch: int) -> CoreState:
        """The recurrent state at an episode's start: name -> [batch, ...] on the network's device; {} without one."""

    def row_extras(self) -> dict[str, ArraySpec]:
        """The behaviour extras that ``act`` returns for each row, e.g. ``behaviour_logits``: name -> spec."""

    def act(
        self, inputs: Inputs, state: CoreState, generator: torch.Generator | None, greedy: bool = False
    ) -> ActOutput:
        """Choose actions for ``inputs`` of T = 1. ``inputs.first`` resets the state. Called without gradients."""

    def loss(self, batch: Any, progress: float) -> LossOutput:
        """The loss of one batch on the network's device. ``progress``: share of the run done, in [0, 1].

        ``batch`` is what ``items`` asks for: an ``Unroll``, a ``Transition`` or a ``Sequence``. The learner logs the
        loss itself; ``metrics`` holds everything else.
        """


def trains_on(agent: Any) -> ItemSpec:
    """What ``agent`` trains on. ValueError where it does not say."""
    items = getattr(agent, "items", None)
    if not isinstance(items, ItemSpec):
        kind = type(agent)
        got = "it has no such attribute" if items is None else f"got {items!r}"
        raise ValueError(
            f"agent {kind.__module__}.{kind.__qualname__} must say in items what it trains on: an "
            f'offbeat.types.ItemSpec of kind "unroll", "transition" or "sequence"; {got}'
        )
    return items


@runtime_checkable
class Explores(Protocol):
    """An agent whose actors are told how much to explore: ``Inputs.epsilon``."""

    def exploration(self, stream: np.ndarray, num_streams: int, agent_steps: int) -> np.ndarray:
        """Epsilon [n] float32 of the environments ``stream`` [n] of ``num_streams`` after ``agent_steps``."""


@runtime_checkable
class Encodes(Protocol):
    """An agent that says what its network makes of rows, for samplers that compare that with what it made of them."""

    def features(self, kind: str, inputs: Inputs, state: CoreState) -> Tensor:
        """[T, B, F] of rows, ``policy``: logits of the policy, as ``behaviour_logits`` has them; ``torso``: what the
        heads read, as the row extra ``features`` has it. ``state``: before row 0; ``inputs.first`` resets it.
        """


@runtime_checkable
class NamesPolicy(Protocol):
    """An agent that does not always play as it is asked to: value-based ones have no policy to draw from."""

    def policy_name(self, greedy: bool) -> str:
        """What ``act`` does with this ``greedy`` and without ``Inputs.epsilon``: ``greedy``, ``sampled`` or ``noisy``.

        ``noisy``: the best action under noise on the weights that is drawn anew for each action.
        """


def policy_name(agent: Agent, greedy: bool) -> str:
    """How ``agent`` plays without exploring: as it says itself, else ``greedy`` or ``sampled`` as it is asked to."""
    if isinstance(agent, NamesPolicy):
        return agent.policy_name(greedy)
    return "greedy" if greedy else "sampled"


class LearnerState(Protocol):
    """What an agent keeps in the learner beside its network: a target network, statistics, sensitivities."""

    exact: bool  # it reads the network's own parameters, which must then not be rounded to bfloat16
    # ``shards = True``, where it is there: it can be kept by learners that each see a share of a batch, because what it
    # becomes does not depend on batches, or goes by streams, of which each learner has its own
    # ``grows = True``, where it is there: arrays of ``state`` have more rows as more streams are seen

    def trained(self, batch: Any, updates: int) -> None:
        """The learner has made its ``updates``-th update, with ``batch``.

        Asynchronous learners count together, so ``updates`` may be more than one above that of the call before; the
        network then holds what all of them have learnt.
        """

    def state(self) -> TensorDict:
        """All of it on the CPU, for checkpoints: name -> tensor."""

    def load_state(self, state: TensorDict) -> None:
        """Back to a saved ``state``."""


@runtime_checkable
class KeepsState(Protocol):
    """An agent that keeps something in the learner. Other roles never ask for it, so it costs them nothing."""

    def learner_states(self) -> Mapping[str, LearnerState]:
        """What it keeps, by its name in checkpoints; the same objects each time."""


TAKEN = ("weights", "optimiser", "published", "generator", "master")
"""Names in the learner's part of a checkpoint that are something else."""


def learner_states(agent: Any) -> dict[str, LearnerState]:
    """What ``agent`` keeps in the learner, by name; {} where it keeps nothing. ValueError for names that are taken."""
    states = dict(agent.learner_states()) if isinstance(agent, KeepsState) else {}
    for name in ("normaliser", "reward_scale"):  # an ``Encoder`` has them where its configuration asks for them
        if (kept := getattr(getattr(agent, "network", None), name, None)) is not None:
            states.setdefault(name, kept)
    for name in states:
        if name in TAKEN or "/" in name:
            raise ValueError(
                f"learner_states: the name {name!r} is not allowed; choose one without a slash that is none of "
                f"{', '.join(TAKEN)}"
            )
    return states
