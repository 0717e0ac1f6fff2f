"""The worked unroll of ``tests.algorithms.worked`` as a batch, and networks that give what they are told to."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from offbeat.agents.policy_agent import NetworkOutput, PolicyAgent
from offbeat.types import TensorDict, Unroll
from tests.agents.unrolls import change, make_inputs, make_unroll
from tests.algorithms import worked as w


class Injected(nn.Module):
    """A network that returns given policies [T + 1, B, ...] and values [T + 1, B], which have gradients."""

    channels_last = False

    def __init__(self, policy: Tensor, value: Tensor) -> None:
        super().__init__()
        self.policy, self.value = nn.Parameter(policy.clone()), nn.Parameter(value.clone())

    def cast(self, observation: TensorDict) -> TensorDict:
        """As they are."""
        return observation

    def forward(self, *_: Any) -> NetworkOutput:
        """What it was given."""
        return NetworkOutput(self.policy, self.value, {})


def with_last(rows: Tensor, last: Tensor | None = None) -> Tensor:
    """``rows`` with one more, which gives a value alone."""
    return torch.cat([rows, (torch.zeros_like(rows[0]) if last is None else last)[None]])


def worked_batch(agent: PolicyAgent, **fields: Any) -> Unroll:
    """The worked rows; ``fields`` replace others of the unroll. The agent has three actions."""
    batch = make_unroll(agent, make_inputs(agent.spec, 4, 2), torch.ones(4, 2, dtype=torch.bool))
    extras = {"behaviour_logits": w.BEHAVIOUR_LOGITS, "behaviour_value": w.BEHAVIOUR_VALUE}
    own = {"action": w.ACTION, "reward": w.REWARD, "discount": w.DISCOUNT, "extras": extras, "replayed": w.REPLAYED}
    return change(batch, **own | fields)


def inject(
    agent: Any, policy: Tensor = w.LOGITS, value: Tensor = w.VALUE, last: Tensor = w.BOOTSTRAP_VALUE
) -> Injected:
    """Have ``agent`` see these policies and values; ``last`` [B]: the bootstrap value."""
    agent.network = Injected(with_last(policy), with_last(value, last))
    return agent.network
