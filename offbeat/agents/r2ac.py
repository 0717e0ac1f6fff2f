"""R2AC: IMPALA whose recurrent core learns by exact real-time recurrent learning (RTRL).

An unroll then needs not be as long as what is to be remembered: gradients reach as far back as the episode goes.

Source: Irie et al. 2024, "Exploring the Promise and Limits of Real-Time Recurrent Learning"; the losses are those of
Espeholt et al. 2018, see ``offbeat.agents.impala``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from offbeat.agents import impala
from offbeat.agents.base import LearnerState
from offbeat.agents.sensitivities import Followed, Sensitivities
from offbeat.networks import cores
from offbeat.networks.elstm import DEVIATION
from offbeat.networks.own_torso import TorsoFactory
from offbeat.networks.stacked import Stacked
from offbeat.networks.traced import TracedCore
from offbeat.types import CoreState, EnvSpec, LossOutput, Unroll


@dataclass(frozen=True)
class Config(impala.Config):
    """IMPALA's options, with more cores."""

    core: Literal["none", "lstm", "elstm-rtrl", "elstm-tbptt", "rtu", "rtu-tbptt"] = "elstm-rtrl"  # type: ignore
    """Recurrent core between features and heads: none, an LSTM, an eLSTM, or recurrent trace units (Elelimy et al.
    2024). ``elstm-rtrl`` and ``rtu`` learn by RTRL, the others by backpropagation that ends where the unroll begins."""
    core_memory: int = 0
    """Steps over which the core's cells forget at the start of training, each cell at its own pace up to this (chrono
    initialisation, Tallec & Ollivier 2018), 2 or above; 0: initial weights as published, with which an LSTM or eLSTM
    keeps half of what it holds after each row. Unit: agent steps."""
    core_deviation: float = DEVIATION
    """Standard deviation of an eLSTM's initial weights of its inputs, > 0. Source: the authors' code. Few or small
    inputs need larger ones to open a gate."""
    trace_decay: float = 1.0
    """What is left of the sensitivities from one unroll to the next, in [0, 1]. They are made of parts from older
    weights: 1 keeps all of them, as published; 0 none, which is truncated backpropagation."""

    trace_refresh: int = 0
    """Make sensitivities anew for every unroll from so many rows before it, with the weights of now, in place of
    carrying them on: none of them is stale then, and none reaches further back. A multiple of
    ``learner.unroll_length``; 0: they are carried on, as published. Unit: rows."""

    def __post_init__(self) -> None:
        """Raise ValueError for a value out of range."""
        super().__post_init__()
        if self.trace_refresh < 0:
            raise ValueError(f"trace_refresh={self.trace_refresh} is out of range; allowed: 0 or above")
        if self.trace_refresh and self.trace_decay != 1.0:
            raise ValueError(
                f"trace_decay={self.trace_decay} means nothing to sensitivities that are made anew "
                f"(trace_refresh={self.trace_refresh}); leave one of them at its default"
            )
        for name, default in (("trace_decay", 1.0), ("trace_refresh", 0)):
            if not self.traces and getattr(self, name) != default:
                raise ValueError(
                    f"{name}={getattr(self, name)} means nothing to core={self.core!r}, which keeps no sensitivities; "
                    f"leave it at {default}"
                )
        if not self.core_deviation > 0.0:
            raise ValueError(f"core_deviation={self.core_deviation} is out of range; allowed: above 0")
        if not 0.0 <= self.trace_decay <= 1.0:
            raise ValueError(f"trace_decay={self.trace_decay} is out of range; allowed: 0 to 1")

    @property
    def traces(self) -> bool:
        """Whether sensitivities are kept."""
        return self.core in ("elstm-rtrl", "rtu")


class Network(impala.Network):
    """IMPALA's, with any of the cores. States are carries alone: sensitivities are the learner's.

    Attributes:
        followed: the unroll whose sensitivities the next forward goes by; None: it is truncated at its beginning.
    """

    followed: Followed | None = None

    @staticmethod
    def make_core(config: Any, size: int) -> Any:
        """See ``impala.Network``."""
        return cores.make_core(
            config.core,
            size,
            config.core_size,
            layers=config.core_layers,
            memory=config.core_memory,
            deviation=config.core_deviation,
        )

    def initial_state(self, batch: int) -> CoreState:
        """The carry at an episode's start; {} without a core."""
        if isinstance(self.core, TracedCore | Stacked):
            return self.core.initial_carry(batch)
        return super().initial_state(batch)

    def remember(
        self, features: Tensor, state: CoreState, first: Tensor, trained: int | None
    ) -> tuple[Tensor, CoreState]:
        """See ``Encoder``."""
        followed = self.followed
        if followed is None:
            return super().remember(features, state, first, trained)
        rows = len(first) if trained is None else trained
        output, after, followed.steps = self.core.follow(features, state, first, followed.trace, followed.at, rows)
        return output, after


class Agent(impala.Agent):
    """R2AC bound to one environment spec; see ``impala.Agent``."""

    network_class = Network
    network: Network
    config: Config

    def __init__(
        self, config: Config, spec: EnvSpec, device: torch.device | str = "cpu", torso: TorsoFactory | None = None
    ) -> None:
        """As of ``impala.Agent``."""
        super().__init__(config, spec, device, torso)
        self.sensitivities: Sensitivities | None = None
        if config.traces:
            self.sensitivities = Sensitivities(self.network.core, config.trace_decay)
            self.items = replace(self.items, consecutive=True, burn_in=config.trace_refresh)

    def learner_states(self) -> Mapping[str, LearnerState]:
        """The sensitivities, where there are any."""
        return {} if self.sensitivities is None else {"sensitivities": self.sensitivities}

    def unrolled(self, batch: Unroll) -> impala.NetworkOutput:
        """See ``impala.Agent``; gradients reach beyond the beginning of ``batch``."""
        if self.sensitivities is None:
            return super().unrolled(batch)
        followed = self.network.followed = self.sensitivities.begin(batch)
        try:
            if batch.before is not None:
                with torch.no_grad():
                    self._forward(batch.before.inputs, batch.before.core_state, bootstrap=True)
                self.sensitivities.refresh(followed, batch.before)
            return super().unrolled(batch)
        finally:
            self.network.followed = None

    def loss(self, batch: Unroll, progress: float) -> LossOutput:
        """IMPALA's. Metrics: versions of the weights that sensitivities span, in the mean of the columns; columns that
        began with a gap, episodes that were cut in the batch before, and the share of columns that are replayed.
        """
        output = super().loss(batch, progress)
        if (kept := self.sensitivities) is not None:
            spans = kept.spans()
            output.metrics |= {
                "trace_staleness": spans.mean() if len(spans) else spans.new_zeros(()),
                "trace_gaps": torch.tensor(float(kept.new_gaps)),
                "trace_restarts": torch.tensor(float(kept.new_restarts)),
                "truncated_share": torch.tensor(1.0 - len(spans) / batch.stream.numel()),
            }
        return output
