"""R2D2: recurrent Ape-X on sequences, with stored states, burn-in and rescaled values.

Source: Kapturowski et al. 2019, "Recurrent Experience Replay in Distributed Reinforcement Learning"; value rescaling:
Pohlen et al. 2018.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from offbeat.agents.dqn import td_loss
from offbeat.agents.q_agent import QAgent, QConfig, legal_actions
from offbeat.algorithms.legal import mask_illegal
from offbeat.algorithms.priorities import max_mean
from offbeat.algorithms.q_learning import double_q
from offbeat.algorithms.returns import n_step_target, rescale, unrescale
from offbeat.networks.lstm import check_memory
from offbeat.networks.own_torso import TorsoFactory
from offbeat.types import CoreState, EnvSpec, Inputs, ItemSpec, LossOutput, Sequence


@dataclass(frozen=True)
class Config(QConfig):
    """R2D2's network, sequences and loss, with the paper's defaults where they differ from DQN's."""

    discount: float = 0.997
    """Gamma per environment step, in [0, 1]. Source: Kapturowski et al. 2019, table 2."""
    n_step: int = 5
    """Steps of the returns, >= 1. Source: Kapturowski et al. 2019, section 2.3."""
    head_size: int = 512
    """Width of a hidden layer in each stream of the head; 0: none. Unit: neurons."""
    feature_size: int = -1
    """Width of the layer after an image trunk; 0: as published (nature 512, shallow 256, minatar 128); -1: none.
    Unit: neurons."""
    core_size: int = 512
    """Width of the LSTM, > 0. Unit: neurons. Source: Kapturowski et al. 2019, section 2.3."""
    core_memory: int = 0
    """Steps over which the LSTM's cells forget at the start of training, each cell at its own pace up to this (chrono
    initialisation, Tallec & Ollivier 2018), 2 or above; 0: torch's own biases, with which half is gone after each row.
    Unit: agent steps."""
    last_action: bool = True
    """Show the previous action to the core, one-hot. Source: Kapturowski et al. 2019, section 2.3."""
    last_reward: bool = True
    """Show the previous reward to the core. Source: Kapturowski et al. 2019, section 2.3."""
    exploration: Literal["linear", "ladder"] = "ladder"
    """Epsilon: falling in a straight line over ``explore`` steps, or constant and different for each environment
    (Horgan et al. 2018)."""
    length: int = 80
    """Rows of a sequence that are trained on, >= 1. Source: Kapturowski et al. 2019, section 2.3."""
    burn_in: int = 40
    """Rows before them that only warm up the recurrent state, >= 0. Source: Kapturowski et al. 2019, section 3."""
    period: int = 40
    """Rows from the start of one sequence to the next, >= 1. Source: Kapturowski et al. 2019, section 2.3."""
    state: Literal["stored", "zero"] = "stored"
    """The recurrent state before a sequence: the actor's, or zeros. Source: Kapturowski et al. 2019, section 3."""
    rescale: float = 1e-3
    """Epsilon of value rescaling (Pohlen et al. 2018); negative: none."""
    eta: float = 0.9
    """Share of the largest TD error in a sequence's priority, in [0, 1].
    Source: Kapturowski et al. 2019, section 2.3."""
    loss: Literal["huber", "square"] = "square"
    """Of TD errors: Huber's with threshold 1, or half the square."""
    loss_rows: Literal["sum", "mean"] = "mean"
    """TD losses of a sequence's rows are summed or averaged; the mean of a batch's sequences is what is trained on."""

    def __post_init__(self) -> None:
        """Raise ValueError for a value out of range."""
        super().__post_init__()
        if self.core_size < 1:
            raise ValueError(f"core_size={self.core_size} is out of range; allowed: 1 or above")
        check_memory(self.core_memory)
        _ = self.items  # checks its own

    @property
    def items(self) -> ItemSpec:
        """The sequences that are trained on."""
        return ItemSpec(
            "sequence",
            n=self.n_step,
            length=self.length,
            burn_in=self.burn_in,
            period=self.period,
            eta=self.eta,
            rescale=self.rescale,
        )


class Agent(QAgent):
    """R2D2 bound to one environment spec."""

    config: Config

    def __init__(
        self, config: Config, spec: EnvSpec, device: torch.device | str = "cpu", torso: TorsoFactory | None = None
    ) -> None:
        """Build the network on ``device``; its initial weights come from torch's global generator.

        ``torso``: the user's own, in place of the one that ``config`` names.
        """
        recurrent = {"core_size": config.core_size, "core_memory": config.core_memory}
        super().__init__(config, spec, device, config.items, torso, **recurrent)

    def loss(self, batch: Sequence, progress: float) -> LossOutput:
        """``mean_b w_b mean_t L(y_t - Q(s_t, a_t))`` with ``y = h(sum_k gamma^k r + gamma^n h^-1(Q'(s_n, a*)))``.

        Kapturowski et al. 2019, section 2.3. Both networks read the burn-in first, without gradients, each from the
        same initial state. Priorities mix the largest and the mean TD error. ``progress`` is not used.
        """
        config = self.config
        start = batch.burn_in
        batch = replace(batch, inputs=self.cast(batch.inputs))
        q, state = self._online(batch)  # [length + n + 1, B, A], from the first trained row
        with torch.no_grad():
            target_q = self.forward(self.target, batch.inputs, state).value[start:]
            target = self._targets(batch, q.detach(), target_q)
        mask = batch.mask[start : start + config.length]
        taken = q[: config.length].gather(-1, batch.action[start : start + config.length].long().unsqueeze(-1))
        taken = taken.squeeze(-1)
        error = td_loss(taken, target, config.loss) * mask
        if config.loss_rows == "mean":
            error = error / mask.sum(0).clamp(min=1)
        each = error.sum(0)
        total = (each if batch.weight is None else each * batch.weight).sum()
        td = (target - taken).detach()
        priority = max_mean(td, mask, config.eta)
        rows = mask.sum().clamp(min=1)
        metrics = {
            "q_mean": (taken.detach() * mask).sum() / rows,
            "td_error": (td.abs() * mask).sum() / rows,
            "trained_share": mask.float().mean(),
            **self._staleness(batch, q.detach(), taken.detach(), mask),
        }
        return LossOutput(total, metrics, {"priority": priority}, len(priority))

    def _online(self, batch: Sequence) -> tuple[Tensor, CoreState]:
        """The online network's values from the first trained row on, and the state that the sequence starts from."""
        state = batch.core_state
        if self.config.state == "zero":
            state = self.initial_state(len(batch.stream))
        warm = state
        if batch.burn_in:
            with torch.no_grad():
                warm = self.forward(self.network, _rows(batch.inputs, 0, batch.burn_in), state).state
        return self.forward(self.network, _rows(batch.inputs, batch.burn_in, None), warm).value, state

    def _targets(self, batch: Sequence, q: Tensor, target_q: Tensor) -> Tensor:
        """y [length, B], detached, from the values [length + n + 1, B, A] of both networks."""
        config, start = self.config, batch.burn_in
        legal = legal_actions(batch.inputs)
        legal = None if legal is None else legal[start + 1 :]
        if config.double:
            value = double_q(q[1:], target_q[1:], legal)
        else:
            value = mask_illegal(target_q[1:], legal).amax(-1)
        if config.rescale >= 0:
            value = unrescale(value, config.rescale)
        cut = ~batch.valid[start + 1 :]  # the row after it only has a final observation
        target = n_step_target(batch.reward[start:], batch.discount[start:], value, config.n_step, cut)
        target = target[: config.length]
        return rescale(target, config.rescale) if config.rescale >= 0 else target

    def _staleness(self, batch: Sequence, q: Tensor, taken: Tensor, mask: Tensor) -> dict[str, Tensor]:
        """How far the values of taken actions have moved since they were acted on, as a share of the largest value.

        A scalar form of Kapturowski et al. 2019, eq. 3: actors store the value of the action taken, not all values.
        """
        start, last = batch.burn_in, self.config.length - 1
        if "q" not in batch.extras:
            return {}
        moved = (taken - batch.extras["q"][start : start + self.config.length]).abs() * mask
        scale = (q[: self.config.length].abs().amax(-1) * mask).amax(0).clamp(min=1e-6)
        end = (mask.sum(0) - 1).clamp(min=0, max=last)
        final = moved.gather(0, end.unsqueeze(0)).squeeze(0)
        return {"delta_q_first": (moved[0] / scale).mean(), "delta_q_last": (final / scale).mean()}


def _rows(inputs: Inputs, start: int, stop: int | None) -> Inputs:
    """Rows [start, stop) of ``inputs``."""
    part = slice(start, stop)
    return Inputs(
        observation={key: value[part] for key, value in inputs.observation.items()},
        first=inputs.first[part],
        last_action=None if inputs.last_action is None else inputs.last_action[part],
        last_reward=None if inputs.last_reward is None else inputs.last_reward[part],
    )
